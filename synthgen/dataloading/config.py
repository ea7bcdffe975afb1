"""What a manifest says of the network, the schedule and the readers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from synthgen.dataloading.manifest_errors import Location, ManifestIssue, quote_value, truncate
from synthgen.errors import did_you_mean

#: Text encoders by name; anything with a slash is a folder. "tiny" knows no language: for tests and toys.
TEXT_ENCODERS = ("clip_b", "clip_l", "minilm", "tiny")

#: Where a backbone's weights come from, if from no file.
WEIGHT_ORIGINS = ("pretrained", "random")

#: The task that a captioner learns, and what a manifest says of other networks alone.
CAPTIONING = "captioning"
_NO_EFFECT_ON_CAPTIONER = "changes nothing, as a captioner sees whole images, stretched to its image_size; take it out"
_CAPTIONER_INCOMPATIBLE_KEYS = {
    "model": "is one network and captioner: another, and one is trained; take the other out",
    "augment": _NO_EFFECT_ON_CAPTIONER,
    "eval_size": _NO_EFFECT_ON_CAPTIONER,
}

_Count = Annotated[int, Field(ge=0)]
_Size = Annotated[int, Field(ge=1)]
_Queries = Annotated[int, Field(ge=0, le=10_000)]


def _check_milestones(value: tuple[float, ...]) -> tuple[float, ...]:
    if list(value) != sorted(set(value)) or any(not 0 < share < 1 for share in value):
        raise ValueError(f"should be shares of the steps, each larger than the last, in (0, 1), got {list(value)}")
    return value


def _resolve_text_encoder(value: str, info: ValidationInfo) -> str:
    return _resolve_name_or_path(value, TEXT_ENCODERS, "text encoder", "a folder", info)


def _resolve_weights(value: str, info: ValidationInfo) -> str:
    return _resolve_name_or_path(value, WEIGHT_ORIGINS, "weights", "a file or a folder", info)


def _resolve_file(value: str, info: ValidationInfo) -> str:
    return str(Path((info.context or {}).get("folder", ".")) / value)


def _resolve_folder(value: str, info: ValidationInfo) -> str:
    """As `_resolve_file`, with a slash even where there is but a name."""
    return os.path.join((info.context or {}).get("folder", "."), value)  # noqa: PTH118 - pathlib's drops "./"


def _resolve_name_or_path(
    value: str, names: tuple[str, ...], what: str, path_description: str, info: ValidationInfo
) -> str:
    """One of the names, or a path, which becomes one from here."""
    if "/" in value:
        return _resolve_file(value, info)
    if value not in names:
        raise ValueError(
            f"no {what} named '{truncate(value)}' (have: {', '.join(names)}; {path_description} has a slash in its "
            "name)"
            f"{did_you_mean(value, list(names))}"
        )
    return value


def _as_pair(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        said = list(value) if isinstance(value, list | tuple) else quote_value(value)
        raise ValueError(f"should be two numbers of pixels, the smaller first, such as [800, 1333], got {said}")
    return tuple(value)


def _check_sides(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise ValueError(f"should be two numbers of pixels, the smaller first, got {list(value)}")
    return value


_Side = Annotated[int, Field(ge=32, le=8192)]

#: The shorter side, and the longer at most, in pixels.
ImageSides = Annotated[tuple[_Side, _Side], BeforeValidator(_as_pair), AfterValidator(_check_sides)]


class ConfigSection(BaseModel):
    """A part of a manifest: typed as it is written, closed to other keys, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=False)


