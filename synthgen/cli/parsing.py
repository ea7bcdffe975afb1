"""Parsers of option values that typer cannot parse: `-O KEY=VALUE`, `--part I/N`, paths that are URLs."""

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


def reject_url(path: Path | None) -> Path | None:
    """The path, unless it is a URL such as "s3://bucket/folder", which would become a local folder named "s3:".

    Args:
        path: value of an option; None = not given.

    Raises:
        SynthgenError: it is a URL.
    """
    # A path has one slash where the URL had two.
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(path)) if path is not None else None
    if match is not None and not Path(f"{match[1]}:").is_dir():
        url = str(path).replace(":/", "://", 1)
        raise SynthgenError(
            f"{url} is a URL, and synthgen reads and writes local folders; copy the files to one, or mount the bucket"
        )
    return path
