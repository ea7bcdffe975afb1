"""Draw a sample for a person to judge: photograph, masks, boxes, names, scores, captions."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from synthgen.errors import SynthgenError
from synthgen.records.geometry import decode_mask
from synthgen.records.sample import Annotation, Sample

#: Overlays are drawn at least this many pixels wide or high, so that words stay readable on small photographs.
LONG_SIDE = 1024

_MASK_OPACITY = 0.45

#: Width of the captions beside the photograph, as a share of the long side.
_CAPTIONS_SHARE = 0.6


def draw(sample: Sample, image: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """The overlay of one sample.

    Masks are tinted and outlined, boxes drawn as the source gives them, each with its category and scores; a box
    without a mask is drawn thin, with the reason from its flags. Beside the photograph stand the captions, if there are
    any, in the colours of their boxes; below it the file name and what went wrong.

    Args:
        image: uint8 [H, W, 3] RGB; None where it could not be read.

    Returns:
        uint8 [H', W', 3] RGB, its long side at least `LONG_SIDE`.
    """
    if image is None:
        image = np.full((360, 640, 3), 40, np.uint8)
    scale = max(1.0, LONG_SIDE / max(image.shape[:2]))
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    canvas = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    # Large objects first, so that small ones are not hidden under them.
    order = sorted(range(len(sample.annotations)), key=lambda i: -_area(sample.annotations[i]))
    for i in order:
        _tint(canvas, sample.annotations[i], _colour(i), image.shape[:2])
    picture = Image.fromarray(canvas.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(13, round(max(size) / 52)))
    taken: list[tuple[float, float, float, float]] = []
    for i in order:
        _label(pen, sample.annotations[i], _colour(i), scale, font, taken, size)
    if any(a.captions for a in sample.annotations):
        picture = _with_captions(picture, sample, font)
    return _with_footer(picture, sample, font)


def sheet(pictures: Sequence[NDArray[np.uint8]], *, columns: int = 0, width: int = 640) -> NDArray[np.uint8]:
    """Pictures on one contact sheet, row by row: uint8 [H, W, 3]; each is scaled to `width` pixels."""
    columns = columns or max(1, math.ceil(math.sqrt(len(pictures))))
    small = [Image.fromarray(p) for p in pictures]
    small = [p.resize((width, max(1, round(p.height * width / p.width))), Image.Resampling.LANCZOS) for p in small]
    rows = [small[i : i + columns] for i in range(0, len(small), columns)]
    heights = [max(p.height for p in row) for row in rows]
    page = Image.new("RGB", (width * min(columns, max(len(small), 1)), max(sum(heights), 1)), (24, 24, 24))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for place, picture in enumerate(row):
            page.paste(picture, (place * width, top))
        top += height
    return np.asarray(page)


def save(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture (uint8 [H, W, 3] RGB) as PNG.

    Raises:
        SynthgenError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, format="PNG")
    except OSError as why:
        raise SynthgenError(f"cannot write {path} ({why.strerror}); choose another --out") from None


def _area(annotation: Annotation) -> float:
    area = annotation.bbox[2] * annotation.bbox[3]
    return area if math.isfinite(area) else 0.0


def _colour(index: int) -> tuple[int, int, int]:
    """Colours that neighbours in the list do not share: hues a golden angle apart."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.61803398875 % 1.0, 0.85, 1.0)
    return (round(red * 255), round(green * 255), round(blue * 255))


def _tint(
    canvas: NDArray[np.float32], annotation: Annotation, colour: tuple[int, int, int], size: tuple[int, int]
) -> None:
    """Blend one mask into the canvas, in place, with a solid outline."""
    rle = annotation.segmentation
    if rle is None or rle.size != size:
        return
    height, width = canvas.shape[:2]
    small = Image.fromarray(decode_mask(rle).astype(np.uint8) * 255)
    mask = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)) > 127
    canvas[mask] = canvas[mask] * (1 - _MASK_OPACITY) + np.array(colour, np.float32) * _MASK_OPACITY
    inner = mask.copy()
    for shift in (1, 2):
        inner[shift:] &= mask[:-shift]
        inner[:-shift] &= mask[shift:]
        inner[:, shift:] &= mask[:, :-shift]
        inner[:, :-shift] &= mask[:, shift:]
    canvas[mask & ~inner] = colour


