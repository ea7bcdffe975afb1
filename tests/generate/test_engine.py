"""The engine: which shards a job does, reproducible bytes, nothing is overwritten."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import misbehaving_segmenter, older_shards
from fakes.mask_jobs import do, layer_bytes, make_job, redden, rows, sample

from synthgen import plugins
from synthgen.cli import messages
from synthgen.errors import SynthgenError
from synthgen.generate import engine, worker
from synthgen.generate.batch_threads import BatchTimeoutError, HungRows, is_batch_running
from synthgen.generate.engine import pending_shards, run_in_process
from synthgen.generate.job import Job
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


#: The key of `misbehaving_segmenter.WRONG` or `.RAISED` -> the reason of the failed image 3.
MISBEHAVIOUR = {
    "size": "the mask of annotation 30 is 36 x 96, the image 72 x 96",
    "transposed": "the mask of annotation 30 is 96 x 72, the image 72 x 96",
    "partial_rle": "the RLE of annotation 30 is damaged (mask of 72 x 96: its runs cover 72 pixels, not 6912)",
    "no_rle_text": "the RLE of annotation 30 is damaged (mask of 72 x 96: not a COCO run-length text)",
    "text_counts": "the mask of annotation 30 is an Rle with counts of type str, not an Rle "
    "(synthgen.records.rle.encode_mask makes it)",
    "array": "the mask of annotation 30 is ndarray, not an Rle (synthgen.records.rle.encode_mask makes it)",
    "nan": "predicted_iou of annotation 30 is nan, not a finite number from 0 to 1",
    "inf": "stability_score of annotation 30 is inf, not a finite number from 0 to 1",
    "high": "predicted_iou of annotation 30 is 7.5, not a finite number from 0 to 1",
    "low": "sam_predicted_iou of annotation 30 is -0.5, not a finite number from 0 to 1",
    "text_score": "predicted_iou of annotation 30 is str, not a finite number from 0 to 1",
    "too_few": "the number of masks of an image is 1, not 2, one for each box",
    "too_many": "the number of masks of an image is 3, not 2, one for each box",
    "none": "it returned NoneType instead of a list of masks for an image",
    "tuples": "for annotation 30 it returned tuple, not a MaskPrediction",
    "system_exit": "it raised SystemExit",
    "system_exit_0": "it raised SystemExit: 0",
    "system_exit_130": "it raised SystemExit: 130",
    "generator_exit": "it raised GeneratorExit",
    "cancelled": "it raised CancelledError",
}


def test_every_misbehaviour_has_its_reason() -> None:
    assert MISBEHAVIOUR.keys() == misbehaving_segmenter.WRONG.keys() | misbehaving_segmenter.RAISED.keys()


@pytest.mark.parametrize("wrong", MISBEHAVIOUR)
def test_what_must_not_be_stored_fails_its_image_alone_and_is_cured_by_a_retry(tmp_path: Path, wrong: str) -> None:
    cured = tmp_path / "cured"
    name = "fakes.misbehaving_segmenter"
    job = replace(
        make_job(tmp_path, images=8, shards=2, plugin=name, wrong=wrong, checkpoint=str(cured)), max_error_share=0.3
    )
    redden(tmp_path, 3)
    tally = do(job)
    assert (tally.committed, tally.failed_images, tally.masks) == (2, 1, 14)
    footer = ShardStore(job.store).read_footer(Shard("world", "train", "masks", 0, 2))
    assert footer is not None
    reason = f"{name} failed ({MISBEHAVIOUR[wrong]})"
    assert footer["failed"] == [{"row": 2, "image_id": 3, "file_name": "0003.png", "error": reason}]
    done = rows(job)
    assert [a.flags for a in done[2].annotations[:2]] == [("segmenter_failed",), ("clipped", "segmenter_failed")]
    assert all(a.segmentation is not None for i, row in enumerate(done) if i != 2 for a in row.annotations[:2])

    cured.touch()
    again = replace(job, retry_failed=True)
    assert [shard.index for shard in select_shards(again)] == [0]
    assert do(again).failed_images == 0
    healthy = make_job(tmp_path / "healthy", images=8, shards=2, plugin=name, wrong=wrong, checkpoint=str(cured))
    redden(tmp_path / "healthy", 3)
    do(healthy)
    assert layer_bytes(job) == layer_bytes(healthy)


def hanging_job(folder: Path, *, batch_size: int = 4, **shape: int) -> Job:
    """A job whose segmenter hangs on red images while there is no file `cured`."""
    given = {"wrong": "hang", "checkpoint": str(folder / "cured"), "batch_size": batch_size}
    job = make_job(folder, plugin="fakes.misbehaving_segmenter", **shape, **given)
    return replace(job, timeout=0.6, max_error_share=0.3)


@pytest.fixture
def cure(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Ends all hangs, at the latest after the test."""
    yield (tmp_path / "cured").touch
    (tmp_path / "cured").touch()
    wait_until_idle()


