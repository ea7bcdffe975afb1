"""`stage_run`: what a layer's name resolves to, whose reader it is, and that a reporter hears everything in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import coco_dataset

from synthgen.errors import SynthgenError
from synthgen.generate import stage_run
from synthgen.generate.dataset_spec import DatasetRequest
from synthgen.generate.engine import run_in_process
from synthgen.generate.stage_run import StageReporter, StageRequest, find_layer, run_stage
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import Shard, ShardStore


def request(folder: Path, **more: Any) -> StageRequest:
    own = {"stage": "masks", "layer": "masks", "plugin": "box_fill", "reads": "annotations", "store": folder / "store"}
    dataset = DatasetRequest(path=folder / "boxes.json", images=folder / "photos")
    return StageRequest(**{"dataset": dataset, **own, **more})


def commit(store: ShardStore, layer: str, recipe: dict[str, Any], parent: str | None = None) -> None:
    footer = {"fingerprint": "f", "recipe": recipe, "parent": {"layer": parent} if parent else None}
    store.commit(Shard("d", "train", layer, 0, 1), [Sample(1, "d/1", "1.png", 4, 4)], footer)


class Noting(StageReporter):
    """Notes the names of what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []


def _note(name: str) -> Any:
    return lambda self, *_, **__: self.heard.append(name)


for _name in [name for name in vars(StageReporter) if name.startswith("on_")]:
    setattr(Noting, _name, _note(_name))


@pytest.mark.parametrize(
    "text", ["d/train", "d/train/mask", "d/train/masks/x", "../train/masks", "d//masks", "", "/d/train/masks", "d/ü/m"]
)
def test_only_a_committed_layer_is_found(tmp_path: Path, text: str) -> None:
    commit(ShardStore(tmp_path), "masks", {})
    assert find_layer(tmp_path, "d/train/masks") == ("d", "train", "masks")
    assert find_layer(tmp_path, text) is None
    assert find_layer(tmp_path / "nowhere", "d/train/masks") is None


@pytest.mark.parametrize(
    ("recipe", "reader"),
    [
        ({"reader": "yolo"}, "yolo"),
        ({"reader": "os.path"}, "coco_json"),
        ({"reader": "../../x"}, "coco_json"),
        ({"reader": ["yolo"]}, "coco_json"),
        ({}, "coco_json"),
    ],
)
def test_a_footer_cannot_name_any_module_as_the_reader(tmp_path: Path, recipe: dict[str, Any], reader: str) -> None:
    store = ShardStore(tmp_path)
    commit(store, "annotations", recipe)
    commit(store, "masks", {"plugin": "grabcut"}, parent="annotations")
    assert stage_run._find_reader(store, "d", "train", "masks") == reader


def test_ancestors_in_a_circle_end(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    commit(store, "a", {}, parent="b")
    commit(store, "b", {}, parent="a")
    assert stage_run._find_reader(store, "d", "train", "a") == "coco_json"


def test_a_reporter_hears_the_run_in_order(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    for more, wanted in (
        ({"dry_run": True}, ["on_choice", "on_missing_inputs"]),
        ({}, ["on_choice", "on_inputs", "on_plan", "on_shard", "on_stats"]),
        ({}, ["on_choice", "on_inputs", "on_plan", "on_nothing_to_do"]),
        ({"dry_run": True, "layer": "more"}, ["on_choice", "on_inputs", "on_plan"]),
    ):
        reporter = Noting()
        runs = run_stage(request(tmp_path, **more), lambda _: run_in_process, reporter)
        assert reporter.heard == wanted
        assert len(runs) == (0 if "on_missing_inputs" in wanted else 1)
    assert not (tmp_path / "store/boxes/train/more").exists()


def test_the_engine_is_loaded_before_anything_is_written(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)

    def refuse(_: StageRequest) -> Any:
        raise SynthgenError("there is no engine")

    reporter = Noting()
    with pytest.raises(SynthgenError, match="there is no engine"):
        run_stage(request(tmp_path), refuse, reporter)
    assert reporter.heard == [] and not (tmp_path / "store").exists()
