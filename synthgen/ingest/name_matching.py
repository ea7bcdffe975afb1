"""Finds images whose file is in the image folder under another form of its name: `--match-names`.

Labelling tools write names that the files do not have where they lie: paths of a server or of another machine, URLs
with percent-encoding and a query, a prefix that makes uploads unique, another case or suffix. All images of a dataset
are resolved at once, from one listing of the folder, so that the result depends on nothing else. It accepts a file only
if no other file fits as well, and no other listed image has it.

Forms that are known: Label Studio's prefix of 8 hexadecimal digits and a hyphen, or a UUID
(https://labelstud.io/guide/export), and Roboflow's `NAME_jpg.rf.HASH.jpg`
(https://docs.roboflow.com/datasets/dataset-versions/exporting-data).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from synthgen.images.paths import candidate_paths
from synthgen.ingest.folder_listing import IMAGE_SUFFIXES, file_hashes, hash_text, list_image_files, suffix_of
from synthgen.ingest.image_table import StringColumn

#: Number of examples kept of each kind.
_MAX_EXAMPLES = 3

#: More files than this that fit one name are not compared.
_MAX_CANDIDATES = 50

_CHUNK = 10_000  # names in memory as Python strings

#: Folders with these names hold label maps, whose files are often named as the photographs are.
_MASK_FOLDERS = frozenset(
    "mask masks label labels annotation annotations ann gt segmentationclass segmentationobject".split()
)

_PREFIX = re.compile(r"(?:[0-9a-f]{8}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[-_](?=.)", re.IGNORECASE)
_ROBOFLOW = re.compile(r"[_-](jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9A-Za-z]{4,40}$", re.IGNORECASE)


@dataclass
class NameMatches:
    """The result for all images of a dataset.

    Attributes:
        names: the names, with those replaced whose file was found.
        missing: images without a file under their own name; matched: of them, found under another form;
        refused: of them, not found, as several files fit, or several images fit one file.
        kinds: how the names of the matched differ -> how many.
        examples: (name, path below the folder) of the first matched; refusals: (name, why) of the first refused.
    """

    names: StringColumn
    missing: int = 0
    matched: int = 0
    refused: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[tuple[str, str]] = field(default_factory=list)


def match_names(folder: Path, names: StringColumn) -> NameMatches:
    """Find the files of images that are not there under their own name.

    Args:
        folder: the image folder; it is listed once.
        names: the file names of all images; "" = an image without one.

    Raises:
        SynthgenError: the folder has too many files, or cannot be listed.
    """
    files = list_image_files(folder)
    paths = _HashIndex(files, lambda path: path)
    taken, lost = _find_exact(folder, names, files, paths)
    found = NameMatches(names, missing=len(lost))
    if not len(lost):
        return found
    indexes = [_HashIndex(files, key) for key in _KEYS]
    chosen = np.full(len(names), -1, np.int64)  # by row: the file
    claimant = np.zeros(len(files) + 1, np.int64)  # by file: the hash of the first name that fits it; 0 = none
    for rows, some in _chunks(names, lost):
        for row, name, place in zip(rows.tolist(), some, _find_files(some, files, indexes), strict=True):
            if isinstance(place, str):
                _refuse(found, name, place)
            elif place is not None:
                chosen[row] = place
                own = hash_text(name) or 1
                taken[place] |= claimant[place] not in (0, own)
                claimant[place] = claimant[place] or own
    for rows, some in _chunks(names, np.flatnonzero(chosen >= 0)):
        for row, name, path in zip(rows.tolist(), some, files.take(chosen[rows]), strict=True):
            if taken[chosen[row]]:
                chosen[row] = -1
                _refuse(found, name, f"{path} is the file of another listed image, too")
                continue
            found.matched += 1
            found.kinds[describe_difference(name, path)] += 1
            if len(found.examples) < _MAX_EXAMPLES:
                found.examples.append((name, path))
    if found.matched:
        found.names = _replace(names, files, chosen)
    return found


def _refuse(found: NameMatches, name: str, why: str) -> None:
    found.refused += 1
    if len(found.refusals) < _MAX_EXAMPLES:
        found.refusals.append((name, why))


def describe_difference(name: str, path: str) -> str:
    """How a name differs from the path of its file: "their last path part and another case"."""
    parts = _clean_parts(name)
    own, there = parts[-1] if parts else "", path.rpartition("/")[2]
    kinds = []
    if len(parts) > path.count("/") + 1 or ".." in name.replace("\\", "/").split("/"):
        kinds.append("their last path part" if "/" not in path else "the end of their path")
    elif len(parts) < path.count("/") + 1:
        kinds.append("a subfolder")
    if own != _decode(own) and _canonical(own) != _canonical(there):
        kinds.append("a percent-encoded name or one with a query")
        own = _decode(own)
    nfc = unicodedata.normalize("NFC", own), unicodedata.normalize("NFC", there)
    if own != there and nfc[0] == nfc[1]:
        kinds.append("another Unicode form")
    elif _canonical(own) == _canonical(there):
        kinds += ["another case" if nfc[0].casefold() == nfc[1].casefold() else "look-alike characters"] * (
            own != there
        )
    else:
        ends = suffix_of(own).lower(), suffix_of(there).lower()
        if ends[0] != ends[1]:
            kinds.append("another extension" if ends[0] else "a name with an extension")
        if _strip_suffix(_canonical(own)) != _strip_suffix(_canonical(there)):
            kinds.append("a name with another prefix or suffix")
    return " and ".join(kinds) or "another spelling of their folder"


class _HashIndex:
    """Finds files by the hash of a key of their path."""

    def __init__(self, files: StringColumn, key: Callable[[str], str]) -> None:
        parts = [file_hashes([key(path) for path in chunk]) for _, chunk in _chunks(files)]
        hashes = np.concatenate([np.zeros(0, np.int64), *parts])
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def find(self, keys: list[str]) -> list[NDArray[np.int64]]:
        """The files of each key, in the order of the listing; at most `_MAX_CANDIDATES` and one more."""
        wanted = file_hashes(keys)
        starts = np.searchsorted(self._hashes, wanted, side="left").tolist()
        stops = np.searchsorted(self._hashes, wanted, side="right").tolist()
        return [
            self._order[start : min(stop, start + _MAX_CANDIDATES + 1)]
            for start, stop in zip(starts, stops, strict=True)
        ]

    def find_first(self, keys: list[str]) -> NDArray[np.int64]:
        """The first file of each key; -1 = none."""
        wanted = file_hashes(keys)
        if not len(self._hashes):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return np.where(self._hashes[place] == wanted, self._order[place], -1)


def _find_exact(
    folder: Path, names: StringColumn, files: StringColumn, paths: _HashIndex
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(files that an image has under its own name, rows of images without a file)."""
    taken = np.zeros(len(files) + 1, np.bool_)
    lost = np.zeros(len(names), np.bool_)
    for rows, some in _chunks(names):
        places = paths.find_first(some)
        for i in np.flatnonzero(places < 0).tolist():
            if some[i] and (own := _own_place(folder, some[i], paths)) is not None:
                places[i] = own
            else:
                lost[rows[i]] = bool(some[i])
        taken[places[places >= 0]] = True
    return taken, np.flatnonzero(lost)