def _label(
    pen: ImageDraw.ImageDraw,
    annotation: Annotation,
    colour: tuple[int, int, int],
    scale: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    taken: list[tuple[float, float, float, float]],
    size: tuple[int, int],
) -> None:
    """The box, and above it the category with its scores, or with the reason why there is no mask."""
    x, y, w, h = (value * scale for value in annotation.bbox)
    if not all(math.isfinite(v) and abs(v) < 1e6 for v in (x, y, w, h)):
        return
    masked = annotation.segmentation is not None
    pen.rectangle((x, y, x + max(w, 1), y + max(h, 1)), outline=colour, width=3 if masked else 1)
    words = caption(annotation)
    left, top, right, bottom = pen.textbbox((0, 0), words, font=font)
    wide, high = right - left + 6, bottom - top + 6
    place_x = min(max(x, 0), max(size[0] - wide, 0))
    place_y = min(max(y - high, 0), max(size[1] - high, 0))
    for _ in range(12):  # move below labels that are there already
        over = [
            t for t in taken if place_x < t[2] and t[0] < place_x + wide and place_y < t[3] and t[1] < place_y + high
        ]
        if not over or over[0][3] + high > size[1]:
            break
        place_y = over[0][3]
    taken.append((place_x, place_y, place_x + wide, place_y + high))
    # Black or white, whichever stands out (ITU-R BT.601 luma).
    ink = (0, 0, 0) if np.dot(colour, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
    pen.rectangle((place_x, place_y, place_x + wide, place_y + high), fill=colour)
    pen.text((place_x + 3 - left, place_y + 3 - top), words, fill=ink, font=font)


def caption(annotation: Annotation) -> str:
    """One line about an annotation: "dog  iou .94  stab .97  box .91", or "dog  [crowd]"."""
    words = [annotation.category or "?"]
    scores = (
        ("iou", annotation.predicted_iou),
        ("stab", annotation.stability_score),
        ("box", annotation.box_iou),
    )
    words += [f"{name} {score:.2f}".replace("0.", ".") for name, score in scores if score is not None]
    if annotation.flags:
        words.append(f"[{', '.join(annotation.flags)}]")
    return "  ".join(words)


def captions(annotation: Annotation) -> list[str]:
    """A line a caption, best first: "a brown dog  -0.42  [low_score]", or "a dog  (human)"."""
    lines = []
    for own in annotation.captions:
        marks = [own.text, f"({own.source})" if own.source == "human" else ""]
        marks += [
            f"{own.score:.2f}" if own.score is not None else "",
            "[not it]" if own.category_match is False else "",
        ]
        lines.append("  ".join(filter(None, [*marks, f"[{', '.join(own.reasons)}]" if own.reasons else ""])))
    return lines


def _with_captions(
    picture: Image.Image, sample: Sample, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image.Image:
    """The picture with a column of captions at its right; objects that find no room there are counted."""
    wide, step = round(max(picture.size) * _CAPTIONS_SHARE), round(font.getbbox("Ag")[3] * 1.25)
    page = Image.new("RGB", (picture.width + wide, picture.height), (16, 16, 16))
    page.paste(picture, (0, 0))
    pen = ImageDraw.Draw(page)
    blocks = [(i, a, captions(a)) for i, a in enumerate(sample.annotations) if a.captions]
    left, y = picture.width + step // 2, step // 2
    for done, (i, annotation, lines) in enumerate(blocks):
        if y + step * (len(lines) + 2) > picture.height and done:
            pen.text((left, y), f"... and {len(blocks) - done} more objects", fill=(200, 200, 200), font=font)
            break
        pen.rectangle((left, y + step // 4, left + step // 2, y + 3 * step // 4), fill=_colour(i))
        pen.text((left + step, y), annotation.category or "?", fill=_colour(i), font=font)
        for place, line in enumerate(lines, 1):
            pen.text((left + step, y + place * step), line[:200], fill=(235, 235, 235), font=font)
        y += step * (len(lines) + 1) + step // 3
    return page


def _with_footer(
    picture: Image.Image, sample: Sample, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> NDArray[np.uint8]:
    masks = sum(a.segmentation is not None for a in sample.annotations)
    words = f"{sample.file_name}   {len(sample.annotations)} boxes, {masks} masks"
    if count := sum(len(a.captions) for a in sample.annotations):
        words += f", {count} captions"
    if sample.error:
        words += f"   ERROR: {sample.error}"
    high = round(font.getbbox("Ag")[3]) + 10
    page = Image.new("RGB", (picture.width, picture.height + high), (0, 0, 0))
    page.paste(picture, (0, 0))
    ImageDraw.Draw(page).text((6, picture.height + 4), words, fill=(255, 255, 255), font=font)
    return np.asarray(page)
