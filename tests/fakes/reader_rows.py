"""Everything that a reader yields for a split, as plain values by file name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fakes.ingested_samples import ingest_samples
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch, SourceFinding
from synthgen.ingest.validation.finding_codes import FINDING_CODES
from synthgen.records.sample import ANNOTATION_FLAGS


@dataclass
class Row:
    """An object: its category's name, box, flags, payload and id."""

    name: str
    bbox: tuple[float, float, float, float]
    flags: set[str]
    payload: bytes | None
    id: int


@dataclass
class ReaderRows:
    """The images (height, width, error) and objects by file name; the findings by code."""

    images: dict[str, tuple[int, int, str | None]] = field(default_factory=dict)
    objects: dict[str, list[Row]] = field(default_factory=dict)
    findings: dict[str, SourceFinding] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.objects.values() for row in rows]

    def boxes(self, file_name: str) -> list[tuple[float, ...]]:
        return [row.bbox for row in self.objects[file_name]]


def read_rows(module: Any, path: Path, split: str | None = None, layer: str = "annotations") -> ReaderRows:
    """What a reader yields for a folder or a file that it recognises; `split` None = its only one."""
    splits = module.recognize(path)
    assert splits is not None, f"{path} is not recognised"
    if split is None:
        [split] = splits
    assert split in splits
    root, annotations = (path.parent, path) if path.is_file() else (path, None)
    return rows_of_files(module, module.files(root, split, annotations), layer)


def rows_of_files(module: Any, files: DatasetFiles, layer: str = "annotations") -> ReaderRows:
    out = ReaderRows()
    by_id: dict[int, str] = {}
    found = []
    for part in module.read(files.for_layer(layer), layer):
        if isinstance(part, ImageBatch):
            errors = part.error or [None] * len(part.file_name)
            for i, name in enumerate(part.file_name):
                assert name not in out.images, f"{name} comes twice"
                by_id[int(part.image_id[i])] = name
                out.images[name] = (int(part.height[i]), int(part.width[i]), errors[i])
                out.objects[name] = []
        elif isinstance(part, AnnotationBatch):
            assert set(part.flags) <= set(ANNOTATION_FLAGS) and part.bbox.dtype == np.float64
            for i in range(len(part.id)):
                flags = {flag for flag, on in part.flags.items() if on[i]}
                payload = part.payload[i] if part.payload is not None else None
                found.append(
                    (int(part.image_id[i]), int(part.category[i]), part.bbox[i], flags, payload, int(part.id[i]))
                )
        elif isinstance(part, SourceFinding):
            assert part.code in FINDING_CODES and part.count >= len(part.examples) > 0
            assert part.unit in ("boxes", "images", "files", "categories", "shapes", "masks")
            out.findings[part.code] = part
        else:
            assert isinstance(part, Categories)
            out.names |= part.names
    for image_id, category, bbox, flags, payload, own in found:
        x, y, w, h = bbox.tolist()
        out.objects[by_id[image_id]].append(Row(out.names.get(category, ""), (x, y, w, h), flags, payload, own))
    return out


def first_batch_share(module: Any, files: DatasetFiles, monkeypatch: Any) -> float:
    """Which share of the bytes was read when the first objects came, with batches of 100: small if a reader streams."""
    monkeypatch.setattr("synthgen.formats.readers._object_rows._BATCH", 100)
    done: list[int] = []
    parts = module.read(replace(files, on_bytes=done.append), "annotations")
    first = next(part for part in parts if isinstance(part, AnnotationBatch))
    assert 100 <= len(first.id) < 1_000
    return sum(done) / files.total_bytes()


def ingested(folder: Path, module: Any, path: Path, layer: str = "human", split: str | None = None) -> dict[str, Any]:
    """The samples of a whole ingest by file name; masks included."""
    split = split or module.recognize(path)[0]
    root, annotations = (path.parent, path) if path.is_file() else (path, None)
    samples, _ = ingest_samples(folder, module, module.files(root, split, annotations), layer)
    return {sample.file_name: sample for sample in samples}


def write_image(path: Path, width: int = 40, height: int = 30) -> None:
    """A grey picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 90, 90)).save(path)
