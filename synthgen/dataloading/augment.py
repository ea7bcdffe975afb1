"""Draws a random view of an image: the kind, the manifest's values and a random generator give plain data.

There are four kinds, named by the tasks:

    jitter      large-scale jitter of Mask DINO and Mask2Former (detectron2's `ResizeScale` and `FixedSizeCrop`): the
                longer side becomes 0.1 to 2.0 times 1024 pixels; a larger image is cropped to 1024 x 1024 at random.
                Ours: the crop offset is drawn for each axis; detectron2 uses one number for both.
    semantic    Mask2Former's and Mask DINO's ADE20K: the shorter side becomes 512 times 0.5, 0.6, ..., 2.0, the longer
                at most 2048; a random crop of 512 x 512; SSD's color steps.
    whole       referring: "as instance, without random crop" (MQ-Former). The whole image is in the view, so
                the scale is at most 1.0; it starts at 0.5 (ours), since small images show too little of an object for
                its phrase. A COCO image has its shorter side at 384 to 768.
    foreground  InSPyReNet's: stretched to 384 x 384; with probability one half each: scaled by 0.75 to 1.25 about
                the middle, rotated by up to 10 degrees, and contrast, sharpness and brightness raised by up to a tenth,
                in any order. Ours: padding is right and bottom, as everywhere here (theirs: on all sides, black); a
                rotation shows the image beyond the window, else padding that is ignored (theirs: black background);
                angles are not whole numbers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

AUGMENTATION_KINDS = ("jitter", "semantic", "whole", "foreground")

#: detectron2's `RandomCrop_CategoryAreaConstraint` draws at most this many crops.
_MAX_CROP_TRIES = 10


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """The section `augment:` of a manifest. Defaults are those of the reference, unless marked as ours.

    Attributes:
        flip: probability of a flip, unless the text of an object forbids it; all kinds.
        size: side of the square that a jittered or whole view lies in, in pixels.
        scale: of the jitter: the longer side, in units of `size`.
        whole_scale: the same for whole views; at most 1, so that nothing is cropped.
        semantic_crop_size: side of the square that a semantic view lies in, in pixels.
        semantic_scale: the shorter side, in units of `semantic_crop_size`; drawn in steps of a tenth.
        semantic_max_size: maximum of the longer side, in pixels.
        max_category_area: no category covers more of a semantic view's labelled pixels, if ten tries find such a crop;
            1 = no limit (the reference's value).
        semantic_color_jitter: SSD's color steps for semantic views.
        foreground_size: side of the square that a foreground view lies in, in pixels.
        foreground_scale: range of its scale.
        foreground_degrees: maximum rotation in either direction.
        foreground_enhance: maximum increase of contrast, sharpness and brightness.
    """

    flip: float = 0.5
    size: int = 1024
    scale: tuple[float, float] = (0.1, 2.0)
    whole_scale: tuple[float, float] = (0.5, 1.0)
    semantic_crop_size: int = 512
    semantic_scale: tuple[float, float] = (0.5, 2.0)
    semantic_max_size: int = 2048
    max_category_area: float = 1.0
    semantic_color_jitter: bool = True
    foreground_size: int = 384
    foreground_scale: tuple[float, float] = (0.75, 1.25)
    foreground_degrees: float = 10.0
    foreground_enhance: float = 0.1

    #: In a manifest, an unknown key is an error, and a string is not accepted as a number.
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        """Raises ValueError that lists every value out of its range."""
        wrong = [
            f"{name} should be {low} to {high}, got {value}"
            for name, low, high in _RANGES
            for value in [getattr(self, name)]
            if not low <= value <= high
        ]
        for name, high in (("scale", 16.0), ("whole_scale", 1.0), ("semantic_scale", 16.0), ("foreground_scale", 16.0)):
            least, most = getattr(self, name)
            if not 0.01 <= least <= most <= high:
                wrong.append(f"{name} should be two numbers, the smaller first, of 0.01 to {high}, got {least}, {most}")
        if wrong:
            raise ValueError("; ".join(wrong))


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("flip", 0, 1),
    ("size", 16, 8192),
    ("semantic_crop_size", 16, 8192),
    ("semantic_max_size", 16, 32768),
    ("max_category_area", 0.01, 1),
    ("foreground_size", 16, 8192),
    ("foreground_degrees", 0, 180),
    ("foreground_enhance", 0, 1),
)


@dataclass(frozen=True, slots=True)
class ViewTransform:
    """A view of an image. In this order: flip, resize, rotate inside a window, color steps, padding.

    Attributes:
        resized_size: (height, width) of the whole image after resizing, in pixels; the frame of the window.
        top, left: position of the window.
        size: (height, width) of the window, which is the view.
        canvas_size: (height, width) with padding, which is right and bottom.
        flip: mirror horizontally.
        degrees: rotation counter-clockwise about the window's middle; the window stays.
        color_steps: steps of `synthgen.dataloading.color_jitter`, in order: (name, amount).
        bicubic: resize with the bicubic filter instead of the bilinear one.
    """

    resized_size: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]
    canvas_size: tuple[int, int]
    flip: bool = False
    degrees: float = 0.0
    color_steps: tuple[tuple[str, float], ...] = ()
    bicubic: bool = False


def make_random_transform(
    kind: str,
    size: tuple[int, int],
    config: AugmentConfig,
    rng: random.Random,
    *,
    may_flip: bool = True,
    category_map: NDArray[np.int32] | None = None,
) -> ViewTransform:
    """Draw a random view of an image.

    Args:
        kind: one of `AUGMENTATION_KINDS`.
        size: (height, width) of the image.
        config: the manifest's section `augment:`.
        rng: decides every random draw.
        may_flip: False = its texts forbid a flip.
        category_map: int32 [height, width], the category of each pixel, 0 = none; only for `max_category_area`.

    Raises:
        ValueError: there is no such kind.
    """
    flip = rng.random() < config.flip and may_flip
    if kind == "jitter":
        resized = _fit_into_square(size, config.size * rng.uniform(*config.scale))
        return _random_crop(resized, config.size, rng, flip)
    if kind == "whole":
        resized = _fit_into_square(size, config.size * rng.uniform(*config.whole_scale))
        return _random_crop(resized, config.size, rng, flip)
    if kind == "semantic":
        return _semantic_transform(size, config, rng, flip, category_map)
    if kind == "foreground":
        return _foreground_transform(config, rng, flip)
    raise ValueError(f"no kind of augmentation named '{kind}' (have: {', '.join(AUGMENTATION_KINDS)})")


def make_resize_transform(size: tuple[int, int], *, short_side: int, long_side: int) -> ViewTransform:
    """The whole image with its shorter side at `short_side` pixels and the longer at most at `long_side`; no
    padding.

    Args:
        size: (height, width) of the image, in pixels.
        short_side: pixels of the shorter side after the resize.
        long_side: the limit of the longer side, in pixels; the shorter side gets smaller where needed.
    """
    resized = _resize_shortest_edge(size, short_side, long_side)
    return ViewTransform(resized, top=0, left=0, size=resized, canvas_size=resized)


def make_square_transform(side: int) -> ViewTransform:
    """The whole image stretched to a square of `side` pixels, as OFA expects it."""
    return ViewTransform((side, side), top=0, left=0, size=(side, side), canvas_size=(side, side), bicubic=True)


def _fit_into_square(size: tuple[int, int], side: float) -> tuple[int, int]:
    """(height, width) that fits into a square of `side` pixels, aspect kept; rounds as detectron2's `ResizeScale`."""
    scale = min(side / size[0], side / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resize_shortest_edge(size: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """(height, width) as detectron2's `ResizeShortestEdge` rounds it; each side is at least one pixel."""
    height, width = size
    scale = short_side / min(height, width)
    new = (float(short_side), scale * width) if height < width else (scale * height, float(short_side))
    shrink = long_side / max(new) if max(new) > long_side else 1.0
    return max(1, int(new[0] * shrink + 0.5)), max(1, int(new[1] * shrink + 0.5))


def _random_crop(resized: tuple[int, int], side: int, rng: random.Random, flip: bool) -> ViewTransform:
    """A random crop of at most `side` x `side` pixels, padded to that size."""
    seen = min(resized[0], side), min(resized[1], side)
    top, left = rng.randint(0, resized[0] - seen[0]), rng.randint(0, resized[1] - seen[1])
    return ViewTransform(resized, top, left, seen, canvas_size=(side, side), flip=flip)


def _semantic_transform(
    size: tuple[int, int], config: AugmentConfig, rng: random.Random, flip: bool, category_map: NDArray[np.int32] | None
) -> ViewTransform:
    least, most = (round(10 * scale) for scale in config.semantic_scale)
    short = max(1, rng.randint(least, most) * config.semantic_crop_size // 10)
    resized = _resize_shortest_edge(size, short, config.semantic_max_size)
    view = _random_crop(resized, config.semantic_crop_size, rng, flip)
    if category_map is not None and config.max_category_area < 1:
        for _ in range(_MAX_CROP_TRIES - 1):
            if _has_varied_categories(view, category_map, config.max_category_area):
                break
            view = _random_crop(resized, config.semantic_crop_size, rng, flip)
    colours = _ssd_color_steps(rng) if config.semantic_color_jitter else ()
    return ViewTransform(resized, view.top, view.left, view.size, view.canvas_size, flip, color_steps=colours)


def _has_varied_categories(transform: ViewTransform, category_map: NDArray[np.int32], max_share: float) -> bool:
    """Whether the crop has more than one category, and none covers more than `max_share` of the labelled pixels."""
    across = category_map[:, ::-1] if transform.flip else category_map
    rows, columns = (
        slice(start * old // new, -(-(start + seen) * old // new))
        for start, seen, old, new in zip(
            (transform.top, transform.left), transform.size, category_map.shape, transform.resized_size, strict=True
        )
    )
    count = np.bincount(across[rows, columns].ravel())[1:]
    return bool(np.count_nonzero(count) > 1 and count.max() < count.sum() * max_share)


def _ssd_color_steps(rng: random.Random) -> tuple[tuple[str, float], ...]:
    """SSD's color distortion, as in detectron2's PointRend: each step with probability one half."""
    contrast_first = rng.random() < 0.5
    add, multiply = ("add", rng.uniform(-32, 32)), ("multiply", rng.uniform(0.5, 1.5))
    rest = [("saturate", rng.uniform(0.5, 1.5)), ("hue", float(rng.randint(-18, 18)))]
    steps = [add, multiply, *rest] if contrast_first else [add, *rest, multiply]
    return tuple(step for step in steps if rng.random() < 0.5)


def _foreground_transform(config: AugmentConfig, rng: random.Random, flip: bool) -> ViewTransform:
    side = config.foreground_size
    scaled = max(1, round(side * rng.uniform(*config.foreground_scale))) if rng.random() < 0.5 else side
    seen = min(scaled, side)
    inset = (scaled - seen) // 2
    degrees = rng.uniform(-1, 1) * config.foreground_degrees if rng.random() < 0.5 else 0.0
    names = ["contrast", "sharpen", "multiply"]  # brightness is a factor
    rng.shuffle(names)
    steps = ((name, 1 + rng.random() * config.foreground_enhance) for name in names)
    colours = tuple(step for step in steps if rng.random() < 0.5)
    return ViewTransform((scaled, scaled), inset, inset, (seen, seen), (side, side), flip, degrees, colours)
