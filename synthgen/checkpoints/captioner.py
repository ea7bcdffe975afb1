"""Captioners from a manifest or a checkpoint: an OFA network, its tokenizer and the folder of its vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from synthgen import weights
from synthgen.checkpoints.checkpoint import Checkpoint, read
from synthgen.dataloading.config import Captioner
from synthgen.dataloading.manifest import Manifest
from synthgen.errors import SynthgenError
from synthgen.models.ofa import checkpoint_folder
from synthgen.models.ofa.model import SIZES, Ofa, build_ofa
from synthgen.models.ofa.resnet import STRIDE
from synthgen.models.ofa.tokenizer import OfaTokenizer, load_tokenizer
from synthgen.models.ofa.weights import from_weights

#: The kind of a captioner's checkpoint.
KIND = "captioner"


def build(settings: Captioner) -> tuple[Ofa, OfaTokenizer, Path]:
    """The network, what it reads and writes in, and the folder of that.

    Raises:
        SynthgenError: weights or words are not where they should be, or are others.
    """
    words = Path(settings.words) if settings.words is not None else None
    path: Path | None = None
    if settings.weights != "random":
        path = _weights_of(settings)
        words = words or path.parent
    assert words is not None  # noqa: S101 - random weights say where theirs are
    if lacking := checkpoint_folder.lacking_words(words):
        raise SynthgenError(
            f"{words} lacks {' and '.join(lacking)}, which all OFAs have; "
            f"run: {checkpoint_folder.FETCH_WORDS} --local-dir {words}, or say captioner.words"
        )
    try:
        if path is None:
            tokenizer = load_tokenizer(words)
            network = build_ofa(replace(SIZES[settings.size], vocabulary=tokenizer.size))
        else:
            state, tokenizer = checkpoint_folder.read(path, words)
            network = from_weights(state)
    except ValueError as why:
        raise SynthgenError(f"{why}; see captioner.weights and captioner.words") from None
    if settings.image_size > (longest := STRIDE * network.numbers.image_bucket):
        raise SynthgenError(f"captioner.image_size {settings.image_size} is more than this OFA's {longest} pixels")
    return network, tokenizer, words


def load(path: Path, *, device: torch.device) -> tuple[Ofa, OfaTokenizer, Checkpoint]:
    """The captioner of a checkpoint, ready to describe; its words lie beside it.

    Raises:
        SynthgenError: it is none, or its words are not there.
    """
    found = read(path)
    if found.kind != KIND:
        raise SynthgenError(f"{path} is a checkpoint of a {found.kind[:40]}, not of a captioner; name another")
    try:
        state, tokenizer = checkpoint_folder.read(path, path.parent)
        return from_weights(state).to(device).eval(), tokenizer, found
    except ValueError as why:
        raise SynthgenError(
            f"{why}; training writes {' and '.join(checkpoint_folder.WORDS)} beside its checkpoints"
        ) from None


def as_learned(manifest: Manifest, held: Checkpoint) -> Manifest:
    """The manifest, by which images are as large as the captioner of a checkpoint learned from, if it says no other.

    Raises:
        SynthgenError: the checkpoint says what none can have learned from.
    """
    own = manifest.captioner or Captioner()
    if "image_size" in own.model_fields_set or "image_size" not in held.model:
        return manifest
    try:
        side = Captioner.model_validate({"image_size": held.model["image_size"]}).image_size
    except ValueError:
        raise SynthgenError("the checkpoint is damaged: its image_size is none; say captioner.image_size") from None
    return manifest.model_copy(update={"captioner": own.model_copy(update={"image_size": side})})


def _weights_of(settings: Captioner) -> Path:
    """The file that `weights` means."""
    if settings.weights == "pretrained":
        place = weights.folder() / f"ofa-{settings.size}"
        remedy = f"run: hf download OFA-Sys/ofa-{settings.size} --local-dir {place}, or say captioner.weights"
    else:
        place, remedy = Path(settings.weights), "mend captioner.weights"
    path = place if place.is_file() else checkpoint_folder.weights_in(place)
    if path is None:
        raise SynthgenError(f"no weights of an OFA in {place}; {remedy}")
    return path
