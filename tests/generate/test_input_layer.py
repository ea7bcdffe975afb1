"""The layer that a job reads: which one it is, when it is made, and that it belongs to the current files."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import coco_dataset

from synthgen.errors import SynthgenError
from synthgen.generate.dataset_spec import DatasetSpec, resolve_dataset
from synthgen.generate.input_layer import (
    default_input_layer,
    describe_missing_input,
    ensure_input_layer,
    ingest_spec,
)
from synthgen.generate.job import Job
from synthgen.progress import NoProgress
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import Shard, ShardStore


@pytest.fixture
def spec(tmp_path: Path) -> DatasetSpec:
    path = coco_dataset.write_coco_dataset(tmp_path, images=4)
    return resolve_dataset("coco-json", "own", None, tmp_path, path, tmp_path / "photos")


def make_job(spec: DatasetSpec, store: Path, *, input_layer: str = "annotations") -> Job:
    return Job("masks", spec.name, spec.split, input_layer, "masks", "box_fill", store, spec.root / "photos")


def write_layer(store: Path, layer: str, footer: dict) -> None:
    default = {"fingerprint": layer, "categories": [], "counts": {"images": 1}, "recipe": {}}
    sample = Sample(1, "own/1", "0001.png", 72, 96, ())
    ShardStore(store).commit(Shard("own", "train", layer, 0, 1), [sample], {**default, **footer})


def test_a_missing_layer_is_described_then_made(spec, tmp_path):
    job = make_job(spec, tmp_path / "store")
    sentence = describe_missing_input(spec, job)
    size = (tmp_path / "boxes.json").stat().st_size / 1e6
    assert sentence.startswith("own/train/annotations is not there yet")
    assert f"from {tmp_path / 'boxes.json'} ({size:,.1f} MB)" in sentence
    assert not job.store.exists(), "describing makes nothing"
    ensure_input_layer(spec, job, open_progress=NoProgress)
    (shard,) = ShardStore(job.store).list_shards("own", "train", "annotations")
    assert len(list(ShardStore(job.store).read_samples(shard))) == 4
    assert describe_missing_input(spec, job) is None


def test_an_incomplete_layer_is_completed(spec, tmp_path):
    job = make_job(spec, tmp_path / "store")
    assert ingest_spec(spec, job.store, "annotations", shard_size=2, open_progress=NoProgress).shards == 2
    folder = ShardStore(job.store).layer_folder("own", "train", "annotations")
    lost = folder / "00001-of-00002.parquet"
    content = lost.read_bytes()
    lost.unlink()
    assert describe_missing_input(spec, job) is not None
    ensure_input_layer(spec, job, open_progress=NoProgress)
    assert lost.read_bytes() == content


def test_a_layer_of_other_files_is_refused(spec, tmp_path):
    job = make_job(spec, tmp_path / "store")
    ensure_input_layer(spec, job, open_progress=NoProgress)
    path = tmp_path / "boxes.json"
    path.write_text(path.read_text().replace('"bbox": [', '"bbox": [1', 1))
    with pytest.raises(SynthgenError, match=r"boxes\.json"):
        ensure_input_layer(spec, job, open_progress=NoProgress)


def test_a_complete_layer_needs_no_annotation_files(spec, tmp_path):
    job = make_job(spec, tmp_path / "store")
    ensure_input_layer(spec, job, open_progress=NoProgress)
    before = {path: path.read_bytes() for path in job.store.rglob("*.parquet")}
    (tmp_path / "boxes.json").unlink()
    ensure_input_layer(spec, job, open_progress=NoProgress)
    assert {path: path.read_bytes() for path in job.store.rglob("*.parquet")} == before


@pytest.mark.parametrize(
    ("stage", "command"),
    [("masks", "`synthgen masks ... --update`"), ("import", "the same `synthgen import-masks` again")],
)
def test_a_layer_below_changed_files_is_a_warning_that_names_the_command(spec, tmp_path, caplog, stage, command):
    job = make_job(spec, tmp_path / "store")
    ensure_input_layer(spec, job, open_progress=NoProgress)
    write_layer(job.store, "filled", {"parent": {"layer": "annotations"}, "recipe": {"stage": stage}})
    above = make_job(spec, job.store, input_layer="filled")
    ensure_input_layer(spec, above, open_progress=NoProgress)
    assert not caplog.text
    path = tmp_path / "boxes.json"
    path.write_text(path.read_text().replace('"bbox": [', '"bbox": [1', 1))
    ensure_input_layer(spec, above, open_progress=NoProgress)
    assert f"bring that layer up to date first, with {command}" in caplog.text


def test_a_layer_of_a_stage_is_never_made_here(spec, tmp_path):
    job = make_job(spec, tmp_path / "store", input_layer="filled")
    ensure_input_layer(spec, job, open_progress=NoProgress)
    assert describe_missing_input(spec, job) is None
    assert not job.store.exists()


def test_the_default_input_is_the_preferred_layer_if_it_exists(spec, tmp_path):
    assert default_input_layer(spec, tmp_path, "captions", preferred="masks") == "annotations"
    write_layer(tmp_path, "masks", {})
    assert default_input_layer(spec, tmp_path, "captions", preferred="masks") == "masks"


@pytest.mark.parametrize(
    ("footer", "layer"),
    [
        ({"parent": {"layer": "other"}}, "other"),
        ({}, "masks"),
        ({"parent": {"layer": 3}}, "masks"),
        ({"parent": None}, "masks"),
    ],
)
def test_a_started_layer_keeps_its_input(footer, layer, spec, tmp_path):
    write_layer(tmp_path, "masks", {})
    write_layer(tmp_path, "captions", footer)
    assert default_input_layer(spec, tmp_path, "captions", preferred="masks") == layer


def test_files_under_other_names_are_taken_if_the_user_says_so(tmp_path):
    path = coco_dataset.write_coco_dataset(tmp_path, images=2)
    for photo in sorted((tmp_path / "photos").iterdir()):
        photo.rename(photo.with_name(f"cb0618f6-{photo.name}"))
    names = []
    for match in (False, True):
        spec = resolve_dataset("coco-json", "own", None, tmp_path, path, tmp_path / "photos", match_names=match)
        store = tmp_path / f"store {match}"
        ensure_input_layer(spec, make_job(spec, store), open_progress=NoProgress)
        samples = ShardStore(store).read_samples(Shard("own", "train", "annotations", 0, 1))
        names.append([sample.file_name.startswith("cb0618f6-") for sample in samples])
    assert names == [[False, False], [True, True]]


@pytest.mark.parametrize("option", ["match_names", "crowds_as_objects"])
@pytest.mark.parametrize("first", [False, True])
def test_a_layer_that_was_made_without_an_option_is_not_used_with_it(tmp_path: Path, option: str, first: bool) -> None:
    path = coco_dataset.write_coco_dataset(tmp_path, images=2)
    for chosen in (first, not first):
        spec = resolve_dataset("coco-json", "own", None, tmp_path, path, tmp_path / "photos", **{option: chosen})
        job = make_job(spec, tmp_path / "store")
        if chosen == first:
            assert ensure_input_layer(spec, job, open_progress=NoProgress)
            assert not ensure_input_layer(spec, job, open_progress=NoProgress)
        else:
            with pytest.raises(SynthgenError, match=f"made {'with' if first else 'without'} --{option[:5]}"):
                ensure_input_layer(spec, job, open_progress=NoProgress)