class ModelConfig(ConfigSection):
    """The network; the defaults are the paper's ablation setting, with the smallest Swin.

    Attributes:
        backbone: of `tiny`, for tests and toys, there are no weights: it begins with random ones.
        backbone_weights: pretrained (on ImageNet), random, or a file or folder of such weights.
        weights: a checkpoint of such a network, to begin with; None = the backbone's and the text encoder's alone.
        queries: mixed, or one of the two kinds alone.
        exchange: whether the two kinds attend to each other in every layer.
        denoising: most groups of noised objects that are learned from beside the queries (DN-DETR; fewer where an image
            has many objects: 100 noised ones is the most); 0 = none.
        dim: of queries and memory; encoder_layers, decoder_layers: of the pixel decoder and of the decoder.
        levels: of the features that both attend to: 3 of strides 8 to 32, 4 and one of 64, 5 and one of 4, as Mask
            DINO's Swin-L has them, for four times the places. encoder_feedforward: None = 4 dim; Mask DINO's larger
            ones have 2048.
        text_encoder: one of `TEXT_ENCODERS`, or a folder. train_text_encoder: whether it learns with the rest.
    """

    backbone: Literal["resnet50", "swin_t", "swin_s", "swin_b", "swin_l", "tiny"] = "swin_t"
    backbone_weights: Annotated[str, AfterValidator(_resolve_weights)] = "pretrained"
    weights: Annotated[str | None, AfterValidator(lambda value, info: value and _resolve_file(value, info))] = None
    queries: Literal["mixed", "learnable", "conditional"] = "mixed"
    learnable_queries: _Queries = 100
    conditional_queries: _Queries = 300
    exchange: bool = True
    denoising: Annotated[int, Field(ge=0, le=1000)] = 0
    dim: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] = 256
    encoder_layers: Annotated[int, Field(ge=1, le=100)] = 6
    decoder_layers: Annotated[int, Field(ge=1, le=100)] = 9
    levels: Literal[3, 4, 5] = 4
    encoder_feedforward: Annotated[int | None, Field(ge=32, le=65_536)] = None
    text_encoder: Annotated[str, AfterValidator(_resolve_text_encoder)] = "clip_b"
    train_text_encoder: bool = False

    @model_validator(mode="after")
    def _check_queries(self) -> ModelConfig:
        if self.weights is not None and "backbone_weights" in self.model_fields_set:
            raise ValueError("weights hold the backbone's as well; take backbone_weights out")
        for kind, other in (("learnable", "conditional"), ("conditional", "learnable")):
            key = f"{kind}_queries"
            if self.queries in ("mixed", kind) and not getattr(self, key):
                raise ValueError(f"queries '{self.queries}' need {key} above 0; raise it, or choose queries: {other}")
            if self.queries == other and getattr(self, key) not in (0, type(self).model_fields[key].default):
                raise ValueError(f"queries '{other}' use no {key}; take it out, or choose queries: mixed")
        return self


class CaptionerConfig(ConfigSection):
    """What describes objects: an OFA, which is trained instead of the network of `ModelConfig`. Defaults are OFA's own.

    Attributes:
        size: of the published five; weights in a file say their own.
        weights: pretrained, random, or a file or folder of such weights.
        words: folder of vocab.json and merges.txt; None = they lie where the weights do.
        train_words: whether the table of words learns with the rest; OFA's fine-tuning leaves it as it came.
        image_size: side of the square that images are stretched to, in pixels.
        regions: so many objects of an image are learned from at a time; which, and which phrase of each, is drawn anew.
        max_words: longer phrases are cut.
    """

    size: Literal["tiny", "medium", "base", "large", "huge"] = "base"
    weights: Annotated[str, AfterValidator(_resolve_weights)] = "pretrained"
    words: Annotated[str | None, AfterValidator(lambda value, info: value and _resolve_folder(value, info))] = None
    train_words: bool = False
    image_size: Annotated[int, Field(ge=32, le=672, multiple_of=32)] = 384
    regions: Annotated[int, Field(ge=1, le=365)] = 8
    max_words: Annotated[int, Field(ge=1, le=200)] = 30

    @model_validator(mode="after")
    def _check_weights_and_words(self) -> CaptionerConfig:
        if "/" in self.weights and "size" in self.model_fields_set:
            raise ValueError(f"weights of {truncate(self.weights)} say their own size; take size out")
        if self.weights == "random" and self.words is None and not self.train_words:
            said = "words: FOLDER, of vocab.json and merges.txt, and train_words: true"
            raise ValueError(f"weights 'random' come without words, and know none; say {said}")
        if self.weights == "random" and self.words is None:
            raise ValueError("weights 'random' come without words; say words: FOLDER, of vocab.json and merges.txt")
        if self.weights == "random" and not self.train_words:
            raise ValueError("weights 'random' know no words; say train_words: true")
        return self


