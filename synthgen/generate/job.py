"""The job: one stage over one layer as plain data. It can be pickled, and its recipe is in every footer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen.plugin_options import KEYWORD_RUNTIME_OPTIONS
from synthgen.records.recipe import fingerprint


@dataclass(frozen=True, slots=True)
class Job:
    """One stage over one layer.

    Attributes:
        stage: a plugin of `generate.stages`, e.g. "masks".
        dataset, split: whose images, as the store names them.
        input_layer, layer: the input layer and the output layer.
        plugin, options: the model and its complete options, e.g. "grabcut", {"iterations": 3}.
        stage_options: the stage's own, whatever the model, e.g. {"top_k": 5}.
        store: root of the shards.
        image_folder: the folder that image file names are relative to.
        max_error_share: a shard with a larger share of failed images is not committed.
        retry_failed: also do again what failed in committed shards.
        update: also make committed shards again whose input layer was made from other files, or in another way.
        timeout: the model hangs if it finishes no batch for so many seconds; None = no limit. Not in the recipe.
        runtime_options: names of options that say only where and how fast, so that a recipe leaves them out.
    """

    stage: str
    dataset: str
    split: str
    input_layer: str
    layer: str
    plugin: str
    store: Path
    image_folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    stage_options: dict[str, Any] = field(default_factory=dict)
    max_error_share: float = 0.05
    retry_failed: bool = False
    update: bool = False
    timeout: float | None = None
    runtime_options: frozenset[str] = KEYWORD_RUNTIME_OPTIONS

    def recipe(self) -> dict[str, Any]:
        """The settings that determine the bytes of the shards: no paths, no device, no batch size."""
        recipe = {
            "stage": self.stage,
            "dataset": self.dataset,
            "split": self.split,
            "plugin": self.plugin,
            "options": {key: value for key, value in self.options.items() if key not in self.runtime_options},
        }
        return {**recipe, "stage_options": self.stage_options} if self.stage_options else recipe

    def fingerprint(self, parent: str) -> str:
        """The fingerprint of the output for an input layer with the fingerprint `parent`."""
        return fingerprint({**self.recipe(), "parent": parent})
