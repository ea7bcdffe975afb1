"""COCO files that are written record by record are valid JSON, however many records there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthgen.storage.coco_stream import CocoStream


@pytest.mark.parametrize("count", [0, 1, 3])
def test_lists_and_members_are_read_back(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.json"
    stream = CocoStream(path)
    for number in range(count):
        stream.images.add(b'{"id":%d}' % number)
        stream.annotations.add(b'{"id":%d},{"id":%d}' % (2 * number, 2 * number + 1))
    stream.finish({"categories": b'[{"id":1}]', "info": b"{}"})
    content = json.loads(path.read_text())
    assert [one["id"] for one in content["images"]] == list(range(count))
    assert [one["id"] for one in content["annotations"]] == list(range(2 * count))
    assert content["categories"] == [{"id": 1}] and content["info"] == {}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(FileExistsError):
        CocoStream(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "mine"
