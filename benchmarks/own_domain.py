"""Adapt `lite` to another domain: train on the masks of some photographs, and draw those of the others.

    python benchmarks/own_domain.py --images CamVid/train --ids CamVid/trainannot --names class_names.json \\
        --classes Car,Pedestrian,Bicyclist,SignSymbol,Pole --held-out 0016E5 --folder FOLDER

The annotation is a folder of PNGs with a class id for each pixel, under the names of the photographs. Each connected
region of one of the classes is an object, and its tight box is the prompt. Photographs whose name begins with
`--held-out` are not trained on: choose a recording of its own, because neighbouring frames look alike. The training
begins with the weights that come with synthgen. The table compares GrabCut, `lite` as it comes, and `lite` after the
training, on the photographs held out. The columns are those of benchmarks/quality.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from quality import load_coco, measure, show, show_header

from synthgen.generate.stages import masks
from synthgen.models.box_segmenter.weights import TRAINED_WEIGHTS
from synthgen.records.rle import encode_mask

#: Regions of fewer pixels are not objects.
MIN_PIXELS = 100


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path, required=True)
    options.add_argument("--ids", type=Path, required=True)
    options.add_argument("--names", type=Path, required=True, help="JSON list of class names, by id")
    options.add_argument("--classes", required=True, help="names, with commas between them")
    options.add_argument("--held-out", required=True, metavar="PREFIX")
    options.add_argument("--folder", type=Path, required=True, help="new; the training stays there")
    options.add_argument("--steps", type=int, default=250)
    given = options.parse_args()
    given.folder.mkdir(parents=True)
    names: list[str] = json.loads(given.names.read_text())
    ids = [names.index(name) for name in given.classes.split(",")]
    found = sorted(given.ids.glob("*.png"))
    parts = {
        "train": [path for path in found if not path.name.startswith(given.held_out)],
        "test": [path for path in found if path.name.startswith(given.held_out)],
    }
    for part, paths in parts.items():
        content = to_coco(paths, names, ids)
        (given.folder / f"{part}.json").write_text(json.dumps(content))
        print(f"{part}: {len(content['images'])} photographs, {len(content['annotations'])} masks")
    began = time.perf_counter()
    checkpoint = train(given.folder, given.images, given.steps)
    print(f"trained in {time.perf_counter() - began:,.0f} s\n")
    show_header()
    coco = load_coco(given.folder / "test.json")
    for name, label, own in (
        ("grabcut", "", {}),
        ("lite", "as it comes", {"device": "cpu"}),
        ("lite", "trained on this domain", {"device": "cpu", "checkpoint": str(checkpoint)}),
    ):
        show(name, label, measure(masks.build(name, own), coco, given.images, None))


def to_coco(paths: Sequence[Path], names: Sequence[str], ids: Sequence[int]) -> dict[str, Any]:
    """The connected regions of the classes in pictures of class ids, as a COCO instances file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for path in paths:
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert picture is not None, path
        height, width = picture.shape[:2]
        images.append({"id": len(images) + 1, "file_name": path.name, "height": height, "width": width})
        for one in ids:
            count, labels, boxes, _ = cv2.connectedComponentsWithStats(
                (picture == one).astype(np.uint8), connectivity=8
            )
            for region in range(1, count):
                x, y, w, h, area = boxes[region].tolist()
                if area < MIN_PIXELS:
                    continue
                rle = encode_mask(labels == region)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": one + 1,
                        "bbox": [x, y, w, h],
                        "area": area,
                        "iscrowd": 0,
                        "segmentation": {"size": [height, width], "counts": rle.counts.decode()},
                    }
                )
    categories = [{"id": one + 1, "name": names[one]} for one in ids]
    return {"images": images, "annotations": annotations, "categories": categories}


def train(folder: Path, images: Path, steps: int) -> Path:
    """Train a segmenter on `train.json`, from the packaged weights; returns the checkpoint."""
    manifest = {
        "name": "own_domain",
        "store": "shards",
        "mixture": [{"shards": "own/train/human", "task": "box_prompt"}],
        "eval": [],
        "box_segmenter": {"weights": str(TRAINED_WEIGHTS), "boxes_per_image": 12},
        "augment": {"size": 640, "whole_scale": [1.0, 1.0]},
        "schedule": {
            "steps": steps, "batch_size": 3, "lr": 5e-4, "backbone_lr": 2e-4, "weight_decay": 0.02,
            "max_grad_norm": 1.0, "warmup_steps": 20, "lr_decay": "cosine", "ema_decay": 0.99,
        },
    }  # fmt: skip
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    own = ("--annotations", folder / "train.json", "--images", images, "--name", "own", "--split", "train")
    run("ingest", "--dataset", "coco-json", *own, "--layer", "human", "--store", folder / "shards")
    run("train", "--manifest", folder / "manifest.yaml", "--out", folder / "run", "--loader-workers", "0")
    return max((folder / "run").glob("step-*.pt"))


def run(*words: str | Path) -> None:
    """Run a command of synthgen; stop with its message if it fails."""
    command = [sys.executable, "-m", "synthgen", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr or done.stdout)


if __name__ == "__main__":
    main()