def wait_until_idle() -> None:
    end = time.monotonic() + 10
    while is_batch_running() and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_batch_running()


def test_a_hang_fails_its_shard_and_a_new_worker_makes_the_others(
    tmp_path: Path, cure: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = hanging_job(tmp_path, images=16, shards=4)
    redden(tmp_path, 6)
    redden(tmp_path, 16)
    built: list[Worker] = []

    def build(job: Job) -> Worker:
        built.append(Worker(job))
        return built[-1]

    monkeypatch.setattr(engine, "Worker", build)
    tally = do(job)
    assert (tally.committed, tally.images) == (2, 8)
    assert [error.partition("; nothing of it was committed")[0] for error in tally.errors] == [
        f"world/train/masks/{shard}: fakes.misbehaving_segmenter did not answer within 0.6 s for {image} and 3 more"
        for shard, image in (("00001-of-00004", "0005.png"), ("00003-of-00004", "0013.png"))
    ]
    assert len(built) == 2  # the last shard needs no third
    assert sorted(layer_bytes(job)) == ["00000-of-00004.parquet", "00002-of-00004.parquet"]

    cure()
    assert do(job).committed == 2
    plain = replace(hanging_job(tmp_path / "plain", images=16, shards=4), timeout=None)
    do(plain)
    assert layer_bytes(job) == layer_bytes(plain), "the timeout is in no recipe and no byte"


def test_after_hangs_in_a_row_the_rest_is_not_tried(tmp_path: Path, cure: Callable[[], None]) -> None:
    job = hanging_job(tmp_path, images=14, shards=7)
    for number in (1, *range(5, 15)):  # shards 0 and 2 to 6
        redden(tmp_path, number)
    reports = list(run_in_process(job, pending_shards(job)))
    told = [str(report.error).partition(": ")[2][:26] for report in reports]
    assert told == [
        *("fakes.misbehaving_segmente", "", *["fakes.misbehaving_segmente"] * 3),
        *["not tried, because fakes.m"] * 2,
    ]
    assert [report.shard.index for report in reports] == list(range(7))


def test_a_worker_leaves_out_an_image_that_hung_alone(tmp_path: Path, cure: Callable[[], None]) -> None:
    """As the engine of a cluster does it: a new worker after each hang."""
    job = hanging_job(tmp_path, images=8, shards=1)
    redden(tmp_path, 3)
    (shard,) = pending_shards(job)
    hung = HungRows()
    with pytest.raises(BatchTimeoutError, match=r"for 0001.png and 3 more$") as caught:
        Worker(job).run(shard, hung=hung)
    hung = hung.after(caught.value)
    assert hung.suspected == {0, 1, 2, 3}
    with pytest.raises(BatchTimeoutError, match=r"for 0003.png$") as caught:
        Worker(job).run(shard, hung=hung)
    hung = hung.after(caught.value)
    assert (hung.suspected, hung.proven) == ({0, 1, 3}, {2})
    seen: list[int] = []
    report = Worker(job).run(shard, seen.append, hung=hung)
    assert report.error is None
    assert sum(seen) == 7
    reason = "fakes.misbehaving_segmenter failed (did not answer within 0.6 s)"
    assert report.failed == ({"row": 2, "image_id": 3, "file_name": "0003.png", "error": reason},)
    assert report.masks == 14
    assert [a.flags for a in rows(job)[2].annotations[:2]] == [("segmenter_failed",), ("clipped", "segmenter_failed")]

    # A retry meets the same image again, alone or not.
    again = replace(job, retry_failed=True)
    with pytest.raises(BatchTimeoutError, match=r"for 0003.png$"):
        Worker(again).run(shard)
    cure()
    assert do(again).failed_images == 0
    healthy = hanging_job(tmp_path / "healthy", images=8, shards=1)
    do(healthy)
    assert layer_bytes(job) == layer_bytes(healthy)


def test_an_image_that_hangs_in_every_company_is_named_with_it(tmp_path: Path, cure: Callable[[], None]) -> None:
    """Batches of one image, two in flight: the second is suspected too, and cleared when it runs alone."""
    job = hanging_job(tmp_path, images=4, shards=1, batch_size=1)
    redden(tmp_path, 1)
    redden(tmp_path, 2)
    (shard,) = pending_shards(job)
    with pytest.raises(BatchTimeoutError) as caught:
        Worker(job).run(shard)
    assert caught.value.rows == (0, 1)


def test_where_images_cannot_be_read_the_running_batches_end_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next shard must not begin beside a batch of this one."""
    job = make_job(tmp_path, images=8, shards=1, plugin="fakes.slow_segmenter", seconds=0.1, batch_size=2)
    real = worker.prefetch_images

    def broken(*args: object, **more: object) -> Iterator[object]:
        found = real(*args, **more)  # type: ignore[arg-type]
        yield from itertools.islice(found, 4)
        raise MemoryError("no room")

    monkeypatch.setattr(worker, "prefetch_images", broken)
    report = Worker(job).run(pending_shards(job)[0])
    assert not is_batch_running()
    assert "the memory is used up" in str(report.error)


# --- stale shards ----------------------------------------------------------------------------------------------------


def caption_job(job: Job) -> Job:
    """Captions from the masks of a job."""
    return replace(
        job,
        stage="captions",
        input_layer="masks",
        layer="captions",
        plugin="attributes",
        options=plugins.complete_options("generate.captioners", "attributes", {}),
        stage_options=plugins.load_plugin("generate.stages", "captions").resolve_options({}),
    )


@pytest.mark.parametrize("retry", [False, True])
def test_a_repaired_input_makes_the_layer_above_it_stale(tmp_path: Path, retry: bool) -> None:
    """Two images are unreadable, captions are made of their masks, the images are repaired: nothing is lost."""
    job = replace(make_job(tmp_path), max_error_share=0.3)
    captions = caption_job(job)
    photos = tmp_path / "photos"
    for number in (2, 11):
        (photos / f"{number:04d}.png").rename(photos / f"{number}.away")
    assert do(job).failed_images == 2
    do(captions)
    first = layer_bytes(captions)
    assert select_shards(captions) == []
    for number in (2, 11):
        (photos / f"{number}.away").rename(photos / f"{number:04d}.png")
    do(replace(job, retry_failed=True))
    again = replace(captions, retry_failed=retry)
    assert [shard.index for shard in select_shards(again)] == [0, 2]
    do(again)
    assert select_shards(again) == select_shards(captions) == []
    calm = make_job(tmp_path / "calm")
    do(calm)
    do(caption_job(calm))
    assert layer_bytes(captions) == layer_bytes(caption_job(calm))
    assert layer_bytes(captions)["00001-of-00003.parquet"] == first["00001-of-00003.parquet"]
    told = (tmp_path / "store/world/train/captions/_log/run.log").read_text()
    assert "captions/00002-of-00003 is made again: its input world/train/masks/00002-of-00003 has changed" in told


def test_the_plan_says_what_is_stale(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    do(job)
    assert not any("again" in line for line in messages.format_plan(job, pending_shards(replace(job, layer="other"))))
    store = ShardStore(job.store)
    shard = Shard("world", "train", "annotations", 1, 3)
    store.commit(shard, list(store.read_samples(shard))[::-1], store.read_footer(shard) or {})
    lines = list(messages.format_plan(job, select_shards(job)))
    assert lines[0].startswith("world/train/masks: 1 of 3 shards to do")
    assert lines[1] == "  1 shard again: the layer annotations has changed since"


def test_an_input_that_is_written_again_with_the_same_rows_makes_nothing_stale(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    do(job)
    store = ShardStore(job.store)
    for shard in store.list_shards("world", "train", "annotations"):
        footer = {**(store.read_footer(shard) or {}), "synthgen": "9.9"}
        store.commit(shard, list(store.read_samples(shard)), footer)
    assert select_shards(job) == []


def strip(job: Job, layer: str) -> None:
    """Make the shards of a layer those of an older release."""
    store = ShardStore(job.store)
    older_shards.make_older(store, store.list_shards(job.dataset, job.split, layer))


def test_layers_of_an_older_release_are_not_stale_and_their_digests_are_computed(tmp_path: Path) -> None:
    """The bytes of a layer do not depend on whether its input says its digest."""
    job = make_job(tmp_path)
    calm = make_job(tmp_path / "calm")
    do(calm)
    strip(job, "annotations")
    do(job)
    assert layer_bytes(job) == layer_bytes(calm)
    assert select_shards(job) == []
    strip(job, "masks")
    store = ShardStore(job.store)
    shard = Shard("world", "train", "annotations", 1, 3)
    store.commit(shard, list(store.read_samples(shard))[::-1], store.read_footer(shard) or {})
    assert select_shards(job) == []


def test_a_retry_does_not_claim_what_older_rows_were_made_from(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path), max_error_share=0.3)
    (tmp_path / "photos" / "0002.png").rename(tmp_path / "2.png")
    do(job)
    strip(job, "masks")
    (tmp_path / "2.png").rename(tmp_path / "photos" / "0002.png")
    assert do(replace(job, retry_failed=True)).committed == 1
    parents = [
        (ShardStore(job.store).read_footer(Shard("world", "train", "masks", index, 3)) or {})["parent"]
        for index in range(3)
    ]
    assert [parent.keys() for parent in parents] == [{"layer", "fingerprint"}] * 3


@pytest.mark.timeout(60)
def test_what_is_no_file_stops_a_job_before_it_begins(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    folder = ShardStore(job.store).layer_folder("world", "train", "masks")
    folder.mkdir()
    os.mkfifo(folder / "00099-of-00003.parquet")
    assert len(select_shards(job)) == 3
    os.mkfifo(folder / "00001-of-00003.parquet")
    with pytest.raises(SynthgenError, match=r"00001-of-00003.parquet: it is a FIFO; move it out of the store"):
        select_shards(job)


def test_the_report_of_a_hang_is_not_lost_if_no_new_worker_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class FailingWorker(Worker):
        def __init__(self, job: Job) -> None:
            made.append(job)
            if len(made) > 1:
                raise SynthgenError("the GPU is lost; restart the machine")
            super().__init__(job)

        def process(self, shard: Shard, *_: object) -> None:
            raise BatchTimeoutError("it did not answer", (0,))

    monkeypatch.setattr(engine, "Worker", FailingWorker)
    job = make_job(tmp_path)
    reports = []
    with pytest.raises(SynthgenError, match="the GPU is lost"):
        for report in run_in_process(job, select_shards(job)):
            reports.append(report)
    assert [str(report.shard) for report in reports] == ["world/train/masks/00000-of-00003"]
