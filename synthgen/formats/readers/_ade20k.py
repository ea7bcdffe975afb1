"""Shared by both ADE20K releases: the benchmark's 150 categories, image ids and image keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

_NAME_LIST = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers,
counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel,
light, truck, tower, chandelier, awning, streetlight, booth, television, airplane, dirt track, apparel, pole, land,
bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer,
plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step,
tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase,
traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock,
flag
"""

#: By label, from 1 on: the first of each category's names in the benchmark's objectInfo150.txt ("door" of "door, double
#: door"). No two categories share it.
CATEGORY_NAMES = tuple(name.strip() for name in _NAME_LIST.split(","))

#: The labels of stuff: those that are not among the 100 of the benchmark's instance task (Places Challenge
#: 2017). The panoptic task has the same 50 as stuff. (The column "Stuff" of objectInfo150.csv, 35 labels, is older.)
STUFF_LABELS = frozenset((
    1, 2, 3, 4, 5, 6, 7, 10, 12, 14, 17, 18, 22, 26, 27, 29, 30, 35, 41, 47, 49, 52, 53, 55, 60, 61, 62, 64, 69,
    78, 80, 85, 92, 95, 97, 100, 101, 102, 106, 107, 110, 114, 115, 118, 123, 129, 132, 141, 142, 146,
))  # fmt: skip

_FILE_NAME_PATTERN = re.compile(r"ADE_(?:train|val|test)_0*(\d{1,12})")


def key_from_text_id(id_text: str, file_name: str) -> str:
    """The image key of a record of the files that Mask2Former and Mask DINO prepare, whose ids are the names of files.

    Such a record has the id "ADE_val_00000001" and the file name "ADE_val_00000001.jpg"; the key of any other is "".

    Args:
        id_text: the record's id, if it is a text; else "".
        file_name: the record's file name.
    """
    is_own = _FILE_NAME_PATTERN.fullmatch(id_text) is not None and PurePosixPath(file_name).stem == id_text
    return f"ade20k/{id_text}" if is_own else ""


def image_ids_and_keys(file_names: Sequence[str]) -> list[tuple[int, str]]:
    """The number in each file name, and the image key of the name; both releases use the same numbers.

    All numbers are 0 if one is missing or two are equal; a key is "" if a name is not ADE20K's.
    """
    found = [_FILE_NAME_PATTERN.fullmatch(PurePosixPath(name).stem) for name in file_names]
    numbers = [int(match[1]) if match else 0 for match in found]
    if 0 in numbers or len(set(numbers)) < len(numbers):
        numbers = [0] * len(file_names)
    keys = [f"ade20k/{match[0]}" if match else "" for match in found]
    return list(zip(numbers, keys, strict=True))
