"""Weights of ImageNet -> backbones: the names of the original Swin, of torchvision's ResNet and of Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor
from transformers import ResNetBackbone, ResNetConfig, SwinBackbone, SwinConfig

from synthgen.models.mqformer.weights import load_pretrained

_NameMap = dict[str, str | Callable[[re.Match[str]], str]]

_QKV = {"q": "query", "k": "key", "v": "value"}

#: Parts of the original Swin's names -> those that Hugging Face publishes; transformers knows them in all versions.
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

#: Of classifiers, and for them only.
_CLASSIFIER_HEADS = r"(classifier|head|fc|norm|layernorm|swin\.layernorm)\..*"

#: Classifiers do not normalise their stages; these norms begin as those that change nothing but the scale.
_STAGE_NORMS = r"hidden_states_norms\..*|swin\.layernorm\..*"


def load_swin(config: SwinConfig, weights: Mapping[str, Tensor]) -> SwinBackbone:
    """A Swin of these numbers with these weights, in the original's names or Hugging Face's.

    Raises:
        ValueError: they do not fit; see `fitted`.
    """
    if "patch_embed.proj.weight" in weights:
        weights = {_rename_key(name, _SWIN_TO_HF): tensor for name, tensor in _split_qkv(weights).items()}
    network: SwinBackbone = load_pretrained(
        SwinBackbone, config, weights, ignored_names=_CLASSIFIER_HEADS, optional_names=_STAGE_NORMS
    )
    return network


def load_resnet(config: ResNetConfig, weights: Mapping[str, Tensor]) -> ResNetBackbone:
    """A ResNet of these numbers with these weights, in torchvision's names or Hugging Face's.

    Raises:
        ValueError: they do not fit; see `fitted`.
    """
    if "layer1.0.conv1.weight" in weights:
        weights = {_rename_key(name, _RESNET_TO_HF): tensor for name, tensor in weights.items()}
    network: ResNetBackbone = load_pretrained(ResNetBackbone, config, weights, ignored_names=_CLASSIFIER_HEADS)
    return network


def _split_qkv(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as a tensor each; the original has them in one, in this order."""
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
