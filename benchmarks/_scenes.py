"""Drawn scenes for `queries.py`: regions with textures and no shape, countable shapes that hide parts of each other.

Stuff has wavy borders, is cut up by what stands before it, and may lie in several places; it is told by texture
and colour. Things are told by shape and colour, are of all sizes, may touch or cover others of their kind, and of each
a third or more is to be seen. Every pixel is of one segment. A scene is decided by its vocabulary, its split, its
number and its side.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthgen.formats.readers import coco_panoptic
from synthgen.ingest import ingest
from synthgen.storage.atomic import write_text_atomic
from synthgen.storage.shard_store import ShardStore


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names of scenes. A colour is (red, green, blue).

    Attributes:
        stuff: colour and texture by name.
        things: colour and shape by name.
    """

    stuff: dict[str, tuple[tuple[int, int, int], str]]
    things: dict[str, tuple[tuple[int, int, int], str]]

    def categories(self) -> dict[str, int]:
        """Numbers of all names, from 1."""
        return {name: i for i, name in enumerate([*self.things, *self.stuff], start=1)}


_STUFF = {
    "meadow": ((96, 150, 70), "grain"),
    "sea": ((90, 130, 200), "waves"),
    "sand": ((215, 190, 130), "grain"),
    "brick": ((165, 95, 75), "bricks"),
    "road": ((130, 130, 130), "plain"),
    "field": ((90, 70, 50), "stripes"),
}

_THINGS = {
    "disc": (215, 60, 50),
    "square": (240, 210, 60),
    "triangle": (150, 70, 190),
    "star": (245, 245, 245),
}

#: Ten names.
FEW = Vocabulary(_STUFF, {shape: (colour, shape) for shape, colour in _THINGS.items()})

_COLOURS = {
    "red": (205, 60, 50),
    "yellow": (230, 205, 60),
    "green": (70, 150, 70),
    "cyan": (90, 200, 200),
    "blue": (70, 90, 200),
    "purple": (150, 70, 180),
    "white": (235, 235, 235),
    "grey": (120, 120, 120),
}

#: 64 names: colours of five textures, and six of the colours of four shapes.
MANY = Vocabulary(
    {f"{c} {t}": (_COLOURS[c], t) for c, t in product(_COLOURS, ("grain", "waves", "bricks", "plain", "stripes"))},
    {f"{c} {shape}": (_COLOURS[c], shape) for c, shape in product([*_COLOURS][:6], _THINGS)},
)

_KINDS = (2, 3)  # of stuff in a scene, at least and at most
_COUNT = (2, 7)  # of things
_RADIUS = (0.05, 0.17)  # of a thing, in sides
_SEEN = 1 / 3
_LEAST = 0.03  # of the scene, that a kind of stuff covers, or it is another's


def write(folder: Path, split: str, count: int, *, side: int, vocabulary: Vocabulary = FEW) -> None:
    """Write `count` scenes below `folder`, unless they are there, and ingest them as scenes/`split`/human."""
    images, segments = folder / split, folder / f"panoptic_{split}"
    path, numbers = folder / f"panoptic_{split}.json", vocabulary.categories()
    if not path.exists():
        for made in (images, segments):
            made.mkdir(parents=True, exist_ok=True)
        listed, annotated = [], []
        for i in range(count):
            pixels, ids, names = scene(np.random.default_rng([*split.encode(), i]), side, vocabulary)
            name = f"{i:06d}.png"
            Image.fromarray(pixels).save(images / name)
            Image.fromarray(np.stack([ids, np.zeros_like(ids), np.zeros_like(ids)], axis=-1)).save(segments / name)
            listed.append({"id": i, "file_name": name, "height": side, "width": side})
            info = [_segment(number, numbers[name], ids == number) for number, name in names.items()]
            annotated.append({"image_id": i, "file_name": name, "segments_info": info})
        categories = [{"id": i, "name": name, "isthing": int(name in vocabulary.things)} for name, i in numbers.items()]
        write_text_atomic(path, json.dumps({"images": listed, "annotations": annotated, "categories": categories}))
    files = coco_panoptic.files(folder, split, path)
    ingest.ingest(ShardStore(folder / "shards"), coco_panoptic, files, name="scenes", split=split, layer="human")


def _segment(number: int, category: int, mask: NDArray[np.bool_]) -> dict[str, object]:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "id": number, "category_id": category, "iscrowd": 0,
        "bbox": [int(v) for v in box], "area": int(mask.sum()),
    }  # fmt: skip


