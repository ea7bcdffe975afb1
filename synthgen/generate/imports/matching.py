"""Matches masks that were made elsewhere with the boxes of one image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.mask_files import DecodedMask
from synthgen.records.boxes import clip_xyxy, paired_box_iou, xywh_to_xyxy
from synthgen.records.sample import Annotation, Sample

#: Why a mask of a file became no mask of a layer.
UNUSED_REASONS: dict[str, str] = {
    "no_image": "the dataset has no image of this id or name",
    "no_segmentation": "the annotation has no mask",
    "bad_segmentation": "the mask cannot be read, or is not of the image's size",
    "empty_mask": "the mask has no pixel",
    "no_box": "no box of the image fits it; --min-box-iou says how well, and --match id trusts ids alone",
    "no_id": "no annotation of the image has its id",
    "other_category": "the boxes that it fits are of another category; --any-category compares boxes alone",
    "taken": "another mask fits the box better, or has its id",
}

#: How a mask finds its box.
MATCH_MODES = ("auto", "id", "box")

#: With `auto`, an id counts if the two boxes agree so well, or the mask fits the box.
_SAME_BOX_IOU = 0.9

#: An image with more pairs of masks and boxes is refused, as memory grows with them.
_MAX_PAIRS = 4_000_000

_NEVER_BY_BOX = frozenset({"degenerate", "outside"})


@dataclass(frozen=True, slots=True)
class MatchRules:
    """How masks find their boxes.

    Attributes:
        mode: one of `MATCH_MODES`: by the annotation's id, by image, category and box, or by the id where mask and box
            agree and else by the box.
        min_box_iou: in [0, 1]; least IoU of the mask's tight box with the annotation's box, clipped to the image.
        any_category: categories are not compared.
    """

    mode: str = "auto"
    min_box_iou: float = 0.5
    any_category: bool = False


@dataclass(frozen=True, slots=True)
class MaskCandidate:
    """A mask of a file for one image.

    Attributes:
        mask: the mask.
        id: the annotation's id in the file; None = it gives none.
        bbox: XYWH in absolute pixels, as the file gives it; None = it gives none.
        category: its name, or the number where the file names none; None = the file does not say it.
        iscrowd: the file marks it as a group of objects.
    """

    mask: DecodedMask
    id: int | None = None
    bbox: tuple[float, float, float, float] | None = None
    category: str | int | None = None
    iscrowd: bool = False


@dataclass(frozen=True, slots=True)
class Matches:
    """The masks of one image with their boxes.

    Attributes:
        masks: by the place of the annotation, the place of the candidate.
        box_iou: by the place of the annotation, IoU of the mask's tight box with the annotation's box clipped to the
            image; not for masks without pixels.
        unused: by the place of the candidate, a key of `UNUSED_REASONS`.
    """

    masks: Mapping[int, int]
    box_iou: Mapping[int, float]
    unused: Mapping[int, str]


def prompts_of(sample: Sample) -> NDArray[np.float64]:
    """The boxes of a sample's annotations, clipped to the image: float64 [N, 4] XYXY, absolute pixels."""
    boxes = np.array([a.bbox for a in sample.annotations], np.float64).reshape(-1, 4)
    return clip_xyxy(xywh_to_xyxy(boxes), sample.height, sample.width)


def match_masks(sample: Sample, candidates: Sequence[MaskCandidate], rules: MatchRules) -> Matches:
    """Give each annotation at most one mask, and each mask at most one annotation.

    Ids come first, then the pairs with the highest IoU; equal ones by the order of masks and annotations.

    Args:
        sample: the image with its boxes.
        candidates: the masks of the file for this image, in the order of the file.
        rules: how masks find their boxes.

    Raises:
        SynthgenError: there are too many masks and boxes to compare.
    """
    prompts = prompts_of(sample)
    unused = {
        place: _problem_of(candidate.mask) for place, candidate in enumerate(candidates) if candidate.mask.box is None
    }
    taken: dict[int, int] = {}
    if rules.mode != "box":
        taken = _match_ids(sample, candidates, prompts, rules)
    used = set(taken.values())
    unused = {place: reason for place, reason in unused.items() if place not in used}
    left = [place for place in range(len(candidates)) if place not in used and place not in unused]
    if rules.mode == "id":
        ids = {a.id for a in sample.annotations}
        unused |= {place: "taken" if candidates[place].id in ids else "no_id" for place in left}
    elif left:
        _match_boxes(sample, candidates, prompts, rules, left, taken, unused)
    return Matches(taken, _box_ious(candidates, prompts, taken), unused)


