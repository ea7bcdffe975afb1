"""Parsers of option values that typer cannot parse: `-O KEY=VALUE`, `--part I/N`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthgen.errors import SynthgenError
from synthgen.plugin_options import OptionValue


def parse_plugin_options(assignments: Sequence[str], flags: Mapping[str, OptionValue]) -> dict[str, Any]:
    """["key=value", ...] as a dict, with the values of flags beside them.

    Args:
        assignments: values of `-O`.
        flags: options that are given by flags of their own.

    Raises:
        SynthgenError: one has no key or no value, or is said twice.
    """
    found: dict[str, Any] = dict(flags)
    for text in assignments:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise SynthgenError(f"-O {key} should be KEY=VALUE, such as -O batch_size=4")
        if key in found:
            raise SynthgenError(f"{key} is given twice, the second time as -O {text}; leave one out")
        found[key] = value
    return found


def parse_category_map(assignments: Sequence[str], path: Path | None) -> dict[str, str | None] | None:
    """["old=new", ...] and a YAML file of the same as a map; None if there is neither. An empty name is None.

    Args:
        assignments: values of `--map`.
        path: the file of `--map-file`; untrusted.

    Raises:
        SynthgenError: one is not OLD=NEW, or the file is not a mapping of names.
    """
    found: dict[str, str | None] = {}
    if path is not None:
        from synthgen.dataloading.yaml_loader import load_yaml

        if not path.is_file():
            raise SynthgenError(f"no file {path} with a map of categories; check its name")
        content = load_yaml(path)
        if not isinstance(content, dict):
            raise SynthgenError(f"{path} is not a list of lines `old: new`; write one line for each category")
        for old, new in content.items():
            if not isinstance(new, str | int | float | None):
                raise SynthgenError(f"{path}: the new name of '{old}' is not a text; write a line `old: new` for each")
        found = {str(old): None if new in (None, "") else str(new) for old, new in content.items()}
    for text in assignments:
        old, equals, new = text.partition("=")
        if not old or not equals:
            raise SynthgenError(f"--map {text} should be OLD=NEW, such as --map 'sports car=car'")
        found[old] = new or None
    return found or None


def parse_part(text: str) -> tuple[int, int]:
    """ "3/8" as (3, 8).

    Args:
        text: value of `--part`.

    Raises:
        SynthgenError: it is not I/N with 0 <= I < N.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise SynthgenError(f"--part {text} should be I/N with I from 0 to N-1, such as --part 0/8")
    return int(match[1]), int(match[2])
