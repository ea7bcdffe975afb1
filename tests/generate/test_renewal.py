"""The renewal of shards whose input has changed: which rows stay, what is counted, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.mask_jobs import do, layer_bytes, make_job, redden, rows

from synthgen.cli import messages
from synthgen.errors import SynthgenError
from synthgen.generate.engine import pending_shards
from synthgen.generate.job import Job
from synthgen.generate.renewal import (
    RenewalCounts,
    count_renewal,
    fill_image_size,
    finished_rows,
    preview_renewal,
    reusable_rows,
)
from synthgen.generate.run import RunStats, select_shards
from synthgen.ingest.update import ImageChanges, LayerChanges
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore


def edit_input(job: Job, index: int, edit: Callable[[list[Sample]], list[Sample]], fingerprint: str = "later") -> None:
    """Write the input shard `index` again as an update does: other rows, and the fingerprint of other files."""
    store, shard = ShardStore(job.store), Shard("world", "train", "annotations", index, 3)
    samples = edit(list(store.read_samples(shard)))
    footer = {**(store.read_footer(shard) or {}), "fingerprint": fingerprint, "counts": {"images": len(samples)}}
    store.commit(shard, samples, footer)


def move(sample: Sample) -> Sample:
    first, *others = sample.annotations
    return replace(sample, annotations=(replace(first, bbox=(7.0, 8.0, 20.0, 30.0)), *others))


def renew(job: Job) -> RunStats:
    stats = do(replace(job, update=True))
    assert isinstance(stats, RunStats)
    return stats


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Twelve images in three shards, with masks."""
    job = make_job(tmp_path)
    do(job)
    return job


def test_only_rows_with_another_input_are_made_again(job: Job, tmp_path: Path) -> None:
    before, old = layer_bytes(job), {s.image_id: s for s in rows(job)}
    for number in range(1, 13):
        (tmp_path / "photos" / f"{number:04d}.png").rename(tmp_path / f"{number}.png")
    (tmp_path / "6.png").rename(tmp_path / "photos" / "0006.png")  # no other one is decoded
    edit_input(job, 1, lambda samples: [samples[0], move(samples[1]), samples[3]])
    with pytest.raises(
        SynthgenError, match=r"1 of 3 shards of world/train/masks were made from another version .*--up"
    ):
        select_shards(job)
    job = replace(job, update=True)
    shards = select_shards(job)
    assert [shard.index for shard in shards] == [1]
    assert count_renewal(job, shards) == RenewalCounts(shards=1, renewed=1, images=1, kept=2)
    assert list(messages.format_plan(job, shards))[1] == "  1 shard again: the layer annotations has changed since"
    stats = renew(job)
    assert (stats.images, stats.kept, stats.errors) == (3, 2, [])
    new = {s.image_id: s for s in rows(job)}
    assert new.keys() == old.keys() - {7} and all(new[n] == old[n] for n in new.keys() - {6}) and new[6] != old[6]
    after = layer_bytes(job)
    assert [name for name in after if after[name] != before[name]] == ["00001-of-00003.parquet"]
    assert select_shards(job) == select_shards(replace(job, update=False)) == []


def test_the_result_is_that_of_a_run_from_nothing(job: Job, tmp_path: Path) -> None:
    calm = make_job(tmp_path / "calm")
    for one in (job, calm):
        for index in range(3):
            edit_input(one, index, lambda samples: [samples[0], *map(move, samples[1:3])])
    renew(job)
    do(calm)
    assert layer_bytes(job) == layer_bytes(calm)


def test_a_failed_image_is_tried_again_in_a_shard_that_is_made_again(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path, plugin="fakes.failing_segmenter"), max_error_share=0.5)
    whole = (tmp_path / "photos" / "0005.png").read_bytes()
    redden(tmp_path, 5)
    assert do(job).failed_images == 1
    (tmp_path / "photos" / "0005.png").write_bytes(whole)
    edit_input(job, 1, lambda samples: [*samples[:3], move(samples[3])])
    stats = renew(job)
    assert (stats.kept, stats.failed_images, stats.images) == (2, 0, 4)
    assert all("segmenter_failed" not in a.flags for s in rows(job) for a in s.annotations)


