"""Weights of `lite` on this machine, without heavy imports: `auto` asks before it loads a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.weights import LocalWeights, weights_folder

#: The name of a file of a box segmenter in the folder of weights.
FILE_NAME = "lite.safetensors"

#: See the plugin folder. Before SAM on a CPU, where SAM takes seconds for an image.
RANK = {"cpu": 30, "cuda": 20}


def list_local_weights() -> list[LocalWeights]:
    """See the plugin folder."""
    path = weights_folder() / FILE_NAME
    try:
        if not path.is_file():
            return []
    except OSError:  # a folder that may not be searched
        return []
    return [LocalWeights({"checkpoint": str(path)}, f"{FILE_NAME} is in {path.parent}")]


def how_to_get(options: Mapping[str, Any]) -> str:
    """See the plugin folder."""
    return "name their file with `--segmenter lite --checkpoint FILE`" if options.get("weights") else ""
