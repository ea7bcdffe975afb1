"""Weights of `lite` on this machine, without heavy imports: `auto` asks before it loads a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.weights import LocalWeights

#: See the plugin folder. Before SAM on a CPU, where SAM takes seconds for an image.
RANK = {"cpu": 30, "cuda": 5}


def list_local_weights() -> list[LocalWeights]:
    """See the plugin folder."""
    return [LocalWeights({}, "its weights come with synthgen")]


def how_to_get(options: Mapping[str, Any]) -> str:
    """See the plugin folder."""
    return "name their file with `--segmenter lite --checkpoint FILE`" if options.get("weights") else ""
