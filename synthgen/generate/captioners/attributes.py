"""Captions without weights: category, colour, size and position, computed from boxes and pixels.

Captions are true by construction. An object is compared with all boxes in the image that may be of its kind: an SUV
with the cars, an unnamed object with everything. No comparison is made if the image has more such objects than boxes.
Nearly equal boxes count as one object. A phrase that singles out an object starts with "the", any other with "a".
People have no colour, as it would be that of their clothes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from synthgen.generate.captioners import Captioner
from synthgen.generate.captioners._colours import dominant_color
from synthgen.plugin_options import option
from synthgen.records.boxes import paired_box_iou
from synthgen.records.sample import Caption
from synthgen.text.agreement import agrees_with_category, category_nouns, is_kind_of
from synthgen.text.plurals import with_article

#: Boxes of one category with at least this IoU are taken for one object.
SAME_OBJECT_IOU = 0.7

#: One of two is larger with this ratio of the areas; one of more is the largest with the other.
LARGER_RATIO, LARGEST_RATIO = 1.5, 1.25

#: Centres are apart by this share of the image's side, and of the smaller box's side, for one to be left of another.
MIN_GAP_OF_IMAGE, MIN_GAP_OF_BOX = 0.04, 0.25

#: Noun of an object without a name.
DEFAULT_NOUN = "object"

_BODY_PARTS = frozenset(
    {"face", "head", "hand", "arm", "leg", "foot", "finger", "ear", "nose", "mouth", "lip", "skin", "body"}
)

#: Shares of the image's area.
LARGE_AREA_SHARE, SMALL_AREA_SHARE = 0.6, 0.01

#: Of the image's side: a box this near to an edge touches it.
EDGE_TOLERANCE = 0.005

#: docs/results.md has the figure and its command.
NOTE_AFTER_JOB = (
    "attributes says only category, colour, size and place; 30 % of 1,503 objects of COCO got a caption that fits no "
    "other object of their image; `--captioner florence2` or `ofa` with another --layer writes captions to train with"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributesOptions:
    """Options of the captioner `attributes`. None of them matters to the captions."""

    batch_size: int = option(16, runtime=True, help="Images per batch")


OPTIONS = AttributesOptions


def build(options: AttributesOptions = AttributesOptions()) -> Captioner:
    """Make the captioner with `options`."""
    return AttributeCaptioner(options.batch_size)


class AttributeCaptioner:
    """See `Captioner`."""

    source = "attributes"

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[NDArray[np.float32]],
        categories: Sequence[Sequence[str]],
        crowds: Sequence[Sequence[str]],
        top_k: int,
    ) -> Iterator[list[list[Caption]]]:
        """See `Captioner.caption`."""
        for image, boxes, own, more in zip(images, boxes_xyxy, categories, crowds, strict=True):
            nouns = [category_noun(category) for category in own]
            colours = [
                "" if is_person_or_body_part(noun) else dominant_color(image, box)
                for noun, box in zip(nouns, boxes, strict=True)
            ]
            found = _describe_boxes(
                boxes.astype(np.float64),
                nouns,
                colours,
                alike=_pairwise(may_be_same_kind, own, own),
                surely=_pairwise(is_kind_of, own, own).T,
                more=np.array([any(may_be_same_kind(a, b) for b in more) for a in own], bool),
                height=image.shape[0],
                width=image.shape[1],
            )
            yield [[Caption(text, self.source) for text in texts[:top_k]] for texts in found]


def is_person_or_body_part(noun: str) -> bool:
    """Whether `noun` names people or body parts, whose colour must not be mentioned."""
    return agrees_with_category(f"a {noun}", "person") is True or not _BODY_PARTS.isdisjoint(noun.split())


@dataclass(frozen=True, slots=True)
class _Traits:
    """The traits of one object; "" = none.

    Attributes:
        size, row, column: against its siblings, and of it alone.
        color: and whether no sibling has it.
        region, edge, extent: in the image; neighbor: against another thing. May be true of siblings, too.
    """

    noun: str
    size: str
    row: str
    column: str
    color: str
    has_unique_color: bool
    region: str
    edge: str
    extent: str
    neighbor: str


def category_noun(category: str) -> str:
    """The noun of a category: "cabinet or shelf" for "Cabinet/shelf"; "object" if its name has none."""
    found = category_nouns(category)
    # A comma separates synonyms; a slash often separates different things.
    return " or ".join(found[:2] if "/" in category else found[:1]) or DEFAULT_NOUN


def _pairwise(holds: Callable[[str, str], bool], some: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """A relation for each pair of two lists: bool [some, others]."""
    kinds, others_kinds = sorted(set(some)), sorted(set(others))
    found = np.array([[holds(a, b) for b in others_kinds] for a in kinds], bool).reshape(len(kinds), len(others_kinds))
    return found[np.ix_([kinds.index(name) for name in some], [others_kinds.index(name) for name in others])]


@lru_cache(maxsize=65536)
def may_be_same_kind(category: str, other: str) -> bool:
    """Whether an object of one category may be called by the other's name."""
    return (
        agrees_with_category(category_noun(category), other) is not False
        or agrees_with_category(category_noun(other), category) is not False
    )