def test_rows_of_another_recipe_do_not_stay(job: Job) -> None:
    edit_input(job, 1, lambda samples: samples[:2])
    store, shard = ShardStore(job.store), Shard("world", "train", "masks", 1, 3)
    samples = list(store.read_samples(shard.in_layer("annotations")))
    assert reusable_rows(store, job, shard, samples).keys() == {0, 1}
    other = make_job(job.image_folder.parent, plugin="fakes.slow_segmenter")
    assert reusable_rows(store, other, shard, samples) == {}
    with pytest.raises(SynthgenError, match=r"was made with box_fill; this job says fakes.slow_segmenter"):
        pending_shards(replace(other, update=True))
    with pytest.raises(SynthgenError, match=r"was made with box_fill; this job says fakes.slow_segmenter"):
        preview_renewal(other, LayerChanges(ImageChanges(), {}, 3))


def test_a_layer_of_another_input_is_refused(job: Job) -> None:
    store = ShardStore(job.store)
    for shard in store.list_shards("world", "train", "annotations"):
        samples, footer = list(store.read_samples(shard)), store.read_footer(shard) or {}
        store.commit(shard.in_layer("human"), samples, {**footer, "fingerprint": "another"})
    with pytest.raises(SynthgenError, match="box_fill of the layer 'annotations'; this job says box_fill of 'human'"):
        pending_shards(replace(job, input_layer="human", update=True))


def test_an_input_of_other_files_with_the_same_rows_needs_the_option_and_no_image(job: Job, tmp_path: Path) -> None:
    old = rows(job)
    edit_input(job, 2, lambda samples: samples)
    for path in (tmp_path / "photos").iterdir():
        path.unlink()
    with pytest.raises(SynthgenError, match="add --update to make them again"):
        select_shards(job)
    assert renew(job).kept == 4
    assert rows(job) == old and select_shards(job) == []


def test_a_retry_does_only_what_failed(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path), max_error_share=0.5)
    photo = tmp_path / "photos" / "0002.png"
    photo.rename(tmp_path / "away.png")
    do(job)
    store, shard = ShardStore(job.store), Shard("world", "train", "masks", 0, 3)
    assert finished_rows(store, shard).keys() == {0, 2, 3}
    (tmp_path / "away.png").rename(photo)
    own = ImageChanges(changed=1, unchanged=3)
    assert preview_renewal(job, LayerChanges(own, {0: own}, 3)) == RenewalCounts(1, 1, images=2, kept=2)
    retry = replace(job, retry_failed=True)
    assert preview_renewal(retry, LayerChanges(own, {}, 3)) == RenewalCounts(1, 1, images=1, kept=3)
    assert count_renewal(retry, select_shards(retry)) == RenewalCounts(1, 1, images=1, kept=3)
    stats = do(retry)
    assert isinstance(stats, RunStats) and stats.kept == 0 and finished_rows(store, shard).keys() == {0, 1, 2, 3}


def test_a_preview_counts_what_an_update_of_the_input_will_cause(job: Job) -> None:
    (job.store / "world/train/masks/00002-of-00003.parquet").unlink()
    own = ImageChanges(added=1, changed=2, removed=1, unchanged=5, kept=1)
    assert preview_renewal(job, LayerChanges(own, {1: own}, 3)) == RenewalCounts(2, 1, images=3 + 4, kept=6)
    assert preview_renewal(job, LayerChanges(own, {2: own}, 3)) == RenewalCounts(1, 0, images=9, kept=0)
    two = LayerChanges(own, {0: own, 1: own}, 3)
    assert preview_renewal(job, two, limit=1) == RenewalCounts(1, 1, images=3, kept=6)
    assert preview_renewal(job, two, part=(1, 2)) == RenewalCounts(1, 1, images=3, kept=6)
    stale = replace(job, update=True)
    edit_input(job, 0, lambda samples: [move(samples[0]), *samples[1:]])
    assert preview_renewal(stale, LayerChanges(own, {}, 3)) == RenewalCounts(2, 1, images=1 + 4, kept=3)
    assert str(RenewalCounts(2, 1, 5, 3)) == (
        "2 shards to do, 1 of them again; 5 images to process, 3 keep their results"
    )


