"""Weights of OFA on this machine, without heavy imports: `auto` asks before it loads a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.generate.captioners._model_folders import describe_download, list_model_folders
from synthgen.weights import LocalWeights

#: See the plugin folder of segmenters, and `_florence2_weights.RANK` for why Florence-2 is before it.
RANK = {"cpu": 10, "cuda": 10}


def list_local_weights() -> list[LocalWeights]:
    """See the plugin folder of segmenters: folders whose config.json is that of an OFA."""
    return list_model_folders("ofa")


def how_to_get(options: Mapping[str, Any]) -> str:
    """See the plugin folder of segmenters."""
    if options.get("weights"):  # of all published and fine-tuned folders, only people know which one it was
        return "name their folder with `--captioner ofa --checkpoint FOLDER`"
    return describe_download("OFA-Sys/ofa-base", "OFA's")
