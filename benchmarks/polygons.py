"""Masks to polygons: what readers make of them, and the time beside that of `cv2.findContours` alone.

    OMP_NUM_THREADS=1 python benchmarks/polygons.py --annotations FILE [FILE ...] [--every 1] [--rounds 5]

The files are COCO instances JSONs. The first table has the IoU of what a reader makes of the polygons with the mask,
mean and least: `coco` fills as pycocotools does, `yolo` as Ultralytics' training does without augmentation. `single` is
one ring for each object. The second table has CPU time, ours and the baseline's by turns on the same masks, and the
median over rounds of their ratio. `window` compares with findContours on the mask's window, `RLE` with decode and
findContours on the whole mask, as most exporters do it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from synthgen.export.polygons import mask_to_rings
from synthgen.records.rle import MaskWindow, decode_mask, decode_mask_window, rle_from_coco
from synthgen.records.sample import Rle

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]  # for `fakes`

TOLERANCES = (0.0, 0.5, 1.0, 2.0)
#: Masks on which a method runs before the other one: more than `rle_codec` remembers, so that each decodes anew.
BATCH = 600


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--annotations", type=Path, nargs="+", required=True, help="COCO instances JSONs")
    options.add_argument("--every", type=int, default=1, help="take only every n-th mask")
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args()
    cv2.setNumThreads(1)
    rles = [rle for path in args.annotations for rle in read_masks(path)][:: args.every]
    windows = [decode_mask_window(rle) for rle in rles]
    kept = [(rle, window) for rle, window in zip(rles, windows, strict=True) if window.pixels.size]
    contours = [len(find_contours(window.pixels)[0]) for _, window in kept]
    complex_ones = sum(count > 1 for count in contours) / len(kept)
    sys.stdout.write(
        f"{len(kept)} masks, {len(rles) - len(kept)} empty ones left out; {complex_ones:.1%} have several parts or "
        f"holes; OpenCV {cv2.__version__}\n"
    )
    report_iou(kept)
    report_time(kept, args.rounds)


def read_masks(path: Path) -> list[Rle]:
    """The masks of a COCO instances JSON."""
    content = json.loads(path.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    return [rle_from_coco(a["segmentation"], *sizes[a["image_id"]]) for a in content["annotations"]]


def find_contours(mask: np.ndarray) -> Any:
    """The baseline: bool [H, W] -> what OpenCV returns."""
    return cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)


def report_iou(masks: Sequence[tuple[Rle, MaskWindow]]) -> None:
    """Print the table of what readers make of the rings."""
    from fakes.polygon_readers import iou, read_as_coco, read_as_yolo

    sys.stdout.write("\n| convention | rings | tolerance | points a mask | coco mean | least | yolo mean | least |\n")
    sys.stdout.write("| --- | --- | --: | --: | --: | --: | --: | --: |\n")
    for convention in ("edges", "centers"):
        for single in (False, True):
            for tolerance in TOLERANCES:
                points, coco, yolo = 0, [], []
                for rle, window in masks:
                    rings = mask_to_rings(window, tolerance=tolerance, convention=convention, single=single)
                    mask = decode_mask(rle)
                    points += sum(map(len, rings))
                    coco.append(iou(read_as_coco(rings, *rle.size), mask))
                    drawn = [read_as_yolo(ring, *rle.size) for ring in rings]
                    yolo.append(iou(np.any(drawn, axis=0), mask))
                sys.stdout.write(
                    f"| {convention} | {'single' if single else 'by part'} | {tolerance:g} | {points / len(masks):.0f} "
                    f"| {np.mean(coco):.4f} | {min(coco):.3f} | {np.mean(yolo):.4f} | {min(yolo):.3f} |\n"
                )
                sys.stdout.flush()


def report_time(masks: Sequence[tuple[Rle, MaskWindow]], rounds: int) -> None:
    """Print the table of CPU time beside the baselines."""
    sys.stdout.write("\n| rings | tolerance | window: us | baseline | ratio | RLE: us | baseline | ratio |\n")
    sys.stdout.write("| --- | --: | --: | --: | --: | --: | --: | --: |\n")

    def decode_and_find(item: tuple[Rle, MaskWindow]) -> None:
        find_contours(np.ascontiguousarray(decode_mask(item[0])))

    for convention, single in (("edges", False), ("edges", True), ("centers", False), ("centers", True)):
        for tolerance in TOLERANCES[:3]:
            how = {"convention": convention, "single": single, "tolerance": tolerance}
            cells = []
            for ours, theirs in (
                (lambda item, how=how: mask_to_rings(item[1], **how), lambda item: find_contours(item[1].pixels)),
                (lambda item, how=how: mask_to_rings(decode_mask_window(item[0]), **how), decode_and_find),
            ):
                own, base, ratio = compare(ours, theirs, masks, rounds)
                cells.append(f"{own * 1e6:.0f} | {base * 1e6:.0f} | {ratio:.2f}")
            sys.stdout.write(f"| {convention}{', single' * single} | {tolerance:g} | {' | '.join(cells)} |\n")
            sys.stdout.flush()


def compare(
    ours: Callable[[Any], Any], theirs: Callable[[Any], Any], items: Sequence[Any], rounds: int
) -> tuple[float, float, float]:
    """CPU seconds an item of both, and their ratio: medians over rounds, in each of which both alternate."""
    totals = []
    for _ in range(rounds):
        spent = [0.0, 0.0]
        for begin in range(0, len(items), BATCH):
            for place, way in enumerate((ours, theirs)):
                began = time.process_time()
                for item in items[begin : begin + BATCH]:
                    way(item)
                spent[place] += time.process_time() - began
        totals.append(spent)
    own, base = (statistics.median(t[i] for t in totals) / len(items) for i in (0, 1))
    return own, base, statistics.median(t[0] / t[1] for t in totals)


if __name__ == "__main__":
    main()
