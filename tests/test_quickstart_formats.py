"""The commands of docs/formats.md on small folders: doctor, masks, show, status, and masks that the files have."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

Typed = Callable[..., tuple[int, str, str]]

#: Of each image of 80 x 60 pixels: a square of 20 x 20 at (10, 20), and one of 30 x 15 at (40, 30), in pixels XYWH.
BOXES = {"cat": (10, 20, 20, 20), "dog": (40, 30, 30, 15)}
SIZE = (80, 60)


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", SIZE, "white")
    for color, (x, y, w, h) in zip(("red", "blue"), BOXES.values(), strict=True):
        image.paste(color, (x, y, x + w, y + h))
    image.save(path)


def write_yolo(root: Path) -> None:
    """Two images in train, one in valid, as Roboflow lays them out; the file names a split that is not there."""
    for split, names in (("train", "ab"), ("valid", "c")):
        for name in names:
            write_image(root / split / "images" / f"{name}.png")
            lines = [
                f"{number} {(x + w / 2) / SIZE[0]} {(y + h / 2) / SIZE[1]} {w / SIZE[0]} {h / SIZE[1]}"
                for number, (x, y, w, h) in enumerate(BOXES.values())
            ]
            labels = root / split / "labels" / f"{name}.txt"
            labels.parent.mkdir(exist_ok=True)
            labels.write_text("\n".join(lines) + "\n")
    splits = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    (root / "data.yaml").write_text(f"{splits}nc: 2\nnames: ['cat', 'dog']\n")


def write_voc(root: Path) -> None:
    """Three images; the first object of each has a polygon, too."""
    (root / "Annotations").mkdir(parents=True)
    for name in "abc":
        write_image(root / "JPEGImages" / f"{name}.png")
        objects = ""
        for label, (x, y, w, h) in BOXES.items():
            corners = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            polygon = f"<x1>{x}</x1><y1>{y}</y1><x2>{x + w}</x2><y2>{y}</y2><x3>{x + w}</x3><y3>{y + h}</y3>"
            outline = f"<polygon>{polygon}</polygon>" if label == "cat" else ""
            objects += f"<object><name>{label}</name><bndbox>{corners}</bndbox>{outline}</object>"
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(xml)


def samples(dataset: str, split: str, layer: str) -> list[Sample]:
    store = ShardStore(Path("shards"))
    return [one for shard in store.list_shards(dataset, split, layer) for one in store.read_samples(shard)]


@pytest.mark.parametrize(
    ("write", "splits", "recognized"),
    [
        (write_yolo, {"train": 2, "val": 1}, "data: YOLO, 2 splits (train, val), 3 images, 6 boxes"),
        (write_voc, {"train": 3}, "data: Pascal VOC, 1 split (train), 3 images, 6 boxes"),
    ],
)
def test_four_commands_lead_from_a_folder_to_pictures(
    typed: Typed, tmp_path: Path, write: Callable[[Path], None], splits: dict[str, int], recognized: str
) -> None:
    write(tmp_path / "data")
    code, out, err = typed("doctor", "data")
    lines = out.splitlines()
    assert (code, lines[0], lines[-2]) == (0, recognized, "ready"), out + err
    assert lines[-1] == "next: synthgen masks data"
    for split, images in splits.items():
        count = f"{images} image{'s' if images > 1 else ''}"
        assert f"data/{split}: {count}, {2 * images} boxes, 2 categories" in lines

    code, out, err = typed("masks", "data", "--segmenter", "box_fill")
    lines = out.splitlines()
    assert (code, lines[0]) == (0, recognized), out + err
    first = next(iter(splits))
    assert lines[-2] == f"next: synthgen show data/{first}/masks"
    layers = " ".join(f"data/{split}/masks" for split in splits)
    assert lines[-1].startswith(f"next: synthgen export {layers} --to ")

    _, *words = lines[-2].removeprefix("next: ").split()
    code, out, err = typed(*words)
    assert code == 0, out + err
    *pictures, sheet = out.splitlines()
    assert len(pictures) == splits[first]
    assert Path(sheet.partition(": ")[2]).is_file()

    code, out, err = typed("status")
    assert code == 0, out + err
    assert re.findall(r"(?m)^data/\S+/masks$", out) == [f"data/{split}/masks" for split in sorted(splits)]
    for split, images in splits.items():
        found = samples("data", split, "masks")
        assert len(found) == images
        for sample in found:
            assert [a.category for a in sample.annotations] == list(BOXES)
            for annotation in sample.annotations:
                assert annotation.bbox == pytest.approx(BOXES[annotation.category])
                assert annotation.segmentation is not None and annotation.box_iou == 1


def test_the_split_that_is_missing_is_one_split_and_not_a_share_of_the_files(
    typed: Typed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_yolo(tmp_path / "data")
    _, out, _ = typed("doctor", "data")
    assert re.search(r"(?m)^    split_not_found: 1 split: ", out), out
    assert typed("ingest", "data")[0] == 0
    assert any(message.startswith("data: 1 split: ") for message in caplog.messages)


def test_shapes_that_are_left_out_are_counted_apart_from_boxes(typed: Typed, tmp_path: Path) -> None:
    write_voc(tmp_path / "data")
    for path in (tmp_path / "data" / "Annotations").glob("*.xml"):
        text = path.read_text().replace("</name>", "</name><part><name>tail</name></part>", 1)
        path.write_text(text)
    _, out, _ = typed("doctor", "data")
    assert re.search(r"(?m)^    not_an_object: 3 shapes: ", out), out


def test_masks_of_the_files_go_to_the_layer_human(typed: Typed, tmp_path: Path) -> None:
    write_voc(tmp_path / "data")
    assert "  masks      the files have masks of their own; " in typed("doctor", "data")[1]
    write_yolo(tmp_path / "boxes")
    assert "masks of their own" not in typed("doctor", "boxes")[1]
    code, out, err = typed("ingest", "data", "--layer", "human")
    assert code == 0 and "data/train/human: 3 images, 6 boxes, 3 masks" in out, out + err
    for sample in samples("data", "train", "human"):
        assert {a.category: a.mask_source for a in sample.annotations if a.segmentation is not None} == {"cat": "human"}


def test_the_next_command_names_a_store_that_is_not_the_usual_one(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_voc(tmp_path / "data")
    words = ("masks", "data", "--segmenter", "box_fill", "--store", "my shards")
    assert typed(*words)[1].splitlines()[-2:] == [
        "next: synthgen show data/train/masks --store 'my shards'",
        "next: synthgen export data/train/masks --to coco --out data-coco --store 'my shards'",
    ]
    monkeypatch.setenv("SYNTHGEN_STORE", "my shards")
    assert typed("masks", "data", "--segmenter", "box_fill")[1].splitlines()[-2:] == [
        "next: synthgen show data/train/masks",
        "next: synthgen export data/train/masks --to coco --out data-coco",
    ]
    assert not any("next:" in line for line in typed(*words, "--dry-run")[1].splitlines())


def test_a_layer_that_is_not_there_names_those_of_the_same_dataset(typed: Typed, tmp_path: Path) -> None:
    write_yolo(tmp_path / "data")
    write_voc(tmp_path / "other")
    assert typed("ingest", "data")[0] == typed("ingest", "other")[0] == 0
    code, _, err = typed("show", "data/test/masks")
    assert code == 2 and "(have: data/train/annotations, data/val/annotations)" in err, err
    code, _, err = typed("show", "nowhere/test/masks")
    assert code == 2 and "other/train/annotations" in err, err
