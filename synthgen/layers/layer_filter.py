"""The filter of a layer: which annotations a reader gets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Self

from synthgen.errors import ArgumentError, did_you_mean, shorten_value
from synthgen.records.rle import rle_area
from synthgen.records.sample import Annotation, is_checked_by_person

#: Minimums of scores, with the score of `Annotation` that they bound.
_SCORES = {f"min_{name}": name for name in ("predicted_iou", "stability_score", "box_iou", "soft_iou")}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFilter:
    """Conditions that an annotation must meet; None = no condition.

    Two filters combine to one that demands both, so their order does not matter.

    Attributes:
        min_predicted_iou, min_stability_score, min_box_iou, min_soft_iou: in [0, 1]; minimum of the mask's score. An
            annotation without a mask, or whose mask lacks the score, does not meet it. Masks that people drew or
            reviewed always do.
        min_area: minimum area in pixels: of the mask, or of the box if there is no mask.
        categories: names, one of which is the annotation's.

    Raises:
        ArgumentError: a value is not valid.
    """

    min_predicted_iou: float | None = None
    min_stability_score: float | None = None
    min_box_iou: float | None = None
    min_soft_iou: float | None = None
    min_area: float | None = None
    categories: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for argument in (*_SCORES, "min_area"):
            value, most = getattr(self, argument), math.inf if argument == "min_area" else 1
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= most:
                wanted = "a number of pixels" if argument == "min_area" else "a number from 0 to 1"
                raise ArgumentError(f"{argument}={shorten_value(value)} is not valid; give {wanted}")
            object.__setattr__(self, argument, float(value))  # numbers of numpy, too

    def combine(self, other: Self) -> LayerFilter:
        """The filter that demands both this filter and the `other` one."""
        both = [
            own if theirs is None else theirs if own is None else max(own, theirs)
            for own, theirs in ((getattr(self, name), getattr(other, name)) for name in (*_SCORES, "min_area"))
        ]
        names = [one.categories for one in (self, other) if one.categories is not None]
        categories = frozenset.intersection(*names) if names else None
        return LayerFilter(**dict(zip((*_SCORES, "min_area"), both, strict=True)), categories=categories)

    def apply(self, annotations: tuple[Annotation, ...]) -> tuple[Annotation, ...]:
        """The annotations that meet all conditions."""
        return tuple(filter(self.accepts, annotations))

    def accepts(self, annotation: Annotation) -> bool:
        """Whether an annotation meets all conditions."""
        if self.categories is not None and annotation.category not in self.categories:
            return False
        for argument, name in _SCORES.items():
            least = getattr(self, argument)
            if least is not None and not _has_score(annotation, name, least):
                return False
        return self.min_area is None or annotation_area(annotation) >= self.min_area


def check_categories(categories: Iterable[str] | None, known: Iterable[str], layer: str) -> frozenset[str] | None:
    """The names of an argument `categories`.

    Args:
        categories: what the user gave; None = no condition.
        known: the names of the layer, if all of them are known; else nothing.
        layer: the layer's name, for the message.

    Raises:
        ArgumentError: it is a single text, or a name is not of the layer.
    """
    if categories is None:
        return None
    if isinstance(categories, str):
        raise ArgumentError(f"categories={shorten_value(categories)} is one text; give a list of names")
    try:
        names = frozenset(categories)
    except TypeError:
        raise ArgumentError(f"categories={shorten_value(categories)} is not valid; give a list of names") from None
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ArgumentError(f"categories has {shorten_value(wrong[0])}, which is not a text; give a list of names")
    own = sorted(known)
    unknown = sorted(names.difference(own)) if own else []
    if unknown:
        have = ", ".join(own[:10]) + (", ..." if len(own) > 10 else "")
        close = did_you_mean(unknown[0], own)
        raise ArgumentError(f"{layer} has no category {shorten_value(unknown[0])}{close} (have: {have})")
    return names


def annotation_area(annotation: Annotation) -> float:
    """The area of `annotation` in pixels: of the mask, or of the box if there is no mask; NaN for a box that is not
    finite.
    """
    if annotation.segmentation is not None:
        return float(rle_area(annotation.segmentation))
    return max(annotation.bbox[2], 0.0) * max(annotation.bbox[3], 0.0)


def _has_score(annotation: Annotation, name: str, least: float) -> bool:
    if annotation.segmentation is None:
        return False
    if is_checked_by_person(annotation):
        return True
    score: float | None = getattr(annotation, name)
    return score is not None and score >= least  # false for NaN
