"""Updates of a layer whose annotation files have changed: which rows and files stay, and what is refused."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.ingest_runs import ingest_layer, read_layer_files, write_annotations
from hypothesis import given
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, coco_json
from synthgen.ingest import ingest, sharding
from synthgen.ingest.update import ImageChanges, merge_rows
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import ShardStore
from synthgen.storage.update_record import RECORD_NAME, read_update_record, write_update_record

PLACE = ("d", "train", "annotations")


def change(files: DatasetFiles, edit: Any) -> None:
    """Let `edit` change the parsed annotation file."""
    path = files.sources["instances"]
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def remove(content: dict[str, Any], *ids: int) -> None:
    content["images"] = [image for image in content["images"] if image["id"] not in ids]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in ids]


def move(content: dict[str, Any], *ids: int) -> None:
    for one in content["annotations"]:
        if one["image_id"] in ids:
            one["bbox"][0] += 1


def add(content: dict[str, Any], *ids: int) -> None:
    for number in ids:
        content["images"].append({"id": number, "file_name": f"{number}.jpg", "height": 90, "width": 120})
        box = {"id": 10_000 + number, "image_id": number, "category_id": 1, "bbox": [1, 2, 3, 4]}
        content["annotations"].append({**box, "segmentation": [[1, 1, 20, 1, 20, 20]]})


def rows(store: Path, layer: str = "annotations") -> dict[int, Sample]:
    shards = ShardStore(store)
    return {s.image_id: s for one in shards.list_shards("d", "train", layer) for s in shards.read_samples(one)}


def without_ids(sample: Sample) -> Sample:
    return replace(sample, annotations=tuple(replace(a, id=0) for a in sample.annotations))


@pytest.mark.parametrize("layer", coco_json.LAYERS)
def test_only_shards_with_a_change_are_written_again(tmp_path, layer):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files, layer, shard_size=20)
    before, old = read_layer_files(tmp_path / "s", layer), rows(tmp_path / "s", layer)

    def edit(content: dict[str, Any]) -> None:
        remove(content, 5)
        move(content, 47, 48)
        add(content, 500)

    change(files, edit)
    with pytest.raises(SynthgenError, match=r"\(1 images added, 2 changed, 1 removed, 197 unchanged\); add --update"):
        ingest_layer(tmp_path / "s", files, layer)
    assert read_layer_files(tmp_path / "s", layer) == before
    report = ingest_layer(tmp_path / "s", files, layer, update=True)
    assert report.changes is not None
    assert report.changes.total == ImageChanges(added=1, changed=2, removed=1, unchanged=197)
    assert sorted(report.changes.by_shard) == [0, 2, 9] and report.committed == 3 and report.images == 200
    after, new = read_layer_files(tmp_path / "s", layer), rows(tmp_path / "s", layer)
    written = {name for name in after if before.get(name) != after[name]}
    assert written == {"00000-of-00010.parquet", "00002-of-00010.parquet", "00009-of-00010.parquet", RECORD_NAME}
    assert new.keys() == old.keys() - {5} | {500}
    assert all(new[number] == old[number] for number in new.keys() - {47, 48, 500})
    assert new[47] != old[47]
    # The rows are those of an ingest of the new file.
    ingest_layer(tmp_path / "calm", files, layer)
    assert new == rows(tmp_path / "calm", layer)
    # Nothing is left to do, with the option and without it.
    for update in (True, False):
        again = ingest_layer(tmp_path / "s", files, layer, update=update)
        assert (again.committed, again.changes) == (0, None)
    assert read_layer_files(tmp_path / "s", layer) == after


def test_an_updated_layer_can_be_updated_again_and_back(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    first = files.sources["instances"].read_bytes()
    ingest_layer(tmp_path / "s", files, shard_size=20)
    old = rows(tmp_path / "s")
    change(files, lambda content: remove(content, *range(20, 40), 77))  # one shard becomes empty
    report = ingest_layer(tmp_path / "s", files, update=True)
    assert report.changes is not None and report.changes.total.removed == 21
    assert rows(tmp_path / "s").keys() == old.keys() - {*range(20, 40), 77}
    files.sources["instances"].write_bytes(first)
    report = ingest_layer(tmp_path / "s", files, update=True)
    assert report.changes is not None and report.changes.total == ImageChanges(added=21, unchanged=179)
    assert rows(tmp_path / "s") == old


def test_removed_images_stay_on_request(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files, shard_size=20)
    old = rows(tmp_path / "s")

    def edit(content: dict[str, Any]) -> None:
        remove(content, 5, 6)
        move(content, 7)

    change(files, edit)
    report = ingest_layer(tmp_path / "s", files, update=True, removed="keep")
    assert report.changes is not None
    assert report.changes.total == ImageChanges(changed=1, removed=2, unchanged=197, kept=2)
    new = rows(tmp_path / "s")
    assert list(new) == list(old) and new[5] == old[5] and new[7] != old[7]
    assert ingest_layer(tmp_path / "s", files).changes is None
    with pytest.raises(SynthgenError, match="--removed some is not valid; choose drop or keep"):
        ingest_layer(tmp_path / "s", files, update=True, removed="some")


def test_annotations_that_are_only_numbered_anew_change_nothing(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files)
    before = read_layer_files(tmp_path / "s")

    def edit(content: dict[str, Any]) -> None:
        for one in content["annotations"]:
            one["id"] += 7

    change(files, edit)
    report = ingest_layer(tmp_path / "s", files, update=True)
    assert report.committed == 0 and report.changes is not None and report.changes.total.unchanged == 200
    after = read_layer_files(tmp_path / "s")
    after.pop(RECORD_NAME)
    assert after == before
    assert ingest_layer(tmp_path / "s", files).changes is None


@pytest.mark.parametrize("at", [0, 2])
def test_an_update_that_fails_anywhere_is_finished_by_the_same_call(tmp_path, monkeypatch, at):
    files = write_annotations(tmp_path / "boxes.json")
    for store in ("s", "calm"):
        ingest_layer(tmp_path / store, files, shard_size=20)
    edited = random.Random(1).sample(range(200), 12)
    change(files, lambda content: (remove(content, *edited[:4]), move(content, *edited[4:8]), add(content, 900, 901)))
    ingest_layer(tmp_path / "calm", files, update=True)
    commit, calls = ShardStore.commit, []

    def fail(self: ShardStore, *args: Any) -> Path:
        calls.append(args)
        if len(calls) > at:
            raise SynthgenError("the disk is full")
        return commit(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "commit", fail)
        with pytest.raises(SynthgenError, match="full"):
            ingest_layer(tmp_path / "s", files, update=True)
    with pytest.raises(SynthgenError, match="has not finished, so its shards are of two versions"):
        rows(tmp_path / "s")
    with pytest.raises(SynthgenError, match="again, with --update"):
        ingest_layer(tmp_path / "s", files)
    with pytest.raises(SynthgenError, match="was begun with --removed drop; finish it with the same option first"):
        ingest_layer(tmp_path / "s", files, update=True, removed="keep")
    ingest_layer(tmp_path / "s", files, update=True)
    assert read_layer_files(tmp_path / "s") == read_layer_files(tmp_path / "calm")


def test_a_preview_counts_and_writes_nothing(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    store = ShardStore(tmp_path / "s")

    def preview(**options: Any) -> Any:
        return ingest.preview_changes(store, coco_json, files, name="d", split="train", **options)

    assert preview() is None and not (tmp_path / "s").exists()
    ingest_layer(tmp_path / "s", files, shard_size=20)
    assert preview() is None
    change(files, lambda content: remove(content, 3))
    everything = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")}
    changes = preview(update=True)
    assert changes.total == ImageChanges(removed=1, unchanged=199)
    assert changes.by_shard == {0: ImageChanges(removed=1, unchanged=19)} and changes.num_shards == 10
    assert preview(update=True, removed="keep").by_shard == {}
    with pytest.raises(SynthgenError, match="1 removed, 199 unchanged"):
        preview()
    assert everything == {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")}


def test_too_many_new_images_in_one_shard_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "MAX_GROWN_IMAGES", 50)
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files, shard_size=20)
    before = read_layer_files(tmp_path / "s")
    change(files, lambda content: add(content, *range(500, 531)))
    with pytest.raises(SynthgenError, match="51 images belong in one shard by their ids, and it takes 50 at most"):
        ingest_layer(tmp_path / "s", files, update=True)
    assert read_layer_files(tmp_path / "s") == before
    with pytest.raises(SynthgenError, match=r"and cannot be updated: .* 51 images belong in one shard"):
        ingest_layer(tmp_path / "s", files)


def test_an_incomplete_layer_of_an_earlier_file_cannot_be_updated(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files, shard_size=20)
    (tmp_path / "s/d/train/annotations/00003-of-00010.parquet").unlink()
    change(files, lambda content: move(content, 3))
    with pytest.raises(SynthgenError, match=r"has 9 of 10 shards, .* earlier version .* `synthgen rm d/train/annot"):
        ingest_layer(tmp_path / "s", files, update=True)


def test_a_shard_of_an_updated_layer_that_is_gone_or_another_is_written_again(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files, shard_size=20)
    path = tmp_path / "s/d/train/annotations/00000-of-00010.parquet"
    older = path.read_bytes()
    change(files, lambda content: move(content, 3))
    ingest_layer(tmp_path / "s", files, update=True)
    whole = read_layer_files(tmp_path / "s")
    for harm in (path.unlink, lambda: path.write_bytes(older)):
        harm()
        with pytest.raises(SynthgenError, match="lacks shards, or holds others than its last update wrote"):
            ingest_layer(tmp_path / "s", files)
        ingest_layer(tmp_path / "s", files, update=True)
        assert read_layer_files(tmp_path / "s") == whole


def test_a_damaged_record_is_a_sentence_and_can_be_deleted(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files, shard_size=20)
    change(files, lambda content: move(content, 3))
    ingest_layer(tmp_path / "s", files, update=True)
    whole = read_layer_files(tmp_path / "s")
    record = tmp_path / "s/d/train/annotations" / RECORD_NAME
    record.write_text("{")
    with pytest.raises(SynthgenError, match="is damaged; delete it, and ingest the dataset again with --update"):
        ingest_layer(tmp_path / "s", files, update=True)
    record.unlink()
    assert ingest_layer(tmp_path / "s", files, update=True).committed == 0
    assert read_layer_files(tmp_path / "s") == whole


def test_a_layer_made_in_another_way_is_not_updated(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files)
    change(files, lambda content: move(content, 3))
    with pytest.raises(SynthgenError, match=r"with crowds_as_objects None \(now True\)"):
        ingest_layer(tmp_path / "s", files, update=True, crowds_as_objects=True)


def test_kept_rows_keep_their_category_in_the_footer(tmp_path):
    files = write_annotations(tmp_path / "boxes.json", images=4, boxes=40)
    ingest_layer(tmp_path / "s", files)

    def edit(content: dict[str, Any]) -> None:
        remove(content, 0)
        move(content, 1)
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 4]
        content["categories"] = [c for c in content["categories"] if c["id"] != 4]

    change(files, edit)
    ingest_layer(tmp_path / "s", files, update=True, removed="keep")
    store = ShardStore(tmp_path / "s")
    [shard] = store.list_shards(*PLACE)
    footer = store.read_footer(shard) or {}
    assert footer["categories"] == ["c0", "c1", "c2", "c3", "c4"]
    flat = [a for sample in store.read_samples(shard) for a in sample.annotations]
    assert footer["counts"]["annotations"] == len(flat) and footer["counts"]["images"] == 4


def test_changed_categories_and_licences_arrive_in_the_footers_of_unchanged_rows(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files, shard_size=20)
    old = rows(tmp_path / "s")

    def edit(content: dict[str, Any]) -> None:
        content["categories"].append({"id": 5, "name": "new", "supercategory": "things"})
        content["licenses"] = [{"id": 1, "name": "free"}]
        move(content, 3)

    change(files, edit)
    report = ingest_layer(tmp_path / "s", files, update=True)
    assert report.changes is not None and report.changes.total == ImageChanges(changed=1, unchanged=199)
    assert len(report.changes.by_shard) == 10
    store = ShardStore(tmp_path / "s")
    ingest_layer(tmp_path / "calm", files, shard_size=20)
    for shard in store.list_shards(*PLACE):
        footer, calm = store.read_footer(shard) or {}, ShardStore(tmp_path / "calm").read_footer(shard) or {}
        assert footer["categories"] == calm["categories"] == ["c0", "c1", "c2", "c3", "c4", "new"]
        assert footer["category_records"] == calm["category_records"] and footer["licenses"] == calm["licenses"]
    new = rows(tmp_path / "s")
    assert [number for number in old if new[number] != old[number]] == [3]
    again = ingest_layer(tmp_path / "s", files, update=True)
    assert (again.committed, again.changes) == (0, None)


def test_images_that_were_kept_leave_on_request(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files)
    change(files, lambda content: remove(content, 5, 6))
    ingest_layer(tmp_path / "s", files, update=True, removed="keep")
    assert ingest_layer(tmp_path / "s", files).changes is None
    report = ingest_layer(tmp_path / "s", files, update=True, removed="drop")
    assert report.changes is not None and report.changes.total == ImageChanges(removed=2, unchanged=198)
    assert not rows(tmp_path / "s").keys() & {5, 6}
    assert ingest_layer(tmp_path / "s", files, update=True).changes is None


def test_the_ranges_of_ids_stay_over_updates(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path / "s", files, shard_size=20)
    folder = tmp_path / "s/d/train/annotations"
    change(files, lambda content: remove(content, 20, 21))
    ingest_layer(tmp_path / "s", files, update=True)
    record = read_update_record(folder)
    assert record is not None and list(record.first_ids) == list(range(20, 200, 20))
    change(files, lambda content: add(content, 20))
    ingest_layer(tmp_path / "s", files, update=True)
    store = ShardStore(tmp_path / "s")
    second = next(iter(store.read_samples(store.list_shards(*PLACE)[1])))
    assert second.image_id == 20
    write_update_record(folder, replace(record, digests=None))
    ingest_layer(tmp_path / "s", files, update=True)
    assert rows(tmp_path / "s")[20] == second


ids = st.lists(st.integers(0, 9), unique=True).map(sorted)
numbers = st.sampled_from([1.0, 2.0, math.nan])


@st.composite
def shards(draw: st.DrawFn) -> list[Sample]:
    return [
        Sample(n, f"k/{n}", f"{n}.jpg", 9, 9, (Annotation(draw(st.integers(0, 3)), (draw(numbers), 2, 3, 4), "c"),))
        for n in draw(ids)
    ]


@given(shards(), shards(), st.sampled_from(["drop", "keep"]))
def test_the_rows_after_an_update(old: list[Sample], new: list[Sample], removed: str) -> None:
    merged, changes = merge_rows(old, new, removed)
    before, now, after = ({s.image_id: s for s in some} for some in (old, new, merged))
    assert list(after) == sorted(now.keys() | before.keys() if removed == "keep" else now.keys())
    assert changes.added == len(now.keys() - before.keys()) and changes.removed == len(before.keys() - now.keys())
    assert changes.kept == (changes.removed if removed == "keep" else 0)
    assert changes.added + changes.changed + changes.unchanged == len(new)
    for number, sample in after.items():
        assert repr(without_ids(sample)) == repr(without_ids(now.get(number, before.get(number, sample))))
    same = [n for n in now.keys() & before.keys() if repr(without_ids(now[n])) == repr(without_ids(before[n]))]
    assert changes.unchanged == len(same) and all(after[n] is before[n] for n in same)
    again, nothing = merge_rows(merged, new, removed)
    assert repr(again) == repr(merged) and nothing.is_nothing


def test_what_an_older_release_did_not_store_is_no_change() -> None:
    box = Annotation(1, (1.0, 2.0, 3.0, 4.0), "c", category_id=5, area=11.5)
    new = Sample(1, "k", "1.jpg", 9, 9, (box,), license_id=3)
    older = replace(new, annotations=(replace(box, category_id=None, area=None),), license_id=None)
    rows, changes = merge_rows([older], [new], "drop")
    assert rows == [older] and changes == ImageChanges(unchanged=1)
    for other in (replace(new, license_id=4), replace(new, annotations=(replace(box, category_id=6),))):
        assert merge_rows([new], [other], "drop")[1] == ImageChanges(changed=1)
