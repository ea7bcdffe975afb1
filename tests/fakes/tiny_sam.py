"""The goldens of SAM and HQ-SAM, and the tiny networks that they are of: 128 pixels, 4 blocks, random weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from synthgen.models.hq_sam import build_hq_sam
from synthgen.models.sam import SamConfig, build_sam, load_weights

FOLDER = Path(__file__).parents[1] / "golden"


@cache
def golden(name: str) -> dict[str, Any]:
    """All of "sam_tiny" or "hq_sam_tiny" but the weights: arrays by name."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files if not key.startswith("weights.")}


@cache
def weights(name: str) -> dict[str, Tensor]:
    """The state dict, with segment-anything's names."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {
            key.removeprefix("weights."): torch.from_numpy(file[key].astype(np.float32))
            for key in file.files
            if key.startswith("weights.")
        }


def numbers(name: str) -> SamConfig:
    """What the golden's own configuration says of its network."""
    config = json.loads(str(golden(name)["config"]))
    vision, decoder = config["vision"], config["mask_decoder"]
    return SamConfig(
        vit_dim=vision["hidden_size"],
        vit_depth=vision["num_hidden_layers"],
        vit_heads=vision["num_attention_heads"],
        global_blocks=tuple(vision["global_attn_indexes"]),
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        window_size=vision["window_size"],
        dim=decoder["hidden_size"],
        decoder_heads=decoder["num_attention_heads"],
        decoder_mlp_dim=decoder["mlp_dim"],
        iou_head_hidden_dim=decoder["iou_head_hidden_dim"],
    )


def network(name: str, *, hq_token_only: bool = False) -> Sam:
    """The golden's network, ready."""
    made = numbers(name)
    own = build_hq_sam(made, hq_token_only=hq_token_only) if name.startswith("hq") else build_sam(made)
    load_weights(own, weights(name))
    return own


def checkpoint(folder: Path, name: str = "sam_tiny") -> Path:
    """The weights as a `.pth`. Loaded from it, the decoder has 8 heads, not 4 as in the golden: no shape shows them."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.pth"
    torch.save(weights(name), path)
    return path
