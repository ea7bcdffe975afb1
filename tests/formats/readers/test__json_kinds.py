"""JSON of other tools, given as a COCO-style file: the error says what it is."""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from synthgen.errors import SynthgenError
from synthgen.formats.readers import coco_json
from synthgen.formats.readers._json_kinds import describe_other_json

BOX = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
OTHERS: dict[str, tuple[Any, str]] = {
    "results": ([{**BOX, "score": 0.5}], "a COCO results file"),
    "annotations alone": ([BOX], "a list of annotations without 'images'"),
    "label studio": ([{"id": 1, "annotations": [{"result": []}], "data": {"image": "a.jpg"}}], "a Label Studio export"),
    "labelme": ({"version": "5", "flags": {}, "shapes": [], "imagePath": "a.jpg"}, "a LabelMe file of one image"),
    "via project": ({"_via_settings": {}, "_via_img_metadata": {}}, "a VIA project"),
    "via": ({"a.jpg12": {"filename": "a.jpg", "size": 12, "regions": [], "file_attributes": {}}}, "a VIA export"),
    "datumaro": ({"info": {}, "categories": {}, "items": []}, "a Datumaro file"),
    "createml": ([{"image": "a.jpg", "annotations": []}], "a CreateML file"),
    "bdd100k": ([{"name": "a.jpg", "labels": []}], r"a BDD100K \(Scalabel\) file"),
    "geojson": ({"type": "FeatureCollection", "features": []}, "GeoJSON"),
    "cityscapes": ({"imgHeight": 1, "imgWidth": 1, "objects": []}, "a Cityscapes file"),
}


def refusal(path: Path) -> str:
    with pytest.raises(SynthgenError) as why:
        list(coco_json.read(coco_json.files(path.parent, "train", path), "annotations"))
    assert "\n" not in str(why.value)
    return str(why.value)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("packed", [False, True])
def test_each_tool_has_its_own_message(tmp_path: Path, name: str, packed: bool) -> None:
    content, what = OTHERS[name]
    text = json.dumps(content, indent=1).encode()
    path = tmp_path / "boxes.json"
    path.write_bytes(gzip.compress(text) if packed else text)
    assert re.search(f"is {what}.*, not a COCO-style file; ", refusal(path))


def test_json_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "boxes.jsonl"
    path.write_text("\n".join(json.dumps(BOX) for _ in range(3)))
    assert "is JSON Lines" in refusal(path)


def test_a_reader_that_exists_is_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(OTHERS["label studio"][0]))
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert str(describe_other_json(path)).endswith("give its folder as --dataset label-studio")


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [], "annotations": [], "items": {}, "categories": []}',
        '{"images": []}',
        "[]",
        "7",
        "",
        '{"image_id": 1, "category_id": 2, "score": 3}',
        '{"a": "\\"shapes\\": imagePath"}',
        "]}{",
    ],
)
def test_what_is_not_known_keeps_its_own_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(text)
    assert describe_other_json(path) is None


@pytest.mark.parametrize("text", ['"\\' * 2**19, '"' * 2**20, "[" * 2**20, '{"a":' * 2**18])
def test_hostile_text_takes_no_long_time(tmp_path: Path, text: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(text)
    start = time.perf_counter()
    describe_other_json(path)
    assert time.perf_counter() - start < 2
