"""Parquet files for Hugging Face's `datasets`: read back by it and by our reader, sizes of files, hostile names."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from fakes import packed_exports as fake
from fakes.peak_memory import linux_only, measure_rise
from fakes.reader_output import ingest_layer
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.export.exporters import ExportCategory, ExportItem, ImageMode
from synthgen.export.exporters import hf as exporter
from synthgen.formats.readers import hf as reader
from synthgen.images.image_error import ImageError
from synthgen.records.rle import rle_bbox_xyxy
from synthgen.records.sample import Sample

MODES: tuple[ImageMode, ...] = ("embed", "none", "link")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def load(folder: Path, cache: Path) -> Any:
    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def write_front_matter(folder: Path, data_files: dict[str, str]) -> None:
    files = [{"split": split, "path": path} for split, path in data_files.items()]
    front = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{front}---\n")


def written_files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finite_annotations(sample: Sample) -> list[Any]:
    return [one for one in sample.annotations if one.segmentation is not None or all(map(math.isfinite, one.bbox))]


@pytest.mark.parametrize("mode", MODES)
def test_datasets_reads_what_was_exported(tmp_path: Path, mode: ImageMode) -> None:
    splits = ("train", "val")
    items = fake.make_items(tmp_path / "images", 7, splits)
    context = fake.make_context(tmp_path / "out", mode, splits)
    written, notes = fake.run_exporter(exporter, context, items)
    write_front_matter(context.folder, dict(notes.data_files))
    found = load(context.folder, tmp_path / "cache")
    assert set(found) == {"train", "val"}
    objects = found["train"].features["objects"]
    assert objects["category"].feature.names == [category.name for category in fake.CATEGORIES]
    assert written == sum(len(row["objects"]["id"]) for split in splits for row in found[split])
    for split in splits:
        given = [item for item in items if item.split == split]
        for row, item in zip(found[split], given, strict=True):
            check_row(row, item, mode)
    assert notes.left_out == {"no_box": 4}


def check_row(row: dict[str, Any], item: ExportItem, mode: ImageMode) -> None:
    """A row of `datasets` is its image."""
    sample, kept = item.sample, finite_annotations(item.sample)
    assert (row["image_id"], row["source_file"]) == (sample.image_id, sample.file_name)
    if mode == "none":
        assert row["image"] == sample.file_name
    else:
        assert row["image"].size == (sample.width, sample.height)
        assert row["image"].tobytes() == Image.open(item.image).tobytes()
    licenses = {None: None, 1: fake.LICENSES[0].url, 2: "x", 7: None}
    assert (row["license"] or {}).get("url") == licenses[sample.license_id]
    assert row["neg_categories"] == (None if sample.neg_categories is None else list(sample.neg_categories))
    columns = row["objects"]
    assert {len(column) for column in columns.values()} == {len(kept)}
    for place, annotation in enumerate(kept):
        found = {name: column[place] for name, column in columns.items()}
        assert (found["id"], found["category_id"]) == (annotation.id, annotation.category_id)
        assert fake.CATEGORIES[found["category"]].name == annotation.category
        assert found["iscrowd"] == annotation.iscrowd and found["flags"] == list(annotation.flags)
        assert found["captions"] == [caption.text for caption in annotation.captions]
        assert found["box_iou"] == annotation.box_iou
        assert found["soft_iou"] is None  # NaN in the layer
        if all(map(math.isfinite, annotation.bbox)):
            assert found["bbox"] == list(annotation.bbox)
        mask = annotation.segmentation
        expected = None if mask is None else {"size": list(mask.size), "counts": mask.counts.decode()}
        assert found["segmentation"] == expected
        assert found["mask_source"] == annotation.mask_source
    assert columns["provenance"] == (["reviewed", None, "human", "machine"] if len(kept) == 4 else ["reviewed", None])
    if len(kept) == 4:
        x1, y1, x2, y2 = rle_bbox_xyxy(kept[3].segmentation)
        assert columns["area"][2] == 77.5 and columns["bbox"][3] == [x1, y1, x2 - x1, y2 - y1]


@pytest.mark.parametrize("mode", MODES)
def test_our_reader_reads_the_same_masks_and_boxes(tmp_path: Path, mode: ImageMode) -> None:
    items = fake.drawn_by_people(fake.make_items(tmp_path / "images", 5))
    context = fake.make_context(tmp_path / "out", mode)
    fake.run_exporter(exporter, context, items)
    assert reader.recognize(context.folder) == ("train",)
    found = ingest_layer(tmp_path / "store", reader, reader.files(context.folder, "train", None), "human")
    by_id = {sample.image_id: sample for sample in found}
    for item in items:
        sample = by_id[item.sample.image_id]
        assert sample.error is None and (sample.height, sample.width) == (12, 20)
        kept = finite_annotations(item.sample)
        for read, given in zip(sample.annotations, kept, strict=True):
            assert (read.id, read.category, read.iscrowd) == (given.id, " ".join([given.category]), given.iscrowd)
            assert read.segmentation == given.segmentation
            if all(map(math.isfinite, given.bbox)):
                assert read.bbox == given.bbox


def test_files_and_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_GROUP_BYTES", 150_000)
    items = fake.make_items(tmp_path / "images", 1)
    big = tmp_path / "noise.png"
    big.write_bytes(items[0].image.read_bytes() + bytes(range(256)) * 400)  # what follows the end is ignored
    context = fake.make_context(tmp_path / "out")
    many = [replace(items[0], image=big, sample=replace(items[0].sample, image_id=n)) for n in range(25)]
    _, notes = fake.run_exporter(exporter, context, many, max_file_mb=1)
    files = sorted(path.name for path in (context.folder / "data").iterdir())
    assert files == [f"train-{n:05d}-of-00003.parquet" for n in range(3)]
    assert notes.figures == {"files": 3.0}
    ids = []
    for name in files:
        path = context.folder / "data" / name
        footer = pq.read_metadata(path)
        assert path.stat().st_size < 1.5e6
        assert [footer.row_group(n).num_rows for n in range(footer.num_row_groups)] in ([2] * 5, [2, 2, 1])
        ids += pq.read_table(path, columns=["image_id"])["image_id"].to_pylist()
    assert ids == list(range(25))
    assert len(load(context.folder, tmp_path / "cache")["train"]) == 25


def test_the_metadata_hold_what_made_the_layer(tmp_path: Path) -> None:
    context = fake.make_context(tmp_path / "out")
    fake.run_exporter(exporter, context, fake.make_items(tmp_path / "images", 1))
    metadata = pq.read_schema(next((context.folder / "data").iterdir())).metadata
    found = json.loads(metadata[b"synthgen"])
    assert found["recipe"] == fake.RECIPE and found["layer"] == context.layer
    assert found["categories"][0] == {"id": 3, "name": "cat", "supercategory": "animal"}
    assert found["licenses"][1]["name"] == fake.HOSTILE


def test_the_same_export_has_the_same_bytes(tmp_path: Path) -> None:
    items = fake.make_items(tmp_path / "images", 4)
    contexts = [fake.make_context(tmp_path / name / "out") for name in ("a", "b")]
    for context in contexts:
        fake.run_exporter(exporter, context, items)
    assert written_files(contexts[0].folder) == written_files(contexts[1].folder) != {}


def test_categories_of_one_name_are_classes_of_their_own(tmp_path: Path) -> None:
    context = fake.make_context(tmp_path / "out")
    context = replace(context, categories=(*fake.CATEGORIES, ExportCategory(91, "cat"), ExportCategory(92, "cat (91)")))
    items = fake.make_items(tmp_path / "images", 1)
    fake.run_exporter(exporter, context, items)
    names = load(context.folder, tmp_path / "cache")["train"].features["objects"]["category"].feature.names
    assert len(set(names)) == 5 and names[0] == "cat" and names[3] == "cat (91)"


def test_a_split_without_images_has_no_file(tmp_path: Path) -> None:
    context = fake.make_context(tmp_path / "out", splits=("train", "test"))
    _, notes = fake.run_exporter(exporter, context, fake.make_items(tmp_path / "images", 2))
    assert notes.data_files == {"train": "data/train-*.parquet"}
    assert any("'test'" in line for line in notes.lines)
    assert set(load(context.folder, tmp_path / "cache")) == {"train"}


def test_names_of_splits_become_parts_of_file_names(tmp_path: Path) -> None:
    splits = ("../../a", "fold-1")
    context = fake.make_context(tmp_path / "out", splits=splits)
    fake.run_exporter(exporter, context, fake.make_items(tmp_path / "images", 2, splits))
    assert set(written_files(context.folder)) == {
        "data/______a-00000-of-00001.parquet",
        "data/fold_1-00000-of-00001.parquet",
    }
    assert set(written_files(tmp_path)) - {f"out/{name}" for name in written_files(context.folder)} == {
        "images/a.b 0.png",
        "images/a.b 1.jpg",
    }
    with pytest.raises(SynthgenError, match="rename one"):
        exporter.build(replace(context, splits=("a-b", "a_b")), exporter.OPTIONS())


def test_an_image_named_like_the_metadata_is_apart_from_them(tmp_path: Path) -> None:
    item = fake.make_items(tmp_path / "images", 1)[0]
    context = fake.make_context(tmp_path / "out", "link")
    fake.run_exporter(exporter, context, [replace(item, file_name="metadata.parquet")])
    table = pq.read_table(context.folder / "train/metadata.parquet")
    assert table["file_name"].to_pylist() == ["images/metadata.parquet"]


def test_an_image_that_cannot_be_read_leaves_no_row(tmp_path: Path) -> None:
    items = fake.make_items(tmp_path / "images", 3)
    context = fake.make_context(tmp_path / "out")
    one = exporter.build(context, exporter.OPTIONS())
    one.write(items[0])
    with pytest.raises(ImageError):
        one.write(replace(items[1], image=tmp_path / "gone.jpg"))
    one.write(items[2])
    one.finish()
    one.close()
    assert len(load(context.folder, tmp_path / "cache")["train"]) == 2


def test_close_after_an_error_is_quiet_and_may_be_repeated(tmp_path: Path) -> None:
    context = fake.make_context(tmp_path / "out")
    one = exporter.build(context, exporter.OPTIONS())
    one.write(fake.make_items(tmp_path / "images", 1)[0])
    one.close()
    one.close()


def test_masks_of_stored_pixels_are_reported(tmp_path: Path) -> None:
    """`datasets` applies the EXIF tag; masks of an image whose annotations ignore it would not fit."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (20, 12)).save(buffer, "jpeg", exif=exif)
    path = tmp_path / "turned.jpg"
    path.write_bytes(buffer.getvalue())
    item = replace(fake.make_items(tmp_path / "images", 1)[0], image=path)
    _, notes = fake.run_exporter(exporter, fake.make_context(tmp_path / "out"), [item])
    assert len(notes.lines) == 1 and "EXIF" in notes.lines[0]


