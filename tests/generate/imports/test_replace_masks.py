"""Single masks of a layer are replaced: reviewed, the rest unchanged, layers made from it stale."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes import foreign_masks
from fakes.foreign_masks import PLACE, annotations, layer_files, rows

from synthgen.errors import SynthgenError
from synthgen.generate.imports.new_layer import import_layer
from synthgen.generate.imports.replace_masks import replace_masks
from synthgen.generate.imports.request import ImportReport, ImportRequest
from synthgen.records.sample import mask_provenance
from synthgen.review.status import summarize_layers
from synthgen.review.verify import ShardState, verify_layer
from synthgen.storage.shard_store import Shard, ShardStore

MASKS = (*PLACE[:2], "masks")


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Any]:
    """A layer of masks by a model with scores, and a layer made from it."""
    world = foreign_masks.write_world(tmp_path)
    write(tmp_path, foreign_masks.with_masks(world, mask_source="sam vit_h", predicted_iou=0.9, stability_score=0.8))
    place(tmp_path, PLACE, "masks")
    place(tmp_path, MASKS, "derived")
    return world


def write(folder: Path, content: Any) -> None:
    (folder / "masks.json").write_text(json.dumps(content))


def place(folder: Path, base: tuple[str, str, str], layer: str) -> None:
    request = ImportRequest(source=folder / "masks.json", store=folder / "shards", place=base, layer=layer)
    import_layer(request, lambda *_: None)


def corrected(world: dict[str, Any], *numbers: int, **members: Any) -> dict[str, Any]:
    """Masks of some annotations, a little smaller."""
    content = foreign_masks.with_masks(world, **members)
    kept = [one for one in content["annotations"] if one["id"] in numbers]
    for one in kept:
        x, y, w, h = one["bbox"]
        one["segmentation"] = foreign_masks.coco_rle([x + 1, y + 1, w - 3, h - 2])
    return {**content, "annotations": kept}


def run(folder: Path, content: Any, **options: Any) -> ImportReport:
    write(folder, content)
    request = ImportRequest(
        source=folder / "masks.json", store=folder / "shards", place=MASKS, replaces=True, **options
    )
    return replace_masks(request, lambda *_: None)


def stale(folder: Path) -> dict[str, int]:
    return {layer.name.rpartition("/")[2]: layer.num_stale for layer in summarize_layers(folder / "shards")}


def test_one_mask_is_replaced(tmp_path: Path, world: dict[str, Any]) -> None:
    old, files = annotations(tmp_path / "shards", "masks"), layer_files(tmp_path / "shards", "masks")
    assert stale(tmp_path) == {"annotations": 0, "masks": 0, "derived": 0}
    report = run(tmp_path, corrected(world, 2))
    assert (report.imported, report.unchanged, report.written, report.masks) == (1, 0, 1, 24)
    new = annotations(tmp_path / "shards", "masks")
    one = new.pop(2)
    assert new == {number: a for number, a in old.items() if number != 2}
    assert (one.provenance, one.mask_source, mask_provenance(one)) == ("reviewed", "sam vit_h", "reviewed")
    assert (one.predicted_iou, one.stability_score, one.soft_iou) == (None, None, None)
    assert one.box_iou is not None and one.box_iou != old[2].box_iou
    assert (one.bbox, one.category, one.category_id) == (old[2].bbox, old[2].category, old[2].category_id)
    changed = layer_files(tmp_path / "shards", "masks")
    assert [name for name in files if changed[name] != files[name]] == ["00000-of-00003.parquet"]
    assert stale(tmp_path) == {"annotations": 0, "masks": 0, "derived": 1}
    verdicts = list(verify_layer(ShardStore(tmp_path / "shards"), "/".join(MASKS)))
    assert len(verdicts) == 3 and all(verdict.state is ShardState.OK for verdict in verdicts)


def test_the_same_again_changes_nothing(tmp_path: Path, world: dict[str, Any]) -> None:
    content = corrected(world, 2, 9, 23)
    assert run(tmp_path, content, model="me").imported == 3
    before = layer_files(tmp_path / "shards", "masks")
    report = run(tmp_path, content, model="me")
    assert (report.imported, report.unchanged, report.written) == (0, 3, 0)
    assert layer_files(tmp_path / "shards", "masks") == before
    assert annotations(tmp_path / "shards", "masks")[9].mask_source == "me"


def test_the_job_that_made_the_layer_has_nothing_to_do(tmp_path: Path, world: dict[str, Any]) -> None:
    content = (tmp_path / "masks.json").read_text()
    run(tmp_path, corrected(world, 2))
    before = layer_files(tmp_path / "shards", "masks")
    (tmp_path / "masks.json").write_text(content)
    place(tmp_path, PLACE, "masks")
    assert layer_files(tmp_path / "shards", "masks") == before
    place(tmp_path, MASKS, "derived")  # is made again
    assert stale(tmp_path)["derived"] == 0


def test_a_killed_replacement_is_finished(
    tmp_path: Path, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = corrected(world, 2, 12, 23)  # in three shards
    before = layer_files(tmp_path / "shards", "masks")
    run(tmp_path, content)
    calm = layer_files(tmp_path / "shards", "masks")
    for name, old in before.items():
        (tmp_path / "shards/boxes/train/masks" / name).write_bytes(old)
    commit = ShardStore.commit

    def dying(store: ShardStore, shard: Shard, *arguments: Any) -> Path:
        if shard.index == 1:
            raise KeyboardInterrupt
        return commit(store, shard, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "commit", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, content)
    assert run(tmp_path, content).written == 2
    assert layer_files(tmp_path / "shards", "masks") == calm


def test_a_whole_file_with_one_change_changes_one_mask(tmp_path: Path, world: dict[str, Any]) -> None:
    content = foreign_masks.with_masks(world)
    content["annotations"][7]["segmentation"] = corrected(world, 8)["annotations"][0]["segmentation"]
    report = run(tmp_path, content)
    assert (report.imported, report.unchanged, report.written) == (1, 23, 1)
    reviewed = [a.id for a in annotations(tmp_path / "shards", "masks").values() if mask_provenance(a) == "reviewed"]
    assert reviewed == [8]


def test_an_accepted_mask_keeps_its_scores(tmp_path: Path, world: dict[str, Any]) -> None:
    content = foreign_masks.with_masks(world)
    content["annotations"][0] |= {"mask_source": "sam vit_h", "provenance": "reviewed"}
    assert run(tmp_path, content).imported == 1
    one = annotations(tmp_path / "shards", "masks")[1]
    assert (one.provenance, one.predicted_iou) == ("reviewed", 0.9)
    assert run(tmp_path, content).written == 0


def test_a_mask_that_a_person_drew_is_human(tmp_path: Path, world: dict[str, Any]) -> None:
    run(tmp_path, corrected(world, 3, provenance="human"))
    one = annotations(tmp_path / "shards", "masks")[3]
    assert (one.mask_source, one.provenance, mask_provenance(one)) == ("human", None, "human")


def test_a_missing_mask_is_added_and_its_flag_goes(tmp_path: Path, world: dict[str, Any]) -> None:
    some = {**world, "annotations": foreign_masks.with_masks(world)["annotations"][1:]}
    write(tmp_path, some)
    place(tmp_path, PLACE, "some")
    assert annotations(tmp_path / "shards", "some")[1].flags == ("no_imported_mask",)
    write(tmp_path, corrected(world, 1))
    request = ImportRequest(
        source=tmp_path / "masks.json", store=tmp_path / "shards", place=(*PLACE[:2], "some"), replaces=True, model="me"
    )
    assert replace_masks(request, lambda *_: None).masks == 24
    one = annotations(tmp_path / "shards", "some")[1]
    assert (one.flags, one.mask_source, one.provenance) == ((), "me", "reviewed")
    store = ShardStore(tmp_path / "shards")
    footer = store.read_footer(store.list_shards(*PLACE[:2], "some")[0]) or {}
    assert footer["counts"]["masks"] == 9 and "no_imported_mask" not in footer["counts"]["flags"]
    assert footer["replaced"]["reviewed"] == 1 and len(footer["replaced"]["sources"]) == 1


def test_unusable_masks_are_counted_and_change_nothing(tmp_path: Path, world: dict[str, Any]) -> None:
    before = rows(tmp_path / "shards", "masks")
    content = corrected(world, 1, 2)
    content["annotations"][0]["segmentation"] = {"size": [5, 5], "counts": [25]}
    content["annotations"][1] |= {
        "id": 999,
        "bbox": [0, 0, 1, 1],
        "segmentation": foreign_masks.coco_rle([80, 60, 9, 9]),
    }
    report = run(tmp_path, content)
    assert report.unused == {"bad_segmentation": 1, "no_box": 1} and report.written == 0
    assert rows(tmp_path / "shards", "masks") == before
    with pytest.raises(SynthgenError, match="none of the 0 masks"):
        run(tmp_path, [])


@pytest.mark.parametrize("layer", ["annotations", "human", "regions"])
def test_layers_of_the_datasets_own_files_are_refused(tmp_path: Path, world: dict[str, Any], layer: str) -> None:
    write(tmp_path, corrected(world, 2))
    own = ImportRequest(
        source=tmp_path / "masks.json", store=tmp_path / "shards", place=(*PLACE[:2], layer), replaces=True
    )
    with pytest.raises(SynthgenError, match="made from the dataset's own files; correct these"):
        replace_masks(own, lambda *_: None)


def test_a_mask_of_a_machine_is_not_human_where_a_human_mask_was(tmp_path: Path, world: dict[str, Any]) -> None:
    run(tmp_path, corrected(world, 3, provenance="human"))
    content = foreign_masks.with_masks(world, mask_source="sam2", provenance="machine")
    content["annotations"] = [one for one in content["annotations"] if one["id"] == 3]
    assert run(tmp_path, content).imported == 1
    one = annotations(tmp_path / "shards", "masks")[3]
    assert (one.mask_source, mask_provenance(one)) == ("sam2", "reviewed")


def test_a_replacement_waits_for_another_and_keeps_its_masks(
    tmp_path: Path, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", corrected(world, 4))
    other = ImportRequest(source=tmp_path / "other/masks.json", store=tmp_path / "shards", place=MASKS, replaces=True)
    threads: list[threading.Thread] = []
    commit = ShardStore.commit

    def commit_beside_another(store: ShardStore, shard: Shard, *arguments: Any) -> Path:
        if not threads:
            threads.append(threading.Thread(target=replace_masks, args=(other, lambda *_: None)))
            threads[0].start()
            threads[0].join(0.3)
            assert threads[0].is_alive()
        return commit(store, shard, *arguments)

    monkeypatch.setattr(ShardStore, "commit", commit_beside_another)
    run(tmp_path, corrected(world, 2))
    threads[0].join()
    reviewed = [a.id for a in annotations(tmp_path / "shards", "masks").values() if mask_provenance(a) == "reviewed"]
    assert reviewed == [2, 4]
