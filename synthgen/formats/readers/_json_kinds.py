"""Recognises JSON of other annotation tools by its first keys, so that an error says what a file is."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers._json_file import open_json

_SNIFFED_BYTES = 2**20
_MAX_KEYS = 400

# A string that the text cuts off ends at its end, so that no byte is scanned twice.
_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)(?:"(\s*+:)?|\\?\Z)|[\[\]{}]', re.DOTALL)

_TO_COCO = "convert it to COCO JSON"

#: (keys that tell it, first bracket, what it is, its reader, the remedy without that reader); the first match counts
_KINDS: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "image_id category_id score",
        "[",
        "a COCO results file (detections without 'images')",
        "",
        "name the dataset's annotation file; to use detections as boxes, put 'images' and 'categories' beside them",
    ),
    (
        "image_id category_id bbox",
        "[",
        "a list of annotations without 'images'",
        "",
        "put it into an object with 'images', 'annotations' and 'categories'",
    ),
    ("data annotations", "[", "a Label Studio export", "label_studio", "export it as COCO from Label Studio"),
    ("data predictions", "[", "a Label Studio export", "label_studio", "export it as COCO from Label Studio"),
    ("shapes imagePath", "{", "a LabelMe file of one image", "labelme", "convert its folder to COCO JSON"),
    ("shapes imageHeight", "{", "a LabelMe file of one image", "labelme", "convert its folder to COCO JSON"),
    ("_via_img_metadata", "{", "a VIA project", "via", "export it as COCO from VIA"),
    ("filename regions", "{", "a VIA export", "via", "export it as COCO from VIA"),
    ("items categories", "{", "a Datumaro file", "datumaro", "convert it to COCO with Datumaro"),
    ("items dm_format_version", "{", "a Datumaro file", "datumaro", "convert it to COCO with Datumaro"),
    ("type features", "{", "GeoJSON", "", f"{_TO_COCO}, in pixels"),
    ("image annotations", "[", "a CreateML file", "createml", _TO_COCO),
    ("name labels", "[", "a BDD100K (Scalabel) file", "bdd100k", _TO_COCO),
    ("frames config", "{", "a BDD100K (Scalabel) file", "bdd100k", _TO_COCO),
    ("imgHeight imgWidth objects", "{", "a Cityscapes file of one image", "cityscapes", _TO_COCO),
    ("data_row projects", "{", "a Labelbox export", "", _TO_COCO),
)


def describe_other_json(path: Path, *, with_lists: bool = True) -> str | None:
    """A sentence about a JSON file that is no COCO-style file: what it is, and what to do; None if it is not known.

    It reads the first MiB and looks at the keys of the top level, and of the level below.

    Args:
        path: the file.
        with_lists: whether lists of COCO's annotations are such files.
    """
    try:
        with open_json(path) as (file, _):
            start = file.read(_SNIFFED_BYTES)
    except (SynthgenError, OSError, EOFError, zlib.error):
        return None
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    top, levels, several = _first_keys(start)
    if top == "{" and {"images", "annotations"} <= levels[0]:
        return None
    if several:
        return f"{path} is JSON Lines (one object on each line), not one JSON object; convert it to COCO JSON"
    for keys, kind, what, reader, remedy in _KINDS:
        if not with_lists and keys.startswith("image_id"):
            continue
        if kind == top and any(level.issuperset(keys.split()) for level in levels):
            named = reader and Path(__file__).with_name(f"{reader}.py").is_file()
            remedy = f"give its folder as --dataset {reader.replace('_', '-')}" if named else remedy
            return f"{path} is {what}, not a COCO-style file; {remedy}"
    return None


def _first_keys(text: bytes) -> tuple[str, tuple[set[str], set[str]], bool]:
    """The first bracket; the keys of depth one and of depth two; whether a second object follows the first."""
    top, levels, open_brackets = "", (set[str](), set[str]()), 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark in (b"{", b"["):
            if not open_brackets and top:
                return top, levels, mark == b"{" and top == "{"
            top = top or mark.decode()
            open_brackets += 1
        elif mark in (b"}", b"]"):
            open_brackets -= 1
        elif token.group(2) and 1 <= open_brackets <= 2 and len(levels[open_brackets - 1]) < _MAX_KEYS:
            levels[open_brackets - 1].add(token.group(1)[:40].decode("utf-8", "replace"))
        if open_brackets < 0:
            break
    return top, levels, False
