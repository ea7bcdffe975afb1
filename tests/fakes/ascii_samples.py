"""Samples drawn in letters: each letter of a drawing is the mask of one annotation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.records.rle import decode_mask, encode_mask
from synthgen.records.sample import Annotation, Caption, Rle, Sample


def letter_mask(drawing: str, letter: str) -> NDArray[np.bool_]:
    """Where a letter stands: bool [H, W]; lines of a drawing are rows."""
    return np.array([list(row) for row in drawing.split()]) == letter


def ascii_sample(drawing: str, annotations: list[Annotation], **fields: Any) -> Sample:
    """A sample of the drawing's size."""
    height, width = letter_mask(drawing, " ").shape
    return replace(Sample(1, "ascii/1", "1.png", height, width, tuple(annotations)), **fields)


def masked_annotation(drawing: str, letter: str, id: int, category: str, **fields: Any) -> Annotation:
    """An annotation whose mask is a letter of the drawing, drawn by a person, with the box of the mask."""
    mask = letter_mask(drawing, letter)
    y, x = np.nonzero(mask)
    bbox = (float(x.min()), float(y.min()), float(np.ptp(x) + 1), float(np.ptp(y) + 1)) if len(x) else (0.0,) * 4
    given = Annotation(id, bbox, category, segmentation=encode_mask(mask), mask_source="human")
    return replace(given, **fields)


def boxed_annotation(id: int, bbox: tuple[float, float, float, float], category: str, **fields: Any) -> Annotation:
    """An annotation without a mask."""
    return replace(Annotation(id, bbox, category), **fields)


def human_captions(*phrases: str) -> tuple[Caption, ...]:
    """Captions of a person."""
    return tuple(Caption(phrase, "human") for phrase in phrases)


def rle_to_ascii(rle: Rle | None) -> str:
    """A mask as a drawing again: '#' and '.'; "" for None."""
    return (
        "" if rle is None else "\n".join("".join(".#"[value] for value in row) for row in decode_mask(rle).astype(int))
    )


def ascii_rows(*rows: str) -> str:
    """What `rle_to_ascii` says of such rows."""
    return "\n".join(rows)