@linux_only
def test_a_full_disk_is_an_error_and_close_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = fake.make_items(tmp_path / "images", 2)
    one = exporter.build(fake.make_context(tmp_path / "out"), exporter.OPTIONS())
    fake.fill_disk(monkeypatch)
    with pytest.raises(SynthgenError, match="no space left"):
        for item in items * 500:
            one.write(item)
    one.close()


@linux_only
def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_GROUP_BYTES", 2**23)
    item = fake.make_items(tmp_path / "images", 1)[0]
    big = tmp_path / "noise.png"
    big.write_bytes(item.image.read_bytes() + bytes(1_000_000))
    fake.run_exporter(exporter, fake.make_context(tmp_path / "first"), [replace(item, image=big)] * 50)
    with measure_rise() as rise:
        fake.run_exporter(exporter, fake.make_context(tmp_path / "second"), [replace(item, image=big)] * 150)
    assert rise.mib < 90  # of 143 MiB


def test_real_masks_come_back_bit_by_bit(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    from synthgen.formats.readers import coco_json

    root = shared("data/coco_tiny")
    boxes = next(iter(sorted(root.rglob("instances*.json"))))
    samples = ingest_layer(tmp_path / "a", coco_json, coco_json.files(root, "train", boxes), "human")
    numbers = sorted({(one.category_id, one.category) for sample in samples for one in sample.annotations})
    context = replace(
        fake.make_context(tmp_path / "out", "none"),
        categories=tuple(ExportCategory(number, name) for number, name in numbers if number is not None),
    )
    items = [fake.make_item("train", sample, sample.file_name, None) for sample in samples]
    fake.run_exporter(exporter, context, items)
    files = reader.files(context.folder, "train", None)
    found = {sample.image_id: sample for sample in ingest_layer(tmp_path / "b", reader, files, "human")}
    assert sum(len(sample.annotations) for sample in samples) > 10
    for sample in samples:
        for read, given in zip(found[sample.image_id].annotations, sample.annotations, strict=True):
            assert (read.id, read.bbox, read.category, read.iscrowd) == (
                given.id,
                given.bbox,
                given.category,
                given.iscrowd,
            )
            assert read.segmentation == given.segmentation
