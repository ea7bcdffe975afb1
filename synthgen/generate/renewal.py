"""The renewal of shards whose input has changed: rows that were made from equal input rows stay as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate.job import Job
from synthgen.ingest.update import LayerChanges
from synthgen.records.box_checks import flag_sample_boxes
from synthgen.records.recipe import fingerprint, format_recipe
from synthgen.records.sample import Annotation, Sample, is_checked_by_person, mask_provenance
from synthgen.storage.identity import content_digest_of, is_stale
from synthgen.storage.shard_store import Shard, ShardStore


@dataclass(frozen=True, slots=True)
class RenewalCounts:
    """What a run does with shards.

    Attributes:
        shards: shards that it writes; renewed: those of them that are there already.
        images: images that it processes; kept: images whose rows stay.
        reviewed: masks that people reviewed and that the new rows may lack; at most so many are lost.
    """

    shards: int = 0
    renewed: int = 0
    images: int = 0
    kept: int = 0
    reviewed: int = 0

    def __add__(self, other: RenewalCounts) -> RenewalCounts:
        """The counts of two sets of shards together."""
        return RenewalCounts(
            self.shards + other.shards,
            self.renewed + other.renewed,
            self.images + other.images,
            self.kept + other.kept,
            self.reviewed + other.reviewed,
        )

    def __str__(self) -> str:
        lost = f"; up to {self.reviewed:,} masks that people reviewed are lost" if self.reviewed else ""
        return (
            f"{self.shards:,} shards to do, {self.renewed:,} of them again; {self.images:,} images to process, "
            f"{self.kept:,} keep their results{lost}"
        )


def is_outdated(job: Job, made: Mapping[str, Any], parent: Mapping[str, Any], parent_sha256: str | None) -> bool:
    """Whether a committed shard of the job was made from another input than the one there now.

    Args:
        job: what is done with the shard.
        made: the footer of the shard.
        parent: the footer of its input now.
        parent_sha256: the content digest of its input now; None = it is not known.
    """
    return is_stale(made, parent_sha256) or has_other_input(job, made, parent)


def has_other_input(job: Job, made: Mapping[str, Any], parent: Mapping[str, Any]) -> bool:
    """Whether the recipe of a committed shard is the job's, and only the recipe of its input is another one.

    Args:
        job: what is done with the shard.
        made: the footer of the shard.
        parent: the footer of its input now.
    """
    then = made.get("parent") or {}
    return (
        made.get("fingerprint") != job.fingerprint(parent.get("fingerprint", ""))
        and is_same_recipe(job, made)
        and then.get("layer") == job.input_layer
        and made.get("fingerprint") == job.fingerprint(str(then.get("fingerprint")))
    )


def is_same_recipe(job: Job, made: Mapping[str, Any]) -> bool:
    """Whether a committed shard with the footer `made` was made by the recipe of `job`, from whatever input."""
    return fingerprint(made.get("recipe", {})) == fingerprint(job.recipe())


def reusable_rows(store: ShardStore, job: Job, shard: Shard, samples: Sequence[Sample]) -> dict[int, Sample]:
    """The rows of a committed shard that the job would make again: row of the input -> the row as it is.

    Images that failed, or came with an error, are not among them.

    Args:
        store: where the shards lie.
        job: what is done with the shard.
        shard: a committed shard of the job's output layer.
        samples: the rows of its input now.
    """
    made = store.read_footer(shard) or {}
    if not is_same_recipe(job, made):
        return {}
    stage: Any = plugins.load_plugin("generate.stages", job.stage)
    failed = {entry["row"] for entry in made.get("failed", [])}
    known = {one.image_id: one for row, one in enumerate(store.read_samples(shard)) if row not in failed}
    return {
        row: after
        for row, before in enumerate(samples)
        if before.error is None
        and (after := known.get(before.image_id)) is not None
        and stage.is_result(fill_image_size(before, after.height, after.width), after)
    }


def finished_rows(store: ShardStore, shard: Shard) -> dict[int, Sample]:
    """The rows of a committed shard, but those of images that failed: row -> sample.

    Args:
        store: where the shard lies.
        shard: a committed shard of the job's output layer.
    """
    failed = {entry["row"] for entry in (store.read_footer(shard) or {}).get("failed", [])}
    return {row: sample for row, sample in enumerate(store.read_samples(shard)) if row not in failed}


def replaced_member(store: ShardStore, shard: Shard, annotations: Sequence[Annotation]) -> dict[str, Any]:
    """The member "replaced" of the footer of a shard that is made again, whose masks by people stay; {} if it has none.

    Args:
        store: where the shard lies.
        shard: one of the job's output layer; it may be missing.
        annotations: of all rows that the shard gets.
    """
    reviewed = sum(mask_provenance(annotation) == "reviewed" for annotation in annotations)
    has_checked = any(map(is_checked_by_person, annotations))
    replaced = (store.read_footer(shard) or {}).get("replaced") if has_checked else None
    return {"replaced": {**replaced, "reviewed": reviewed}} if isinstance(replaced, dict) else {}


def fill_image_size(sample: Sample, height: int, width: int) -> Sample:
    """Fill in a size that the source did not give, and the box flags that depend on it.

    Args:
        sample: one image.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    if sample.height and sample.width:
        return sample
    return flag_sample_boxes(replace(sample, height=height, width=width))


