"""Digests of a dataset's own files: what changes them, and what does not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from synthgen.formats.readers import DatasetFiles, labelme
from synthgen.ingest.ingest import describe_source_change, ingest
from synthgen.ingest.source_digests import folder_sha256, source_states
from synthgen.storage.shard_store import ShardStore


def write_labelme(folder: Path) -> Path:
    folder.mkdir()
    for i in range(2):
        Image.new("RGB", (60, 40)).save(folder / f"{i}.png")
        shape = {"label": "a", "points": [[5, 5], [30, 20]], "shape_type": "rectangle"}
        content = {"shapes": [shape], "imagePath": f"{i}.png", "imageHeight": 40, "imageWidth": 60}
        (folder / f"{i}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("place", ["shards", "deep/er"])
def test_the_store_may_lie_in_the_folder_of_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(write_labelme(tmp_path / "own"))
    store, files = ShardStore(place), labelme.files(Path(), "train", None)
    for committed in (1, 0):
        made = ingest(store, labelme, files, name="own", split="train")  # type: ignore[arg-type]
        assert made.committed == committed
        assert describe_source_change(store, labelme, files, name="own", split="train") is None
    Path("1.json").write_text(Path("1.json").read_text().replace("30", "31"))
    assert "is not what" in (describe_source_change(store, labelme, files, name="own", split="train") or "")


def digest(folder: Path, of: str, skip: Path | None = None) -> object:
    """What stands for a folder: a digest of its files' sizes or contents, or their states."""
    if of == "states":
        return source_states(DatasetFiles({"labels": folder}, folder, content_roles=frozenset({"labels"})), skip)
    return folder_sha256(folder, of=of, skip=skip)


@pytest.mark.parametrize("of", ["sizes", "states", "contents"])
def test_only_the_skipped_folder_is_left_out(tmp_path: Path, of: str) -> None:
    for name in ("a.txt", "in/b.txt", "in2/c.txt", "sub/in/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    before = digest(tmp_path, of, tmp_path / "in")
    assert before != digest(tmp_path, of) == digest(tmp_path, of, tmp_path.parent / "in")
    (tmp_path / "in/more.txt").write_text("2")
    assert digest(tmp_path, of, tmp_path / "sub/../in") == before
    (tmp_path / "sub/in/d.txt").write_text("22")
    assert digest(tmp_path, of, tmp_path / "in") != before


def test_a_change_of_equal_size_and_time_is_noticed_in_a_folder_of_contents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1")
    kept = (tmp_path / "a.txt").stat()
    by_content = DatasetFiles({"labels": tmp_path}, tmp_path, content_roles=frozenset({"labels"}))
    before = folder_sha256(tmp_path, of="contents"), source_states(by_content)
    (tmp_path / "a.txt").write_text("2")
    os.utime(tmp_path / "a.txt", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert folder_sha256(tmp_path, of="contents") != before[0] and source_states(by_content) != before[1]