def test_rows_stay_whose_size_the_source_does_not_give(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    for index in range(3):
        edit_input(job, index, lambda samples: [replace(s, height=0, width=0) for s in samples], "first")
    do(job)
    old = rows(job)
    assert all(sample.height for sample in old)
    edit_input(job, 1, lambda samples: [*samples[:3], move(samples[3])])
    assert renew(job).kept == 3
    assert [sample.height for sample in rows(job)] == [sample.height for sample in old]


def test_a_size_that_is_given_stays() -> None:
    box = Annotation(1, (5.0, 5.0, 20.0, 20.0), "ball")
    sample = Sample(1, "k", "1.png", 0, 0, (box,))
    filled = fill_image_size(sample, 10, 12)
    assert (filled.height, filled.width) == (10, 12) and filled.annotations[0].flags == ("clipped",)
    assert fill_image_size(filled, 99, 99) is filled


def test_reviewed_masks_stay_and_the_footer_goes_on_to_name_their_file(job: Job) -> None:
    store, shard = ShardStore(job.store), Shard("world", "train", "masks", 1, 3)
    samples, footer = list(store.read_samples(shard)), store.read_footer(shard) or {}
    first, *others = samples[0].annotations
    samples[0] = replace(samples[0], annotations=(replace(first, provenance="reviewed"), *others))
    store.commit(shard, samples, {**footer, "replaced": {"sources": ["a"], "reviewed": 1}})
    edit_input(job, 1, lambda samples: [samples[0], move(samples[1]), *samples[2:]])
    assert count_renewal(replace(job, update=True), [shard]).reviewed == 0
    stats = renew(job)
    assert (stats.kept, stats.reviewed_lost) == (3, 0)
    assert next(iter(store.read_samples(shard))) == samples[0]
    assert (store.read_footer(shard) or {})["replaced"] == {"sources": ["a"], "reviewed": 1}
    edit_input(job, 1, lambda samples: samples[2:], "last")
    counts = count_renewal(replace(job, update=True), [shard])
    assert counts.reviewed == 1
    assert str(counts).endswith("2 keep their results; up to 1 masks that people reviewed are lost")
    assert renew(job).reviewed_lost == 1
    assert "replaced" not in (store.read_footer(shard) or {})


def review(job: Job, shard: Shard, *image_ids: int) -> None:
    """Mark the mask of the first annotation of these images as reviewed, as a review of the layer does."""
    store = ShardStore(job.store)
    samples = [
        replace(s, annotations=(replace(s.annotations[0], provenance="reviewed"), *s.annotations[1:]))
        if s.image_id in image_ids
        else s
        for s in store.read_samples(shard)
    ]
    store.commit(shard, samples, store.read_footer(shard) or {})


def reviewed_ids(job: Job) -> list[int]:
    return [a.id for s in rows(job) for a in s.annotations if a.provenance == "reviewed"]


@pytest.fixture
def captions(job: Job) -> Job:
    """Captions over the masks of `job`, of which the one of image 5 is reviewed."""
    review(job, Shard("world", "train", "masks", 1, 3), 5)
    made = replace(job, stage="captions", plugin="attributes", options={}, input_layer="masks", layer="captions")
    do(made)
    assert reviewed_ids(made) == [50]
    return made


def test_a_reviewed_mask_that_the_input_has_is_not_lost(captions: Job) -> None:
    masks, shard = Shard("world", "train", "masks", 1, 3), Shard("world", "train", "captions", 1, 3)
    review(captions, masks, 5, 6)
    assert count_renewal(replace(captions, update=True), [shard]).reviewed == 0
    stats = renew(captions)
    assert (stats.kept, stats.reviewed_lost) == (3, 0) and reviewed_ids(captions) == [50, 60]

    store = ShardStore(captions.store)  # the row is made again, the mask stays
    samples = list(store.read_samples(masks))
    samples[0] = replace(samples[0], not_exhaustive_categories=("ball",))
    store.commit(masks, samples, store.read_footer(masks) or {})
    assert count_renewal(replace(captions, update=True), [shard]).reviewed == 0
    stats = renew(captions)
    assert (stats.kept, stats.reviewed_lost) == (3, 0) and reviewed_ids(captions) == [50, 60]


def test_a_reviewed_mask_that_only_the_output_has_is_lost(captions: Job) -> None:
    masks, shard = Shard("world", "train", "masks", 1, 3), Shard("world", "train", "captions", 1, 3)
    review(captions, shard, 5, 8)
    store = ShardStore(captions.store)
    store.commit(masks, list(map(move, store.read_samples(masks))), store.read_footer(masks) or {})
    assert count_renewal(replace(captions, update=True), [shard]).reviewed == 1
    assert renew(captions).reviewed_lost == 1
    assert reviewed_ids(captions) == [50]


def test_a_preview_of_an_update_counts_what_the_input_may_lose_too(captions: Job) -> None:
    review(captions, Shard("world", "train", "masks", 1, 3), 5, 6)
    own = ImageChanges(changed=1, unchanged=3)
    assert preview_renewal(captions, LayerChanges(own, {1: own}, 3)).reviewed == 1, (
        "image 5 may be the one that changed"
    )
    assert preview_renewal(captions, LayerChanges(own, {}, 3)).reviewed == 0
