"""Replaces single masks of a layer by masks that people corrected or drew anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from synthgen.errors import SynthgenError, job_has_started
from synthgen.formats.mask_files import MaskOrigin
from synthgen.generate.imports.image_index import ImageIndex
from synthgen.generate.imports.mask_source import MaskSource, SortedMasks, check_unchanged, open_source
from synthgen.generate.imports.matching import MaskCandidate
from synthgen.generate.imports.new_layer import MISSING_MASK_FLAGS, count_rows, no_images_message
from synthgen.generate.imports.request import (
    SOURCE_LAYERS,
    UNKNOWN_MODEL,
    ImportReport,
    ImportRequest,
    complete_shards,
    sum_unused,
)
from synthgen.generate.imports.shard_masks import MatchedSample, match_shard
from synthgen.generate.output_checks import SCORE_DECIMALS
from synthgen.progress import ReportPhase
from synthgen.records.rle import rle_iou
from synthgen.records.sample import Annotation, Rle, Sample, is_checked_by_person, mask_provenance, resolve_provenance
from synthgen.storage.locks import file_lock, use_folder
from synthgen.storage.shard_store import Shard, ShardStore

#: Members of a footer that a commit writes anew.
_COMMIT_MEMBERS = ("identity", "schema_version")


def replace_masks(request: ImportRequest, tell: ReportPhase) -> ImportReport:
    """Replace masks of a layer. A shard without a change keeps its bytes; the same request again changes nothing.

    Args:
        request: what to import; with `replaces`.
        tell: called with the phase, the units done and the units in all.

    Raises:
        SynthgenError: the file or the layer is missing or wrong, the layer is made from the dataset's own files, or no
            mask has an image of it.
    """
    store, place = ShardStore(request.store), request.place
    if place[2] in SOURCE_LAYERS:
        raise SynthgenError(
            f"{'/'.join(place)} is made from the dataset's own files; correct these and run `synthgen ingest` with "
            "--update, or name a layer of masks"
        )
    complete_shards(store, place)
    source, folder = open_source(request.source), store.layer_folder(*place)
    lock = file_lock(folder / "_log" / "update.lock", remedy="choose another --store")
    with use_folder(folder), lock:  # another replacement is waited for, and its masks are read
        return _replace_locked(store, request, source, tell)


def _replace_locked(store: ShardStore, request: ImportRequest, source: MaskSource, tell: ReportPhase) -> ImportReport:
    place = request.place
    shards = complete_shards(store, place)
    store.remove_stale_files(*place)
    index, written, tally = ImageIndex(store, shards, stems=source.is_folder), 0, Counter[str]()
    with store.layer_scratch_folder(*place) as scratch:
        masks = SortedMasks(source, index, scratch, tell)
        check_unchanged(source)
        if not masks.num_masks:
            raise SynthgenError(no_images_message(request, masks))
        store.create_layer(*place)
        unused = masks.unused
        with job_has_started():
            for shard in shards:
                start, stop = int(index.starts[shard.index]), int(index.starts[shard.index + 1])
                samples = list(store.read_samples(shard))
                matched = list(match_shard(samples, masks, start, request.rules, unused))
                done = [_replace_in_sample(one, request.model, tally) for one in matched]
                if done != samples:
                    _commit(store, shard, done, source.sha256)
                    written += 1
                tell("writing", stop, len(index))
    counts = Counter[str]()
    for shard in shards:
        counts.update(
            {k: n for k, n in (store.read_footer(shard) or {}).get("counts", {}).items() if isinstance(n, int)}
        )
    return ImportReport(
        layer="/".join(place),
        shards=len(shards),
        written=written,
        images=counts["images"],
        boxes=counts["annotations"],
        masks=counts["masks"],
        imported=tally["replaced"],
        unchanged=tally["unchanged"],
        without_mask=0,
        unused=sum_unused(unused.counts, []),
        examples={reason: tuple(found) for reason, found in sorted(unused.examples.items())},
    )


def replace_mask(annotation: Annotation, candidate: MaskCandidate, box_iou: float, model: str | None) -> Annotation:
    """The annotation with a mask of the file. One that has the same pixels stays, and so do its scores.

    Args:
        annotation: of the layer.
        candidate: the mask.
        box_iou: of the mask's tight box with the annotation's box clipped to the image.
        model: the user's name for who drew it; None = not said.
    """
    rle = candidate.mask.rle
    if rle is None:
        return annotation
    origin = candidate.mask.origin or MaskOrigin()
    if annotation.segmentation is not None and _same_pixels(annotation.segmentation, rle):
        # The file may say that a person accepted the mask.
        if origin.stated not in ("reviewed", "human") or is_checked_by_person(annotation):
            return annotation
        return replace(annotation, provenance="reviewed")
    source = model or annotation.mask_source or origin.mask_source or UNKNOWN_MODEL
    provenance = "reviewed"
    if source == "human" and origin.stated == "machine":  # the old mask was human, and the new one is not
        source = origin.mask_source or UNKNOWN_MODEL
    if origin.provenance == "human" or source == "human":
        source, provenance = "human", "human"
    return replace(
        annotation,
        flags=tuple(sorted({*annotation.flags, *candidate.mask.problems} - MISSING_MASK_FLAGS - {"bad_segmentation"})),
        segmentation=rle,
        mask_source=source,
        provenance=None if provenance == resolve_provenance(None, source) else provenance,
        # They judge the old mask.
        predicted_iou=None,
        stability_score=None,
        box_iou=round(box_iou, SCORE_DECIMALS),
        sam_predicted_iou=None,
        soft_iou=None,
        area=None,
    )


def _replace_in_sample(one: MatchedSample, model: str | None, tally: Counter[str]) -> Sample:
    if not one.matches.masks:
        return one.sample
    annotations = []
    for place, annotation in enumerate(one.sample.annotations):
        candidate = one.mask_of(place)
        iou = one.matches.box_iou.get(place, 0.0)
        new = annotation if candidate is None else replace_mask(annotation, candidate, iou, model)
        if candidate is not None and candidate.mask.rle is not None:
            tally["unchanged" if new == annotation else "replaced"] += 1
        annotations.append(new)
    return replace(one.sample, annotations=tuple(annotations))


def _same_pixels(one: Rle, other: Rle) -> bool:
    if one == other:
        return True
    return one.size == other.size and float(rle_iou([one], [other])[0, 0]) == 1.0


def _commit(store: ShardStore, shard: Shard, samples: Sequence[Sample], sha256: str) -> None:
    """Commit the new rows of a shard. Its recipe stays; the footer names the files of the replaced masks."""
    footer: dict[str, Any] = dict(store.read_footer(shard) or {})
    for name in _COMMIT_MEMBERS:
        footer.pop(name, None)
    flat = [annotation for sample in samples for annotation in sample.annotations]
    earlier = [one for one in footer.get("replaced", {}).get("sources", []) if one != sha256]
    footer["counts"] = {**footer.get("counts", {}), **count_rows(samples)}
    footer["replaced"] = {
        "sources": [*earlier, sha256],
        "reviewed": sum(mask_provenance(a) == "reviewed" for a in flat),
    }
    store.commit(shard, samples, footer)
