"""The list of objects beside PNG masks: JSON, whatever the names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.exporter_runs import HOSTILE_NAMES, annotation, context, rectangle, sample

from synthgen.errors import SynthgenError
from synthgen.export.exporters._object_list import ObjectList
from synthgen.formats.recognition import recognize_dataset
from synthgen.records.sample import Caption


def test_the_file_is_json_with_every_image(tmp_path: Path) -> None:
    given = context(tmp_path, HOSTILE_NAMES)
    one = ObjectList(tmp_path / "list.json", given)
    own = annotation(1, rectangle(1, 1, 3, 3), HOSTILE_NAMES[0], captions=(Caption(HOSTILE_NAMES[1], "ofa"),))
    for number, name in enumerate(HOSTILE_NAMES):
        one.write(sample(number, own), name, {"map": name}, [(own, 9, {"value": 5})])
    one.finish()
    one.close()
    content = json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in content["masks"]] == list(HOSTILE_NAMES)
    assert [image["map"] for image in content["masks"]] == list(HOSTILE_NAMES)
    assert [category["name"] for category in content["classes"]] == list(HOSTILE_NAMES)
    assert content["masks"][0]["objects"][0]["captions"] == [HOSTILE_NAMES[1]]
    assert content["masks"][0]["objects"][0]["value"] == 5 and content["masks"][0]["objects"][0]["area"] == 9
    assert content["image_licenses"][0]["name"] == "Attribution License"


def test_a_split_without_images_is_json(tmp_path: Path) -> None:
    one = ObjectList(tmp_path / "list.json", context(tmp_path))
    one.finish()
    assert json.loads((tmp_path / "list.json").read_text())["masks"] == []


def test_no_reader_takes_it_for_a_dataset(tmp_path: Path) -> None:
    one = ObjectList(tmp_path / "list.json", context(tmp_path))
    own = annotation(1, rectangle(1, 1, 3, 3))
    one.write(sample(1, own), "a.jpg", {}, [(own, 9, {"value": 1})])
    one.finish()
    with pytest.raises(SynthgenError, match="is not recognised"):
        recognize_dataset(tmp_path)
