"""Load published OFA weights: key names of fairseq and Hugging Face, sizes inferred from shapes, strict checks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from synthgen.models.ofa.model import SIZES, Ofa, OfaConfig, build_ofa
from synthgen.models.state_dict import describe_tensor, format_names

#: Upper limits on tensor sides (the vocabulary has its own), which bound what a file can make us allocate.
MAX_TENSOR_SIDE = 2**14
MAX_VOCAB_SIZE = 2**18

#: Maximum number of layers; the largest published model has 36.
MAX_LAYERS = 64

_EMBEDDING_NAME = "encoder.embed_tokens.weight"
_TIED_NAMES = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")

#: Buffers that follow from the sizes; only some files contain them.
_DERIVED_NAMES = re.compile(
    r"(en|de)coder\.(token_rp_bucket|image_rp_bucket|version)|decoder\.image_position_idx|.*\.num_batches_tracked"
)

#: Parts of key names: fairseq -> Hugging Face.
_FAIRSEQ_TO_HF = {
    "encoder_attn": "cross_attn",
    "encoder_attn_layer_norm": "cross_attn_layer_norm",
    "attn_ln": "self_attn_mid_layer_norm",
    "self_attn_ln": "self_attn_mid_layer_norm",
    "cross_attn_ln": "cross_attn_mid_layer_norm",
    "ffn_layernorm": "ffn_layer_norm",
}


def infer_config(weights: Mapping[str, object]) -> OfaConfig:
    """Infer the configuration from the names and shapes of a state dict, with fairseq or Hugging Face names.

    Args:
        weights: names and tensors; only names and shapes are read.

    Raises:
        ValueError: not OFA's weights; one sentence names what is missing.
    """
    return _infer_config(_to_hf_names(weights))


def size_name(config: OfaConfig) -> str:
    """The name of a size, `config`: "tiny" to "huge"; for other sizes the channels and layers: "48x2+2"."""
    known = (name for name, published in SIZES.items() if published == config)
    return next(known, f"{config.dim}x{config.encoder_layers}+{config.decoder_layers}")


def load_weights(network: Ofa, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict strictly; a network on the meta device takes ownership of the tensors.

    Key names of fairseq or Hugging Face and any float precision are accepted. Derived entries (buckets, tied
    embeddings) are optional.

    Args:
        network: an OFA of the checkpoint's sizes.
        weights: float tensors of any precision, with the shapes of `network`'s state dict.

    Raises:
        ValueError: missing or unknown names, different shapes, a value that is not a plain float tensor, or an output
            layer that is not tied to the embedding. One sentence names them. Nothing was loaded.
    """
    given = _to_hf_names(weights)
    state = network.state_dict()
    expected = {name: tensor for name, tensor in state.items() if name not in _TIED_NAMES}
    wrong = [
        f"{name} is {found} instead of {describe_tensor(tensor)}"
        for name, tensor in state.items()
        if name in given and (found := describe_tensor(given[name])) != describe_tensor(tensor)
    ]
    faults = [
        format_names("lack", [name for name in expected if name not in given]),
        format_names("have", [name[:80] for name in given if name not in state], " that this network has no place for"),
        format_names("differ:", wrong),
    ]
    if any(faults):
        raise ValueError("the weights do not fit: they " + ", and ".join(fault for fault in faults if fault))
    for name in _TIED_NAMES:
        if name in given and not torch.equal(given[name], given[_EMBEDDING_NAME]):
            raise ValueError(f"the weights do not fit: {name} is not the embedding of the encoder, as in every OFA")
    meta = any(tensor.is_meta for tensor in expected.values())
    # Copied, because memory-mapped tensors are invalid after the file is closed.
    own = {name: given[name].to(tensor.dtype, copy=True) for name, tensor in expected.items()}
    network.load_state_dict({**own, **dict.fromkeys(_TIED_NAMES, own[_EMBEDDING_NAME])}, strict=True, assign=meta)
    network.decoder.output_projection.weight = network.encoder.embed_tokens.weight  # assigning tensors breaks the tie
    network.requires_grad_(False)


def build_from_weights(weights: Mapping[str, Tensor]) -> Ofa:
    """Build the OFA that fits a state dict, in float32.

    Args:
        weights: float tensors of any precision, with names of fairseq or Hugging Face.

    Raises:
        ValueError: see `infer_config` and `load_weights`.
    """
    with torch.device("meta"):
        network = build_ofa(infer_config(weights))
    load_weights(network, weights)
    return network


def _to_hf_names(weights: Mapping[str, object]) -> dict[str, Tensor]:
    """Rename keys to Hugging Face names and drop derived ones. Values that are not tensors are reported later."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        hf_name = ".".join(_FAIRSEQ_TO_HF.get(part, part) for part in str(name).split("."))
        if hf_name in found:
            raise ValueError(f"these weights have {hf_name[:80]} twice, by the names of fairseq and of Hugging Face")
        if not _DERIVED_NAMES.fullmatch(hf_name):
            found[hf_name] = value  # type: ignore[assignment]
    return found


def _infer_config(weights: dict[str, Tensor]) -> OfaConfig:
    def shape(name: str, axes: int, largest: int = MAX_TENSOR_SIDE) -> tuple[int, ...]:
        found = weights.get(name)
        if not isinstance(found, Tensor) or found.dim() != axes or 0 in found.shape:
            raise ValueError(
                f"these weights are not OFA's: {name} is not among the {len(weights)} names, or has no {axes} axes"
            )
        if max(found.shape) > largest:
            raise ValueError(f"these weights are of no OFA: {name} is {list(found.shape)}")
        return tuple(found.shape)

    def layers(prefix: str) -> int:
        count = len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
        if not 0 < count <= MAX_LAYERS:
            raise ValueError(f"these weights are of no OFA: they have {count} {prefix.rstrip('.')}")
        return count

    vocabulary, dim = shape(_EMBEDDING_NAME, 2, MAX_VOCAB_SIZE)
    (heads,) = shape("encoder.layers.0.self_attn.c_attn", 1)
    image_bucket = math.isqrt(shape("encoder.embed_image_positions.weight", 2)[0] - 1)
    token_bucket = (shape("encoder.token_rel_pos_table_list.0.weight", 2)[0] + 1) // 2
    if dim % heads or dim > MAX_TENSOR_SIDE or image_bucket < 1 or token_bucket < 2:
        raise ValueError(
            f"these weights are of no OFA: {dim} channels, {heads} heads, {image_bucket} places along a side of the "
            f"image and {token_bucket} distances in a text do not go together"
        )
    first, second, third = (layers(f"encoder.embed_images.layer{stage}.") for stage in (1, 2, 3))
    return OfaConfig(
        dim=dim,
        ffn_dim=shape("encoder.layers.0.fc1.weight", 2)[0],
        heads=heads,
        encoder_layers=layers("encoder.layers."),
        decoder_layers=layers("decoder.layers."),
        resnet_blocks=(first, second, third),
        vocab_size=vocabulary,
        max_positions=max(1, shape("encoder.embed_positions.weight", 2)[0] - 2),
        token_bucket_size=token_bucket,
        image_bucket_size=image_bucket,
    )
