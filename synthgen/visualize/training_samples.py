"""Draws the first training samples of a manifest: `synthgen show MANIFEST`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen import plugins
from synthgen.dataloading.manifest import load_manifest
from synthgen.dataloading.mixture import Mixture
from synthgen.dataloading.source_config import TASKS_PACKAGE
from synthgen.dataloading.transforms import Example
from synthgen.errors import SynthgenError
from synthgen.visualize.contact_sheet import make_contact_sheet, make_thumbnail
from synthgen.visualize.drawing import MIN_LONG_SIDE, ObjectMark, TextBlock, draw_overlay, save_png, shorten_text

#: This many negatives are listed.
_MAX_NEGATIVES = 20

#: Greys and side length in pixels of the chequers that show padding.
_CHECKER_GRAYS, _CHECKER_SIZE = (34, 58), 16

#: Width of a picture on the sheet, in pixels.
_THUMBNAIL_WIDTH = 800


@dataclass(frozen=True, slots=True)
class DrawnSamples:
    """Result of `draw_training_samples`.

    Attributes:
        sheet_path: the contact sheet.
        picture_paths: the single pictures, in the order of the stream.
        stats_lines: lines about the images that the stream gave and skipped.
    """

    sheet_path: Path
    picture_paths: tuple[Path, ...]
    stats_lines: tuple[str, ...]


def draw_training_samples(
    path: Path,
    *,
    store: Path | None = None,
    out: Path | None = None,
    n: int = 16,
    seed: int | None = None,
    on_images: Callable[[int], None] = lambda _: None,
) -> DrawnSamples:
    """Draw the first `n` images of a manifest's stream, as a single reader sees them.

    Args:
        path: the manifest.
        store: root of the shards, instead of the manifest's.
        out: folder of the pictures; None = `_show/` and the manifest's name in the store.
        n: how many images to draw.
        seed: instead of the manifest's.
        on_images: called with 1 after each image.

    Raises:
        SynthgenError: the manifest has mistakes, nothing to learn from is found, or a picture cannot be written.
    """
    manifest = load_manifest(path, store=store)
    if seed is not None:
        manifest = manifest.model_copy(update={"seed": seed})
    out = out or manifest.store / "_show" / manifest.name
    mixture = Mixture(manifest, reader_id=0, num_readers=1)
    pictures, paths = [], []
    for number, (example, place, key) in enumerate(islice(mixture, n)):
        source = manifest.mixture[place]
        drawn = draw_example(example, task=source.task, source=source.shards, image_key=key)
        pictures.append(make_thumbnail(drawn, num_pictures=n, width=_THUMBNAIL_WIDTH))  # the full pictures are not kept
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", key)[-80:]
        paths.append(out / f"{number:03d}-{source.task}-{stem}.png")
        save_png(paths[-1], drawn)
        on_images(1)
    save_png(out / "sheet.png", make_contact_sheet(pictures))
    _remove_old_pictures(out, {path.name for path in paths})
    return DrawnSamples(out / "sheet.png", tuple(paths), tuple(mixture.stats.format_table()))


def _remove_old_pictures(folder: Path, kept_names: set[str]) -> None:
    """Remove pictures of an earlier call; only names that `draw_training_samples` uses."""
    own = re.compile(rf"[0-9]{{3,}}-({'|'.join(plugins.list_plugins(TASKS_PACKAGE))})-[A-Za-z0-9_-]{{1,80}}\.png")
    for path in folder.iterdir():
        if own.fullmatch(path.name) and path.name not in kept_names and path.is_file():
            try:
                path.unlink()
            except OSError as why:
                raise SynthgenError(
                    f"cannot take away the older {path} ({why.strerror}); choose another --out"
                ) from None


def draw_example(example: Example, *, task: str, source: str, image_key: str) -> NDArray[np.uint8]:
    """Draw one example: the input of the network and its targets.

    Masks are tinted in the colour of their object; an object without a mask has a dashed box. Ignored regions are
    hatched, padding is chequered. Beside the image are the texts in the colours of their objects, and a few negatives.
    The line below names the task, the source and the photograph, and how much of the view it fills.

    Args:
        example: as a task and the transforms made it.
        task: name of the task, for the line below the image.
        source: "dataset/split/layer".
        image_key: the photograph's identity, for the same line.

    Returns:
        uint8 [H, W, 3], RGB; the view is at its top left, enlarged to `drawing.MIN_LONG_SIDE` pixels if it is smaller.
    """
    masks = iter(example.masks)
    marks = [
        ObjectMark(
            (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            _mark_label(example.texts[label], bool(has_mask), float(weight)),
            next(masks) if has_mask else None,
        )
        for box, label, has_mask, weight in zip(
            example.boxes_xyxy, example.labels, example.has_mask, example.mask_weights, strict=True
        )
    ]
    blocks = list(_text_blocks(example.texts, example.labels.tolist()))
    return draw_overlay(
        _draw_padding(example),
        marks,
        blocks,
        _footer_text(example, task, source, image_key),
        hatched_mask=example.ignore,
    )


def _mark_label(text: str, has_mask: bool, weight: float) -> str:
    """The label at a box: "dog", "the larger brown dog on the ...", "dog [box only]", "dog x.85"."""
    words = [shorten_text(text)]
    if not has_mask:
        words.append("[box only]")
    elif weight != 1:
        words.append(f"x{weight:.2f}".replace("x0.", "x."))
    return "  ".join(words)


def _text_blocks(texts: Sequence[str], labels: Sequence[int]) -> list[TextBlock]:
    """The texts that have objects, in order; then the number of negatives, and some of them."""
    marks: dict[int, list[int]] = {}
    for i, label in enumerate(labels):
        marks.setdefault(label, []).append(i)
    blocks = [
        TextBlock(texts[label] + (f"  x{len(own)}" if len(own) > 1 else ""), mark_indices=own)
        for label, own in sorted(marks.items())
    ]
    absent = [text for i, text in enumerate(texts) if i not in marks]
    if absent:
        some = ", ".join(absent[:_MAX_NEGATIVES]) + (", ..." if len(absent) > _MAX_NEGATIVES else "")
        blocks.append(TextBlock(f"negatives: {len(absent):,} of {len(texts):,} texts", [some]))
    return blocks


def _footer_text(example: Example, task: str, source: str, image_key: str) -> str:
    """ "instance of coco/train2017/human   coco/000000391895   3 objects, 1 box only   ..."."""
    (height, width), canvas = example.size, example.image.shape
    boxes = int((~example.has_mask).sum())
    n = len(example.labels)
    objects = f"{n:,} object{'s' * (n != 1)}" + (f", {boxes:,} box only" if boxes else "")
    seen = f"{width} x {height}" + (f" in {canvas[1]} x {canvas[0]}" if (height, width) != canvas[:2] else "")
    words = [f"{task} of {source}", image_key, objects, f"{seen}, file {example.orig_size[1]} x {example.orig_size[0]}"]
    if example.ignore.any():
        words.append(f"ignored {100 * example.ignore[:height, :width].mean():.1f} %")
    return "   ".join(words)


def _draw_padding(example: Example) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: the image with a chequered padding."""
    (height, width), canvas = example.size, example.image.copy()
    side = (
        max(1, round(_CHECKER_SIZE * max(canvas.shape[:2]) / MIN_LONG_SIDE))
        if max(canvas.shape[:2]) < MIN_LONG_SIDE
        else _CHECKER_SIZE
    )
    dark = np.add.outer(np.arange(canvas.shape[0]) // side, np.arange(canvas.shape[1]) // side) % 2 == 0
    padding = np.ones(canvas.shape[:2], np.bool_)
    padding[:height, :width] = False
    canvas[padding & dark], canvas[padding & ~dark] = _CHECKER_GRAYS
    return canvas
