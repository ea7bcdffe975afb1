"""The engine: every image has a result, single failures, reproducible bytes, nothing is overwritten."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import coco_dataset, older_shards
from PIL import Image

from synthgen import plugins
from synthgen.cli import messages
from synthgen.errors import SynthgenError
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
