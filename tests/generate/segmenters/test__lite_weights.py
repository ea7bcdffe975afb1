"""Weights of `lite` in the folder of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.tiny_lite import write_weights

from synthgen.generate.auto_choice import AUTO, choose_plugins
from synthgen.generate.dataset_spec import DatasetSpec
from synthgen.generate.segmenters import _lite_weights


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_the_file_counts_where_it_is(folder: Path) -> None:
    assert _lite_weights.list_local_weights() == []
    path = write_weights(folder)
    (local,) = _lite_weights.list_local_weights()
    assert local.options == {"checkpoint": str(path)}
    assert local.reason == f"lite.safetensors is in {folder}"


def test_a_layer_by_a_file_of_the_user_asks_for_it() -> None:
    assert _lite_weights.how_to_get({}) == ""
    assert "--segmenter lite --checkpoint FILE" in _lite_weights.how_to_get({"weights": "0" * 64})


def test_auto_takes_it_on_a_cpu(tmp_path: Path, folder: Path) -> None:
    path = write_weights(folder)
    spec = DatasetSpec("coco_json", "toy", "train", tmp_path, None, None)
    (choice,) = choose_plugins(
        AUTO, {"device": "cpu"}, stage="masks", specs=[spec], store=tmp_path / "shards", layer="masks"
    )
    assert (choice.plugin, choice.options) == ("lite", {"device": "cpu", "checkpoint": str(path)})
    assert choice.sentence.startswith("segmenter: lite, because lite.safetensors is in ")
