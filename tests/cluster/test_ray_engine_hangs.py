"""The cluster's engine where a model hangs, with a pool whose workers are in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import coco_dataset
from PIL import Image

from synthgen.formats.readers import coco_json
from synthgen.generate.batch_threads import NONE_HUNG, BatchTimeoutError, HungRows
from synthgen.generate.engine import pending_shards, run_in_process
from synthgen.generate.job import Job
from synthgen.generate.worker import Worker
from synthgen.ingest.ingest import ingest
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import Shard, ShardStore

engine = pytest.importorskip("synthgen.cluster.ray_engine", reason="no Ray here")


class PoolHere:
    """A pool of one worker, which runs when it is polled. `started` is the number of workers."""

    started = 0

    def __init__(self, job: Job, *_: object) -> None:
        self.job = job
        self.call: tuple[Worker, Shard | None, HungRows] | None = None

    @property
    def is_busy(self) -> bool:
        return self.call is not None and self.call[1] is not None

    def scale_up(self, pending_shards: int) -> None:
        if self.call is None and pending_shards:
            PoolHere.started += 1
            self.call = Worker(self.job), None, NONE_HUNG

    def assign(self, worker: Worker, shard: Shard | None, hung: HungRows = NONE_HUNG) -> None:
        self.call = None if shard is None else (worker, shard, hung)

    def poll(self) -> Iterator[tuple[Worker, Shard | None, Any]]:
        assert self.call is not None
        (worker, shard, hung), self.call = self.call, None
        try:
            yield worker, shard, None if shard is None else worker.run(shard, hung=hung)
        except BatchTimeoutError as why:
            yield worker, shard, why

    def close(self) -> None:
        assert self.call is None


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Job]]:
    """A job of 3 shards of 6 images, whose segmenter hangs on some until the end of the test."""
    monkeypatch.setattr(engine, "WorkerPool", PoolHere)
    monkeypatch.setattr(engine.connection, "connect", lambda: None)
    monkeypatch.setattr(PoolHere, "started", 0)
    cured = tmp_path / "cured"

    def make(*red: int) -> Job:
        files = coco_json.files(tmp_path, "train", coco_dataset.write_coco_dataset(tmp_path, images=18))
        store = ShardStore(tmp_path / "store")
        ingest(store, coco_json, files, name="world", split="train", layer="annotations", shard_size=6)
        for number in red:
            path = tmp_path / f"photos/{number:04d}.png"
            picture = Image.open(path)
            picture.putpixel((0, 0), (255, 0, 0))
            picture.save(path)
        return Job(
            *("masks", "world", "train", "annotations", "masks", "fakes.misbehaving_segmenter"),
            store=tmp_path / "store",
            image_folder=tmp_path / "photos",
            options={"batch_size": 2, "wrong": "hang", "checkpoint": str(cured)},
            max_error_share=0.4,
            timeout=0.6,
        )

    yield make
    cured.touch()


def rows(job: Job) -> dict[int, Sample]:
    store = ShardStore(job.store)
    return {
        s.image_id: s for shard in store.list_shards("world", "train", job.layer) for s in store.read_samples(shard)
    }


def test_images_that_hang_become_failed_rows_and_the_others_are_kept(make_job, caplog):
    job = make_job(8, 10)
    with caplog.at_level(logging.WARNING, "synthgen.cluster"):
        reports = list(engine.run_on_cluster(job, pending_shards(job)))
    assert [report.error for report in reports] == [None] * 3
    assert [report.shard.index for report in reports] == [0, 2, 1]
    told = "fakes.misbehaving_segmenter did not answer within 0.6 s"
    assert [(row["file_name"], row["error"]) for row in reports[2].failed] == [
        (f"{number:04d}.png", f"fakes.misbehaving_segmenter failed ({told.partition(' ')[2]})") for number in (8, 10)
    ]
    shard = "world/train/masks/00001-of-00003"
    assert [record.message for record in caplog.records] == [
        f"{shard}: {told} for 0007.png and 3 more; each is run alone",
        f"{shard}: {told} for 0008.png; it failed",
        f"{shard}: {told} for 0010.png; it failed",
    ]
    assert PoolHere.started == 4  # the first, and one after each hang
    made = rows(job)
    # A run without hangs differs in the two images, and in nothing else.
    Path(job.options["checkpoint"]).touch()
    calm = replace(job, layer="calm")
    assert not [report for report in run_in_process(calm, pending_shards(calm)) if report.error or report.failed]
    assert [number for number, row in rows(calm).items() if made[number] != row] == [8, 10]
    assert all("segmenter_failed" in a.flags for number in (8, 10) for a in made[number].annotations)


def test_a_shard_that_always_hangs_is_given_up(make_job, monkeypatch):
    monkeypatch.setattr(engine, "MAX_HANGS_PER_SHARD", 3)
    job = make_job(*range(7, 13))
    reports = {report.shard.index: report for report in engine.run_on_cluster(job, pending_shards(job))}
    assert [reports[i].error is None for i in range(3)] == [True, False, True]
    assert str(reports[1].error).startswith(
        "world/train/masks/00001-of-00003: fakes.misbehaving_segmenter did not answer"
    )
    assert (
        "; it did not 3 times, and nothing of this shard was committed; allow more with --timeout" in reports[1].error
    )
    assert PoolHere.started == 3
    assert len(rows(job)) == 12
