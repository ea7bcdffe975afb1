"""Summaries of exports: of plain data, and of an export that is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from fakes import packed_exports as fake
from synthgen.export.exporters import ExportNotes, ImageMode
from synthgen.export.summary import (
    CategoryCounts,
    ExportFile,
    ExportSummary,
    LicenseCounts,
    SplitCounts,
    SummaryCounter,
    hash_files,
)


def make_summary(name: str = "cat", **changes: Any) -> ExportSummary:
    """A summary in which every name from outside is `name`."""
    summary = ExportSummary(
        layer=f"{name}/train/masks",
        description=f"Masks of {name}.",
        recipe={"stage": "masks", "options": {"prompt": name}},
        format="hf",
        title="Hugging Face datasets",
        version="1.2.3",
        images="embed",
        splits=(SplitCounts("train", 4_000, 9_000, 8_000), SplitCounts("val", 10, 20, 15)),
        categories=(CategoryCounts(3, name, 9_000, 8_000), CategoryCounts(7, "dog", 22, 15)),
        provenance={"machine": 8_000, "reviewed": 10, "human": 5},
        models={name: 8_010},
        licenses=(LicenseCounts(1, name, name, 10), LicenseCounts(None, "", "", 4_000)),
        options={"min_box_iou": 0.5, "note": name},
        left_out={"no_box": 2},
        notes=(f"3 images of {name}",),
        data_files={"train": "data/train-*.parquet", "val": "data/val-*.parquet"},
        files=(
            ExportFile("data/train-00000-of-00001.parquet", 1_000, "0" * 64),
            ExportFile("data/val-00000-of-00001.parquet", 10, "1" * 64),
        ),
    )
    return replace(summary, **changes)


def export_with_summary(
    tmp_path: Path, name: str, module: ModuleType, images: ImageMode = "embed", count: int = 5
) -> tuple[Path, ExportSummary]:
    """An export of two splits, and its summary."""
    splits = ("train", "val")
    context = fake.make_context(tmp_path / "out", images, splits)
    counter = SummaryCounter(context)
    items = fake.make_items(tmp_path / "images", count, splits)
    exporter = module.build(context, module.OPTIONS())
    for item in items:
        if images == "link":
            link = context.folder / exporter.image_folder(item.split) / item.file_name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(item.image)
        counter.add(item, exporter.write(item))
    notes: ExportNotes = exporter.finish()
    files = hash_files(context.folder, {exporter.image_folder(split) for split in splits})
    summary = counter.summarize(
        format=name, title=module.TITLE, options={}, notes=notes, left_out={"no_mask": 3}, files=files
    )
    return context.folder, summary
