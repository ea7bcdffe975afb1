"""The exporter of YOLO: our reader and Ultralytics' filling give the masks back; classes, boxes, hostile names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fakes import exports
from fakes.polygon_readers import iou, read_as_yolo
from fakes.reader_output import ingest_layer

from synthgen.errors import ArgumentError
from synthgen.export.exporters import ExportCategory, ExportNotes, yolo
from synthgen.export.options import ExportOptions
from synthgen.formats.readers import coco_json
from synthgen.formats.readers import yolo as reader
from synthgen.layers.layer import load_layer
from synthgen.layers.layer_export import export_layers
from synthgen.records.rle import decode_mask


def write(folder: Path, items: list[Any] | None = None, **options: Any) -> ExportNotes:
    exporter = yolo.build(exports.make_context(folder), yolo.OPTIONS(**options))
    for item in items or exports.make_items():
        exporter.write(item)
    return exporter.finish()


def read_rings(path: Path, height: int, width: int) -> list[tuple[int, np.ndarray]]:
    rows = [line.split() for line in path.read_text().splitlines()]
    return [(int(row[0]), np.array(row[1:], float).reshape(-1, 2) * [width, height]) for row in rows]


def test_classes_count_from_zero_in_the_order_of_ids(tmp_path: Path) -> None:
    write(tmp_path / "out")
    config = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert config["names"] == {0: "cat", 1: "dog", 2: "cup"}
    assert (config["train"], config["val"]) == ("images/train", "images/val") and "path" not in config
    for item in exports.make_items():
        rows = read_rings(tmp_path / f"out/labels/{item.split}/{item.sample.image_id:04d}.txt", *exports.SIZE)
        assert [config["names"][number] for number, _ in rows] == [a.category for a in item.sample.annotations]


def test_masks_with_holes_come_back_exactly(tmp_path: Path) -> None:
    notes = write(tmp_path / "out")
    assert notes.lines == () and notes.figures["polygons_changed"] == 0
    for item in exports.make_items():
        rows = read_rings(tmp_path / f"out/labels/{item.split}/{item.sample.image_id:04d}.txt", *exports.SIZE)
        for annotation, (_, ring) in zip(item.sample.annotations, rows, strict=True):
            assert annotation.segmentation is not None
            assert (read_as_yolo(ring, *exports.SIZE) == decode_mask(annotation.segmentation)).all()


def test_what_a_label_file_cannot_hold_is_counted(tmp_path: Path) -> None:
    own = (
        exports.make_annotation(1),
        exports.make_annotation(2, iscrowd=True),
        exports.make_annotation(3, segmentation=None),
    )
    item = replace(exports.make_items(1)[0], sample=exports.make_sample(1, own), mask_areas=(1, 1, 0))
    notes = write(tmp_path / "out", [item])
    assert notes.left_out == {"crowd": 1, "no_mask": 1}
    assert len((tmp_path / "out/labels/train/0001.txt").read_text().splitlines()) == 1


def test_an_image_without_objects_has_an_empty_label_file(tmp_path: Path) -> None:
    item = replace(exports.make_items(1)[0], sample=exports.make_sample(1, ()), mask_areas=())
    write(tmp_path / "out", [item])
    assert (tmp_path / "out/labels/train/0001.txt").read_text() == ""


def test_boxes_are_cut_to_the_image(tmp_path: Path) -> None:
    height, width = exports.SIZE
    own = (
        exports.make_annotation(3, bbox=(-10.0, 0.0, 20.0, 24.0)),
        exports.make_annotation(4, bbox=(100.0, 0.0, 20.0, 24.0)),
    )
    item = replace(exports.make_items(1)[0], sample=exports.make_sample(1, own), mask_areas=(1, 1))
    notes = write(tmp_path / "out", [item], task="detect")
    assert notes.left_out == {"no_box": 1}
    [line] = (tmp_path / "out/labels/train/0001.txt").read_text().splitlines()
    assert [float(number) for number in line.split()] == pytest.approx(
        [0, 5 / width, 12 / height, 10 / width, 24 / height], abs=1e-6
    )


def test_splits_get_the_keys_of_ultralytics(tmp_path: Path) -> None:
    context = exports.make_context(tmp_path / "out", splits=("train", "valid", "test", "extra"))
    notes = yolo.build(context, yolo.OPTIONS()).finish()
    config = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert config["train"] == ["images/train", "images/extra"]
    assert (config["val"], config["test"]) == ("images/valid", "images/test") and notes.lines == ()
    notes = yolo.build(exports.make_context(tmp_path / "one", splits=("train",)), yolo.OPTIONS()).finish()
    config = yaml.safe_load((tmp_path / "one/data.yaml").read_text())
    assert config["val"] == "images/train" and "--val 0.1" in notes.lines[0]


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    names = ["cat 😀", "a\nnc: 1", "!!python/object/apply:os.system [ls]", '"', "\u2028: x", "{{ x }}", "#"]
    categories = tuple(ExportCategory(i, name) for i, name in enumerate(names))
    context = exports.make_context(
        tmp_path / "out", categories=categories, description="a\n!!python/object:os.system", splits=("train",)
    )
    yolo.build(context, yolo.OPTIONS()).finish()
    config = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert list(config["names"].values()) == names and set(config) == {"train", "val", "names"}


@pytest.mark.parametrize("wrong", [{"task": "pose"}, {"tolerance": -1.0}, {"tolerance": float("nan")}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"is not valid; give"):
        yolo.OPTIONS(**wrong)


def test_real_masks_come_back(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """Through our own reader, and as Ultralytics fills polygons; 35 % of the masks have several parts or holes."""
    root = shared("data/coco_mini")
    source = root / "annotations/instances_train2017.json"
    ingest_layer(tmp_path / "store", coco_json, coco_json.files(root / "train2017", "train", source), "human")
    [place] = [path.relative_to(tmp_path / "store") for path in (tmp_path / "store").glob("*/*/human")]
    layer = load_layer(tmp_path / "store", str(place))
    report = export_layers([layer], "yolo", tmp_path / "out", options=ExportOptions(val=0.2))
    written = {sample.file_name: sample for sample in layer}
    crowds = sum(a.iscrowd for sample in written.values() for a in sample.annotations)
    assert report.left_out == {"crowd": crowds} and report.figures["polygon_iou_mean"] > 0.99
    overlaps = []
    for sample in written.values():
        own = [a for a in sample.annotations if not a.iscrowd]
        [label] = (tmp_path / "out/labels").glob(f"*/{Path(sample.file_name).stem}.txt")
        rows = read_rings(label, sample.height, sample.width)
        assert len(rows) == len(own)
        for annotation, (_, ring) in zip(own, rows, strict=True):
            assert annotation.segmentation is not None
            drawn = read_as_yolo(ring, sample.height, sample.width)
            overlaps.append(iou(drawn, decode_mask(annotation.segmentation)))
    assert np.mean(overlaps) > 0.99 and np.mean(np.array(overlaps) > 0.9) > 0.98
    # The rest are a few pixels in several parts, between which the bridges are as large as the parts.
    for split in ("train", "val"):
        samples = ingest_layer(tmp_path / f"back-{split}", reader, reader.files(tmp_path / "out", split, None), "human")
        assert len(samples) == report.images[split]
        for sample in samples:
            theirs = [a for a in written[Path(sample.file_name).name].annotations if not a.iscrowd]
            assert [a.category for a in sample.annotations] == [a.category for a in theirs]
