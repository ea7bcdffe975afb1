"""`auto` and the weights of `lite`, which come with synthgen."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.generate.auto_choice import AUTO, choose_plugins
from synthgen.generate.dataset_spec import DatasetSpec
from synthgen.generate.segmenters import _lite_weights


def test_a_layer_by_a_file_of_the_user_asks_for_it() -> None:
    assert _lite_weights.how_to_get({}) == ""
    assert "--segmenter lite --checkpoint FILE" in _lite_weights.how_to_get({"weights": "0" * 64})


def test_auto_takes_it_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path / "weights"))
    spec = DatasetSpec("coco_json", "own", "train", tmp_path, None, None)
    (choice,) = choose_plugins(
        AUTO, {"device": "cpu"}, stage="masks", specs=[spec], store=tmp_path / "shards", layer="masks"
    )
    assert (choice.plugin, choice.options) == ("lite", {"device": "cpu"})
    assert (
        choice.sentence == "segmenter: lite, because its weights come with synthgen; --segmenter NAME chooses another"
    )
