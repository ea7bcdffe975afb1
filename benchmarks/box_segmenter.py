"""Train box segmenters on parts of some layers, and measure each on the images that it did not learn from.

    python benchmarks/box_segmenter.py --store shards --layer coco128/train/human --layer coco_mini/train/human \\
        [--set box_segmenter.crop_size=160 ...] [--folds 3] [--only 0] [--folder FOLDER]

`--set` changes a key of the manifest; may be repeated. Images are dealt to the folds by a digest of their keys, so that
a photograph is in the same fold whatever the layer. With `--folder` finished folds are not trained again, and a
training that was stopped goes on. The table has one row a fold and one for all images together: mean IoU by COCO's
sizes, rank correlation of each score, and CPU seconds of training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from scipy.stats import spearmanr

from synthgen.images.decode import load_rgb
from synthgen.models.box_segmenter.inference import predict_masks
from synthgen.models.box_segmenter.weights import load_segmenter
from synthgen.records.boxes import clip_xyxy, xywh_to_xyxy
from synthgen.records.rle import encode_mask_window, rle_area, rle_iou
from synthgen.records.sample import Sample
from synthgen.storage.image_folder import find_image_folder, record_image_folder
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.training import trainer

COLUMNS = ("all", "small", "medium", "large", "soft_iou", "stability")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--store", type=Path, required=True)
    options.add_argument("--layer", action="append", required=True, help="DATASET/SPLIT/LAYER with human masks")
    options.add_argument("--manifest", type=Path, default=Path(__file__).parents[1] / "manifests/lite_segmenter.yaml")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as schedule.steps=500")
    options.add_argument("--folds", type=int, default=3)
    options.add_argument("--only", type=int, help="only this fold")
    options.add_argument("--folder", type=Path, help="keep trainings and results there")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = given.folder or Path(scratch)
        print(f"| fold | objects | {' | '.join(COLUMNS)} | CPU s |\n| --- |{' ---: |' * (len(COLUMNS) + 2)}")
        rows, seconds = [], 0.0
        for fold in range(given.folds) if given.only is None else [given.only]:
            own, cpu = run_fold(given, folder / f"fold{fold}", fold)
            show(str(fold), own, cpu)
            rows.append(own)
            seconds += cpu
        if len(rows) > 1:
            show("all", np.concatenate(rows), seconds)


def run_fold(given: argparse.Namespace, folder: Path, fold: int) -> tuple[NDArray[np.float64], float]:
    """Train on the other folds and measure on this one: the rows of `measure`, and CPU seconds of training."""
    path = folder / "measured.json"
    if path.exists():
        content = json.loads(path.read_text())
        return np.array(content["rows"]), content["cpu_seconds"]
    source, parts = ShardStore(given.store), ShardStore(folder / "shards")
    mixture, held_out = [], []
    for name in given.layer:
        dataset, split, layer = name.split("/")
        images = find_image_folder(source, dataset, split, layer)
        if images is None:
            sys.exit(f"the folder of the images of {name} is unknown; ingest it again")
        samples = [
            sample for shard in source.list_shards(dataset, split, layer) for sample in source.read_samples(shard)
        ]
        learned = [sample for sample in samples if fold_of(sample, given.folds) != fold]
        held_out += [(images, sample) for sample in samples if fold_of(sample, given.folds) == fold]
        parts.commit(Shard(dataset, split, layer, 0, 1), learned, {"categories": []})
        record_image_folder(parts, dataset, split, layer, images)
        mixture.append({"shards": name, "task": "box_prompt", "ratio": len(learned)})
    manifest = yaml.safe_load(given.manifest.read_text())
    manifest |= {"name": f"fold{fold}", "store": "shards", "mixture": mixture, "eval": []}
    for change in given.set:
        key, _, value = change.partition("=")
        *sections, last = key.split(".")
        place = manifest
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = yaml.safe_load(value)
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    began = time.process_time()
    trained = trainer.train(folder / "manifest.yaml", out=folder / "run", num_workers=0)
    cpu_seconds = time.process_time() - began
    rows = np.array(list(measure(trained.last_checkpoint, held_out)))
    path.write_text(json.dumps({"rows": rows.tolist(), "cpu_seconds": cpu_seconds}))
    return rows, cpu_seconds


def fold_of(sample: Sample, folds: int) -> int:
    return int.from_bytes(hashlib.sha256(sample.image_key.encode()).digest()[:4], "big") % folds


def measure(checkpoint: Path, samples: Sequence[tuple[Path, Sample]]) -> Iterator[tuple[float, ...]]:
    """(IoU, area of the human mask, soft IoU, stability score) of each object with a mask."""
    network = load_segmenter(checkpoint).to(memory_format=torch.channels_last).eval()
    for images, sample in samples:
        objects = [a for a in sample.annotations if a.segmentation is not None and not a.iscrowd]
        if not objects:
            continue
        pixels = load_rgb(images / sample.file_name, sample.height, sample.width)
        boxes = clip_xyxy(xywh_to_xyxy(np.array([a.bbox for a in objects])), sample.height, sample.width)
        [masks] = predict_masks(
            network, [torch.tensor(pixels).permute(2, 0, 1)], [torch.tensor(boxes, dtype=torch.float32)], batch_size=16
        )
        for one, mask in zip(objects, masks, strict=True):
            rle = encode_mask_window(mask.window.numpy(), mask.top, mask.left, sample.height, sample.width)
            human: Any = one.segmentation
            yield float(rle_iou([rle], [human])[0, 0]), rle_area(human), mask.soft_iou, mask.stability_score


def show(name: str, rows: NDArray[np.float64], seconds: float) -> None:
    """Print one row of the table."""
    iou, area, soft_iou, stability = rows.T
    edges = (0, 32**2, 96**2, np.inf)
    means = [iou.mean(), *(iou[(area >= a) & (area < b)].mean() for a, b in zip(edges, edges[1:], strict=False))]
    values = [*means, *(spearmanr(score, iou).statistic for score in (soft_iou, stability))]
    print(f"| {name} | {len(iou):,} | {' | '.join(f'{value:.3f}' for value in values)} | {seconds:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
