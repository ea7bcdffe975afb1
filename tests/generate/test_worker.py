"""The worker: every image has a result, single failures, errors of the source, unknown sizes, memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import coco_dataset
from fakes.mask_jobs import SIZE, do, layer_bytes, make_job, redden, rows, sample
from fakes.peak_memory import linux_only
from PIL import Image

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate import worker
from synthgen.generate.job import Job
from synthgen.generate.run import select_shards
from synthgen.generate.worker import Worker
from synthgen.images import prefetch
from synthgen.images.decode import MAX_IMAGE_PIXELS
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore


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


def test_batch_size_and_threads_change_no_byte(tmp_path: Path) -> None:
    one, two = make_job(tmp_path / "a"), make_job(tmp_path / "b", batch_size=1)
    do(one)
    do(two)
    assert one.fingerprint("x") == two.fingerprint("x")
    assert layer_bytes(one) == layer_bytes(two)


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


def test_where_the_segmenter_fails_the_images_are_not_blamed(tmp_path: Path) -> None:
    job = make_job(tmp_path, images=4, shards=1, plugin="fakes.failing_segmenter")
    for number in range(1, 5):
        redden(tmp_path, number)
    with pytest.raises(
        SynthgenError, match=r"4 of 4 images failed.*_log/.*options of fakes\.failing_segmenter"
    ) as caught:
        do(job)
    assert "--images" not in str(caught.value)


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


SHARD = Shard("world", "train", "masks", 0, 1)
TESTS = Path(__file__).parents[1]


def memory_job(folder: Path, height: int, width: int, *, images: int, **options: object) -> Job:
    """A job over images `0001.png`, ... below `folder`, with one small box each."""
    samples = [
        Sample(i, f"world/{i}", f"{i:04d}.png", height, width, (Annotation(i, (2.0, 2.0, 9.0, 9.0), "ball"),))
        for i in range(1, images + 1)
    ]
    footer = {"fingerprint": "parent", "categories": ["ball"], "counts": {"images": images}, "recipe": {}}
    ShardStore(folder / "store").commit(SHARD.in_layer("annotations"), samples, footer)
    return Job(
        "masks", "world", "train", "annotations", "masks", "box_fill", folder / "store", folder / "photos",
        plugins.complete_options("generate.segmenters", "box_fill", options),
    )  # fmt: skip


def test_where_an_image_fills_the_limit_the_one_before_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    job = memory_job(tmp_path, 72, 96, images=8)
    for module, limit in ((worker, "MAX_BATCH_BYTES"), (prefetch, "PREFETCH_BYTES")):
        monkeypatch.setattr(module, limit, 72 * 96 * 3 + 1)  # a little more than one image
    load, decoded, alive = prefetch.load_rgb, [], []

    def watched(*args: object) -> object:
        alive.append(sum(one() is not None for one in decoded))
        pixels = load(*args)
        decoded.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(prefetch, "load_rgb", watched)
    report = Worker(job).run(SHARD)
    assert report.error is None and report.masks == 8
    assert alive == [0] * 8


def test_ordinary_images_are_decoded_ahead_in_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=12)
    job = memory_job(tmp_path, 72, 96, images=12, batch_size=4)
    one = Worker(job)
    sizes, process = [], one.stage.process

    def watched(samples: list[Sample], images: list[object]) -> object:
        sizes.append(len(images))
        return process(samples, images)

    monkeypatch.setattr(one.stage, "process", watched)
    assert one.run(SHARD).masks == 12
    assert sizes == [4, 4, 4]


MEMORY = """
    import sys
    sys.path[:0] = [{tests!r}, {tests!r} + "/generate"]
    from pathlib import Path
    from fakes.peak_memory import peak_mib
    from test_worker import SHARD, Worker, memory_job
    report = Worker(memory_job(Path({root!r}), {side}, {side}, images=4)).run(SHARD)
    assert report.error is None and report.masks == 4, report
    print(peak_mib())
"""


@linux_only
@pytest.mark.slow
def test_the_largest_images_take_the_memory_of_one(tmp_path: Path) -> None:
    """Files of 174 kB in all. It was 3.5 GiB; one image is 0.5 GiB of RGB, and Pillow's copy comes on top."""
    side = int(MAX_IMAGE_PIXELS**0.5)
    (tmp_path / "photos").mkdir()
    Image.new("L", (side, side), 7).save(tmp_path / "photos" / "0001.png")
    content = (tmp_path / "photos" / "0001.png").read_bytes()
    for number in range(2, 5):
        (tmp_path / "photos" / f"{number:04d}.png").write_bytes(content)
    program = textwrap.dedent(MEMORY.format(tests=str(TESTS), root=str(tmp_path), side=side))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert 500 < float(done.stdout) < 1.5 * 870, f"{done.stdout.strip()} MiB"
