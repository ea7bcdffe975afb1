"""Box segmenters with random weights, and drawn scenes of discs that they can learn in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synthgen.models.box_segmenter.network import BoxSegmenter, BoxSegmenterConfig
from synthgen.models.box_segmenter.weights import save_segmenter
from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.image_folder import record_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

TINY = BoxSegmenterConfig(crop_size=64, hidden_dim=16)

HEIGHT, WIDTH = 72, 96


def build_network(seed: int = 0) -> BoxSegmenter:
    """A network with random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BoxSegmenter(TINY)
        torch.nn.init.normal_(network.box_projection.weight, std=0.5)
    return network.eval()


def write_weights(folder: Path, seed: int = 0) -> Path:
    """A `.safetensors` file of such a network."""
    path = folder / "lite.safetensors"
    path.write_bytes(save_segmenter(build_network(seed), dtype=torch.float32))
    return path


def write_discs(folder: Path, *, split: str = "train", images: int = 6, seed: int = 0) -> str:
    """Write the layer `discs/SPLIT/human` in `folder/shards`: two discs in each photograph of `folder/SPLIT`."""
    rng = np.random.default_rng(seed)
    photos = folder / split
    photos.mkdir(parents=True)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    first = 1000 if split == "val" else 0
    samples = []
    for number in range(first, first + images):
        pixels = rng.integers(30, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        annotations = []
        for place, (row, column) in enumerate(((HEIGHT * 0.3, WIDTH * 0.3), (HEIGHT * 0.6, WIDTH * 0.7))):
            mask = np.hypot(y - row, x - column) < rng.uniform(8, 18)
            pixels[mask] = rng.integers(150, 250, 3)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)
            annotations.append(
                Annotation(
                    2 * number + place, tuple(map(float, box)), "disc", segmentation=encode_mask(mask),
                    mask_source="human",
                )
            )  # fmt: skip
        Image.fromarray(pixels).save(photos / f"{number}.png")
        samples.append(Sample(number, f"discs/{number}", f"{number}.png", HEIGHT, WIDTH, tuple(annotations)))
    store = ShardStore(folder / "shards")
    store.commit(Shard("discs", split, "human", 0, 1), samples, {"categories": ["disc"]})
    record_image_folder(store, "discs", split, "human", photos)
    return f"discs/{split}/human"
