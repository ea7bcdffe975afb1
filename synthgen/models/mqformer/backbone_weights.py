"""Load ImageNet weights into backbones, key names of the original Swin, torchvision's ResNet or Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor
from transformers import ResNetBackbone, ResNetConfig, SwinBackbone, SwinConfig

from synthgen.models.mqformer.weights import load_pretrained

_NameMap = dict[str, str | Callable[[re.Match[str]], str]]

_QKV = {"q": "query", "k": "key", "v": "value"}

#: Patterns in the key names of the original Swin -> the published Hugging Face names, which every transformers version
#: reads.
_SWIN_TO_HF: _NameMap = {
    r"^patch_embed\.proj\.": "swin.embeddings.patch_embeddings.projection.",
    r"^patch_embed\.norm\.": "swin.embeddings.norm.",
    r"^layers\.": "swin.encoder.layers.",
    r"^norm([0-3])\.": lambda found: f"hidden_states_norms.stage{int(found[1]) + 1}.",
    r"\.norm([12])\.": lambda found: f".layernorm_{'before' if found[1] == '1' else 'after'}.",
    r"\.attn\.(q|k|v)\.": lambda found: f".attention.self.{_QKV[found[1]]}.",
    r"\.attn\.proj\.": ".attention.output.dense.",
    r"\.attn\.relative": ".attention.self.relative",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}

#: The same for torchvision's ResNet.
_RESNET_TO_HF: _NameMap = {
    r"^conv1\.": "embedder.embedder.convolution.",
    r"^bn1\.": "embedder.embedder.normalization.",
    r"^layer([1-4])\.": lambda found: f"encoder.stages.{int(found[1]) - 1}.layers.",
    r"\.conv([1-3])\.": lambda found: f".layer.{int(found[1]) - 1}.convolution.",
    r"\.bn([1-3])\.": lambda found: f".layer.{int(found[1]) - 1}.normalization.",
    r"\.downsample\.0\.": ".shortcut.convolution.",
    r"\.downsample\.1\.": ".shortcut.normalization.",
}

#: Keys of classifier heads; ignored.
_CLASSIFIER_HEADS = r"(classifier|head|fc|norm|layernorm|swin\.layernorm)\..*"

#: Keys that classifiers lack: the norms of the stage features keep their initial values.
_STAGE_NORMS = r"hidden_states_norms\..*|swin\.layernorm\..*"


def load_swin(config: SwinConfig, weights: Mapping[str, Tensor]) -> SwinBackbone:
    """Build a Swin and load weights with the original's or Hugging Face's key names.

    Args:
        config: sizes of the network.
        weights: float tensors of a backbone or classifier, with their names.

    Raises:
        ValueError: the weights do not fit; see `load_pretrained`.
    """
    if "patch_embed.proj.weight" in weights:
        weights = {_rename_key(name, _SWIN_TO_HF): tensor for name, tensor in _split_qkv(weights).items()}
    network: SwinBackbone = load_pretrained(
        SwinBackbone, config, weights, ignored_names=_CLASSIFIER_HEADS, optional_names=_STAGE_NORMS
    )
    return network


def load_resnet(config: ResNetConfig, weights: Mapping[str, Tensor]) -> ResNetBackbone:
    """Build a ResNet and load weights with torchvision's or Hugging Face's key names.

    Args:
        config: sizes of the network.
        weights: float tensors of a backbone or classifier, with their names.

    Raises:
        ValueError: the weights do not fit; see `load_pretrained`.
    """
    if "layer1.0.conv1.weight" in weights:
        weights = {_rename_key(name, _RESNET_TO_HF): tensor for name, tensor in weights.items()}
    network: ResNetBackbone = load_pretrained(ResNetBackbone, config, weights, ignored_names=_CLASSIFIER_HEADS)
    return network


def _split_qkv(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the joint qkv tensors of the original into query, key and value."""
    parted: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".attn.qkv." in name and tensor.dim() and len(tensor) % 3 == 0:
            parted |= {name.replace(".qkv.", f".{part}."): t for part, t in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            parted[name] = tensor
    return parted


def _rename_key(name: str, names: _NameMap) -> str:
    for theirs, ours in names.items():
        name = re.sub(theirs, ours, name)
    return name
