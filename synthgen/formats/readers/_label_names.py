"""Names of the labels, numbers or colours, of a folder of label maps; reads the common forms of name files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from synthgen.errors import SynthgenError
from synthgen.formats.readers import Categories
from synthgen.formats.readers._numbers import parse_int

#: File names of the list of names, in the folder of label maps or above it.
NAME_FILES = ("class_names.json", "class_names.txt", "classes.json", "classes.txt", "label_colors.txt")

#: Names that mean "no label". Their pixels give no annotation.
_IGNORED_NAMES = frozenset(
    ("unlabelled", "unlabeled", "unlabel", "void", "ignore", "ignored", "background", "dontcare", "none")
)
_IGNORE_LABEL = 255  # in 8-bit label maps, unless it has a name
_MAX_BYTES = 2**20  # bytes
_COLOR_LINE = re.compile(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*)")

_CITYSCAPES = {
    **{7: "road", 8: "sidewalk", 9: "parking", 10: "rail track", 11: "building", 12: "wall", 13: "fence"},
    **{14: "guard rail", 15: "bridge", 16: "tunnel", 17: "pole", 18: "polegroup", 19: "traffic light"},
    **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
    **{27: "truck", 28: "bus", 29: "caravan", 30: "trailer", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
_CITYSCAPES_TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_THINGS = frozenset(name for label, name in _CITYSCAPES.items() if label >= 24)
_VOC = {
    **{1: "aeroplane", 2: "bicycle", 3: "bird", 4: "boat", 5: "bottle", 6: "bus", 7: "car", 8: "cat", 9: "chair"},
    **{10: "cow", 11: "diningtable", 12: "dog", 13: "horse", 14: "motorbike", 15: "person", 16: "pottedplant"},
    **{17: "sheep", 18: "sofa", 19: "train", 20: "tvmonitor"},
}


@dataclass(frozen=True, slots=True)
class LabelScheme:
    """The labels of a dataset.

    Attributes:
        categories: the labels with a category.
        ignore_labels: the labels to ignore.
        is_color_coded: the labels are colours, 65536 * red + 256 * green + blue.
    """

    categories: Categories
    ignore_labels: frozenset[int]
    is_color_coded: bool = False


def find_names_file(labels: Path) -> Path | None:
    """The file of names in the folder of label maps, or in one of the two folders above; None if missing."""
    places = [labels, *list(labels.absolute().parents)[:2]]
    return next((place / name for place in places for name in NAME_FILES if (place / name).is_file()), None)


def read_label_names(path: Path) -> LabelScheme:
    """Read a file of names.

    JSON: a list of names (the first is label 0); an object {"0": name} or {name: 0}; or a list of objects with "name"
    and, as far as they are there, "id", "color" or "colour" ([red, green, blue]) and "isthing". Text: a name a line,
    from label 0 on (from -1, where the first is `__ignore__`, as labelme writes it), or `red green blue name`.
    Without "isthing", all are stuff: a region holds all pixels of a category in an image.

    Args:
        path: untrusted file; JSON if its suffix is `.json`, else text.

    Raises:
        SynthgenError: it cannot be read, or has none of these forms.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError("it is larger than a megabyte")
        text = content.decode("utf-8-sig")
        rows = _parse_json(text) if path.suffix.lower() == ".json" else _parse_lines(text)
        return _build_scheme(rows)
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    except (ValueError, RecursionError, msgspec.MsgspecError) as why:  # UnicodeDecodeError is a ValueError
        raise SynthgenError(
            f"{path} cannot be understood as names of labels ({str(why)[:200]}); write a JSON list of names, the "
            "first of label 0"
        ) from None


def cityscapes_labels(*, train_ids: bool) -> LabelScheme:
    """Cityscapes' categories by label or train label; its void labels are ignored."""
    names = _CITYSCAPES if not train_ids else {i: _CITYSCAPES[label] for i, label in enumerate(_CITYSCAPES_TRAIN_IDS)}
    stuff = frozenset(label for label, name in names.items() if name not in _CITYSCAPES_THINGS)
    return LabelScheme(Categories(dict(names), stuff), frozenset({*range(7), _IGNORE_LABEL}.difference(names)))


def voc_labels() -> LabelScheme:
    """PASCAL VOC's twenty categories; 0 is background, 255 the border of objects."""
    return LabelScheme(Categories(dict(_VOC)), frozenset({0, _IGNORE_LABEL}))


_Row = tuple[int, str, bool]  # label, name, whether it is a thing


def _parse_json(text: str) -> tuple[list[_Row], bool]:
    """The rows, and whether their labels are colours."""
    value = msgspec.json.decode(text)
    if isinstance(value, dict):
        pairs = [(name, key) if parse_int(key) is None else (key, name) for key, name in value.items()]
        return [_parse_row(label, name) for label, name in pairs], False
    if not isinstance(value, list) or not value:
        raise ValueError("it is neither a list nor an object")
    records = [{"name": item} if isinstance(item, str) else item for item in value]
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("its elements are neither names nor objects")
    colours = [record.get("color", record.get("colour")) for record in records]
    coloured = all(colour is not None for colour in colours)
    labels = [_pack_color(c) for c in colours] if coloured else [r.get("id", i) for i, r in enumerate(records)]
    return [
        _parse_row(label, record.get("name"), bool(record.get("isthing", False)))
        for label, record in zip(labels, records, strict=True)
    ], coloured


def _parse_lines(text: str) -> tuple[list[_Row], bool]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [_COLOR_LINE.fullmatch(line) for line in lines]
    if lines and all(matches):
        return [_parse_row(_pack_color(m.groups()[:3]), m[4]) for m in matches if m], True
    first = -1 if lines and _normalize_name(lines[0]) == "ignore" else 0
    return [_parse_row(label, name) for label, name in enumerate(lines, start=first)], False


def _build_scheme(found: tuple[list[_Row], bool]) -> LabelScheme:
    rows, colours = found
    if len({label for label, *_ in rows}) < len(rows):
        raise ValueError("it names a label twice")
    categories = {label: name for label, name, _ in rows if _normalize_name(name) not in _IGNORED_NAMES}
    if not categories:
        raise ValueError("it names no category")
    unlabelled = {label for label, *_ in rows} - set(categories)
    if not colours and _IGNORE_LABEL not in categories:
        unlabelled.add(_IGNORE_LABEL)
    stuff = frozenset(label for label, _, isthing in rows if not isthing and label in categories)
    return LabelScheme(Categories(categories, stuff), frozenset(unlabelled), colours)


def _parse_row(label: object, name: object, isthing: bool = False) -> _Row:
    number = parse_int(label)
    if number is None or not -1 <= number < 2**31:
        raise ValueError(f"{label!r:.40} is no label")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"label {number} has no name")
    return number, name.strip().encode("utf-8", "replace").decode(), isthing


def _pack_color(colour: Any) -> int:
    parts = [parse_int(part) for part in colour] if isinstance(colour, list | tuple) else []
    if len(parts) != 3 or not all(part is not None and 0 <= part <= 255 for part in parts):
        raise ValueError(f"{colour!r:.40} is no colour")
    red, green, blue = (part or 0 for part in parts)
    return red << 16 | green << 8 | blue


def _normalize_name(name: str) -> str:
    """A name without case, outer underscores and spaces: "_background_" and "Unlabelled" become plain words."""
    return re.sub(r"[\s_-]+", "", name).casefold()
