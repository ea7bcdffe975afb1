"""The engine: every image has a result, single failures, reproducible bytes, nothing is overwritten."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import coco_dataset, misbehaving_segmenter
from PIL import Image

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate import engine, worker
from synthgen.generate.batch_threads import BatchTimeoutError, HungRows, is_batch_running
from synthgen.generate.engine import pending_shards, run_in_process
from synthgen.generate.job import Job
from synthgen.generate.run import run_job, select_shards
from synthgen.generate.worker import Worker
from synthgen.records.recipe import fingerprint
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore

SIZE = (72, 96)


def make_job(folder: Path, *, images: int = 12, shards: int = 3, plugin: str = "box_fill", **given: object) -> Job:
    """An ingested world of `images` images in `shards` shards, and the job that fills its masks."""
    if not (folder / "boxes.json").exists():
        coco_dataset.write_coco_dataset(folder, images=images)
        store = ShardStore(folder / "store")
        each = images // shards
        for index in range(shards):
            samples = [sample(number) for number in range(index * each + 1, (index + 1) * each + 1)]
            footer = {"fingerprint": "parent", "categories": ["ball"], "counts": {"images": each}, "recipe": {}}
            store.commit(Shard("world", "train", "annotations", index, shards), samples, footer)
    options = plugins.complete_options("generate.segmenters", plugin, given)
    return Job(
        stage="masks",
        dataset="world",
        split="train",
        input_layer="annotations",
        layer="masks",
        plugin=plugin,
        options=options,
        store=folder / "store",
        image_folder=folder / "photos",
    )


def sample(number: int) -> Sample:
    boxes = (
        Annotation(number * 10, (5.0, 6.0, 20.0, 30.0), "ball"),
        Annotation(number * 10 + 1, (50.0, 40.0, 60.0, 20.0), "ball", flags=("clipped",)),
        Annotation(number * 10 + 2, (0.0, 0.0, 90.0, 70.0), "coin", iscrowd=True, flags=("crowd",)),
        Annotation(number * 10 + 3, (9.0, 9.0, 0.0, 5.0), "coin", flags=("degenerate",)),
    )
    lists = ((), ("cat", "dog"), None)[number % 3], ("coin",) * (number % 2)
    return Sample(number, f"world/{number}", f"{number:04d}.png", *SIZE, boxes, None, *lists)


def do(job: Job, **more: object) -> object:
    return run_job(job, select_shards(job), run_in_process, **more)  # type: ignore[arg-type]


def layer_bytes(job: Job) -> dict[str, bytes]:
    folder = ShardStore(job.store).layer_folder(job.dataset, job.split, job.layer)
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def rows(job: Job) -> list[Sample]:
    store = ShardStore(job.store)
    return [s for shard in store.list_shards(job.dataset, job.split, job.layer) for s in store.read_samples(shard)]


def redden(folder: Path, number: int) -> None:
    path = folder / "photos" / f"{number:04d}.png"
    picture = Image.open(path).convert("RGB")
    picture.putpixel((0, 0), (255, 0, 0))
    picture.save(path)


def test_every_annotation_is_answered(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    tally = do(job)
    assert (tally.committed, tally.images, tally.annotations, tally.masks) == (3, 12, 48, 24)
    done = rows(job)
    assert [s.image_id for s in done] == list(range(1, 13))
    for row in done:
        assert [a.segmentation is not None for a in row.annotations] == [True, True, False, False]
        assert [a.bbox for a in row.annotations] == [a.bbox for a in sample(row.image_id).annotations]
        assert row.error is None


def test_same_job_same_bytes_and_a_rerun_does_nothing(tmp_path: Path) -> None:
    one, two = make_job(tmp_path / "a"), make_job(tmp_path / "b")
    do(one)
    do(two)
    assert layer_bytes(one) == layer_bytes(two)
    assert len(layer_bytes(one)) == 3
    assert select_shards(one) == []


def test_batch_size_and_threads_change_no_byte(tmp_path: Path) -> None:
    one, two = make_job(tmp_path / "a"), make_job(tmp_path / "b", batch_size=1)
    do(one)
    do(two)
    assert one.fingerprint("x") == two.fingerprint("x")
    assert layer_bytes(one) == layer_bytes(two)


def test_parts_are_disjoint_and_together_whole(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    first, second = pending_shards(job, part=(0, 2)), pending_shards(job, part=(1, 2))
    assert not set(first) & set(second)
    assert sorted(first + second) == pending_shards(job)
    run_job(job, first, run_in_process, part=(0, 2))
    assert pending_shards(job, part=(0, 2)) == []
    assert pending_shards(job, part=(1, 2)) == second  # parts do not shift as shards are committed


def test_a_missing_image_is_a_row_with_its_reason(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path), max_error_share=0.5)
    (tmp_path / "photos" / "0003.png").unlink()
    tally = do(job)
    row = rows(job)[2]
    assert row.error == "no file 0003.png below the image folder"
    assert len(row.annotations) == 4
    assert tally.failed_images == 1
    footer = ShardStore(job.store).read_footer(Shard("world", "train", "masks", 0, 3))
    assert footer is not None
    assert footer["counts"]["errors"] == 1
    assert footer["failed"] == [{"row": 2, "image_id": 3, "file_name": "0003.png", "error": row.error}]


def test_a_wrong_image_folder_commits_nothing(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path), image_folder=tmp_path / "elsewhere")
    with pytest.raises(SynthgenError, match=r"4 of 4 images failed.*--images"):
        do(job)
    assert layer_bytes(job) == {}


def test_the_frames_of_another_video_are_not_masked_as_these(tmp_path: Path) -> None:
    """Same names and same sizes: only the folder tells that they are other images."""
    job = make_job(tmp_path)
    store = ShardStore(job.store)
    for shard in store.list_shards("world", "train", "annotations"):
        moved = [replace(s, file_name=f"video{s.image_id % 2}/{s.file_name}") for s in store.read_samples(shard)]
        store.commit(shard, moved, store.read_footer(shard) or {})
    (tmp_path / "photos").rename(tmp_path / "video0")
    wrong = replace(job, image_folder=tmp_path / "video0")
    with pytest.raises(SynthgenError, match=r"no file video1/0001.png .*--images"):
        do(wrong)
    assert layer_bytes(job) == {}


@pytest.mark.parametrize(
    ("images", "lost", "share", "committed"),
    [
        (20, 1, 0.05, True),  # five percent, and not more
        (20, 2, 0.05, False),
        (19, 1, 0.05, False),
        (100, 29, 0.29, True),  # 0.29 * 100 < 29
        (100, 30, 0.29, False),
        (4, 1, 0.0, False),
        (4, 4, 1.0, True),
    ],
)
def test_the_share_of_failed_images_is_exact(
    tmp_path: Path, images: int, lost: int, share: float, committed: bool
) -> None:
    job = replace(make_job(tmp_path, images=images, shards=1), max_error_share=share)
    for number in range(1, lost + 1):
        (tmp_path / "photos" / f"{number:04d}.png").unlink()
    if committed:
        assert do(job).failed_images == lost
    else:
        with pytest.raises(SynthgenError, match=f"{lost} of {images} images failed, more than {share:.0%}"):
            do(job)
    assert bool(layer_bytes(job)) == committed


def test_errors_of_the_source_do_not_dilute_those_of_the_images(tmp_path: Path) -> None:
    """A wrong folder loses the two images that the source did give: all of them, not 2 of 40."""
    job = replace(make_job(tmp_path, images=40, shards=1), image_folder=tmp_path)
    store = ShardStore(job.store)
    shard = Shard("world", "train", "annotations", 0, 1)
    samples = [s if s.image_id % 20 == 0 else replace(s, error="no name") for s in store.read_samples(shard)]
    store.commit(shard, samples, store.read_footer(shard) or {})
    with pytest.raises(SynthgenError, match="2 of 2 images failed"):
        do(job)
    assert layer_bytes(job) == {}
    # A retry counts against all that the stage had, not against the few that it tries again.
    right = replace(job, image_folder=tmp_path / "photos", max_error_share=0.5)
    (tmp_path / "photos" / "0020.png").unlink()
    assert do(right).failed_images == 1
    again = replace(right, retry_failed=True)
    assert do(again).failed_images == 1


def test_one_bad_shard_does_not_stop_the_others(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    (tmp_path / "photos" / "0005.png").write_bytes(b"no image")
    tally = do(job)
    assert tally.committed == 2
    assert len(tally.errors) == 1
    assert "masks/00001-of-00003" in tally.errors[0]
    assert "0005.png" in tally.errors[0]
    assert sorted(layer_bytes(job)) == ["00000-of-00003.parquet", "00002-of-00003.parquet"]


def test_a_poisoned_image_fails_alone_and_is_cured_by_a_retry(tmp_path: Path) -> None:
    recovery_file = tmp_path / "recovered"
    redden_me = make_job(tmp_path, plugin="fakes.failing_segmenter", recovery_file=str(recovery_file))
    redden(tmp_path, 6)
    job = replace(redden_me, max_error_share=0.3)
    tally = do(job)
    assert tally.failed_images == 1
    sick = rows(job)[5]
    assert sick.error is None  # the photograph is fine; its objects are not
    assert [a.flags for a in sick.annotations] == [
        ("segmenter_failed",),
        ("clipped", "segmenter_failed"),
        ("crowd",),
        ("degenerate",),
    ]
    assert select_shards(job) == []
    again = replace(job, retry_failed=True)
    assert [shard.index for shard in select_shards(again)] == [1]

    recovery_file.touch()
    assert do(again).failed_images == 0
    assert select_shards(again) == []
    # The retried layer is, byte for byte, that of a run in which nothing failed.
    healthy = make_job(tmp_path / "healthy", plugin="fakes.failing_segmenter", recovery_file=str(recovery_file))
    redden(tmp_path / "healthy", 6)
    do(replace(healthy, max_error_share=0.3))
    assert layer_bytes(job) == layer_bytes(healthy)


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
    assert "MemoryError: no room" in str(report.error)


def test_where_the_segmenter_fails_the_images_are_not_blamed(tmp_path: Path) -> None:
    job = make_job(tmp_path, images=4, shards=1, plugin="fakes.failing_segmenter")
    for number in range(1, 5):
        redden(tmp_path, number)
    with pytest.raises(
        SynthgenError, match=r"4 of 4 images failed.*_log/.*options of fakes\.failing_segmenter"
    ) as caught:
        do(job)
    assert "--images" not in str(caught.value)


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


def test_errors_that_came_in_are_carried_through(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    store = ShardStore(job.store)
    shard = Shard("world", "train", "annotations", 2, 3)
    samples = [replace(s, error="the file lists it twice") if s.image_id == 9 else s for s in store.read_samples(shard)]
    store.commit(shard, samples, store.read_footer(shard) or {})
    assert do(job).failed_images == 0
    row = next(s for s in rows(job) if s.image_id == 9)
    assert row.error == "the file lists it twice"
    assert all(a.segmentation is None for a in row.annotations)


def test_unknown_sizes_are_filled_in_and_audited(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    store = ShardStore(job.store)
    shard = Shard("world", "train", "annotations", 0, 3)
    far = Annotation(99, (200.0, 0.0, 10.0, 10.0), "ball")
    samples = [
        replace(s, height=0, width=0, annotations=(*(replace(a, flags=()) for a in s.annotations[:2]), far))
        for s in store.read_samples(shard)
    ]
    store.commit(shard, samples, store.read_footer(shard) or {})
    do(job)
    for row in rows(job)[:4]:
        assert (row.height, row.width) == SIZE
        assert [a.flags for a in row.annotations] == [(), ("clipped",), ("outside",)]
        assert [a.segmentation is not None for a in row.annotations] == [True, True, False]


def test_the_diary_counts_what_happened(tmp_path: Path) -> None:
    import json

    job = make_job(tmp_path)
    (tmp_path / "photos" / "0005.png").unlink()
    do(job)
    folder = tmp_path / "store/world/train/masks/_log"
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [m["masks"] for m in metrics] == [8, 0, 8]
    assert [m["error"] is None for m in metrics] == [True, False, True]
    failures = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    assert [f["shard"] for f in failures] == ["world/train/masks/00001-of-00003"]
    status = json.loads((folder / "status.json").read_text())
    assert (status["committed"], status["failed"], status["masks"]) == (2, 1, 16)


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


def test_a_recipe_holds_no_place(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    text = str(job.recipe())
    assert str(tmp_path) not in text
    assert "batch_size" not in text
    assert job.fingerprint("x") == fingerprint({**job.recipe(), "parent": "x"})
    assert job.fingerprint("x") != job.fingerprint("y")


def test_a_stage_changes_nothing_of_an_image_but_its_annotations(tmp_path: Path) -> None:
    """Also of one that cannot be read: there, the error."""
    job = make_job(tmp_path)
    (tmp_path / "photos" / "0005.png").unlink()
    do(replace(job, max_error_share=0.5))
    done = rows(job)
    assert [replace(one, annotations=(), error=None) for one in done] == [
        replace(sample(number), annotations=()) for number in range(1, 13)
    ]
    assert [one.image_id for one in done if one.error] == [5]