def scene(
    rng: np.random.Generator, side: int, vocabulary: Vocabulary = FEW
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], dict[int, str]]:
    """(uint8 [side, side, 3] RGB; uint8 [side, side], the number of each pixel's segment; segment -> category)."""
    things, stuff = _things(rng, side, vocabulary), vocabulary.stuff
    names = {i: name for i, (name, _) in enumerate(things, start=1)}
    ids = np.zeros((side, side), np.uint8)
    for i, (_, mask) in enumerate(things, start=1):  # the first stand in front
        ids[mask & (ids == 0)] = i
    kinds = [list(stuff)[k] for k in rng.choice(len(stuff), rng.integers(_KINDS[0], _KINDS[1] + 1), replace=False)]
    heights = np.stack([_field(rng, side) for _ in kinds])
    ground = heights.argmax(0)
    heights[[((ground == k) & (ids == 0)).mean() < _LEAST for k in range(len(kinds))]] = -np.inf
    ground = heights.argmax(0)
    pixels = np.zeros((side, side, 3), np.float32)
    for k, kind in enumerate(kinds):
        where = ground == k
        pixels[where] = _painted(rng, *stuff[kind], side)[where]
        where &= ids == 0
        if where.any():
            names[len(things) + 1 + k] = kind
            ids[where] = len(things) + 1 + k
    for i, (name, _) in enumerate(things, start=1):
        where = ids == i
        inner = cv2.erode(where.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        colour = vocabulary.things[name][0] + rng.normal(0, 15, 3) + rng.normal(0, 15)
        pixels[where] = 0.45 * colour
        pixels[inner] = colour
    pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5) + rng.normal(0, 4, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8), ids, names


def _things(rng: np.random.Generator, side: int, vocabulary: Vocabulary) -> list[tuple[str, NDArray[np.bool_]]]:
    """Things from front to back, each with its whole mask."""
    found: list[tuple[str, NDArray[np.bool_]]] = []
    hidden = np.zeros((side, side), np.bool_)
    for _ in range(rng.integers(_COUNT[0], _COUNT[1] + 1)):
        name = str(rng.choice(list(vocabulary.things)))
        radius = side * float(np.exp(rng.uniform(*np.log(_RADIUS))))
        mask = _drawn(vocabulary.things[name][1], rng.uniform(0, side, 2), radius, rng.uniform(0, 2 * np.pi), side)
        if (mask & ~hidden).sum() >= _SEEN * 1.3 * radius**2:  # 1.3: of a triangle, the smallest
            found.append((name, mask))
            hidden |= mask
    return found


#: Corners as (angle in turns, share of the radius).
_CORNERS: dict[str, list[tuple[float, float]]] = {
    "square": [(i / 4, 1.0) for i in range(4)],
    "triangle": [(i / 3, 1.15) for i in range(3)],
    "star": [(i / 10, 1.15 if i % 2 == 0 else 0.45) for i in range(10)],
    "disc": [(i / 32, 0.9) for i in range(32)],
}


def _drawn(shape: str, middle: NDArray[np.float64], radius: float, turn: float, side: int) -> NDArray[np.bool_]:
    angle, share = np.array(_CORNERS[shape]).T
    angle = turn + 2 * np.pi * angle
    points = middle + radius * share[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    canvas = np.zeros((side, side), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 1, shift=4)
    return canvas > 0


def _field(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Hills and dales: a few large ones, and small ones for wavy borders."""
    large, small = (
        cv2.resize(rng.normal(size=(n, n)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        for n in (4, 12)
    )
    field: NDArray[np.float32] = large + 0.2 * small
    return field


def _painted(rng: np.random.Generator, colour: tuple[int, int, int], texture: str, side: int) -> NDArray[np.float32]:
    """float32 [side, side, 3]: a colour, somewhat other each time, lighter and darker by the texture."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    turn, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    if texture == "grain":
        light = rng.normal(0, 0.16, (side, side))
    elif texture == "stripes":
        light = 0.22 * np.sign(np.sin(2 * np.pi * along / 7 + phase))
    elif texture == "waves":
        light = 0.18 * np.sin(2 * np.pi * (along + 2 * np.sin(across / 4)) / 9 + phase)
    elif texture == "bricks":
        row = np.floor(along / 6)
        light = np.where((along % 6 < 1.2) | ((across + 6 * (row % 2)) % 12 < 1.2), -0.35, 0.05)
    else:
        light = np.zeros((side, side))
    base = np.array(colour, np.float32) + rng.normal(0, 8, 3) + rng.normal(0, 12)
    return (base * (1 + light[..., None])).astype(np.float32)
