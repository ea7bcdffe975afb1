"""Manifests with one source, and the result of their check."""

from __future__ import annotations

from pathlib import Path

from synthgen.dataloading.manifest_check import ManifestReport, check_manifest
from synthgen.errors import MultipleErrors


def check_text(folder: Path, text: str) -> ManifestReport | list[str]:
    """The manifest `text`, or its mistakes as told."""
    path = folder / "m.yaml"
    path.write_text(text)
    try:
        return check_manifest(path, store=folder / "shards")
    except MultipleErrors as why:
        assert why.lines[0].startswith(f"{path} has ")
        assert all(line.startswith("  ") and "\n" not in line for line in why.lines[1:])
        return [line.strip() for line in why.lines[1:]]


def manifest_with_source(entry: str, *more: str) -> str:
    """A manifest with one source, whose keys `entry` begins."""
    return f"name: x\nmixture:\n  - {{{entry}}}\n" + "".join(f"{line}\n" for line in more)
