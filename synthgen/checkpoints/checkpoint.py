"""Checkpoints: one file with the weights that predict, what they are of, and all that the training needs to go on.

A checkpoint is read as any stranger's file is: nothing in it is executed (`synthgen.models.checkpoint_reader`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from synthgen.checkpoints import build_network
from synthgen.dataloading.config import TEXT_ENCODERS, ModelConfig
from synthgen.errors import SynthgenError
from synthgen.models import checkpoint_reader as files
from synthgen.models.mqformer.model import MQFormer
from synthgen.storage.atomic import atomic_write

FORMAT_VERSION = 1

#: Pixels that a side of what a network sees may have at most.
_MAX_SIDE = 8192

#: What only some networks of one kind have, by the beginning of its name.
_DENOISING_PREFIX, _TEXT_ENCODER_PREFIX = "decoder.label_enc.", "text_encoder."

#: What is said of a network whose `Checkpoint.masks` is False, where masks are asked of it.
NO_MASKS_WARNING = (
    "this network has never learned a mask, only boxes: masks of it are noise; a source with masks in `mixture:` "
    "(task: instance, say) teaches it some"
)

#: Names of categories that are kept for who predicts without saying what.
MAX_CATEGORY_NAMES = 5000


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a file holds.

    Attributes:
        kind: "mqformer" or "captioner".
        step: how many steps it has learned.
        model_config: the manifest's section of that kind, as JSON has it.
        category_names: of the categories that it learned from, the first `MAX_CATEGORY_NAMES`.
        eval_size: sides of what it saw when it was evaluated; see `Manifest`.
        weights: those that predict: the moving average, where there is one. What does not learn and lies elsewhere, as
            a text encoder may, is not among them.
        training_state: what only the training needs: tensors and plain values.
        has_learned_masks: whether the network ever learned a mask, in this run or before; of boxes alone its masks
            stay random. True of files from before this was written.
    """

    kind: str
    step: int
    model_config: Mapping[str, Any]
    category_names: tuple[str, ...]
    weights: Mapping[str, Tensor]
    eval_size: tuple[int, int] = (800, 1333)
    training_state: Mapping[str, Any] = field(default_factory=dict)
    has_learned_masks: bool = True


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Put it in place, whole or not at all; the same checkpoint has the same bytes.

    Raises:
        SynthgenError: it cannot be written.
    """
    about = {
        "version": FORMAT_VERSION,
        "kind": checkpoint.kind,
        "step": checkpoint.step,
        "model": dict(checkpoint.model_config),
        "names": list(checkpoint.category_names[:MAX_CATEGORY_NAMES]),
        "eval_size": list(checkpoint.eval_size),
        "masks": checkpoint.has_learned_masks,
    }
    content = {
        "about": json.dumps(about),
        "model": dict(checkpoint.weights),
        "training": dict(checkpoint.training_state),
    }
    # To a file, not a path: torch writes the name of a path into the archive, and this one is drawn.
    with atomic_write(path, remedy="choose another --out") as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as why:  # its archive is not whole; what the system said, as of a full disk, lies beneath
            raise (why.__context__ if isinstance(why.__context__, OSError) else why) from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; its tensors lie in the mapped file, and cost memory when they are used.

    Raises:
        SynthgenError: it cannot be read, or is none of ours.
    """
    try:
        content = files.safe_load(path)
        if not isinstance(content, dict) or not isinstance(content.get("about"), str):
            raise ValueError("it is no checkpoint of `synthgen train`")
        about, training = json.loads(content["about"]), content.get("training")
        if about["version"] > FORMAT_VERSION:
            raise ValueError(
                f"it is of version {about['version']}, this synthgen reads {FORMAT_VERSION}; install a newer one"
            )
        if type(masks := about.get("masks", True)) is not bool:
            raise TypeError("neither true nor false")
        return Checkpoint(
            kind=str(about["kind"]),
            step=int(about["step"]),
            model_config=dict(about["model"]),
            category_names=tuple(map(str, about["names"]))[:MAX_CATEGORY_NAMES],
            weights=files.as_state_dict(content.get("model"), path),
            eval_size=_validated_sides(about["eval_size"]),
            training_state=training if isinstance(training, dict) else {},
            has_learned_masks=masks,
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as why:
        told = why if type(why) is ValueError or isinstance(why, files.NonTensorContentError) else "it is damaged"
        raise SynthgenError(f"{path} cannot be used as a checkpoint: {told}") from None


def _validated_sides(values: Any) -> tuple[int, int]:
    short, long = map(int, values)
    if not 1 <= short <= long <= _MAX_SIDE:
        raise ValueError(f"it was evaluated at {short} by {long} pixels")
    return short, long


def resolve_sides(short: int | None, long: int | None, defaults: tuple[int, int]) -> tuple[int, int]:
    """(shorter, longer at most) of what a network is to see, in pixels.

    Args:
        short, long: as a person said them; None = the `defaults` ones.

    Raises:
        SynthgenError: the shorter one is longer than the longer one.
    """
    found = short or defaults[0], long or defaults[1]
    if found[0] > found[1]:
        words = [f"{side}{'' if own else ' (the default)'}" for side, own in zip(found, (short, long), strict=True)]
        raise SynthgenError(f"--short {words[0]} is more than --long {words[1]}; say both, the smaller one as --short")
    return found


def checkpoint_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps of a module: all but the parts that never learn (`TextEncoder`); what is tied, once."""
    frozen = tuple(f"{name}." for name, part in module.named_modules() if getattr(part, "trainable", True) is False)
    state = module.state_dict(keep_vars=True)
    first = {id(value): name for name, value in reversed(list(state.items()))}
    return {
        name: value.detach()
        for name, value in state.items()
        if first[id(value)] == name and not (frozen and name.startswith(frozen))
    }


def load_initial_weights(network: MQFormer, path: Path) -> bool:
    """Put the weights of a checkpoint into a network that is to learn on from them; returns its `Checkpoint.masks`.

    What is of training alone, the noised objects' table, may be in one of the two only; so may a text encoder that
    learns from now on.

    Raises:
        SynthgenError: the file is not what it should be, or is of another network.
    """
    found, own = load_checkpoint(path), checkpoint_state_dict(network)
    if found.kind != "mqformer":
        raise SynthgenError(f"{path} is a checkpoint of a {found.kind[:40]}, not of MQ-Former; mend model.weights")
    theirs = {
        name: value for name, value in found.weights.items() if name in own or not name.startswith(_DENOISING_PREFIX)
    }
    if not network.text_encoder.trainable and any(name.startswith(_TEXT_ENCODER_PREFIX) for name in theirs):
        raise SynthgenError(f"the text encoder of {path} has learned with the rest; say model.train_text_encoder: true")
    for name in sorted(own.keys() | theirs.keys()):
        here, there = (list(state[name].shape) if name in state else "not" for state in (own, theirs))
        if here != there and not (there == "not" and name.startswith((_DENOISING_PREFIX, _TEXT_ENCODER_PREFIX))):
            raise SynthgenError(
                f"{path} is of another network than model: describes ({name[:80]} is {there} there and {here} here); "
                "say of it what the manifest.yaml beside that file says, or take model.weights out"
            )
    network.load_state_dict(theirs, strict=False)
    return found.has_learned_masks


def load_network(path: Path, *, device: torch.device, text_encoder: str | None = None) -> tuple[MQFormer, Checkpoint]:
    """The network of a checkpoint, ready to predict.

    Args:
        text_encoder: instead of the one that the checkpoint names, which may lie elsewhere on this machine.

    Raises:
        SynthgenError: the file is not what it should be, or the text encoder is not there.
    """
    found = load_checkpoint(path)
    if found.kind != "mqformer":
        raise SynthgenError(f"{path} is a checkpoint of a {found.kind[:40]}, not of MQ-Former; name another")
    try:
        model = ModelConfig.model_validate_json(json.dumps({**found.model_config, "backbone_weights": "random"}))
    except ValidationError:
        raise SynthgenError(f"{path} describes no network that this synthgen knows; it is damaged or newer") from None
    if text_encoder is not None:
        if "/" not in text_encoder and text_encoder not in TEXT_ENCODERS:
            raise SynthgenError(
                f"no text encoder named '{text_encoder}' (have: {', '.join(TEXT_ENCODERS)}); a folder has a slash in it"
            )
        model = model.model_copy(update={"text_encoder": text_encoder})
    # A file may claim any size: a network without memory is made first, and must be what the file has numbers for.
    encoder = build_network.build_text_encoder(model, "--text-encoder")
    claimed = checkpoint_state_dict(build_network.build_from_config(model, device="meta", encoder=encoder))
    theirs = {name: tuple(value.shape) for name, value in found.weights.items()}
    if {name: tuple(value.shape) for name, value in claimed.items()} != theirs:
        other = next(iter(sorted(claimed.keys() ^ theirs.keys())), "") or next(
            name for name, value in claimed.items() if tuple(value.shape) != theirs[name]
        )
        raise SynthgenError(f"{path} does not hold the network that it describes: {other[:80]} differs")
    built = build_network.build_from_config(model, encoder=encoder)
    built.load_state_dict(dict(found.weights), strict=False)
    return built.to(device).eval(), found
