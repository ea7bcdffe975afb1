"""OFA's goldens, the tiny network that they are of (48 channels, 2 + 2 layers, random), and a toy vocabulary."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from synthgen.models.ofa.beam import BeamSearchConfig
from synthgen.models.ofa.model import EncoderOutput, Ofa, OfaConfig, build_ofa
from synthgen.models.ofa.tokenizer import NUM_BINS, NUM_IMAGE_CODES
from synthgen.models.ofa.weights import load_weights

FOLDER = Path(__file__).parents[1] / "golden"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "ofa"

#: The whole golden and the vocabulary, which are too large for here.
SKIP_REASON = None if REFERENCE.is_dir() else "the reference files of OFA are not here"

#: What the golden's configuration says of its network.
NUMBERS = OfaConfig(dim=48, ffn_dim=96, heads=4, encoder_layers=2, decoder_layers=2, resnet_blocks=(2, 2, 2),
vocab_size=600,
                     max_positions=48, token_bucket_size=8, image_bucket_size=7)  # fmt: skip

TIED = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")


@cache
def golden() -> dict[str, Any]:
    """All of the small copy but the weights: arrays by name."""
    with np.load(FOLDER / "ofa_tiny.npz") as file:
        return {key: file[key] for key in file.files if not key.startswith("weights.")}


@cache
def golden_beam_search() -> dict[str, Any]:
    """What beam search found: "beam", "beam_settings" and "config"."""
    found: dict[str, Any] = json.loads(str(golden()["json"]))
    return found


def settings(name: str) -> BeamSearchConfig:
    """One of the golden's three settings."""
    given = golden_beam_search()["beam_settings"][name]
    return BeamSearchConfig(
        num_beams=given["beam"],
        max_length=given["max_len_b"],
        min_length=given["min_len"],
        length_penalty=given["lenpen"],
        no_repeat_ngram_size=given["no_repeat_ngram_size"],
    )


@cache
def random_weights(numbers: OfaConfig = NUMBERS) -> dict[str, Tensor]:
    """A whole network's weights, the same each time, by HF's names; the two that are tied to the embedding left out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_ofa(numbers).state_dict()
    return {name: tensor for name, tensor in state.items() if name not in TIED}


@cache
def weights() -> dict[str, Tensor]:
    """The golden's weights behind a random visual stem, which is not the golden's."""
    with np.load(FOLDER / "ofa_tiny.npz") as file:
        own = {
            key.removeprefix("weights."): torch.from_numpy(file[key].astype(np.float32))
            for key in file.files
            if key.startswith("weights.")
        }
    return {**random_weights(), **own}


@cache
def whole_golden() -> dict[str, Tensor]:
    """The golden as it was made, images and visual stem and all."""
    return load_file(REFERENCE / "golden_tiny.safetensors")


def whole_weights() -> dict[str, Tensor]:
    """Its weights."""
    return {k.removeprefix("weights."): v.float() for k, v in whole_golden().items() if k.startswith("weights.")}


def network(given: dict[str, Tensor] | None = None) -> Ofa:
    """The golden's network, ready, with the weights of the small copy or with others."""
    own = build_ofa(NUMBERS)
    load_weights(own, weights() if given is None else given)
    return own


class FixedVisualStem(nn.Module):
    """A visual stem that has seen already."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return self.features


def network_with_golden_features() -> Ofa:
    """The golden's network, whatever images it is shown those of the golden: what its visual stem gave is kept."""
    own = network()
    own.encoder.embed_images = FixedVisualStem(torch.from_numpy(golden()["out.embed_images"]))  # type: ignore[assignment]
    return own


def encoded(net: Ofa) -> EncoderOutput:
    """The golden's two texts, one of which is padded, with their images."""
    text = torch.from_numpy(golden()["in.input_ids"])
    image = net.extract_image_tokens(torch.zeros(2, 3, 64, 96))
    return net.encode(image, [0, 1], text, net.compute_position_bias(image, text.shape[1]), text == 1)


def fairseq_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as fairseq's OFA has it, with all that it stores beside."""
    found = {}
    for name, tensor in state.items():
        half, _, rest = name.partition(".")
        rest = rest.replace("cross_attn_mid_layer_norm", "cross_attn_ln").replace("ffn_layer_norm", "ffn_layernorm")
        rest = rest.replace("self_attn_mid_layer_norm", "attn_ln" if half == "encoder" else "self_attn_ln")
        rest = rest.replace("cross_attn_layer_norm", "encoder_attn_layer_norm").replace("cross_attn.", "encoder_attn.")
        found[f"{half}.{rest}"] = tensor
    embedding = state["encoder.embed_tokens.weight"]
    beside = {
        "encoder.version": torch.tensor([3.0]),
        "decoder.version": torch.tensor([3.0]),
        "encoder.token_rp_bucket": torch.zeros(4, 4, dtype=torch.int64),
        "encoder.image_rp_bucket": torch.zeros(4, 4, dtype=torch.int64),
        "decoder.token_rp_bucket": torch.zeros(4, 4, dtype=torch.int64),
        "decoder.image_rp_bucket": torch.zeros(4, 4, dtype=torch.int64),
        "decoder.image_position_idx": torch.zeros(1026, dtype=torch.int64),
        "decoder.embed_tokens.weight": embedding,
        "decoder.output_projection.weight": embedding,
        "encoder.embed_images.bn1.num_batches_tracked": torch.tensor(7),
    }
    return {**found, **beside}


#: A vocabulary that spells: OFA's special tokens, all bytes, and two pairs that merge.
BYTES = [chr(b) for b in [*range(33, 127), *range(161, 173), *range(174, 256)]]
BYTES += [chr(256 + i) for i in range(256 - len(BYTES))]
MERGES = [("Ġ", "a"), ("c", "a"), ("ca", "t"), ("Ġ", "cat"), ("Ġ", "Ġ")]


def vocabulary() -> dict[str, int]:
    """Ids of its tokens."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *BYTES, *("".join(pair) for pair in MERGES), "<mask>"]
    return {token: number for number, token in enumerate(tokens)}


def write_vocabulary(folder: Path) -> Path:
    """As a checkpoint's folder has it."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES))
    return folder


#: A network that goes with this vocabulary.
SPEAKING_NUMBERS = replace(NUMBERS, vocab_size=len(vocabulary()) + NUM_IMAGE_CODES + NUM_BINS, max_positions=64)

#: Its images are squares of at most 112 pixels.
SIDE = 96


@cache
def text_generating_weights() -> dict[str, Tensor]:
    """Random weights that say letters rather than codes, and of each box something else."""
    found = {name: tensor.clone() for name, tensor in random_weights(SPEAKING_NUMBERS).items()}
    words = vocabulary()
    loud = torch.full((SPEAKING_NUMBERS.vocab_size, 1), 0.3)
    loud[len(words) : len(words) + NUM_IMAGE_CODES] = 0.0
    loud[len(words) + NUM_IMAGE_CODES :] = 1.0
    for word, number in words.items():
        if word.replace("Ġ", "a").isascii() and word.replace("Ġ", "a").islower():
            loud[number] = 3.0
    loud[words["</s>"]] = 2.5
    found["encoder.embed_tokens.weight"] *= loud
    for name, tensor in found.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor *= 10
    return found


def checkpoint(folder: Path, given: dict[str, Tensor] | None = None) -> Path:
    """A folder as `--checkpoint` takes it, with the speaking weights or with others."""
    torch.save(text_generating_weights() if given is None else given, write_vocabulary(folder) / "pytorch_model.bin")
    return folder
