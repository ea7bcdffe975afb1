"""Draws masks, boxes and texts on images, and writes pictures as PNG."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from synthgen.errors import SynthgenError, escape_control_chars, is_disk_full
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Rle

#: The long side of an overlay is at least this many pixels, so that text stays readable on small photographs.
MIN_LONG_SIDE = 1024

_MASK_OPACITY = 0.45

#: Width of the text column as a share of the long side; and the minimum number of lines it has room for.
_COLUMN_SHARE, _COLUMN_MIN_LINES = 0.5, 12

#: Longer labels at a box are cut (`shorten_text`); the text column has the full text.
MAX_LABEL_LENGTH = 28

#: Maximum characters drawn of a text; maximum colours of marks in a block.
_MAX_TEXT_LENGTH, _MAX_SWATCHES = 1_000, 12

#: Length of a dash, and of the gap after it, in pixels.
_DASH_LENGTH = 8

#: Pixels from one stripe of a hatched region to the next, each white and black.
_HATCH_PERIOD, _STRIPE_WIDTH = 18, 3

_Box = tuple[float, float, float, float]
_Color = tuple[int, int, int]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True, eq=False)
class ObjectMark:
    """One object on a picture.

    Attributes:
        box_xyxy: absolute pixels of the image; a box that is not finite is not drawn.
        label: the text at the box.
        mask: run lengths, or bool [H, W], of the image's size; None, or of another size: the box is dashed.
        color: (red, green, blue), 0 to 255; None = one of its own.
        has_box: whether the box is drawn; else only the label stands at its top left corner.
    """

    box_xyxy: tuple[float, float, float, float]
    label: str
    mask: Rle | NDArray[np.bool_] | None = None
    color: tuple[int, int, int] | None = None
    has_box: bool = True


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Text beside a picture: a title with the colours of its marks, and lines below it.

    A mark without a mask shows its colour as an outline.
    """

    title: str
    lines: Sequence[str] = ()
    mark_indices: Sequence[int] = ()


def draw_overlay(
    image: NDArray[np.uint8],
    marks: Sequence[ObjectMark],
    blocks: Sequence[TextBlock] = (),
    footer: str = "",
    *,
    hatched_mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """An image with its marks, each in its colour; the blocks beside it, the footer below it.

    Args:
        image: uint8 [H, W, 3] RGB.
        marks: the objects.
        blocks: texts in a column beside the image.
        footer: text below the image; "" = none.
        hatched_mask: bool [H, W], a region to draw stripes over.

    Returns:
        uint8 [H', W', 3] RGB, its long side at least `MIN_LONG_SIDE`; the image is at its top left.
    """
    scale = max(1.0, MIN_LONG_SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    canvas = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    colors = [_palette_color(i) if mark.color is None else mark.color for i, mark in enumerate(marks)]
    # Large objects first, so that small ones are not hidden under them.
    order = sorted(range(len(marks)), key=lambda i: -_box_area(marks[i].box_xyxy))
    for i in order:
        _blend_mask(canvas, marks[i].mask, colors[i], image.shape[:2])
    if hatched_mask is not None and hatched_mask.any():
        _draw_hatching(canvas, hatched_mask)
    page = Image.fromarray(canvas.astype(np.uint8))
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=max(13, round(max(size) / 52)))
    taken: list[_Box] = []
    boxes = [(i, corners) for i in order if (corners := _scale_box(marks[i].box_xyxy, scale)) is not None]
    for i, corners in boxes:
        if not marks[i].has_box:
            continue
        if marks[i].mask is None:
            _draw_dashed_box(pen, corners, colors[i], size)
        else:
            pen.rectangle(corners, outline=colors[i], width=3)
    for i, corners in boxes:  # after all boxes, so that no box hides a label
        _draw_label(pen, corners, marks[i].label, colors[i], font, taken, size)
    if blocks:
        page = _add_text_column(page, blocks, marks, colors, font)
    return _add_footer(page, footer, font)


def shorten_text(text: str, max_length: int = MAX_LABEL_LENGTH) -> str:
    """A text of at most `max_length` characters; a longer one is cut after a word and ends in three dots."""
    if len(text) <= max_length:
        return text
    cut = text[: max_length - 4]
    return f"{cut.rpartition(' ')[0] or cut} ..."


def to_pil(image: NDArray[np.uint8]) -> Image.Image:
    """A picture, uint8 [H, W, 3] RGB, as an image of Pillow, which notebooks show."""
    return Image.fromarray(image)


def save_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a picture (uint8 [H, W, 3] RGB) as PNG.

    Args:
        path: file to write; its folder is created.
        image: uint8 [H, W, 3] RGB.

    Raises:
        SynthgenError: the file cannot be written.
        OSError: the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, format="PNG", compress_level=2)  # level 6: 3 % fewer bytes, 2.5 x the time
    except OSError as why:
        if is_disk_full(why):
            raise
        raise SynthgenError(f"cannot write {path} ({why.strerror}); choose another --out") from None