def _own_place(folder: Path, name: str, paths: _HashIndex) -> int | None:
    """The file that `images.decode.find_image` finds for a name, if it is in the listing."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0].startswith("/") or ".." in parts or re.match("[A-Za-z]:", parts[0]):
        return None
    for tail in candidate_paths(folder, parts):
        found = paths.find(["/".join(tail)])[0]
        if len(found):
            return int(found[0])
    return None


def _find_files(names: list[str], files: StringColumn, indexes: Sequence[_HashIndex]) -> Iterator[int | str | None]:
    """The file that each name stands for; a sentence if several fit; None if none does."""
    parts = [_clean_parts(name) for name in names]
    decoded = [_decoded(one) for one in parts]
    spellings = (parts,) if decoded == parts else (parts, decoded)
    candidates = [
        [index.find([key("/".join(one)) for one in spelt]) for spelt in spellings]
        for index, key in zip(indexes, _KEYS, strict=True)
    ]
    for row, own in enumerate(parts):
        yield _choose(
            own,
            [
                (key, key("/".join(spellings[i][row])), of_key[i][row])
                for key, of_key in zip(_KEYS, candidates, strict=True)
                for i in range(len(spellings))
            ],
            files,
        )


def _choose(
    parts: list[str], candidates: list[tuple[Callable[[str], str], str, NDArray[np.int64]]], files: StringColumn
) -> int | str | None:
    """The file that a name stands for, of the first key that fits any.

    Args:
        parts: folders and file name, as the annotations write them.
        candidates: (key, its value, files that may have it).
        files: paths of all files below the image folder.
    """
    for key, value, places in candidates:
        if not value or not len(places):
            continue
        there = files.take(places)
        fit = [(place, path) for place, path in zip(places.tolist(), there, strict=True) if key(path) == value]
        if not fit:  # another text with the same hash
            continue
        if len(fit) > _MAX_CANDIDATES:
            return f"more than {_MAX_CANDIDATES} files fit, such as {fit[0][1]}"
        inside = [(place, path) for place, path in fit if _folders_agree(parts[:-1], path)]
        if not inside:
            return f"{fit[0][1]} is in another folder; if it is the file, name that folder with --images"
        own = _MASK_FOLDERS.intersection(map(str.casefold, parts[:-1]))
        photos = [one for one in inside if own >= _MASK_FOLDERS.intersection(one[1].casefold().split("/")[:-1])]
        if not photos:
            return f"{inside[0][1]} is in a folder of masks; if it is the file, name that folder with --images"
        ranked = sorted(((_closeness(parts, path), place, path) for place, path in photos), reverse=True)
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            return f"{ranked[1][2]} and {ranked[0][2]} fit"
        return int(ranked[0][1])
    return None


def _folders_agree(folders: list[str], path: str) -> bool:
    """Whether the folders of a name and those of a path are the same, as far as both say."""
    ours = [_canonical(_decode(part)) for part in folders]
    theirs = [_canonical(part) for part in path.split("/")[:-1]]
    count = min(len(ours), len(theirs))
    return not count or ours[-count:] == theirs[-count:]


def _closeness(parts: list[str], path: str) -> tuple[int, ...]:
    """How well a path agrees with the parts of a name; more is better."""
    there = path.split("/")
    common = 0
    for ours, theirs in zip(reversed(parts[:-1]), reversed(there[:-1]), strict=False):
        if _canonical(_decode(ours)) != _canonical(theirs):
            break
        common += 1
    own, last = parts[-1], there[-1]
    nfc = unicodedata.normalize("NFC", own) == unicodedata.normalize("NFC", last)
    same_suffix = suffix_of(own).lower() == suffix_of(last).lower()
    same_stem = _strip_suffix(_canonical(_decode(own))) == _strip_suffix(_canonical(last))
    return common, own == last, nfc, same_stem, same_suffix


def _clean_parts(name: str) -> list[str]:
    """The parts of a path or URL, without drive, server, `.` and `..`."""
    text = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*", "", name.replace("\\", "/"))
    if "://" in name:
        text = re.split(r"[?#]", text, maxsplit=1)[0]
    return [part for part in text.split("/") if part not in ("", ".", "..") and not re.fullmatch("[A-Za-z]:", part)]


def _decoded(parts: list[str]) -> list[str]:
    return [_decode(part) for part in parts]


def _decode(part: str) -> str:
    """Without percent-encoding and a query after the suffix of an image."""
    if "%" not in part and "?" not in part:
        return part
    before, mark, _ = part.partition("?")
    if mark and suffix_of(before).lower() in IMAGE_SUFFIXES:
        part = before
    decoded = unquote(part)
    return decoded if "/" not in decoded and "\\" not in decoded and "\0" not in decoded else part


def _canonical(text: str) -> str:
    """Without regard to case, Unicode form, look-alike and invisible characters."""
    if text.isascii() and text.isprintable():
        return text.casefold()
    seen = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cf", "Cc"))
    return unicodedata.normalize("NFKC", "".join(seen).casefold())


def _last_key(path: str) -> str:
    """The last part of a path, without regard to case and invisible differences."""
    return _canonical(path.rpartition("/")[2])


def _base_key(path: str) -> str:
    """The last part without suffix, and without the prefix or suffix of a labelling tool."""
    stem = _strip_suffix(_last_key(path))
    stem = _ROBOFLOW.sub("", stem)
    return _PREFIX.sub("", stem, count=1) if _PREFIX.match(stem) else stem


def _two_parts_key(path: str) -> str:
    """The last two parts; "" for a path of one, which is found by its last part."""
    folder, slash, last = path.rpartition("/")
    return f"{_canonical(folder.rpartition('/')[2])}/{_canonical(last)}" if slash else ""


#: The keys by which files are found, the closest first.
_KEYS: tuple[Callable[[str], str], ...] = (_two_parts_key, _last_key, _base_key)


def _strip_suffix(name: str) -> str:
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def _chunks(
    column: StringColumn, rows: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
    """(rows, strings) of a column, or of some of its rows, a part at a time."""
    count = len(column) if rows is None else len(rows)
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        some = np.arange(start, stop) if rows is None else rows[start:stop]
        yield some, column.take(some)


def _replace(names: StringColumn, files: StringColumn, chosen: NDArray[np.int64]) -> StringColumn:
    """The names, with the paths of the chosen files."""
    result = StringColumn()
    for rows, some in _chunks(names):
        new = np.flatnonzero(chosen[rows] >= 0)
        for i, path in zip(new.tolist(), files.take(chosen[rows[new]]), strict=True):
            some[i] = path
        result.extend(some)
    return result