class ScheduleConfig(ConfigSection):
    """How long and how fast; the defaults are the paper's and Mask DINO's.

    Attributes:
        steps: in all; the default is 50 epochs of COCO. A run that has learned them learns on if they
            become more, from then on at the learning rates of the new length.
        batch_size: images a step, over all processes.
        accumulate: a process takes its part of a step's images in so many portions, which saves memory.
        lr: of what is new; backbone_lr, text_encoder_lr: of what comes with weights.
        milestones: after these shares of the steps, the learning rate is a tenth of what it was.
        clip: the largest norm of all gradients together; None = any.
        mask_points: masks are compared at so many.
        ema: decay of a moving average of the weights; None = none is kept.
        precision: bf16 = of activations; weights and losses stay float32.
        checkpointing: compute activations a second time instead of keeping them, which saves memory.
        compile: the layers of pixel decoder and decoder, by torch.compile, which needs a C compiler and minutes; for
            batches that are nearly all of one shape.
        checkpoint_every: steps. keep: so many of the last checkpoints, and the best.
        evaluate_every: steps; None = at the end only.
    """

    steps: _Size = 184_375
    batch_size: _Size = 32
    accumulate: _Size = 1
    lr: Annotated[float, Field(gt=0)] = 2e-4
    backbone_lr: Annotated[float, Field(ge=0)] = 2e-5
    text_encoder_lr: Annotated[float, Field(ge=0)] = 2e-5
    warmup_steps: _Count = 10
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    milestones: Annotated[tuple[float, ...], AfterValidator(_check_milestones)] = (0.9, 0.95)
    clip: Annotated[float | None, Field(gt=0)] = 0.01
    mask_points: Annotated[int, Field(ge=16, le=2**20)] = 112 * 112
    ema: Annotated[float | None, Field(gt=0, lt=1)] = None
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpointing: bool = False
    compile: bool = False
    checkpoint_every: _Size = 5_000
    keep: _Size = 3
    evaluate_every: _Size | None = None

    @model_validator(mode="after")
    def _check_warmup(self) -> ScheduleConfig:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} should be fewer than the steps, {self.steps}; lower it")
        return self


class ReadersConfig(ConfigSection):
    """How images are read; it changes no batch.

    Attributes:
        workers: processes that decode, for each training process; 0 = none of their own.
        cache_mib: decoded images are kept up to so many MiB a worker.
    """

    workers: Annotated[int, Field(ge=0, le=256)] = 4
    cache_mib: _Count = 0


def check_captioner_consistency(document: Mapping[str, Any], tasks: Mapping[Location, str]) -> Iterator[ManifestIssue]:
    """A captioner is trained, or a network, and all that a manifest says goes with the one of them.

    Args:
        tasks: of its sources, by their places.
    """
    captions = document.get("captioner") is not None
    for at, task in tasks.items():
        if captions != (task.replace("-", "_") == CAPTIONING):
            remedy = f"name '{CAPTIONING}'" if captions else "say captioner: {}, or more of it"
            yield ManifestIssue((*at, "task"), f"'{task}' trains {'no' if captions else 'a'} captioner; {remedy}")
    if captions:
        for key, what in _CAPTIONER_INCOMPATIBLE_KEYS.items():
            if key in document:
                yield ManifestIssue((key,), what)
        entries = document["eval"] if isinstance(document.get("eval"), list) else []
        for i, entry in enumerate(entries):
            if isinstance(entry, Mapping) and entry.get("size") is not None:
                yield ManifestIssue(("eval", i, "size"), _NO_EFFECT_ON_CAPTIONER)
        schedule = document.get("schedule")
        if isinstance(schedule, Mapping) and schedule.get("compile"):
            yield ManifestIssue(("schedule", "compile"), "compiles layers that a captioner does not have; take it out")
