"""Checkpoints: one file with the weights for inference, their description, and the state for resuming the training.

Checkpoints are read like any untrusted file, without executing code (`synthgen.models.checkpoint_reader`).
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
from synthgen.dataloading.renamed_keys import rename_section_keys
from synthgen.errors import SynthgenError
from synthgen.models import checkpoint_reader as files
from synthgen.models.mqformer.model import MQFormer
from synthgen.storage.atomic import atomic_write

FORMAT_VERSION = 1

#: The section of a manifest by `Checkpoint.kind`; of other kinds `model`.
_SECTIONS = {"captioner": "captioner", "box_segmenter": "box_segmenter"}

#: Upper limit on the side of an input image, in pixels.
_MAX_SIDE = 8192

#: Prefixes of parameters that exist only in some networks of one kind.
_DENOISING_PREFIX, _TEXT_ENCODER_PREFIX = "decoder.label_enc.", "text_encoder."

#: Message for masks requested from a network whose `Checkpoint.has_learned_masks` is False.
NO_MASKS_WARNING = (
    "this network has never learned a mask, only boxes: masks of it are noise; a source with masks in `mixture:` "
    "(task: instance, say) teaches it some"
)

#: Maximum number of category names stored as default texts for prediction.
MAX_CATEGORY_NAMES = 5000


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        kind: "mqformer", "captioner" or "box_segmenter".
        step: number of training steps.
        model_config: the manifest's section of that kind, as JSON; of a box segmenter only the structure.
        category_names: category names of the training data, the first `MAX_CATEGORY_NAMES`.
        eval_size: image sides in evaluation; see `Manifest`.
        weights: the weights for inference: the EMA if there is one. Frozen parts that are stored elsewhere, such as a
            text encoder, are not included.
        training_state: state for resuming only: tensors and plain values.
        has_learned_masks: whether the network was ever trained with masks, in this run or before. If it was trained
            with boxes only, its mask head is random. True for files of versions without this field.
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
    """Write a checkpoint atomically; equal checkpoints have equal bytes.

    Args:
        path: file to write; it may exist and is then replaced.
        checkpoint: what the file will hold.

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
    # Given as a file, because torch stores the name of a path in the archive, and this name is random.
    with atomic_write(path, remedy="choose another --out") as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as why:  # the archive is incomplete; the cause, e.g. a full disk, is in the chained OSError
            raise (why.__context__ if isinstance(why.__context__, OSError) else why) from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; its tensors are memory-mapped.

    Args:
        path: untrusted file.

    Raises:
        SynthgenError: it cannot be read, or is not a checkpoint of synthgen.
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
            model_config=rename_section_keys(_SECTIONS.get(about["kind"], "model"), about["model"]),
            category_names=tuple(map(str, about["names"]))[:MAX_CATEGORY_NAMES],
            weights=files.as_state_dict(content.get("model"), path),
            eval_size=_validated_sides(about["eval_size"]),
            training_state=training if isinstance(training, dict) else {},
            has_learned_masks=masks,
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as why:
        problem = why if type(why) is ValueError or isinstance(why, files.NonTensorContentError) else "it is damaged"
        raise SynthgenError(f"{path} cannot be used as a checkpoint: {problem}") from None


def _validated_sides(values: Any) -> tuple[int, int]:
    short, long = map(int, values)
    if not 1 <= short <= long <= _MAX_SIDE:
        raise ValueError(f"it was evaluated at {short} by {long} pixels")
    return short, long


def resolve_sides(short: int | None, long: int | None, defaults: tuple[int, int]) -> tuple[int, int]:
    """The shorter side and the limit of the longer side of the network's input, in pixels.

    Args:
        short: shorter side that the user gives, in pixels; None or 0 = that of `defaults`.
        long: limit of the longer side that the user gives, in pixels; None or 0 = that of `defaults`.
        defaults: (shorter side, limit of the longer side), in pixels.

    Raises:
        SynthgenError: the shorter side is longer than the longer one.
    """
    found = short or defaults[0], long or defaults[1]
    if found[0] > found[1]:
        words = [f"{side}{'' if own else ' (the default)'}" for side, own in zip(found, (short, long), strict=True)]
        raise SynthgenError(f"--short {words[0]} is more than --long {words[1]}; say both, the smaller one as --short")
    return found


def checkpoint_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of `module` for a checkpoint: without frozen parts (`TextEncoder`), and tied tensors once."""
    frozen = tuple(f"{name}." for name, part in module.named_modules() if getattr(part, "trainable", True) is False)
    state = module.state_dict(keep_vars=True)
    first = {id(value): name for name, value in reversed(list(state.items()))}
    return {
        name: value.detach()
        for name, value in state.items()
        if first[id(value)] == name and not (frozen and name.startswith(frozen))
    }


def load_initial_weights(network: MQFormer, path: Path) -> bool:
    """Load the weights of a checkpoint into a network for further training; return its `Checkpoint.has_learned_masks`.

    The label embedding of denoising queries may exist in only one of the two, and so may a trainable text encoder.

    Args:
        network: its weights are replaced in place.
        path: checkpoint; untrusted.

    Raises:
        SynthgenError: not a valid checkpoint, or one of another network.
    """
    found, own = load_checkpoint(path), checkpoint_state_dict(network)
    if found.kind != "mqformer":
        raise SynthgenError(f"{path} is a checkpoint of a {found.kind[:40]}, not of MQ-Former; mend model.weights")
    weights = {
        name: value for name, value in found.weights.items() if name in own or not name.startswith(_DENOISING_PREFIX)
    }
    if not network.text_encoder.trainable and any(name.startswith(_TEXT_ENCODER_PREFIX) for name in weights):
        raise SynthgenError(f"the text encoder of {path} has learned with the rest; say model.train_text_encoder: true")
    for name in sorted(own.keys() | weights.keys()):
        here, there = (list(state[name].shape) if name in state else "not" for state in (own, weights))
        if here != there and not (there == "not" and name.startswith((_DENOISING_PREFIX, _TEXT_ENCODER_PREFIX))):
            raise SynthgenError(
                f"{path} is of another network than model: describes ({name[:80]} is {there} there and {here} here); "
                "say of it what the manifest.yaml beside that file says, or take model.weights out"
            )
    network.load_state_dict(weights, strict=False)
    return found.has_learned_masks


def load_network(path: Path, *, device: torch.device, text_encoder: str | None = None) -> tuple[MQFormer, Checkpoint]:
    """Load the network of a checkpoint for inference.

    Args:
        path: checkpoint; untrusted.
        device: where the network is put.
        text_encoder: replaces the path in the checkpoint, which may not exist on this machine.

    Raises:
        SynthgenError: not a valid checkpoint, or the text encoder is missing.
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
    # A file may claim any size, so a network on the meta device is built first and compared with the tensors.
    encoder = build_network.build_text_encoder(model, "--text-encoder")
    network_state = checkpoint_state_dict(build_network.build_from_config(model, device="meta", encoder=encoder))
    stored_shapes = {name: tuple(value.shape) for name, value in found.weights.items()}
    if {name: tuple(value.shape) for name, value in network_state.items()} != stored_shapes:
        other = next(iter(sorted(network_state.keys() ^ stored_shapes.keys())), "") or next(
            name for name, value in network_state.items() if tuple(value.shape) != stored_shapes[name]
        )
        raise SynthgenError(f"{path} does not hold the network that it describes: {other[:80]} differs")
    built = build_network.build_from_config(model, encoder=encoder)
    built.load_state_dict(dict(found.weights), strict=False)
    return built.to(device).eval(), found