def _describe_boxes(
    boxes: NDArray[np.float64],
    nouns: Sequence[str],
    colours: Sequence[str],
    *,
    alike: NDArray[np.bool_],
    surely: NDArray[np.bool_],
    more: NDArray[np.bool_],
    height: int,
    width: int,
) -> Iterator[list[str]]:
    """The captions of each box (float64 [N, 4] XYXY, pixels), most specific first.

    Args:
        boxes: float64 [N, 4] XYXY, absolute pixels.
        nouns: noun of each box's category.
        colours: colour of each box's content; "" = none is mentioned.
        alike: bool [N, N], whether two of them may be of one kind; each is of its own.
        surely: bool [N, N], whether the noun of the first is one for the second, too: a car's for an SUV.
        more: bool [N], whether the image may show more of its kind than have boxes.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    landmarks = np.flatnonzero((alike.sum(axis=1) == 1) & ~more)
    for i, (box, noun, colour) in enumerate(zip(boxes, nouns, colours, strict=True)):
        others = np.flatnonzero(alike[i] & ~more[i])
        others = others[(others != i) & (paired_box_iou(boxes[others], box) < SAME_OBJECT_IOU)]
        # What holds against all possible siblings holds against the real ones; but there must be one.
        if not surely[i, others].any():
            others = others[:0]
        counted = bool(surely[i, others].all())
        other_colours = {colours[j] for j in others}
        yield _rank_phrases(
            _Traits(
                noun=noun,
                size=_size_phrase(box, boxes[others]),
                row=_order_phrase(box, boxes[others], 0, width, counted),
                column=_order_phrase(box, boxes[others], 1, height, counted),
                color=colour,
                # A sibling with an ambiguous colour may have this colour for another viewer.
                has_unique_color=bool(other_colours) and not other_colours & {colour, ""},
                region=_region_phrase(box, height, width),
                edge=_edge_phrase(box, height, width),
                extent=_extent_phrase(box, height, width),
                neighbor=_neighbor_phrase(box, boxes, landmarks, nouns),
            )
        )


def _rank_phrases(t: _Traits) -> list[str]:
    """All phrases without duplicates: first those that single out the object, then by information."""
    candidates = [
        *((t.size, t.color, t.row), (t.size, t.color, t.column), ("", t.color, t.row), ("", t.color, t.column)),
        *((t.size, t.color, ""), (t.size, "", t.row), (t.size, "", t.column), ("", t.color, t.region)),
        *((t.size, "", t.region), ("", t.color, t.neighbor), ("", t.color, t.extent), ("", t.color, t.edge)),
        *(("", "", t.row), ("", "", t.column), (t.size, "", ""), ("", "", t.neighbor), ("", "", t.region)),
        *(("", t.color, ""), ("", "", t.extent), ("", "", t.edge), ("", "", "")),
    ]
    ranked: dict[str, tuple[bool, int]] = {}
    for size, colour, where in candidates:
        singled = bool(size or (where and where in (t.row, t.column)) or (colour and t.has_unique_color))
        noun = " ".join(filter(None, (size, colour, t.noun)))
        text = " ".join(filter(None, (f"the {noun}" if singled else with_article(noun), where)))
        ranked.setdefault(text, (singled, sum(map(bool, (size, colour, where)))))
    return sorted(ranked, key=lambda text: ranked[text], reverse=True)


def _size_phrase(box: NDArray[np.float64], others: NDArray[np.float64]) -> str:
    if not len(others):
        return ""
    area, other_areas = _area(box), _area(others)
    ratio = LARGER_RATIO if len(others) == 1 else LARGEST_RATIO
    if area >= ratio * other_areas.max():
        return "larger" if len(others) == 1 else "largest"
    if other_areas.min() >= ratio * area:
        return "smaller" if len(others) == 1 else "smallest"
    return ""


def _order_phrase(box: NDArray[np.float64], others: NDArray[np.float64], axis: int, side: int, counted: bool) -> str:
    """The position of the box among the others along an axis (0: left to right, 1: top to bottom), if it is clear.

    If it is not `counted` how many of the others are of its kind, only the first and last positions are named.
    """
    count = len(others)
    if not count:
        return ""
    low, high = box[axis], box[axis + 2]
    lows, highs = others[:, axis], others[:, axis + 2]
    gap = np.maximum(MIN_GAP_OF_IMAGE * side, MIN_GAP_OF_BOX * np.minimum(high - low, highs - lows))
    ahead = (lows + highs - low - high) / 2
    after = (ahead >= gap) & (lows >= low) & (highs >= high)
    before = (-ahead >= gap) & (lows <= low) & (highs <= high)
    if not np.all(after | before):
        return ""
    place = int(before.sum())
    if place in (0, count):
        first = place == 0
        if axis == 0:
            return f"on the {'far ' if count > 1 else ''}{'left' if first else 'right'}"
        return f"at the {'very ' if count > 1 else ''}{'top' if first else 'bottom'}"
    if not counted:
        return ""
    if count == 2:
        return "between the other two" if axis == 0 else ""
    if place in (1, count - 1):
        return f"second from the {('left', 'top')[axis] if place == 1 else ('right', 'bottom')[axis]}"
    return ""


def _region_phrase(box: NDArray[np.float64], height: int, width: int) -> str:
    """The half or quarter of the image that contains the box, or its middle."""
    x1, y1, x2, y2 = box / (width, height, width, height)
    across = "left" if x2 <= 0.5 else "right" if x1 >= 0.5 else ""
    down = "top" if y2 <= 0.5 else "bottom" if y1 >= 0.5 else ""
    if across and down:
        return f"in the {down} {across} of the image"
    if across:
        return f"on the {across} of the image"
    if down:
        return f"at the {down} of the image"
    middle = max(abs(x1 + x2 - 1), abs(y1 + y2 - 1)) <= 1 / 3
    return "in the middle of the image" if middle else ""


def _edge_phrase(box: NDArray[np.float64], height: int, width: int) -> str:
    """The one edge of the image that the box touches."""
    x1, y1, x2, y2 = box / (width, height, width, height)
    gaps = {"left": x1, "right": 1 - x2, "top": y1, "bottom": 1 - y2}
    touched = [edge for edge, gap in gaps.items() if gap < EDGE_TOLERANCE]
    return f"at the {touched[0]} edge of the image" if len(touched) == 1 else ""


def _neighbor_phrase(
    box: NDArray[np.float64], boxes: NDArray[np.float64], landmarks: NDArray[np.int64], nouns: Sequence[str]
) -> str:
    """The position of the box relative to the nearest unique thing, if it is completely on one side of it."""
    landmark_boxes = boxes[landmarks]
    gaps = np.stack(
        [
            landmark_boxes[:, 0] - box[2],
            box[0] - landmark_boxes[:, 2],
            landmark_boxes[:, 1] - box[3],
            box[1] - landmark_boxes[:, 3],
        ],
        axis=1,
    )
    gaps[(gaps < 0).all(axis=1)] = np.inf  # they overlap; a box overlaps with itself
    if not np.isfinite(gaps).any():
        return ""
    nearest = int(np.where(gaps.max(axis=1) >= 0, gaps.max(axis=1), np.inf).argmin())
    side = ("to the left of", "to the right of", "above", "below")[int(gaps[nearest].argmax())]
    return f"{side} the {nouns[landmarks[nearest]]}"


def _extent_phrase(box: NDArray[np.float64], height: int, width: int) -> str:
    share = float(_area(box)) / (height * width)
    return (
        "filling most of the image"
        if share >= LARGE_AREA_SHARE
        else "taking up little of the image"
        if share < SMALL_AREA_SHARE
        else ""
    )


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
