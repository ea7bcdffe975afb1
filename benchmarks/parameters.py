"""How many parameters has the network of a manifest? Counted on PyTorch's meta device, without any weights.

    python benchmarks/parameters.py --manifest manifests/mqformer_full.yaml
    python benchmarks/parameters.py --backbones swin_b swin_l --text-encoders clip_b clip_l

With `--manifest`, one row: the network of its `model:`, and with `--text-encoders` that with other ones. Else a row for
each backbone and text encoder, with the defaults of `model:`. The text encoders are CLIP's published sizes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from synthgen.checkpoints.build_network import build_from_config
from synthgen.dataloading.config import ModelConfig
from synthgen.dataloading.manifest import load_manifest
from synthgen.models.mqformer.text_encoder import TextEncoder
from synthgen.models.mqformer.text_encoder_files import ClipTextEncoder

#: Width, heads and embedding size of the text encoders of openai/clip-vit-base-patch32 and clip-vit-large-patch14. Both
#: have 12 layers, 77 positions and 49,408 tokens.
CLIP_SIZES = {"clip_b": (512, 8, 512), "clip_l": (768, 12, 768)}

PARTS = ("backbone", "pixel_decoder", "decoder", "text_encoder")


def count_parameters(model: ModelConfig) -> dict[str, int]:
    """The parameters of each part of a network, frozen ones included; `text_encoder` is one of `CLIP_SIZES`."""
    width, heads, dim = CLIP_SIZES[model.text_encoder]
    config = CLIPTextConfig(
        vocab_size=49_408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12,
        num_attention_heads=heads, max_position_embeddings=77, projection_dim=dim,
    )  # fmt: skip
    with torch.device("meta"):
        text = TextEncoder(ClipTextEncoder(CLIPTextModelWithProjection(config)), lambda _: [0], dim=dim)
    structure = model.model_copy(update={"backbone_weights": "random"})
    network: nn.Module = build_from_config(structure, device="meta", encoder=text)
    return {part: sum(p.numel() for p in network.get_submodule(part).parameters()) for part in PARTS}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--manifest", type=Path, help="a manifest that trains an MQ-Former")
    options.add_argument("--backbones", nargs="+", help="instead of the manifest's; without one: swin_t to swin_l")
    options.add_argument("--text-encoders", nargs="+", choices=list(CLIP_SIZES), help="instead of the manifest's")
    args = options.parse_args()
    base = ModelConfig() if args.manifest is None else load_manifest(args.manifest).model
    usual = args.manifest is None
    backbones = args.backbones or (["swin_t", "swin_s", "swin_b", "swin_l"] if usual else [base.backbone])
    encoders = args.text_encoders or (list(CLIP_SIZES) if usual else [base.text_encoder])
    if unknown := set(encoders) - CLIP_SIZES.keys():
        options.error(f"the size of {', '.join(unknown)} is not known; say --text-encoders {' or '.join(CLIP_SIZES)}")
    print(f"{'millions':22}" + "".join(f"{part:>15}" for part in (*PARTS, "all")))
    for backbone in backbones:
        for encoder in encoders:
            said = {**base.model_dump(), "backbone": backbone, "text_encoder": encoder, "backbone_weights": "random"}
            counts = count_parameters(ModelConfig(**{**said, "weights": None}))
            cells = [*counts.values(), sum(counts.values())]
            print(f"{backbone + ' + ' + encoder:22}" + "".join(f"{cell / 1e6:>15.1f}" for cell in cells))


if __name__ == "__main__":
    main()
