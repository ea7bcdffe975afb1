"""The masks of a file for the images of one shard, matched with their boxes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synthgen.formats.mask_files import decode_masks, payload_size
from synthgen.generate.imports.mask_source import SortedMasks, UnusedMasks
from synthgen.generate.imports.matching import MaskCandidate, Matches, MatchRules, match_masks
from synthgen.ingest.external_sort import SortedRun
from synthgen.records.box_checks import flag_sample_boxes
from synthgen.records.box_table import NO_ID
from synthgen.records.sample import Sample


@dataclass(frozen=True, slots=True)
class MatchedSample:
    """An image with the masks of a file for it.

    Attributes:
        sample: the image; its size may have become known.
        candidates: the masks of the file.
        matches: which annotation has which of them.
    """

    sample: Sample
    candidates: Sequence[MaskCandidate]
    matches: Matches

    def mask_of(self, place: int) -> MaskCandidate | None:
        """The mask of the annotation at a place; None = it has none."""
        number = self.matches.masks.get(place)
        return None if number is None else self.candidates[number]


def match_shard(
    samples: Sequence[Sample],
    masks: SortedMasks,
    start: int,
    rules: MatchRules,
    unused: UnusedMasks,
) -> Iterator[MatchedSample]:
    """Match the masks of each image of a shard.

    Args:
        samples: the images of the shard, in order.
        masks: of the file; those of this shard are taken from it.
        start: number of the shard's first image.
        rules: how masks find their boxes.
        unused: gets the masks that find none.
    """
    run = masks.take(start, start + len(samples))
    rows: defaultdict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(run.image_id.tolist()):
        rows[number - start].append(row)
    for place, sample in enumerate(samples):
        payloads = [payload for row in rows[place] if (payload := run.payloads[row]) is not None]
        sized = _with_size(sample, payloads, masks)
        candidates = [one for row in rows[place] for one in _candidates(run, row, sized, masks)]
        if not candidates:
            yield MatchedSample(sample, (), Matches({}, {}, {}))
            continue
        matches = match_masks(sized, candidates, rules)
        for number, reason in matches.unused.items():
            unused.add(reason, _describe(candidates[number], sized))
        for number in matches.masks.values():
            if candidates[number].mask.rle is None:
                reason = "empty_mask" if "empty_mask" in candidates[number].mask.problems else "bad_segmentation"
                unused.add(reason, _describe(candidates[number], sized))
        yield MatchedSample(sized, candidates, matches)


def _with_size(sample: Sample, payloads: Sequence[bytes], masks: SortedMasks) -> Sample:
    """The sample with the size that its masks state, if the dataset does not say it."""
    if sample.height * sample.width or not payloads:
        return sample
    sizes = {payload_size(payload, masks.source.path) for payload in payloads} - {None}
    size = sizes.pop() if len(sizes) == 1 else None
    return sample if size is None else flag_sample_boxes(replace(sample, height=size[0], width=size[1]))


def _candidates(run: SortedRun, row: int, sample: Sample, masks: SortedMasks) -> Iterator[MaskCandidate]:
    record: Any = run.records[row]
    payload = run.payloads[row]
    if payload is None:
        return
    number, category = int(record["id"]), int(record["category"])
    x, y, w, h = record["bbox"].tolist()
    names = masks.head.categories
    for mask in decode_masks(payload, masks.source.path, sample.height, sample.width):
        own = number if mask.label is None else mask.label
        yield MaskCandidate(
            mask,
            id=None if own == NO_ID else own,
            bbox=(x, y, w, h) if all(map(math.isfinite, (x, y, w, h))) else None,
            category=None if category == NO_ID else names.get(category, "") if names else category,
            iscrowd=bool(int(record["bits"]) & 1),
        )


def _describe(candidate: MaskCandidate, sample: Sample) -> str:
    what = "a mask" if candidate.id is None else f"mask {candidate.id}"
    reasons = "; ".join(candidate.mask.problems.values())
    return f"{what} of {sample.file_name}" + (f" ({reasons})" if reasons else "")
