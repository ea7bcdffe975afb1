"""What a manifest says of one layer: by which task it is read, how often, and which of its masks and texts count."""

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

#: Where the tasks stand.
TASKS_PACKAGE = "dataloading.tasks"

#: Stands for a task that is one of the mistakes: the rest of its source can be looked at all the same.
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
            raise ValueError(str(why)) from None
    return value


def _check_task(value: str) -> str:
    known = plugins.list_plugins(
        TASKS_PACKAGE
    )  # no module of one's own: a stranger's manifest must not say what is imported
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
    """A path as the manifest gives it, from where this process is."""
    if value == Path():
        raise ValueError("should name a file or a folder, got nothing")
    return Path((info.context or {}).get("folder", ".")) / value


_Layer = Annotated[str, AfterValidator(_check_layer)]
_Task = Annotated[str, AfterValidator(_check_task)]
ManifestPath = Annotated[Path, AfterValidator(_resolve_path)]
_Score = Annotated[float | None, Field(ge=0, le=1)]


class LayerSource(ConfigSection):
    """A layer, and the task by which it is read.

    Attributes:
        shards: "dataset/split/layer".
        task: file on the shelf `reading.tasks`, whose `METRIC` is measured.
        images: folder of its images; None = where the runs that made the layer found them.
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
    """A layer to evaluate on; people drew what it holds.

    Attributes:
        size: what `eval_size` says of others; None = the same.
    """

    size: ImageSides | None = None


class TrainSource(LayerSource):
    """A layer to learn from. Thresholds act at reading: what fails one keeps its class and its box.

    Attributes:
        ratio: the relative chance that the next image is one of this source.
        share: only this share of the layer's shards, the first ones: 0.3 = "30 % of Objects365".
        min_predicted_iou, min_stability_score, min_box_iou: masks by machines below it are not learned from.
        min_caption_score: captions by machines below it are not drawn (mean token log-probability).
        require_category_match: only captions whose noun agrees with the box's category are drawn.
        drop_reasons: captions with one of these reasons (`REASONS`) are not drawn.
        caption_sources: only captions by these writers are drawn ("human", "ofa base"); None = by all.
        mask_weight: mask losses count by this score; None = all the same.
        max_texts: names and phrases that an image is asked for, at most.
    """

    ratio: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_predicted_iou: _Score = None
    min_stability_score: _Score = None
    min_box_iou: _Score = None
    min_caption_score: float | None = None
    require_category_match: bool = False
    drop_reasons: tuple[Annotated[str, AfterValidator(_check_reason)], ...] = ()
    caption_sources: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    mask_weight: Literal["predicted_iou", "box_iou"] | None = None
    max_texts: Annotated[int, Field(ge=1)] = 365

    def select_shards(self, shards: Sequence[Shard]) -> list[Shard]:
        """Those of a layer's shards that are in the first `share` of its plan, which is one shard at least."""
        return [shard for shard in shards if shard.index < max(1, round(self.share * shard.num_shards))]
