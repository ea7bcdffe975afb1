"""Fixtures that several test files of this folder use."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import layer_kinds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shards` and images; manifests are written into it."""
    folder = tmp_path_factory.mktemp("run")
    layer_kinds.write_store(folder)
    (folder / "words.txt").write_text("coco/000000000001\nno key\n\n# a comment\nnor this\n")
    (folder / "val.txt").write_text("".join(f"{key}\n" for key in layer_kinds.coco_keys(*range(100, 104))))
    (folder / "all.txt").write_text("".join(f"{key}\n" for key in layer_kinds.coco_keys(*range(200))))
    (folder / "other.txt").write_text("coco/999999999999\n")
    return folder
