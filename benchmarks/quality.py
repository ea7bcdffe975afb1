"""How good are a segmenter's masks? Mean IoU with human masks, prompted by the boxes of a COCO instances file.

python benchmarks/quality.py --annotations instances_val2017.json --images val2017 --segmenter grabcut

`--annotations` and `--images` may be repeated in pairs: each pair is a row of its own, and the last row is all of them.
"""

from __future__ import annotations

import argparse
import io
import time
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from synthgen.generate.stages import masks
from synthgen.images.decode import ImageError
from synthgen.images.prefetch import prefetch_images
from synthgen.records.rle import rle_iou
from synthgen.records.sample import Annotation, Rle, Sample

#: COCO's size classes: area of the human mask below, in square pixels.
SIZES = {"small": 32**2, "medium": 96**2, "large": np.inf}


def main() -> None:
    """Print one table a segmenter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, action="append", required=True, help="COCO instances file")
    parser.add_argument("--images", type=Path, action="append", required=True, help="folder of its images")
    parser.add_argument("--segmenter", action="append", help="default: grabcut and box_fill")
    parser.add_argument("-O", dest="options", action="append", default=[], metavar="KEY=VALUE", help="its options")
    parser.add_argument("--limit", type=int, help="first images only")
    given = parser.parse_args()
    if len(given.annotations) != len(given.images):
        parser.error("--annotations and --images come in pairs")
    options = dict(text.split("=", 1) for text in given.options)
    print(f"{'segmenter':10} {'data':30} {'masks':>6} {'all':>6} " + " ".join(f"{s:>6}" for s in SIZES), end="")
    print(f" {'missed':>6} {'ms/box':>7} {'images/s':>9}")
    for name in given.segmenter or ["grabcut", "box_fill"]:
        stage = masks.build(name, options)
        rows = []
        for file, folder in zip(given.annotations, given.images, strict=True):
            with redirect_stdout(io.StringIO()):  # COCO prints how it gets on
                coco = COCO(str(file))
            rows.append(measure(stage, coco, folder, given.limit))
            show(name, f"{file.parent.parent.name}/{folder.name}", *rows[-1])
        if len(rows) > 1:
            scores = np.concatenate([scores for scores, _, _ in rows])
            show(name, "all of them", scores, sum(n for _, n, _ in rows), sum(s for _, _, s in rows))


def measure(stage: masks.MaskStage, coco: COCO, folder: Path, limit: int | None) -> tuple[np.ndarray, int, float]:
    """Prompt with each human box that is no crowd.

    Returns:
        float64 [N, 2] (IoU, area of the human mask in square pixels), images, seconds in the stage (decoding apart).
    """
    rows, samples, truths = [], [], []
    for key in sorted(coco.imgs)[:limit]:
        row = coco.imgs[key]
        human = [a for a in coco.imgToAnns[key] if not a.get("iscrowd") and min(a["bbox"][2:]) > 0]
        boxes = tuple(Annotation(id=a["id"], bbox=tuple(a["bbox"]), category="") for a in human)
        samples.append(Sample(key, str(key), row["file_name"], row["height"], row["width"], boxes))
        truths.append([(Rle((row["height"], row["width"]), coco.annToRLE(a)["counts"]), a["area"]) for a in human])
    images, seconds = 0, 0.0
    pairs = zip(truths, prefetch_images(samples, folder, num_threads=2), strict=True)
    while batch := list(islice(pairs, stage.batch_size)):
        for _, (sample, pixels) in batch:
            if isinstance(pixels, ImageError):
                print(f"left out: {sample.file_name} {pixels}")
        batch = [(truth, sample, pixels) for truth, (sample, pixels) in batch if not isinstance(pixels, ImageError)]
        start = time.perf_counter()
        done = list(stage.process([sample for _, sample, _ in batch], [pixels for _, _, pixels in batch]))
        seconds += time.perf_counter() - start
        images += len(batch)
        for (truth, _, _), sample in zip(batch, done, strict=True):
            for (mask, area), found in zip(truth, sample.annotations, strict=True):
                iou = rle_iou([found.segmentation], [mask])[0, 0] if found.segmentation else 0.0
                rows.append((iou, area))
    return np.array(rows).reshape(-1, 2), images, seconds


def show(name: str, data: str, scores: np.ndarray, images: int, seconds: float) -> None:
    """Print one row of the table."""
    iou, area = scores.T
    edges = [0, *SIZES.values()]
    classes = [iou[(area >= low) & (area < high)] for low, high in zip(edges, edges[1:], strict=False)]
    print(f"{name:10} {data:30} {len(iou):6} " + " ".join(f"{v.mean():6.3f}" for v in [iou, *classes]), end="")
    print(f" {(iou == 0).sum():6} {1000 * seconds / max(len(iou), 1):7.2f} {images / max(seconds, 1e-9):9.1f}")


if __name__ == "__main__":
    main()
