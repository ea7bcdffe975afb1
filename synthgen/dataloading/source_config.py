"""The manifest sections `mixture` and `eval`: a layer, its task, its ratio and its filters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from synthgen import plugins
from synthgen.dataloading.config import ConfigSection, ImageSides
from synthgen.dataloading.manifest_errors import list_choices, truncate
from synthgen.errors import SynthgenError, did_you_mean
from synthgen.records.sample import CAPTION_REASONS
from synthgen.storage.shard_store import Shard, check_name

#: The plugin folder of tasks.
TASKS_PACKAGE = "dataloading.tasks"

#: Stands for an invalid task, so that the rest of its source can be checked.
UNKNOWN_TASK = ""


def _check_layer(value: str) -> str:
    words = value.split("/")
    if len(words) != 3:
        raise ValueError(
            f"'{truncate(value)}' names no layer; write DATASET/SPLIT/LAYER, as `synthgen status` lists them"
        )
    for word in words:
        try:
            check_name(word)
        except SynthgenError as why:
            raise ValueError(str(why).replace(word, truncate(word))) from None
    return value


def _check_task(value: str) -> str:
    known = plugins.list_plugins(TASKS_PACKAGE)  # no user module: an untrusted manifest must not import code
    name = plugins.normalize_name(value)
    if name not in known:
        raise ValueError(f"no task named '{truncate(value)}'{did_you_mean(name, known) or list_choices(known)}")
    return name


def _check_reason(value: str) -> str:
    if value not in CAPTION_REASONS:
        known = list(CAPTION_REASONS)
        raise ValueError(f"no reason named '{truncate(value)}'{did_you_mean(value, known) or list_choices(known)}")
    return value


def _resolve_path(value: Path, info: ValidationInfo) -> Path:
    """A path of the manifest, made relative to the working directory."""
    if value == Path():
        raise ValueError("should name a file or a folder, got nothing")
    return Path((info.context or {}).get("folder", ".")) / value


_Layer = Annotated[str, AfterValidator(_check_layer)]
_Task = Annotated[str, AfterValidator(_check_task)]
ManifestPath = Annotated[Path, AfterValidator(_resolve_path)]
_Score = Annotated[float | None, Field(ge=0, le=1)]


class LayerSource(ConfigSection):
    """A layer and its task.

    Attributes:
        shards: "dataset/split/layer".
        task: a plugin of `dataloading.tasks`; its `METRIC` is measured.
        images: folder of its images; None = the folder in the run logs of the layer.
    """

    shards: _Layer
    task: _Task
    images: ManifestPath | None = None

    @property
    def parts(self) -> tuple[str, str, str]:
        """(dataset, split, layer)."""
        dataset, split, layer = self.shards.split("/")
        return dataset, split, layer


class EvalSource(LayerSource):
    """A layer to evaluate on; its labels are human.

    Attributes:
        size: instead of the manifest's `eval_size`; None = the same.
    """

    size: ImageSides | None = None


class TrainSource(LayerSource):
    """A layer to train on. Filters apply when reading: a rejected mask leaves its class and box.

    Attributes:
        ratio: the relative chance that the next image is one of this source.
        share: use only this share of the layer's shards, the first ones: 0.3 = "30 % of Objects365".
        min_predicted_iou, min_stability_score, min_box_iou, min_soft_iou: generated masks below it are not used.
        min_caption_score: generated captions below it are not drawn (mean token log-probability).
        require_category_match: only captions whose noun agrees with the box's category are drawn.
        drop_reasons: captions with one of these reasons (`CAPTION_REASONS`) are not drawn.
        caption_sources: only captions by these writers are drawn ("human", "ofa base"); None = by all.
        mask_weight: the score that weights mask losses; None = all count 1.
        max_texts: maximum number of names and phrases per image.
    """

    ratio: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_predicted_iou: _Score = None
    min_stability_score: _Score = None
    min_box_iou: _Score = None
    min_soft_iou: _Score = None
    min_caption_score: float | None = None
    require_category_match: bool = False
    drop_reasons: tuple[Annotated[str, AfterValidator(_check_reason)], ...] = ()
    caption_sources: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    mask_weight: Literal["predicted_iou", "box_iou", "soft_iou"] | None = None
    max_texts: Annotated[int, Field(ge=1)] = 365

    def select_shards(self, shards: Sequence[Shard]) -> list[Shard]:
        """The first `share` of a layer's shards; at least one."""
        return [shard for shard in shards if shard.index < self.count_shards(shard.num_shards)]

    def count_shards(self, num_shards: int) -> int:
        """How many of a layer's `num_shards` shards are used: `share` of them, at least one."""
        return max(1, round(self.share * num_shards))
