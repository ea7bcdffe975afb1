"""Captioners from a manifest or a checkpoint: an OFA network, its tokenizer and the folder of its vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from synthgen import weights
from synthgen.checkpoints.checkpoint import Checkpoint, load_checkpoint
from synthgen.dataloading.config import CaptionerConfig
from synthgen.dataloading.manifest import Manifest
from synthgen.errors import SynthgenError
from synthgen.models.ofa import checkpoint_folder
from synthgen.models.ofa.model import SIZES, Ofa, build_ofa
from synthgen.models.ofa.resnet import STRIDE
from synthgen.models.ofa.tokenizer import OfaTokenizer, load_tokenizer
from synthgen.models.ofa.weights import build_from_weights

#: `Checkpoint.kind` of captioners.
KIND = "captioner"


def build_captioner(settings: CaptionerConfig) -> tuple[Ofa, OfaTokenizer, Path]:
    """Build the network, its tokenizer and the folder of the tokenizer files.

    Args:
        settings: section `captioner` of the manifest.

    Raises:
        SynthgenError: weights or tokenizer files are missing or do not fit.
    """
    words = Path(settings.tokenizer) if settings.tokenizer is not None else None
    path: Path | None = None
    if settings.weights != "random":
        path = _resolve_weights(settings)
        words = words or path.parent
    assert words is not None  # noqa: S101 - random weights say where theirs are
    if lacking := checkpoint_folder.missing_tokenizer_files(words):
        raise SynthgenError(
            f"{words} lacks {' and '.join(lacking)}, which all OFAs have; "
            f"run: {checkpoint_folder.FETCH_TOKENIZER_COMMAND} --local-dir {words}, or say captioner.tokenizer"
        )
    try:
        if path is None:
            tokenizer = load_tokenizer(words)
            network = build_ofa(replace(SIZES[settings.size], vocab_size=tokenizer.vocab_size))
        else:
            state, tokenizer = checkpoint_folder.read_checkpoint(path, words)
            network = build_from_weights(state)
    except ValueError as why:
        raise SynthgenError(f"{why}; see captioner.weights and captioner.tokenizer") from None
    if settings.image_size > (longest := STRIDE * network.config.image_bucket_size):
        raise SynthgenError(f"captioner.image_size {settings.image_size} is more than this OFA's {longest} pixels")
    return network, tokenizer, words


def load_captioner(path: Path, *, device: torch.device) -> tuple[Ofa, OfaTokenizer, Checkpoint]:
    """Load the captioner of a checkpoint for inference; the tokenizer files are in the checkpoint's folder.

    Args:
        path: checkpoint; untrusted.
        device: where the network is put.

    Raises:
        SynthgenError: not a captioner's checkpoint, or the tokenizer files are missing.
    """
    found = load_checkpoint(path)
    if found.kind != KIND:
        raise SynthgenError(f"{path} is a checkpoint of a {found.kind[:40]}, not of a captioner; name another")
    try:
        state, tokenizer = checkpoint_folder.read_checkpoint(path, path.parent)
        return build_from_weights(state).to(device).eval(), tokenizer, found
    except ValueError as why:
        raise SynthgenError(
            f"{why}; training writes {' and '.join(checkpoint_folder.TOKENIZER_FILES)} beside its checkpoints"
        ) from None


def with_learned_image_size(manifest: Manifest, checkpoint: Checkpoint) -> Manifest:
    """The manifest with the image size that the checkpoint was trained with, unless the manifest sets one.

    Args:
        manifest: may lack the section `captioner`.
        checkpoint: of a captioner; untrusted.

    Raises:
        SynthgenError: the checkpoint has an invalid image size.
    """
    own = manifest.captioner or CaptionerConfig()
    if "image_size" in own.model_fields_set or "image_size" not in checkpoint.model_config:
        return manifest
    try:
        side = CaptionerConfig.model_validate({"image_size": checkpoint.model_config["image_size"]}).image_size
    except ValueError:
        raise SynthgenError("the checkpoint is damaged: its image_size is none; say captioner.image_size") from None
    return manifest.model_copy(update={"captioner": own.model_copy(update={"image_size": side})})


def _resolve_weights(settings: CaptionerConfig) -> Path:
    """The file that `weights` refers to."""
    if settings.weights == "pretrained":
        place = weights.weights_folder() / f"ofa-{settings.size}"
        remedy = f"run: hf download OFA-Sys/ofa-{settings.size} --local-dir {place}, or say captioner.weights"
    else:
        place, remedy = Path(settings.weights), "mend captioner.weights"
    path = place if place.is_file() else checkpoint_folder.find_weights_file(place)
    if path is None:
        raise SynthgenError(f"no weights of an OFA in {place}; {remedy}")
    return path
