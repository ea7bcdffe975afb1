"""What a YOLO dataset's own files say: `data.yaml`, darknet's `obj.data`, and lists of class names.

Ultralytics describes the keys: https://docs.ultralytics.com/datasets/detect/ and /datasets/pose/ (`kpt_shape`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers._numbers import parse_int
from synthgen.formats.readers._plain_yaml import PlainYaml, read_plain_yaml

#: Keys of splits in `data.yaml`, in the order in which they are offered.
SPLIT_KEYS = ("train", "val", "valid", "test", "minival")

#: Files with a class name a line, in the dataset's folder or its folder of labels (Label Studio, labelImg, darknet).
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names", "predefined_classes.txt")

_FIRST_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_MAX_BYTES = 2**20
_MAX_ENTRIES = 10_000  # entries of a folder that are looked at for a YAML file
_MAX_CLASSES = 100_000


@dataclass(frozen=True, slots=True)
class YoloConfig:
    """A dataset's names and folders.

    Attributes:
        names: by class id; empty if the file has none.
        splits: by split, paths as the file spells them, the file's `path` in front of relative ones.
        num_classes: what `nc` says; None if it is missing.
        kpt_shape: (keypoints, numbers of each) of pose rows; None if the dataset has none.
        base: the key `path`, as the file spells it.
        names_file: the file beside it that has the names (darknet), if there is one.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    num_classes: int | None = None
    kpt_shape: tuple[int, int] | None = None
    base: str = ""
    names_file: Path | None = None


def find_config(folder: Path) -> Path | None:
    """The dataset's YAML file in a folder, or darknet's `obj.data`; None if there is none.

    `data.yaml` and `dataset.yaml` come first, then other YAML files by name. Those without a split's folders do not
    count, nor does a file that cannot be read. Without any, a `data.yaml` that has names only is taken, or one that
    cannot be read: `read_config` gives its error.
    """
    try:
        with os.scandir(folder) as entries:
            seen = [entry.name for entry, _ in zip(entries, range(_MAX_ENTRIES), strict=False)]
    except OSError:
        return None
    yamls = sorted(name for name in seen if name.lower().endswith((".yaml", ".yml")))[:20]
    darknet = sorted(name for name in seen if name.lower().endswith(".data"))[:5]
    for name in dict.fromkeys((*_FIRST_YAML, *yamls, "obj.data", *darknet)):
        try:
            if (folder / name).is_file() and read_config(folder / name).splits:
                return folder / name
        except (SynthgenError, OSError):
            continue
    return next((folder / name for name in _FIRST_YAML if (folder / name).is_file()), None)


def find_names_file(*folders: Path) -> Path | None:
    """The list of class names in the first folder that has one: the dataset's, or that of the labels; else None."""
    return next((folder / name for folder in folders for name in NAME_FILES if (folder / name).is_file()), None)


def read_config(path: Path) -> YoloConfig:
    """The content of `data.yaml`, or of darknet's `obj.data` and the names beside it.

    Args:
        path: YAML file, or `.data` file of darknet; untrusted.

    Raises:
        SynthgenError: it cannot be read, or its names or folders have another form.
    """
    if path.suffix.lower() == ".data":
        return _read_darknet(path)
    found = read_plain_yaml(path)
    if not isinstance(found, dict):
        raise SynthgenError(f"{path} is not a mapping of keys such as train:, val: and names:; fix it there")
    base = found.get("path", "")
    base = base if isinstance(base, str) else ""
    splits = {key: _parse_paths(found[key], base) for key in SPLIT_KEYS if key in found}
    try:
        names = _parse_names(found.get("names", ""))
    except ValueError as why:
        raise SynthgenError(f"{path}: its 'names' {why}; write a list of names, or 0: name, 1: name") from None
    return YoloConfig(
        names,
        {key: paths for key, paths in splits.items() if paths},
        parse_int(found.get("nc")),
        _parse_kpt_shape(found.get("kpt_shape", "")),
        base,
    )


def read_names(path: Path) -> dict[int, str]:
    """A file with a class name a line, class 0 first. Blank lines at the end do not count.

    Args:
        path: untrusted file.

    Raises:
        SynthgenError: it cannot be read, or is not text in UTF-8.
    """
    lines = [line.strip() for line in _read_text(path).rstrip().splitlines()]
    if len(lines) > _MAX_CLASSES:
        raise SynthgenError(f"{path} has {len(lines):,} lines, too many for a list of class names; name another file")
    return {number: name for number, name in enumerate(lines) if name}


def _read_darknet(path: Path) -> YoloConfig:
    """`obj.data`: lines `key = value`; the names are in a file that it names, of which only the last part counts."""
    found: dict[str, str] = {}
    for line in _read_text(path).splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found[key.strip().lower()] = value.strip()
    # Datumaro writes subsets of any name.
    lists = [key for key, value in found.items() if key not in SPLIT_KEYS and value.lower().endswith(".txt")]
    splits = {key: (found[key],) for key in (*SPLIT_KEYS, *lists) if found.get(key)}
    own_names = path.parent / Path(found.get("names", "").replace("\\", "/")).name
    try:
        named = own_names if found.get("names") and own_names.is_file() else find_names_file(path.parent)
    except (OSError, ValueError):
        named = find_names_file(path.parent)
    names = read_names(named) if named is not None else {}
    return YoloConfig(names, splits, parse_int(found.get("classes")), names_file=named)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    if len(data) > _MAX_BYTES:
        raise SynthgenError(f"{path} is larger than {_MAX_BYTES // 1024} KiB, too large for a list of class names")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as why:
        raise SynthgenError(f"{path} is not text in UTF-8 (byte {why.start:,}); save it as UTF-8") from None


def _parse_paths(value: PlainYaml, base: str) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    paths = [entry.strip() for entry in entries if isinstance(entry, str) and entry.strip() not in ("", "~", "null")]
    is_relative = [not path.startswith(("/", "\\")) and path[1:2] != ":" for path in paths]
    return tuple(
        f"{base}/{path}" if base and relative else path for path, relative in zip(paths, is_relative, strict=True)
    )


def _parse_names(value: PlainYaml) -> dict[int, str]:
    """Names by class id, from a list, from {id: name} with gaps, or from {name: id}."""
    if value in ("", "~", "null"):
        return {}
    if isinstance(value, str):
        raise ValueError(f"are the text '{value[:40]}'")
    pairs = list(value.items()) if isinstance(value, dict) else [(str(i), name) for i, name in enumerate(value)]
    if len(pairs) > _MAX_CLASSES:
        raise ValueError(f"are {len(pairs):,}")
    if pairs and all(parse_int(key) is None and parse_int(name) is not None for key, name in pairs):
        pairs = [(str(number), name) for name, number in pairs]
    names = {}
    for key, name in pairs:
        number = parse_int(key)
        if number is None or not isinstance(name, str):
            raise ValueError(f"have an entry '{key[:40]}' that is not a name with a class id")
        names[number] = name
    return {number: name for number, name in names.items() if name.strip()}


def _parse_kpt_shape(value: PlainYaml) -> tuple[int, int] | None:
    numbers = [parse_int(one) for one in value] if isinstance(value, list) else []
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        return None
    return (numbers[0], numbers[1]) if 0 < numbers[0] < 10_000 and numbers[1] in (2, 3) else None
