"""How good are a segmenter's masks? Mean IoU with human masks, prompted by the boxes of a COCO instances file.

python benchmarks/quality.py --annotations instances_val2017.json --images val2017 --segmenter grabcut

`--annotations` and `--images` may be repeated in pairs: each pair is a row of its own, and the last row is all of them.
Options with `-O` are given to every segmenter that has them. The last columns are Spearman's rank correlations between
the IoU and each score of the segmenter. CPU time is that of all threads, without decoding of images.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from scipy.stats import spearmanr

from synthgen import plugins
from synthgen.generate.stages import masks
from synthgen.images.decode import ImageError
from synthgen.images.prefetch import prefetch_images
from synthgen.records.rle import rle_iou
from synthgen.records.sample import Annotation, Rle, Sample

#: COCO's size classes: area of the human mask below, in square pixels.
SIZES = {"small": 32**2, "medium": 96**2, "large": np.inf}

#: Scores of masks whose rank correlation with the IoU is shown.
SCORES = ("stability_score", "predicted_iou", "soft_iou")


class Measured(NamedTuple):
    """Masks of a dataset: `rows` float64 [N, 2 + scores] of IoU, area of the human mask, and `SCORES` (NaN = none)."""

    rows: NDArray[np.float64]
    images: int
    seconds: float
    cpu_seconds: float


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
    all_options = dict(text.split("=", 1) for text in given.options)
    show_header()
    used: set[str] = set()
    for name in given.segmenter or ["grabcut", "box_fill"]:
        known = plugins.build_parameters("generate.segmenters", name)
        stage = masks.build(name, {key: value for key, value in all_options.items() if key in known})
        used |= known.keys() & all_options.keys()
        found = []
        for file, folder in zip(given.annotations, given.images, strict=True):
            found.append(measure(stage, load_coco(file), folder, given.limit))
            show(name, f"{file.parent.parent.name}/{folder.name}", found[-1])
        if len(found) > 1:
            rows, *totals = zip(*found, strict=True)
            show(name, "all of them", Measured(np.concatenate(rows), *map(sum, totals)))
    if unknown := all_options.keys() - used:
        sys.exit(f"no segmenter has the option {min(unknown)}; the figures are those of its default")


def measure(stage: masks.MaskStage, coco: COCO, folder: Path, limit: int | None) -> Measured:
    """Prompt with each human box that is not a crowd."""
    rows, samples, truths = [], [], []
    for key in sorted(coco.imgs)[:limit]:
        row = coco.imgs[key]
        human = [a for a in coco.imgToAnns[key] if not a.get("iscrowd") and min(a["bbox"][2:]) > 0]
        boxes = tuple(Annotation(id=a["id"], bbox=tuple(a["bbox"]), category="") for a in human)
        samples.append(Sample(key, str(key), row["file_name"], row["height"], row["width"], boxes))
        truths.append([(read_rle(coco.annToRLE(a)), a["area"]) for a in human])
    images, seconds, cpu_seconds = 0, 0.0, 0.0
    pairs = zip(truths, samples, strict=True)
    while some := list(islice(pairs, stage.batch_size)):
        decoded = prefetch_images([sample for _, sample in some], folder, num_threads=2)
        batch = []  # whole before the clock starts, so that no thread decodes meanwhile
        for (truth, _), (sample, pixels) in zip(some, decoded, strict=True):
            if isinstance(pixels, ImageError):
                print(f"left out: {sample.file_name} {pixels}")
            else:
                batch.append((truth, sample, pixels))
        start, cpu_start = time.perf_counter(), time.process_time()
        done = list(stage.process([sample for _, sample, _ in batch], [pixels for _, _, pixels in batch]))
        seconds, cpu_seconds = (
            seconds + time.perf_counter() - start,
            cpu_seconds + time.process_time() - cpu_start,
        )
        images += len(batch)
        for (truth, _, _), sample in zip(batch, done, strict=True):
            for (mask, area), found in zip(truth, sample.annotations, strict=True):
                iou = rle_iou([found.segmentation], [mask])[0, 0] if found.segmentation else 0.0
                scores = (getattr(found, score) for score in SCORES)
                rows.append((iou, area, *(np.nan if score is None else score for score in scores)))
    return Measured(np.array(rows, np.float64).reshape(-1, 2 + len(SCORES)), images, seconds, cpu_seconds)


def read_rle(content: dict[str, Any]) -> Rle:
    """The run lengths that pycocotools returns: bytes of a polygon, and the text of a compressed RLE in a file."""
    counts, (height, width) = content["counts"], content["size"]
    return Rle((height, width), counts.encode() if isinstance(counts, str) else counts)


def load_coco(file: Path) -> COCO:
    """A COCO instances file, without the lines that pycocotools prints meanwhile."""
    with redirect_stdout(io.StringIO()):
        return COCO(str(file))


def show_header() -> None:
    """Print the names of the columns of `show`."""
    print(f"{'segmenter':10} {'data':30} {'masks':>6} {'all':>6} " + " ".join(f"{s:>6}" for s in SIZES), end="")
    print(f" {'missed':>6} {'ms/box':>7} {'CPU ms/box':>10} {'images/s':>9} " + " ".join(SCORES))


def show(name: str, data: str, measured: Measured) -> None:
    """Print one row of the table."""
    iou, area, *scores = measured.rows.T
    edges = [0, *SIZES.values()]
    classes = [iou[(area >= low) & (area < high)] for low, high in zip(edges, edges[1:], strict=False)]
    print(f"{name:10} {data:30} {len(iou):6} " + " ".join(f"{v.mean():6.3f}" for v in [iou, *classes]), end="")
    wall, cpu = (1000 * value / max(len(iou), 1) for value in (measured.seconds, measured.cpu_seconds))
    print(f" {(iou == 0).sum():6} {wall:7.2f} {cpu:10.2f} {measured.images / max(measured.seconds, 1e-9):9.1f}", end="")
    for score in scores:
        told = ~np.isnan(score)
        varies = told.any() and np.ptp(score[told]) > 0
        print(f" {spearmanr(score[told], iou[told]).statistic:6.3f}" if varies else "      -", end="")
    print()


if __name__ == "__main__":
    main()
