"""Draws a sample for review: photograph, masks, boxes, names, scores, captions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthgen.records.sample import Annotation, Sample
from synthgen.visualize.drawing import ObjectMark, TextBlock, draw_overlay


def draw_sample(sample: Sample, image: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """The overlay of one sample.

    Masks are tinted and outlined, boxes drawn as the source gives them, each with its category and scores; a box
    without a mask is dashed, with the reason from its flags. The captions are beside the photograph, in the
    colours of their boxes; the file name and the error are below it.

    Args:
        sample: the image's annotations and captions.
        image: uint8 [H, W, 3] RGB; None if it could not be read.

    Returns:
        uint8 [H', W', 3] RGB, its long side at least `drawing.MIN_LONG_SIDE`.
    """
    if image is None:
        image = np.full((360, 640, 3), 40, np.uint8)
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (a.bbox for a in sample.annotations)]
    marks = [
        ObjectMark(box, format_annotation(a), a.segmentation) for a, box in zip(sample.annotations, boxes, strict=True)
    ]
    blocks = [
        TextBlock(a.category or "?", format_captions(a), (i,)) for i, a in enumerate(sample.annotations) if a.captions
    ]
    masks = sum(a.segmentation is not None for a in sample.annotations)
    boxes_and_masks = f"{_count(len(sample.annotations), 'box', 'boxes')}, {_count(masks, 'mask', 'masks')}"
    words = f"{sample.file_name}   {boxes_and_masks}"
    if count := sum(len(a.captions) for a in sample.annotations):
        words += f", {_count(count, 'caption', 'captions')}"
    if sample.error:
        words += f"   ERROR: {sample.error}"
    return draw_overlay(image, marks, blocks, words)


def _count(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def format_annotation(annotation: Annotation) -> str:
    """One line about an annotation: "dog  iou .94  stab .97  box .91", or "dog  [crowd]"."""
    words = [annotation.category or "?"]
    scores = (
        ("iou", annotation.predicted_iou),
        ("stab", annotation.stability_score),
        ("soft", annotation.soft_iou),
        ("box", annotation.box_iou),
    )
    words += [f"{name} {score:.2f}".replace("0.", ".") for name, score in scores if score is not None]
    if annotation.flags:
        words.append(f"[{', '.join(annotation.flags)}]")
    return "  ".join(words)


def format_captions(annotation: Annotation) -> list[str]:
    """One line per caption, best first: "a brown dog -0.42 [low_score]", or "a dog (human)".

    Args:
        annotation: the object, with its captions.
    """
    lines = []
    for own in annotation.captions:
        marks = [own.text, f"({own.source})" if own.source == "human" else ""]
        marks += [
            f"{own.score:.2f}" if own.score is not None else "",
            "[not it]" if own.category_match is False else "",
        ]
        lines.append("  ".join(filter(None, [*marks, f"[{', '.join(own.reasons)}]" if own.reasons else ""])))
    return lines
