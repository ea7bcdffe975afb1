"""Published weights -> an OFA: the names of both families, the sizes that shapes show, and strict loading."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from synthgen.models.ofa.model import SIZES, Ofa, OfaConfig, build_ofa

#: No side of OFA's tensors but its vocabulary's is longer, and no vocabulary: what a file may make us allocate.
MAX_TENSOR_SIDE = 2**14
MAX_VOCAB_SIZE = 2**18

#: Layers of a kind; the largest published has 36.
MAX_LAYERS = 64

_EMBEDDING_NAME = "encoder.embed_tokens.weight"
_TIED_NAMES = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")

#: Follow from the numbers, and are in some files and not in others.
_DERIVED_NAMES = re.compile(
    r"(en|de)coder\.(token_rp_bucket|image_rp_bucket|version)|decoder\.image_position_idx|.*\.num_batches_tracked"
)

#: What fairseq calls otherwise, as parts of a name.
_FAIRSEQ_TO_HF = {
    "encoder_attn": "cross_attn",
    "encoder_attn_layer_norm": "cross_attn_layer_norm",
    "attn_ln": "self_attn_mid_layer_norm",
    "self_attn_ln": "self_attn_mid_layer_norm",
    "cross_attn_ln": "cross_attn_mid_layer_norm",
    "ffn_layernorm": "ffn_layer_norm",
}


def infer_config(weights: Mapping[str, object]) -> OfaConfig:
    """Read off the names and shapes of a state dict what OFA it is of; names of both families will do.

    Raises:
        ValueError: it is no OFA's; one sentence says what was missed.
    """
    return _infer_config(_to_hf_names(weights))


def size_name(config: OfaConfig) -> str:
    """ "tiny" to "huge"; of any other size, its channels and layers: "48x2+2"."""
    known = (name for name, published in SIZES.items() if published == config)
    return next(known, f"{config.dim}x{config.encoder_layers}+{config.decoder_layers}")


def load_weights(network: Ofa, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict, strictly; a network on the meta device takes the tensors as its own.

    Names of both families will do, in any precision of floats; what follows from the numbers (buckets, tied
    embeddings) may be there or not.

    Raises:
        ValueError: names are missing or unknown, shapes differ, a value is no plain tensor of floats, or the output is
            not tied to the embedding; one sentence names them. Nothing was loaded.
    """
    given = _to_hf_names(weights)
    state = network.state_dict()
    expected = {name: tensor for name, tensor in state.items() if name not in _TIED_NAMES}
    wrong = [
        f"{name} is {found} instead of {_describe_tensor(tensor)}"
        for name, tensor in state.items()
        if name in given and (found := _describe_tensor(given[name])) != _describe_tensor(tensor)
    ]
    faults = [
        _format_names("lack", [name for name in expected if name not in given]),
        _format_names(
            "have", [name[:80] for name in given if name not in state], " that this network has no place for"
        ),
        _format_names("differ:", wrong),
    ]
    if any(faults):
        raise ValueError("the weights do not fit: they " + ", and ".join(fault for fault in faults if fault))
    for name in _TIED_NAMES:
        if name in given and not torch.equal(given[name], given[_EMBEDDING_NAME]):
            raise ValueError(f"the weights do not fit: {name} is not the embedding of the encoder, as in every OFA")
    meta = any(tensor.is_meta for tensor in expected.values())
    # Copied: what lies in a mapped file would die with the file.
    own = {name: given[name].to(tensor.dtype, copy=True) for name, tensor in expected.items()}
    network.load_state_dict({**own, **dict.fromkeys(_TIED_NAMES, own[_EMBEDDING_NAME])}, strict=True, assign=meta)
    network.decoder.output_projection.weight = network.encoder.embed_tokens.weight  # a tensor assigned ties no more
    network.requires_grad_(False)


def build_from_weights(weights: Mapping[str, Tensor]) -> Ofa:
    """The OFA that a state dict is of, in float32.

    Raises:
        ValueError: see `infer_config` and `load_weights`.
    """
    with torch.device("meta"):
        network = build_ofa(infer_config(weights))
    load_weights(network, weights)
    return network


def _to_hf_names(weights: Mapping[str, object]) -> dict[str, Tensor]:
    """By HF's names, without what can be derived; what is no tensor is left for `_describe_tensor` to tell."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        house = ".".join(_FAIRSEQ_TO_HF.get(part, part) for part in str(name).split("."))
        if house in found:
            raise ValueError(f"these weights have {house[:80]} twice, by the names of fairseq and of Hugging Face")
        if not _DERIVED_NAMES.fullmatch(house):
            found[house] = value  # type: ignore[assignment]
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


def _describe_tensor(value: object) -> str:
    """The shape of a tensor of floats; of all else, what it is."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided or value.untyped_storage().nbytes() < value.nbytes:
        return f"{list(value.shape)} without as many numbers"  # a stride of 0 makes a million of one
    return f"{list(value.shape)}" if value.is_floating_point() else f"{list(value.shape)} of {value.dtype}"


def _format_names(verb: str, names: list[str], tail: str = "", most: int = 5) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{verb} {', '.join(names[:most])}{more}{tail}"
