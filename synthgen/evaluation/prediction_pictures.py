"""Draws what a network found: detections, panoptic segments or semantic regions, coloured by object or by query.

Coloured by query, a picture shows which masks came from conditional and which from learnable queries (MQ-Former,
figure 5).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.evaluation.metrics import Detection, PanopticMap, SemanticMap
from synthgen.evaluation.prediction_files import joint_kind
from synthgen.images.resize import resize
from synthgen.records.rle import decode_mask, encode_mask
from synthgen.records.sample import Rle
from synthgen.visualize.drawing import ObjectMark, TextBlock, draw_overlay, shorten_text

#: What the colours of a picture mean.
COLOR_CHOICES = ("object", "query")

#: Larger images are drawn at a reduced size; the JSON keeps the original coordinates.
_MAX_DRAWN_SIDE = 2048

_MAX_LEGEND_CHARS = 240

#: Colours of the kinds of queries (red, green, blue), which people with a colour deficiency can tell apart.
_QUERY_COLORS = {"conditional": (64, 160, 255), "learnable": (255, 140, 0), "both": (220, 90, 255)}

Found = Sequence[Detection] | PanopticMap | SemanticMap


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """One object: its text, its score, its kind of query, and where it is in the drawn image."""

    label: int
    score: float | None
    kind: str
    box_xyxy: tuple[float, float, float, float]
    mask: Rle | NDArray[np.bool_] | None
    has_box: bool


def draw_found(
    pixels: NDArray[np.uint8],
    found: Found,
    texts: Sequence[str],
    footer: str = "",
    *,
    num_conditional: int = 0,
    color_by: str = "object",
    stuff_names: frozenset[str] = frozenset(),
) -> NDArray[np.uint8]:
    """The image with what was found: uint8 [H', W', 3], RGB, at most 2,048 pixels a side without its legend.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        found: in the frame of `pixels`; labels are indices into `texts`.
        texts: the prompts, for the legend.
        footer: a line below the image.
        num_conditional: the number of conditional queries; they come first.
        color_by: one of `COLOR_CHOICES`: each object has a colour of its own, or that of its kind of query.
        stuff_names: texts that are stuff; the legend of the queries says so.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, _MAX_DRAWN_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    if isinstance(found, PanopticMap):
        drawn = list(_segments(found, size, num_conditional))
    elif isinstance(found, SemanticMap):
        drawn = list(_regions(found, size, num_conditional))
    else:
        drawn = list(_detections(found, (height, width), size, num_conditional))
    marks = [
        ObjectMark(
            one.box_xyxy,
            shorten_text(texts[one.label]) + ("" if one.score is None else f" {one.score:.2f}".replace(" 0.", " .")),
            one.mask,
            color=_QUERY_COLORS[one.kind] if color_by == "query" else None,
            has_box=one.has_box,
        )
        for one in drawn
    ]
    blocks = _query_blocks(drawn, texts, stuff_names) if color_by == "query" else _text_blocks(drawn, texts)
    return draw_overlay(resize(pixels, size), marks, blocks, footer)


def _detections(
    found: Sequence[Detection], frame: tuple[int, int], size: tuple[int, int], num_conditional: int
) -> Iterator[_Drawn]:
    """`frame`: (height, width) of the image; `size`: of the drawn one."""
    (height, width), (rows, columns) = frame, size
    for one in found:
        x1, y1, x2, y2 = one.box_xyxy
        box = (x1 * columns / width, y1 * rows / height, x2 * columns / width, y2 * rows / height)
        mask = None if one.mask is None else _shrink_mask(one.mask, size)
        yield _Drawn(one.label, one.score, joint_kind((one.query,), num_conditional), box, mask, has_box=True)


def _segments(found: PanopticMap, size: tuple[int, int], num_conditional: int) -> Iterator[_Drawn]:
    ids = _shrink_map(found.segment_ids, size)
    for number, one in enumerate(found.segments, 1):
        if (mask := ids == number).any():
            place = _label_place(mask)
            yield _Drawn(one.label, one.score, joint_kind(one.queries, num_conditional), place, mask, has_box=False)


def _regions(found: SemanticMap, size: tuple[int, int], num_conditional: int) -> Iterator[_Drawn]:
    labels = _shrink_map(found.labels, size)
    for label, query in sorted(found.query_by_label.items()):
        if (mask := labels == label).any():
            yield _Drawn(label, None, joint_kind((query,), num_conditional), _label_place(mask), mask, has_box=False)


def _text_blocks(drawn: Sequence[_Drawn], texts: Sequence[str]) -> list[TextBlock]:
    """A block for each text that was found, with the colours of its objects."""
    return [
        TextBlock(shorten_text(text, _MAX_LEGEND_CHARS), (), tuple(own))
        for i, text in enumerate(texts)
        if (own := [place for place, one in enumerate(drawn) if one.label == i])
    ]


def _query_blocks(drawn: Sequence[_Drawn], texts: Sequence[str], stuff_names: frozenset[str]) -> list[TextBlock]:
    """A block for each kind of query, with what its queries found."""
    blocks = []
    for kind, title in (
        ("conditional", "conditional queries"),
        ("learnable", "learnable queries"),
        ("both", "queries of both kinds"),
    ):
        own = [place for place, one in enumerate(drawn) if one.kind == kind]
        counts = Counter(drawn[place].label for place in own)
        lines = [
            f"{count} {shorten_text(texts[label], _MAX_LEGEND_CHARS)}{' (stuff)' * (texts[label] in stuff_names)}"
            for label, count in sorted(counts.items())
        ]
        if own:
            blocks.append(TextBlock(f"{title}: {len(own)}", lines, (own[0],)))
    return blocks


def _shrink_mask(mask: Rle, size: tuple[int, int]) -> Rle:
    """The mask at a reduced image size."""
    if tuple(mask.size) == size:
        return mask
    return encode_mask(_shrink_map(decode_mask(mask), size))


def _shrink_map(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The nearest pixels, [H, W] to the shape `size`."""
    if pixels.shape == size:
        return pixels
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, pixels.shape, strict=True)
    )
    small: NDArray[Any] = pixels[rows][:, columns]
    return small


def _label_place(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """A box of one pixel inside a mask, in its longest row, where a label is clearly of that mask."""
    row = int(mask.sum(axis=1).argmax())
    columns = np.flatnonzero(mask[row])
    x, y = float(columns[len(columns) // 4]), float(row)
    return (x, y, x + 1, y + 1)
