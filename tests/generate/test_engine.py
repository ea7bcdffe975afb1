"""The engine: which shards a job does, reproducible bytes, nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.mask_jobs import do, layer_bytes, make_job, sample

from synthgen.errors import SynthgenError
from synthgen.generate.engine import pending_shards, run_in_process
from synthgen.generate.run import run_job, select_shards
from synthgen.generate.worker import Worker
from synthgen.storage.shard_store import Shard, ShardStore


def test_same_job_same_bytes_and_a_rerun_does_nothing(tmp_path: Path) -> None:
    one, two = make_job(tmp_path / "a"), make_job(tmp_path / "b")
    do(one)
    do(two)
    assert layer_bytes(one) == layer_bytes(two)
    assert len(layer_bytes(one)) == 3
    assert select_shards(one) == []


def test_parts_are_disjoint_and_together_whole(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    first, second = pending_shards(job, part=(0, 2)), pending_shards(job, part=(1, 2))
    assert not set(first) & set(second)
    assert sorted(first + second) == pending_shards(job)
    run_job(job, first, run_in_process, part=(0, 2))
    assert pending_shards(job, part=(0, 2)) == []
    assert pending_shards(job, part=(1, 2)) == second  # parts do not shift as shards are committed


def test_one_bad_shard_does_not_stop_the_others(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    (tmp_path / "photos" / "0005.png").write_bytes(b"no image")
    tally = do(job)
    assert tally.committed == 2
    assert len(tally.errors) == 1
    assert "masks/00001-of-00003" in tally.errors[0]
    assert "0005.png" in tally.errors[0]
    assert sorted(layer_bytes(job)) == ["00000-of-00003.parquet", "00002-of-00003.parquet"]


def test_a_foreign_recipe_is_refused_with_what_to_do(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    do(job)
    before = layer_bytes(job)
    other = make_job(tmp_path, plugin="fakes.slow_segmenter")
    with pytest.raises(
        SynthgenError, match=r"masks/00000-of-00003 was made with box_fill; this job says fakes.slow_segmenter.*--layer"
    ):
        select_shards(other)
    assert layer_bytes(job) == before


def test_a_changed_input_layer_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    do(job)
    store = ShardStore(job.store)
    shard = Shard("world", "train", "annotations", 0, 3)
    footer = dict(store.read_footer(shard) or {})
    store.commit(shard, list(store.read_samples(shard)), {**footer, "fingerprint": "another"})
    with pytest.raises(SynthgenError, match="another version of the layer 'annotations'"):
        select_shards(job)


def test_an_incomplete_input_layer_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    (tmp_path / "store/world/train/annotations/00001-of-00003.parquet").unlink()
    with pytest.raises(SynthgenError, match="2 of 3 shards"):
        pending_shards(job)


def test_an_output_cut_by_another_plan_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    ShardStore(job.store).commit(Shard("world", "train", "masks", 0, 7), [sample(1)], {"fingerprint": "x"})
    with pytest.raises(SynthgenError, match="another plan"):
        pending_shards(job)


def test_more_workers_than_one_point_to_ray(tmp_path: Path) -> None:
    with pytest.raises(SynthgenError, match="needs Ray"):
        list(run_in_process(make_job(tmp_path), [], workers=2))


def test_a_damaged_input_shard_fails_alone(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    todo = pending_shards(job)
    (tmp_path / "store/world/train/annotations/00001-of-00003.parquet").write_bytes(b"PAR1 rubbish PAR1")
    reports = list(run_in_process(job, todo))
    assert [report.error is None for report in reports] == [True, False, True]
    assert "annotations/00001-of-00003.parquet" in str(reports[1].error)
    assert not reports[1].fatal
    assert sorted(layer_bytes(job)) == ["00000-of-00003.parquet", "00002-of-00003.parquet"]
    assert Worker(job).run(todo[1]).error == reports[1].error  # a value, not an exception