def count_renewal(job: Job, shards: Sequence[Shard]) -> RenewalCounts:
    """What a run of the job does with shards. Reads the rows of those that are there already.

    Args:
        job: what is done with each shard.
        shards: of the output layer, as `pending_shards` returns them.
    """
    store, counts = ShardStore(job.store), RenewalCounts()
    for shard in shards:
        source = shard.in_layer(job.input_layer)
        if store.read_footer(shard) is None:
            images = (store.read_footer(source) or {}).get("counts", {}).get("images", 0)
            counts += RenewalCounts(shards=1, images=images)
        else:
            samples = list(store.read_samples(source))
            stays = reusable_rows(store, job, shard, samples)
            # No stage replaces a reviewed mask of its input.
            expected = [stays.get(row, sample) for row, sample in enumerate(samples)]
            lost = count_lost_reviews(reviewed_masks(store.read_samples(shard)), expected)
            counts += RenewalCounts(1, 1, len(samples) - len(stays), len(stays), lost)
    return counts


def preview_renewal(
    job: Job, changes: LayerChanges, *, part: tuple[int, int] = (0, 1), limit: int | None = None
) -> RenewalCounts:
    """What a run of the job would do after an update of its input layer.

    Args:
        job: what is done with each shard.
        changes: of the input layer.
        part: (i, n): only shards whose index is i modulo n.
        limit: maximum number of shards; None = all.

    Raises:
        SynthgenError: the output layer was made by another recipe.
    """
    store, counts = ShardStore(job.store), RenewalCounts()
    present = {shard.index: shard for shard in store.list_shards(job.dataset, job.split, job.layer)}
    for shard in present.values():
        if not is_same_recipe(job, made := store.read_footer(shard) or {}):
            raise SynthgenError(describe_other_recipe(job, shard, made))
    for source in store.list_shards(job.dataset, job.split, job.input_layer, check_update=False):
        if source.index % part[1] != part[0]:
            continue
        if counts.shards == limit:
            break
        shard, own = source.in_layer(job.layer), changes.by_shard.get(source.index)
        footer, parent = store.read_footer(shard), store.read_footer(source) or {}
        if own is not None and footer is not None:
            failed = min(len(footer.get("failed", [])), own.unchanged + own.kept)  # those are tried again
            # An update of the input may lose its reviewed masks, too, so those do not count as kept.
            is_at_risk = own.changed or own.removed
            lost = reviewed_masks(store.read_samples(shard)).total() if is_at_risk else 0
            counts += RenewalCounts(1, 1, own.added + own.changed + failed, own.unchanged + own.kept - failed, lost)
        elif own is not None:
            counts += RenewalCounts(1, 0, own.added + own.changed + own.unchanged + own.kept)
        elif (
            footer is None
            or is_outdated(job, footer, parent, content_digest_of(parent))
            or (job.retry_failed and footer.get("failed"))
        ):
            counts += count_renewal(job, [shard])
    return counts


def reviewed_masks(samples: Iterable[Sample]) -> Counter[tuple[int, int]]:
    """How many masks of `samples` a model drew and a person has reviewed: by (image id, annotation id)."""
    return Counter(
        (sample.image_id, annotation.id)
        for sample in samples
        for annotation in sample.annotations
        if mask_provenance(annotation) == "reviewed"
    )


def count_lost_reviews(before: Counter[tuple[int, int]], rows: Iterable[Sample]) -> int:
    """How many reviewed masks the rows of a shard lose.

    Args:
        before: the reviewed masks of the rows that are there, by `reviewed_masks`.
        rows: the rows that the shard gets.
    """
    return (before - reviewed_masks(rows)).total() if before else 0


def describe_other_recipe(job: Job, shard: Shard, made: Mapping[str, Any]) -> str:
    """The sentence about a committed shard that the job did not make.

    Args:
        job: what is done with each shard.
        shard: the shard.
        made: its footer.
    """
    stored, requested = format_recipe(made.get("recipe", {})), format_recipe(job.recipe())
    made_from = (made.get("parent") or {}).get("layer")
    if stored == requested and made_from != job.input_layer:
        stored, requested = f"{stored} of the layer '{made_from}'", f"{requested} of '{job.input_layer}'"
    return (
        f"{shard} was made with {stored}; this job says {requested}; "
        "choose another --layer, or delete that layer's folder"
    )
