"""A small layer that people drew, as an evaluation reads it: photographs of several sizes, things, stuff, phrases."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synthgen.checkpoints import build_network
from synthgen.checkpoints.checkpoint import Checkpoint, checkpoint_state_dict, save_checkpoint
from synthgen.dataloading.config import ModelConfig
from synthgen.models.mqformer.model import MQFormer
from synthgen.records.rle import encode_mask, rle_bbox_xyxy
from synthgen.records.sample import Annotation, Caption, Sample
from synthgen.storage.shard_store import Shard, ShardStore

LAYER = "gallery/val/human"
CATEGORIES = ("ball", "plate", "sky", "grass")
MODEL = ModelConfig(
    backbone="tiny", text_encoder="tiny", hidden_dim=32, encoder_layers=1, decoder_layers=1, conditional_queries=10,
    learnable_queries=6,
)  # fmt: skip


def write_eval_dataset(root: Path, images: int = 4) -> str:
    """Write `store/` and `photos/` below `root`: in each image two balls and a plate over sky and grass."""
    (root / "photos").mkdir(parents=True)
    samples = []
    for number in range(1, images + 1):
        rng = random.Random(number)
        height, width = 60 + 12 * number, 130 - 10 * number
        y, x = np.mgrid[:height, :width]
        free = np.ones((height, width), np.bool_)
        regions: list[tuple[str, str, np.ndarray]] = []
        thirds = rng.sample(range(3), 3)
        for place, (name, phrase) in enumerate((("ball", "a red ball"), ("ball", "the other"), ("plate", "a plate"))):
            centre = (thirds[place] + 0.5) * width / 3
            disc = ((x - centre) / (width / 8)) ** 2 + ((y - height * rng.uniform(0.3, 0.7)) / (height / 5)) ** 2 < 1
            regions.append((name, phrase, disc))
            free &= ~disc
        regions += [("sky", "", free & (y < height // 2)), ("grass", "", free & (y >= height // 2))]
        photo = np.zeros((height, width, 3), np.uint8)
        annotations = []
        for i, (name, phrase, region) in enumerate(regions, 1):
            photo[region] = [rng.randrange(256) for _ in range(3)]
            mask = encode_mask(region)
            x1, y1, x2, y2 = rle_bbox_xyxy(mask)
            annotations.append(
                Annotation(10 * number + i, (x1, y1, x2 - x1, y2 - y1), name, isthing=bool(phrase), segmentation=mask,
                           mask_source="human", captions=(Caption(phrase, "human"),) if phrase else ())
            )  # fmt: skip
        Image.fromarray(photo).save(root / "photos" / f"{number}.png")
        samples.append(Sample(number, f"gallery/{number}", f"{number}.png", height, width, tuple(annotations)))
    ShardStore(root / "store").commit(Shard(*LAYER.split("/"), 0, 1), samples, {"categories": list(CATEGORIES)})
    return LAYER


def untrained_network() -> MQFormer:
    """The same random weights each time, loud enough that something is found."""
    torch.manual_seed(0)
    built = build_network.build_from_config(MODEL)
    with torch.no_grad():
        built.decoder.prior.zero_()
    return built.eval()


def write_checkpoint(path: Path, names: tuple[str, ...] = CATEGORIES) -> Path:
    """A checkpoint of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        path,
        Checkpoint("mqformer", 7, MODEL.model_dump(mode="json"), names, checkpoint_state_dict(untrained_network())),
    )
    return path