def _box_ious(
    candidates: Sequence[MaskCandidate], prompts: NDArray[np.float64], taken: Mapping[int, int]
) -> dict[int, float]:
    boxes = {place: box for place, number in taken.items() if (box := candidates[number].mask.box) is not None}
    if not boxes:
        return {}
    iou = paired_box_iou(np.array(list(boxes.values())), prompts[list(boxes)])
    return dict(zip(boxes, iou.tolist(), strict=True))


def _match_ids(
    sample: Sample, candidates: Sequence[MaskCandidate], prompts: NDArray[np.float64], rules: MatchRules
) -> dict[int, int]:
    counts = Counter(a.id for a in sample.annotations)
    places = {a.id: place for place, a in enumerate(sample.annotations) if counts[a.id] == 1}
    taken: dict[int, int] = {}
    for number, candidate in enumerate(candidates):
        place = None if candidate.id is None else places.get(candidate.id)
        if place is None or place in taken:
            continue
        if rules.mode == "id" or _is_same_object(sample.annotations[place], prompts[place], candidate, rules):
            taken[place] = number
    # The numbers of an id map are the ids of annotations, or numbers of its own, of which some may fit by chance.
    labels = {number for number, candidate in enumerate(candidates) if candidate.mask.label is not None}
    if rules.mode == "auto" and not labels <= set(taken.values()):
        taken = {place: number for place, number in taken.items() if number not in labels}
    return taken


def _is_same_object(
    annotation: Annotation, prompt: NDArray[np.float64], candidate: MaskCandidate, rules: MatchRules
) -> bool:
    """Whether an annotation with the id of a mask is its object: programs also number their masks from 1."""
    if not rules.any_category and not _fits_category(annotation, candidate):
        return False
    if candidate.bbox is not None:
        both = xywh_to_xyxy([candidate.bbox, annotation.bbox])
        if float(paired_box_iou(both[0], both[1])) >= _SAME_BOX_IOU:
            return True
    box = candidate.mask.box
    return box is not None and float(paired_box_iou(np.array(box), prompt)) >= rules.min_box_iou


def _fits_category(annotation: Annotation, candidate: MaskCandidate) -> bool:
    if isinstance(candidate.category, str):
        return annotation.category == candidate.category
    return candidate.category is None or annotation.category_id in (None, candidate.category)


def _match_boxes(
    sample: Sample,
    candidates: Sequence[MaskCandidate],
    prompts: NDArray[np.float64],
    rules: MatchRules,
    left: Sequence[int],
    taken: dict[int, int],
    unused: dict[int, str],
) -> None:
    """Match the masks `left` by their boxes: adds to `taken` and `unused`."""
    free = [p for p, a in enumerate(sample.annotations) if p not in taken and _NEVER_BY_BOX.isdisjoint(a.flags)]
    known = [p for p, a in enumerate(sample.annotations) if _NEVER_BY_BOX.isdisjoint(a.flags)]
    if len(left) * len(known) > _MAX_PAIRS:
        raise SynthgenError(
            f"image {sample.file_name} has {len(known):,} boxes, and the file has {len(left):,} masks for it, too many "
            "to compare; check the file"
        )
    tight = np.array([candidates[place].mask.box for place in left], np.float64).reshape(-1, 4)
    iou = paired_box_iou(tight[:, None], prompts[known][None]) if known else np.zeros((len(left), 0))
    fits = iou >= max(rules.min_box_iou, 1e-9)
    agree = np.array(
        [[_is_kind(sample.annotations[p], candidates[place], rules) for p in known] for place in left], np.bool_
    ).reshape(fits.shape)
    is_free = np.isin(known, free)
    rows, columns = np.nonzero(fits & agree & is_free[None])
    order = np.lexsort((columns, rows, -iou[rows, columns]))
    done: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in done and known[column] not in taken:
            taken[known[column]] = left[row]
            done.add(row)
    for row, place in enumerate(left):
        if row not in done:
            unused[place] = "taken" if (fits & agree)[row].any() else "other_category" if fits[row].any() else "no_box"


def _is_kind(annotation: Annotation, candidate: MaskCandidate, rules: MatchRules) -> bool:
    return annotation.iscrowd == candidate.iscrowd and (rules.any_category or _fits_category(annotation, candidate))


def _problem_of(mask: DecodedMask) -> str:
    return "empty_mask" if "empty_mask" in mask.problems else "bad_segmentation"
