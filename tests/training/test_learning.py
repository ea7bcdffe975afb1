"""Short trainings from shards reach a high score in `evaluate`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthgen.evaluation import evaluate
from synthgen.evaluation.results import EvalResult
from synthgen.formats.readers import DatasetFiles, coco_json
from synthgen.ingest import ingest
from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation, Caption, Sample
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.training import trainer

pytestmark = pytest.mark.usefixtures("one_thread")

TRAIN = """
name: learn
store: store
mixture: [{{shards: {layer}, task: {task}, images: {images}}}]
augment: {{size: {size}, scale: [1.0, 1.0], whole_scale: [1.0, 1.0], flip: {flip}}}
eval_size: [{size}, {size}]
model: {{backbone: tiny, text_encoder: tiny, hidden_dim: 64, encoder_layers: 1, decoder_layers: 2, learnable_queries: 8,
  conditional_queries: 16}}
schedule: {{steps: {steps}, batch_size: 8, mask_points: 1024, max_grad_norm: 1.0, lr: 1.0e-3, backbone_lr: 1.0e-3,
  weight_decay: 0.0, checkpoint_every: 1000}}
dataloader: {{num_workers: 0}}
"""

MEASURE = """
name: measure
store: store
eval: [{{shards: {layer}, task: {task}, images: {images}}}]
eval_size: [{size}, {size}]
"""


def learned(root: Path, *, learn: str, measure: str, **said: object) -> EvalResult:
    """Train on a layer from random weights, and measure on another, or the same."""
    (root / "train.yaml").write_text(TRAIN.format(layer=learn, **said))
    (root / "measure.yaml").write_text(MEASURE.format(layer=measure, **said))
    done = trainer.train(root / "train.yaml", out=root / "run")
    (found,), _ = evaluate.evaluate_checkpoint(done.last_checkpoint, root / "measure.yaml", device="cpu")
    return found


@pytest.mark.slow
def test_eight_photographs_are_learned_by_heart(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    """Of COCO: the first eight with two to six objects, none of them tiny, at 256 pixels."""
    data = shared("data/coco_tiny")
    whole = json.loads((data / "annotations" / "instances_train2017.json").read_text())
    objects = Counter(a["image_id"] for a in whole["annotations"])
    hard = {a["image_id"] for a in whole["annotations"] if a["iscrowd"] or a["area"] < 2 * 32**2}
    images = [i for i in whole["images"] if 2 <= objects[i["id"]] <= 6 and i["id"] not in hard][:8]
    chosen = {image["id"] for image in images}
    annotations = [a for a in whole["annotations"] if a["image_id"] in chosen]
    (tmp_path / "eight.json").write_text(json.dumps({**whole, "images": images, "annotations": annotations}))
    files = DatasetFiles({"instances": tmp_path / "eight.json"}, data / "train2017")
    ingest.ingest(
        ShardStore(tmp_path / "store"), coco_json, files, name="eight", split="train", layer="human", shard_size=8
    )
    layer = "eight/train/human"
    found = learned(
        tmp_path, learn=layer, measure=layer, task="instance", images=data / "train2017", size=256, flip=0, steps=150
    )
    assert found.images == 8 and len(annotations) == 20
    assert found.values["AP50"] > 90, found.values


@pytest.mark.slow
def test_a_phrase_alone_tells_two_objects_apart(tmp_path: Path) -> None:
    """Two discs alike, "left disc" and "right disc", in photographs that were not learned from."""
    for split, numbers in (("train", range(64)), ("val", range(64, 96))):
        (tmp_path / "photos").mkdir(exist_ok=True)
        ShardStore(tmp_path / "store").commit(
            Shard("discs", split, "human", 0, 1), [discs(i, tmp_path / "photos") for i in numbers],
            {"categories": ["disc"]},
        )  # fmt: skip
    found = learned(
        tmp_path, learn="discs/train/human", measure="discs/val/human", task="referring", images="photos", size=96,
        flip=0.5, steps=200,
    )  # fmt: skip
    assert found.images == 32
    assert found.values["cIoU"] > 90 and found.values["mIoU"] > 90, found.values


def discs(number: int, folder: Path) -> Sample:
    draw, side = np.random.default_rng(number), 96
    y, x = np.mgrid[:side, :side]
    image = np.full((side, side, 3), 90, np.uint8) + draw.integers(0, 20, (side, side, 3), dtype=np.uint8)
    radius, colour = draw.integers(10, 16), draw.integers(120, 256, 3)
    annotations = []
    for i, (words, middle) in enumerate((("left disc", 27), ("right disc", 69))):
        there = (x - middle - draw.integers(-9, 10)) ** 2 + (y - draw.integers(18, 78)) ** 2 < radius**2
        image[there] = colour
        rows, columns = there.any(1).nonzero()[0], there.any(0).nonzero()[0]
        box = (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
        annotations.append(
            Annotation(
                2 * number + i,
                tuple(map(float, box)),
                "disc",
                segmentation=encode_mask(there),
                mask_source="human",
                captions=(Caption(words, "human"),),
            )
        )
    Image.fromarray(image).save(folder / f"{number}.png")
    return Sample(number, f"discs/{number}", f"{number}.png", side, side, tuple(annotations))
