"""WebDataset shards: read back by its library and by our reader, sizes of shards, headers, hostile names."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import webdataset
from fakes import packed_exports as fake
from fakes.peak_memory import linux_only, measure_rise
from fakes.reader_output import ingest_layer
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.export.exporters import ExportCategory, ExportItem
from synthgen.export.exporters import webdataset as exporter
from synthgen.formats.readers import coco_json
from synthgen.formats.readers import webdataset as reader
from synthgen.images.image_error import ImageError
from synthgen.records.sample import Annotation, Sample


def load(folder: Path, split: str = "train", decoder: str = "pil") -> list[dict[str, Any]]:
    """The samples as the library gives them."""
    shards = [str(path) for path in sorted(folder.glob(f"{split}-*.tar"))]
    return list(webdataset.WebDataset(shards, shardshuffle=False).decode(decoder))


def with_box(sample: Sample) -> list[Annotation]:
    return [one for one in sample.annotations if one.segmentation is not None or all(map(math.isfinite, one.bbox))]


def test_the_library_reads_what_was_exported(tmp_path: Path) -> None:
    splits = ("train", "val")
    items = fake.make_items(tmp_path / "images", 7, splits)
    context = fake.make_context(tmp_path / "out", splits=splits)
    written, notes = fake.run_exporter(exporter, context, items)
    assert notes.left_out == {"no_box": 4} and notes.data_files == {"train": "train-*.tar", "val": "val-*.tar"}
    total = 0
    for split in splits:
        given = [item for item in items if item.split == split]
        found = load(context.folder, split)
        assert [one["__key__"] for one in found] == [f"{n:09d}" for n in range(len(given))]
        for one, item in zip(found, given, strict=True):
            check_sample(one, item)
            total += len(one["json"]["annotations"])
    assert total == written


def check_sample(found: dict[str, Any], item: ExportItem) -> None:
    """A sample of the library is its image."""
    sample, record, kept = item.sample, found["json"], with_box(item.sample)
    suffix = item.file_name.rpartition(".")[2]
    assert found[suffix].tobytes() == Image.open(item.image).convert("RGB").tobytes()
    assert (record["image_id"], record["file_name"]) == (sample.image_id, sample.file_name)
    assert (record["width"], record["height"]) == (sample.width, sample.height)
    assert record.get("license", {}).get("id") == sample.license_id
    assert record.get("neg_categories") == (None if sample.neg_categories is None else list(sample.neg_categories))
    for one, annotation in zip(record["annotations"], kept, strict=True):
        assert (one["id"], one["category"], one["category_id"]) == (
            annotation.id,
            annotation.category,
            annotation.category_id,
        )
        if annotation.segmentation is None:
            assert not {"segmentation", "mask_source", "provenance"} & one.keys()
        else:
            size, counts = annotation.segmentation.size, annotation.segmentation.counts.decode()
            assert one["segmentation"] == {"size": list(size), "counts": counts}
            assert one["mask_source"] == annotation.mask_source
        assert one.get("box_iou") == annotation.box_iou and "soft_iou" not in one
        assert one.get("captions", []) == [caption.text for caption in annotation.captions]
    provenances = [one.get("provenance") for one in record["annotations"]]
    assert provenances == (["reviewed", None, "human", "machine"] if len(kept) == 4 else ["reviewed", None])


def test_images_keep_their_bytes(tmp_path: Path) -> None:
    items = fake.make_items(tmp_path / "images", 2)
    context = fake.make_context(tmp_path / "out")
    fake.run_exporter(exporter, context, items)
    with tarfile.open(context.folder / "train-000000.tar") as archive:
        names = archive.getnames()
        images = [archive.extractfile(name).read() for name in names if not name.endswith(".json")]
    assert names == ["000000000.png", "000000000.json", "000000001.jpg", "000000001.json"]
    assert images == [item.image.read_bytes() for item in items]


def test_our_reader_reads_the_same_masks_and_boxes(tmp_path: Path) -> None:
    items = fake.drawn_by_people(fake.make_items(tmp_path / "images", 5))
    context = fake.make_context(tmp_path / "out")
    fake.run_exporter(exporter, context, items)
    assert reader.recognize(context.folder) == ("train",)
    found = ingest_layer(tmp_path / "store", reader, reader.files(context.folder, "train", None), "human")
    for sample, item in zip(sorted(found, key=lambda one: one.file_name), items, strict=True):
        assert sample.error is None
        for read, given in zip(sample.annotations, with_box(item.sample), strict=True):
            assert (read.id, read.category, read.iscrowd) == (given.id, given.category, given.iscrowd)
            assert read.segmentation == given.segmentation
            if all(map(math.isfinite, given.bbox)):
                assert read.bbox == given.bbox


def test_real_masks_come_back_bit_by_bit(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    root = shared("data/coco_tiny")
    boxes = min(root.rglob("instances*.json"))
    files = coco_json.files(root, "train", boxes)
    samples = ingest_layer(tmp_path / "a", coco_json, files, "human")
    numbers = sorted({(one.category_id or 0, one.category) for sample in samples for one in sample.annotations})
    context = fake.make_context(tmp_path / "out")
    context = replace(context, categories=tuple(ExportCategory(number, name) for number, name in numbers))
    images = {path.name: path for path in root.rglob("*.jpg")}
    items = [fake.make_item("train", one, one.file_name, images[Path(one.file_name).name]) for one in samples]
    fake.run_exporter(exporter, context, items)
    found = ingest_layer(tmp_path / "b", reader, reader.files(context.folder, "train", None), "human")
    assert sum(len(sample.annotations) for sample in samples) > 10
    for read_sample, sample in zip(sorted(found, key=lambda one: one.file_name), samples, strict=True):
        for read, given in zip(read_sample.annotations, sample.annotations, strict=True):
            assert (read.id, read.bbox, read.category) == (given.id, given.bbox, given.category)
            assert read.iscrowd == given.iscrowd and read.segmentation == given.segmentation


def test_headers_hold_no_time_and_no_user(tmp_path: Path) -> None:
    items = fake.make_items(tmp_path / "images", 3)
    contexts = [fake.make_context(tmp_path / name / "out") for name in "ab"]
    for context in contexts:
        fake.run_exporter(exporter, context, items)
    shards = [(context.folder / "train-000000.tar").read_bytes() for context in contexts]
    assert shards[0] == shards[1] and len(shards[0]) % 10_240 == 0
    with tarfile.open(fileobj=io.BytesIO(shards[0])) as archive:
        assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in archive} == {
            (0, 0, 0, "", "", 0o644)
        }
    assert str(tmp_path) not in (contexts[0].folder / "dataset.json").read_text()


def test_shards_are_bounded_by_images_and_by_size(tmp_path: Path) -> None:
    items = fake.make_items(tmp_path / "images", 7)
    by_images = fake.make_context(tmp_path / "a")
    _, notes = fake.run_exporter(exporter, by_images, items, max_shard_images=3)
    assert notes.figures == {"shards": 3.0}
    assert len(load(by_images.folder)) == 7
    big = tmp_path / "big.png"
    big.write_bytes(items[0].image.read_bytes() + bytes(300_000))  # what follows the end is ignored
    by_size = fake.make_context(tmp_path / "b")
    fake.run_exporter(exporter, by_size, [replace(items[0], image=big)] * 7, max_shard_mb=1)
    sizes = [path.stat().st_size for path in sorted(by_size.folder.glob("*.tar"))]
    assert len(sizes) == 3 and max(sizes) < 10**6
    content = json.loads((by_size.folder / "dataset.json").read_text())
    assert [(one["file"], one["samples"], one["bytes"]) for one in content["splits"]["train"]] == [
        (f"train-{n:06d}.tar", images, size) for n, (images, size) in enumerate(zip((3, 3, 1), sizes, strict=True))
    ]


def test_an_image_larger_than_a_shard_has_its_own(tmp_path: Path) -> None:
    items = fake.make_items(tmp_path / "images", 1)
    big = tmp_path / "big.png"
    big.write_bytes(items[0].image.read_bytes() + bytes(1_500_000))
    context = fake.make_context(tmp_path / "out")
    fake.run_exporter(exporter, context, [replace(items[0], image=big)] * 2, max_shard_mb=1)
    assert len(list(context.folder.glob("*.tar"))) == 2 and len(load(context.folder)) == 2


def test_the_folder_says_what_made_the_layer(tmp_path: Path) -> None:
    context = fake.make_context(tmp_path / "out")
    fake.run_exporter(exporter, context, fake.make_items(tmp_path / "images", 1))
    found = json.loads((context.folder / "dataset.json").read_bytes().decode("ascii"))
    assert found["recipe"] == fake.RECIPE and found["layer"] == context.layer
    assert [one["name"] for one in found["classes"]] == [one.name for one in fake.CATEGORIES]
    assert found["image_licenses"][0] == {"id": 1, "name": "CC BY", "url": fake.LICENSES[0].url}


def test_the_folder_is_of_one_format(tmp_path: Path) -> None:
    context = fake.make_context(tmp_path / "out")
    fake.run_exporter(exporter, context, fake.make_items(tmp_path / "images", 1))
    assert coco_json.recognize(context.folder) is None


def test_hostile_names_stay_in_the_json(tmp_path: Path) -> None:
    item = fake.make_items(tmp_path / "images", 1)[0]
    name = "../../etc/pass\udcffwd.tar\0.json"
    sample = replace(item.sample, file_name=name)
    context = fake.make_context(tmp_path / "out", splits=("../train",))
    fake.run_exporter(exporter, context, [replace(item, split="../train", file_name=name, sample=sample)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]
    assert sorted(path.name for path in context.folder.iterdir()) == ["___train-000000.tar", "dataset.json"]
    found = load(context.folder, "___train")[0]
    assert found["__key__"] == "000000000" and found["json"]["file_name"] == "../../etc/pass\\udcffwd.tar\0.json"


def test_annotations_alone(tmp_path: Path) -> None:
    context = fake.make_context(tmp_path / "out", "none")
    fake.run_exporter(exporter, context, fake.make_items(tmp_path / "images", 2))
    with tarfile.open(context.folder / "train-000000.tar") as archive:
        assert archive.getnames() == ["000000000.json", "000000001.json"]


def test_images_beside_the_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SynthgenError, match="--image-mode embed"):
        exporter.build(fake.make_context(tmp_path / "out", "link"), exporter.OPTIONS())


def test_a_split_without_images_has_no_shard(tmp_path: Path) -> None:
    context = fake.make_context(tmp_path / "out", splits=("train", "test"))
    _, notes = fake.run_exporter(exporter, context, fake.make_items(tmp_path / "images", 1))
    assert notes.data_files == {"train": "train-*.tar"} and "'test'" in notes.lines[0]
    assert not list(context.folder.glob("test*"))


def test_an_image_that_cannot_be_read_leaves_no_sample(tmp_path: Path) -> None:
    items = fake.make_items(tmp_path / "images", 3)
    context = fake.make_context(tmp_path / "out")
    one = exporter.build(context, exporter.OPTIONS())
    one.write(items[0])
    with pytest.raises(ImageError):
        one.write(replace(items[1], image=tmp_path / "gone.jpg"))
    one.write(items[2])
    one.finish()
    one.close()
    one.close()
    assert [sample["json"]["image_id"] for sample in load(context.folder)] == [1_000, 1_002]


@pytest.mark.parametrize(
    ("format_", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")]
)
def test_the_content_decides_about_the_suffix(tmp_path: Path, format_: str, suffix: str) -> None:
    path = tmp_path / "wrong.gif"
    Image.new("RGB", (20, 12)).save(path, format_)
    item = replace(fake.make_items(tmp_path / "images", 1)[0], image=path)
    context = fake.make_context(tmp_path / "out")
    _, notes = fake.run_exporter(exporter, context, [item])
    assert load(context.folder)[0][suffix].size == (20, 12) and not notes.lines


def test_a_file_of_an_unknown_format_is_kept_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"no image")
    item = replace(fake.make_items(tmp_path / "images", 1)[0], image=path)
    context = fake.make_context(tmp_path / "out")
    _, notes = fake.run_exporter(exporter, context, [item])
    assert load(context.folder)[0]["bin"] == b"no image"
    assert len(notes.lines) == 1 and "1 bin" in notes.lines[0]


def test_turned_images_are_reported(tmp_path: Path) -> None:
    """The library's decoder ignores the EXIF tag, and the masks are of the turned image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (12, 20)).save(path, exif=exif)
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
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    item = fake.make_items(tmp_path / "images", 1)[0]
    big = tmp_path / "noise.png"
    big.write_bytes(item.image.read_bytes() + bytes(1_000_000))
    fake.run_exporter(exporter, fake.make_context(tmp_path / "first"), [replace(item, image=big)] * 5)
    with measure_rise() as rise:
        fake.run_exporter(exporter, fake.make_context(tmp_path / "second"), [replace(item, image=big)] * 80)
    assert rise.mib < 25  # of 76 MiB
