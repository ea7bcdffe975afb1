"""Weights of the box segmenter: ImageNet weights of its backbone, and files of whole segmenters.

A file of a segmenter is a safetensors file whose metadata has the key `box_segmenter`: the fields of
`BoxSegmenterConfig` as JSON. Checkpoints of `synthgen train` are read as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from synthgen.models.box_segmenter.network import BoxSegmenter, BoxSegmenterConfig
from synthgen.models.checkpoint_reader import as_state_dict, read_weights, safe_load
from synthgen.models.state_dict import check_fits
from synthgen.models.timm_networks import load_features, read_timm_weights

#: The weights that come with synthgen; `MODEL_CARD.md` beside them describes them.
TRAINED_WEIGHTS = Path(__file__).with_name("lite_coco.safetensors")

#: Key of the metadata of a safetensors file.
METADATA_KEY = "box_segmenter"

#: `Checkpoint.kind` of checkpoints of `synthgen train`.
KIND = "box_segmenter"


def load_backbone(name: str, path: Path) -> nn.Module:
    """A features-only backbone of timm with ImageNet weights.

    Args:
        name: one of `BACKBONES`.
        path: see `read_timm_weights`.

    Raises:
        ValueError: it cannot be read, or is another network's; one sentence without the path.
    """
    features: nn.Module = timm.create_model(name, pretrained=False, features_only=True)
    load_features(features, name, read_timm_weights(name, path))
    return features


def save_segmenter(network: BoxSegmenter, *, dtype: torch.dtype = torch.float16) -> bytes:
    """The bytes of a segmenter's file; equal networks give equal bytes.

    Args:
        network: on any device.
        dtype: of the tensors in the file.
    """
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()}
    return save(tensors, metadata={METADATA_KEY: json.dumps(asdict(network.config), sort_keys=True)})


def is_segmenter_file(path: Path) -> bool:
    """Whether a file describes itself as a box segmenter; see `load_segmenter`.

    Args:
        path: untrusted, of any kind; it may be missing.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_description(path) is not None
        content = safe_load(path)
    except ValueError:
        return False
    about = _parse_json(content.get("about")) if isinstance(content, dict) else None
    return isinstance(about, dict) and about.get("kind") == KIND


def load_segmenter(path: Path) -> BoxSegmenter:
    """The segmenter of a file of `save_segmenter`, or of a checkpoint of `synthgen train`; float32, in training mode.

    Args:
        path: a `.safetensors` file, or a checkpoint with any other ending.

    Raises:
        ValueError: it cannot be read, or is not a box segmenter; one sentence without the path.
    """
    config, weights = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    return build_segmenter(config, weights)


def build_segmenter(config: BoxSegmenterConfig, weights: Mapping[str, Tensor]) -> BoxSegmenter:
    """A segmenter with given weights, float32.

    Args:
        config: its structure.
        weights: by parameter name, any floating-point dtype.

    Raises:
        ValueError: the weights are another network's.
    """
    with torch.device("meta"):
        network = BoxSegmenter(config)
    floats = {name: value.float() for name, value in weights.items()}
    check_fits(network, floats)
    network.load_state_dict(floats, assign=True)
    return network


def config_from_json(content: Any) -> BoxSegmenterConfig:
    """The structure from the metadata of a file or the section of a manifest; other keys are ignored.

    Args:
        content: parsed JSON, which is not trusted.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(content, dict):
        raise ValueError("its description of the network is damaged")
    known = {one.name: content[one.name] for one in fields(BoxSegmenterConfig) if one.name in content}
    kinds = {"backbone": str, "hidden_dim": int, "crop_size": int, "margin": float}
    if any(type(value) not in (kinds[name], int if name == "margin" else kinds[name]) for name, value in known.items()):
        raise ValueError("its description of the network is damaged")
    return BoxSegmenterConfig(**known)


def _read_safetensors(path: Path) -> tuple[BoxSegmenterConfig, dict[str, Tensor]]:
    about = _read_description(path)
    if about is None:
        raise ValueError("it is not a file of a box segmenter")
    return config_from_json(_parse_json(about)), read_weights(path)


def _read_description(path: Path) -> str | None:
    """The value of `METADATA_KEY` in a safetensors file; None if it has no such key."""
    read_weights(path)  # checks the header first
    try:
        with safe_open(path, "pt") as file:
            about: str | None = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as why:
        raise ValueError(f"it is damaged ({str(why)[:200]})") from None
    return about


def _read_checkpoint(path: Path) -> tuple[BoxSegmenterConfig, dict[str, Tensor]]:
    content = safe_load(path)
    about = _parse_json(content.get("about")) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(about, dict) or about.get("kind") != KIND:
        raise ValueError("it is not a checkpoint of a box segmenter")
    return config_from_json(about.get("model")), as_state_dict(content.get("model"), path)


def _parse_json(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
