"""Reads the YAML of dataset exporters as mappings, lists and texts; safe for files from strangers.

Every scalar is the text of the file: a class that is named `no` or `007` keeps its name. Tags and aliases are refused,
so that no text becomes a Python object and a small file cannot expand to a large one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from synthgen.errors import SynthgenError

#: Maximum file size. The largest known lists of names have some 100 kB.
MAX_BYTES = 2**20

_MAX_DEPTH = 32
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # only used to split the text into events
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")

#: A text, a list, or a mapping with texts as keys.
PlainYaml: TypeAlias = "str | list[PlainYaml] | dict[str, PlainYaml]"


def read_plain_yaml(path: Path) -> PlainYaml:
    """The content of a YAML file. Of a key that occurs twice in a mapping, the last one counts, as in other tools.

    Args:
        path: untrusted file.

    Raises:
        SynthgenError: it cannot be read, is larger than `MAX_BYTES`, or is not plain YAML.
    """
    try:
        if not path.is_file():
            raise SynthgenError(f"{path} is not a file; name the dataset's YAML file or its folder")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    if len(data) > MAX_BYTES:
        raise SynthgenError(f"{path} is larger than {MAX_BYTES // 1024} KiB, too large for a list of names and folders")
    try:
        return _build_tree(yaml.parse(data.decode("utf-8-sig"), Loader=_LOADER))
    except UnicodeDecodeError as why:
        raise SynthgenError(f"{path} is not text in UTF-8 (byte {why.start:,}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as why:
        line = f" in line {why.problem_mark.line + 1}" if why.problem_mark else ""
        raise SynthgenError(f"{path} is not valid YAML{line}: {why.problem or why.context}; fix it there") from None
    except (yaml.YAMLError, ValueError) as why:
        reason = (str(why).splitlines() or ["?"])[0][:200]
        raise SynthgenError(f"{path} cannot be read as plain YAML ({reason}); fix it there") from None


def _build_tree(events: Any) -> PlainYaml:
    """The tree of a document's events, without recursion."""
    levels: list[Any] = []  # open lists and mappings
    keys: list[str | None] = []  # the key of a mapping that waits for its value
    root: PlainYaml | None = None
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            levels.pop()
            keys.pop()
            continue
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {event.start_mark.line + 1} has an alias (*{event.anchor})")
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            continue
        line = event.start_mark.line + 1
        if event.tag not in (None, "!"):
            raise ValueError(f"line {line} has a tag")
        is_scalar = isinstance(event, yaml.ScalarEvent)
        value: Any = _clean(event.value) if is_scalar else [] if isinstance(event, yaml.SequenceStartEvent) else {}
        if not levels:
            if root is not None:
                raise ValueError(f"line {line} begins a second document")
            root = value
        elif isinstance(levels[-1], list):
            levels[-1].append(value)
        elif keys[-1] is None:
            if not is_scalar:
                raise ValueError(f"line {line} has a list or a mapping as a key")
            keys[-1] = value
            continue
        else:
            levels[-1][keys[-1]] = value
            keys[-1] = None
        if not is_scalar:
            levels.append(value)
            keys.append(None)
            if len(levels) > _MAX_DEPTH:
                raise ValueError(f"line {line} is nested {_MAX_DEPTH} levels deep")
    return "" if root is None else root


def _clean(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("a text holds a control character")
    return text.encode("utf-8", "replace").decode()