def _box_area(box_xyxy: _Box) -> float:
    area = (box_xyxy[2] - box_xyxy[0]) * (box_xyxy[3] - box_xyxy[1])
    return area if math.isfinite(area) else 0.0


def _palette_color(index: int) -> _Color:
    """A colour per index; neighbours differ by a golden angle in hue."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.61803398875 % 1.0, 0.85, 1.0)
    return (round(red * 255), round(green * 255), round(blue * 255))


def _luma(color: _Color) -> float:
    """Perceived brightness (ITU-R BT.601), 0 to 255."""
    return float(np.dot(color, (0.299, 0.587, 0.114)))


def _lighten_color(color: _Color) -> _Color:
    """The colour, made lighter if needed to be readable on black."""
    share = min(1.0, 155 / (255 - _luma(color)))  # share of the colour; the rest is white, for a luma of 100
    red, green, blue = (round(share * part + (1 - share) * 255) for part in color)
    return red, green, blue


def _blend_mask(
    canvas: NDArray[np.float32], source_mask: Rle | NDArray[np.bool_] | None, color: _Color, size: tuple[int, int]
) -> None:
    """Blend one mask into the canvas, in place, with a solid outline."""
    if source_mask is None or (source_mask.size if isinstance(source_mask, Rle) else source_mask.shape) != size:
        return
    mask = _resize_mask(decode_mask(source_mask) if isinstance(source_mask, Rle) else source_mask, canvas)
    canvas[mask] = canvas[mask] * (1 - _MASK_OPACITY) + np.array(color, np.float32) * _MASK_OPACITY
    inner = mask.copy()
    for shift in (1, 2):
        inner[shift:] &= mask[:-shift]
        inner[:-shift] &= mask[shift:]
        inner[:, shift:] &= mask[:, :-shift]
        inner[:, :-shift] &= mask[:, shift:]
    canvas[mask & ~inner] = color


def _draw_hatching(canvas: NDArray[np.float32], region_mask: NDArray[np.bool_]) -> None:
    """Draw diagonal stripes over a region, in place; white and black, so that they are visible on anything."""
    slant = np.add.outer(np.arange(canvas.shape[0]), np.arange(canvas.shape[1])) % _HATCH_PERIOD
    region = _resize_mask(region_mask, canvas)
    canvas[region & (slant < _STRIPE_WIDTH)] = 255
    canvas[region & (slant >= _STRIPE_WIDTH) & (slant < 2 * _STRIPE_WIDTH)] = 0


def _resize_mask(mask: NDArray[np.bool_], canvas: NDArray[np.float32]) -> NDArray[np.bool_]:
    small = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(small.resize((canvas.shape[1], canvas.shape[0]), Image.Resampling.BILINEAR)) > 127


def _scale_box(box_xyxy: _Box, scale: float) -> _Box | None:
    """The box on the canvas, at least one pixel wide and high; None = it cannot be drawn."""
    x1, y1, x2, y2 = (value * scale for value in box_xyxy)
    drawable = all(math.isfinite(value) and abs(value) < 1e6 for value in (x1, y1, x2, y2))
    return (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)) if drawable else None


def _draw_label(
    pen: ImageDraw.ImageDraw,
    corners: _Box,
    text: str,
    color: _Color,
    font: _Font,
    occupied: list[_Box],
    size: tuple[int, int],
) -> None:
    """Draw a label above a box, where no other label is."""
    text = escape_control_chars(text[:_MAX_TEXT_LENGTH])
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 6
    place_x = min(max(corners[0], 0), max(size[0] - wide, 0))
    place_y = min(max(corners[1] - high, 0), max(size[1] - high, 0))
    for _ in range(12):  # move below labels that are there already
        over = [
            t for t in occupied if place_x < t[2] and t[0] < place_x + wide and place_y < t[3] and t[1] < place_y + high
        ]
        if not over or over[0][3] + high > size[1]:
            break
        place_y = over[0][3]
    occupied.append((place_x, place_y, place_x + wide, place_y + high))
    ink = (0, 0, 0) if _luma(color) > 110 else (255, 255, 255)
    pen.rectangle((place_x, place_y, place_x + wide, place_y + high), fill=color)
    pen.text((place_x + 3 - left, place_y + 3 - top), text, fill=ink, font=font)


def _draw_dashed_box(pen: ImageDraw.ImageDraw, corners: _Box, color: _Color, size: tuple[int, int]) -> None:
    """A dashed rectangle, clipped to `size`, (width, height)."""
    x1, y1, x2, y2 = corners
    for y in (y1, y2):
        for left in range(max(0, round(x1)), min(size[0], round(x2)), 2 * _DASH_LENGTH):
            pen.line((left, y, min(left + _DASH_LENGTH, x2), y), fill=color, width=3)
    for x in (x1, x2):
        for top in range(max(0, round(y1)), min(size[1], round(y2)), 2 * _DASH_LENGTH):
            pen.line((x, top, x, min(top + _DASH_LENGTH, y2)), fill=color, width=3)


def _add_text_column(
    page: Image.Image,
    blocks: Sequence[TextBlock],
    marks: Sequence[ObjectMark],
    colors: Sequence[_Color],
    font: _Font,
) -> Image.Image:
    """The picture with a text column at its right. Blocks that do not fit are counted."""
    wide, step = round(max(page.size) * _COLUMN_SHARE), round(font.getbbox("Ag")[3] * 1.25)
    high = max(page.height, step * _COLUMN_MIN_LINES)
    wider = Image.new("RGB", (page.width + wide, high), (16, 16, 16))
    wider.paste(page, (0, 0))
    pen = ImageDraw.Draw(wider)
    left, y = page.width + step // 2, step // 2
    for done, block in enumerate(blocks):
        title = list(
            _wrap_text(block.title, font, wide - 2 * step - min(len(block.mark_indices), _MAX_SWATCHES) * step * 3 // 4)
        )
        lines = [line for one in block.lines for line in _wrap_text(one, font, wide - 2 * step)]
        if y + step * (len(title) + len(lines) + 1) > high and done:
            pen.text((left, y), f"... and {len(blocks) - done} more", fill=(200, 200, 200), font=font)
            break
        x = left
        for i in block.mark_indices[:_MAX_SWATCHES]:
            corners = (x, y + step // 4, x + step // 2, y + 3 * step // 4)
            pen.rectangle(corners, fill=None if marks[i].mask is None else colors[i], outline=colors[i], width=3)
            x += step * 3 // 4
        colour = _lighten_color(colors[block.mark_indices[0]]) if len(block.mark_indices) == 1 else (255, 255, 255)
        for line in title:
            pen.text((max(x, left + step), y), line, fill=colour, font=font)
            y += step
        for line in lines:
            pen.text((left + step, y), line, fill=(235, 235, 235), font=font)
            y += step
        y += step // 3
    return wider


def _add_footer(page: Image.Image, text: str, font: _Font) -> NDArray[np.uint8]:
    step = round(font.getbbox("Ag")[3]) + 10
    lines = list(_wrap_text(text, font, page.width - 12))
    higher = Image.new("RGB", (page.width, page.height + step * len(lines)), (0, 0, 0))
    higher.paste(page, (0, 0))
    pen = ImageDraw.Draw(higher)
    for i, line in enumerate(lines):
        pen.text((6, page.height + i * step + 4), line, fill=(255, 255, 255), font=font)
    return np.asarray(higher)


def _wrap_text(text: str, font: _Font, max_width: float) -> Iterator[str]:
    """The text in lines of at most `max_width` pixels, broken at spaces if possible; at least one line."""
    line = ""
    for word in escape_control_chars(text[:_MAX_TEXT_LENGTH]).split(" "):
        if line and font.getlength(f"{line} {word}") > max_width:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while len(line) > 1 and (length := font.getlength(line)) > max_width:
            fits = max(1, int(len(line) * max_width / length))
            yield line[:fits]
            line = line[fits:]
    yield line
