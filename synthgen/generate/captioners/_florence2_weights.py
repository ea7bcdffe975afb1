"""Weights of Florence-2 on this machine, without heavy imports: `auto` asks before it loads a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.generate.captioners._model_folders import describe_download, list_model_folders
from synthgen.weights import LocalWeights

#: See the plugin folder of segmenters. Before OFA: Florence-2 was trained to describe regions, OFA only in a small part
#: of its pre-training.
RANK = {"cpu": 20, "cuda": 20}


def list_local_weights() -> list[LocalWeights]:
    """See the plugin folder of segmenters: folders whose config.json is that of a Florence-2."""
    return list_model_folders("florence2")


def how_to_get(options: Mapping[str, Any]) -> str:
    """See the plugin folder of segmenters."""
    if options.get("weights"):  # of all published and fine-tuned folders, only people know which one it was
        return "name their folder with `--captioner florence2 --checkpoint FOLDER`"
    return describe_download("florence-community/Florence-2-base", "Florence-2's")
