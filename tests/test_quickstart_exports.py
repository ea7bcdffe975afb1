"""The three quickstarts of docs/export.md, as they stand there: from boxes to a folder that a trainer reads."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from fakes import coco_dataset
from PIL import Image
from pycocotools.coco import COCO
from test_quickstart_formats import BOXES, SIZE, write_image, write_yolo

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
Typed = Callable[..., tuple[int, str, str]]


def commands(title: str) -> list[list[str]]:
    """The commands below the sentence that begins with `title`."""
    found = re.search(rf"(?ms)^{title}.*?^```sh\n(.*?)^```", PAGE.read_text())
    assert found is not None
    return [shlex.split(line) for line in found[1].splitlines()]


def run(typed: Typed, title: str) -> str:
    """Run them all; returns the last output."""
    words = commands(title)
    assert 2 <= len(words) <= 4
    for command in words:
        assert command[0] == "synthgen"
        code, out, err = typed(*command[1:])
        assert code == 0, out + err
    return out


def write_roboflow(root: Path) -> None:
    """Splits of one and two images, each with its COCO file beside them."""
    for split, names in (("train", "ab"), ("valid", "c"), ("test", "d")):
        images, annotations = [], []
        for number, name in enumerate(names):
            write_image(root / split / f"{name}.png")
            images.append({"id": number, "file_name": f"{name}.png", "width": SIZE[0], "height": SIZE[1]})
            for category, box in enumerate(BOXES.values(), start=1):
                annotation = {"id": len(annotations), "image_id": number, "category_id": category, "bbox": box}
                annotations.append({**annotation, "area": box[2] * box[3], "iscrowd": 0, "segmentation": []})
        categories = [{"id": 0, "name": "parts", "supercategory": "none"}]
        categories += [{"id": i, "name": name, "supercategory": "parts"} for i, name in enumerate(BOXES, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))


def test_a_user_of_yolo(typed: Typed, tmp_path: Path) -> None:
    write_yolo(tmp_path / "datasets/cones")
    run(typed, "A YOLO dataset")
    config = yaml.safe_load((tmp_path / "cones-seg/data.yaml").read_text())
    assert config["names"] == {0: "cat", 1: "dog"}
    for key, count in (("train", 2), ("val", 1)):
        folder = tmp_path / "cones-seg" / config[key]
        images = sorted(folder.iterdir())
        assert len(images) == count
        for image in images:
            assert Image.open(image).size == SIZE
            label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")  # as Ultralytics finds it
            rows = [line.split() for line in label.read_text().splitlines()]
            assert [row[0] for row in rows] == ["0", "1"]
            assert all(len(row) >= 7 and len(row) % 2 == 1 for row in rows)


def test_a_user_of_coco(typed: Typed, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=30)
    run(typed, "A COCO file")
    total = 0
    for split in ("train", "val"):
        coco = COCO(str(tmp_path / f"boxes-coco/annotations/instances_{split}.json"))
        assert {category["name"] for category in coco.cats.values()} == set(coco_dataset.CATEGORIES)
        for image in coco.imgs.values():
            assert (tmp_path / "boxes-coco/images" / split / image["file_name"]).is_file()
            total += 1
        for annotation in coco.anns.values():
            assert coco.annToMask(annotation).sum() == annotation["area"] > 0
    assert total == 30


def test_a_user_of_roboflow(typed: Typed, tmp_path: Path) -> None:
    write_roboflow(tmp_path / "datasets/parts")
    run(typed, "A dataset that Roboflow exported")
    for folder, count in (("train", 2), ("valid", 1), ("test", 1)):
        coco = COCO(str(tmp_path / f"parts-seg/{folder}/_annotations.coco.json"))
        assert len(coco.imgs) == count
        assert {c["name"] for c in coco.cats.values() if c["supercategory"] != "none"} == set(BOXES)
        for annotation in coco.anns.values():
            assert isinstance(annotation["segmentation"], list) and coco.annToMask(annotation).any()


@pytest.mark.parametrize("title", ["A YOLO dataset", "A COCO file", "A dataset that Roboflow exported"])
def test_each_quickstart_has_at_most_four_commands(title: str) -> None:
    assert len(commands(title)) <= 4
