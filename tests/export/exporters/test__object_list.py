"""The list of objects beside PNG masks: JSON, whatever the names."""

from __future__ import annotations

import json
from pathlib import Path

from fakes.exporter_runs import HOSTILE_NAMES, annotation, context, rectangle, sample

from synthgen.export.exporters._object_list import ObjectList
from synthgen.records.sample import Caption


def test_the_file_is_json_with_every_image(tmp_path: Path) -> None:
    given = context(tmp_path, HOSTILE_NAMES)
    one = ObjectList(tmp_path / "list.json", given)
    own = annotation(1, rectangle(1, 1, 3, 3), HOSTILE_NAMES[0], captions=(Caption(HOSTILE_NAMES[1], "ofa"),))
    for number, name in enumerate(HOSTILE_NAMES):
        one.write(sample(number, own), name, {"map": name}, [(own, {"value": 5})])
    one.finish()
    one.close()
    content = json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in content["images"]] == list(HOSTILE_NAMES)
    assert [image["map"] for image in content["images"]] == list(HOSTILE_NAMES)
    assert [category["name"] for category in content["categories"]] == list(HOSTILE_NAMES)
    assert content["images"][0]["objects"][0]["captions"] == [HOSTILE_NAMES[1]]
    assert content["images"][0]["objects"][0]["value"] == 5
    assert content["licenses"][0]["name"] == "Attribution License"


def test_a_split_without_images_is_json(tmp_path: Path) -> None:
    one = ObjectList(tmp_path / "list.json", context(tmp_path))
    one.finish()
    assert json.loads((tmp_path / "list.json").read_text())["images"] == []
