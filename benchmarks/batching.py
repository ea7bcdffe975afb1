"""Padding of training batches: what `schedule.group_by_size` saves, against other ways to form batches.

    python benchmarks/batching.py                                        # a simulation, without images
    OMP_NUM_THREADS=1 python benchmarks/batching.py --data COCO_TINY     # and training steps, with and without it

The simulation draws views for the mixture of `--manifest` with the product's own augmentation from images of typical
sizes (COCO's most frequent ones). Ways:

fixed canvas        as without `group_by_size`: batches in the order of the draws, padded to the largest canvas
largest view        the same batches, padded to the largest view
dealt to processes  the images of a step sorted by canvas and dealt to all processes
step by canvas      each process cuts its images of a step by their canvases
step by view        `group_by_size: true`: each process cuts its images of a step by their views
window by canvas    each process sorts its images of `--window` steps by canvas; a step has images of one kind
window by view      the same by view

Printed for each: padded pixels in units of the views' pixels; batches of a process in a step; and the time of a step
in units of the first way. A batch takes its padded pixels and `size_groups.BATCH_COST_PIXELS`; a step takes as long as
the slowest process.

The training steps take the same images both ways: COCO's photographs as instances in large-scale jitter, as crops of
half the size and as foreground views of 3/8, as in `manifests/mqformer_full.yaml`, at `--size` pixels. Printed: CPU
time and padded pixels of a step, and their ratios step by step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from _loader_content import prepare

from synthgen import plugins
from synthgen.dataloading import mixture, size_groups
from synthgen.dataloading.augment import make_random_transform
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.size_groups import round_up_size
from synthgen.dataloading.source_config import TASKS_PACKAGE
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.training.learner import SegmentationLearner

#: (height, width) of images and how often each is drawn, of 100: the most frequent sizes of COCO.
TYPICAL_SIZES = {(480, 640): 55, (640, 480): 18, (427, 640): 15, (640, 427): 5, (360, 640): 4, (640, 640): 3}

#: Processes, batches of a process in a step, images of a batch.
SETUPS = [(8, 1, 16), (1, 8, 16), (8, 4, 4)]

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class View:
    """What decides about the padding of an image: (height, width) of its canvas and of its view."""

    canvas: Size
    view: Size


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "manifests" / "mqformer_full.yaml"
    options.add_argument("--manifest", type=Path, default=default, help="its mixture and augment: are simulated")
    options.add_argument("--steps", type=int, default=64, help="simulated steps")
    options.add_argument("--window", type=int, default=8, help="steps whose images are sorted together")
    options.add_argument("--data", type=Path, help="COCO's layout, such as an excerpt of COCO: train on it as well")
    options.add_argument("--size", type=int, default=256, help="side of the canvas of the training steps, in pixels")
    options.add_argument("--train-steps", type=int, default=6)
    options.add_argument("--batch-size", type=int, default=8, help="images of a batch of the training steps")
    options.add_argument("--batches", type=int, default=1, help="batches of a training step")
    options.add_argument("--backbone", default="tiny")
    options.add_argument("--folder", type=Path, help="where to put files; default: the system's")
    args = options.parse_args()
    manifest = load_manifest(args.manifest, store=Path("none"))
    for processes, batches, images in SETUPS:
        simulate(manifest, processes, batches, images, steps=args.steps, window=args.window)
    if args.data is not None:
        with tempfile.TemporaryDirectory(prefix="batching-", dir=args.folder) as folder:
            train(args, Path(folder).absolute())


def draw_views(manifest: Manifest, reader: int) -> Iterator[View]:
    """The views of one reader, endlessly; sources are drawn as `Mixture` does."""
    ratios = [source.ratio for source in manifest.mixture]
    edges = list(itertools.accumulate(ratio / sum(ratios) for ratio in ratios))
    kinds = [plugins.load_plugin(TASKS_PACKAGE, source.task).AUGMENTATION for source in manifest.mixture]
    sizes = [size for size, count in TYPICAL_SIZES.items() for _ in range(count)]
    rng = random.Random(reader)
    offset = rng.getrandbits(64)
    for draw in itertools.count():
        part = ((offset + draw * mixture._GOLDEN_STEP) % 2**64) / 2**64
        kind = kinds[min(bisect_right(edges, part), len(edges) - 1)]
        view = make_random_transform(kind, rng.choice(sizes), manifest.augment, rng)
        yield View(view.canvas_size, view.size)


def simulate(manifest: Manifest, processes: int, batches: int, images: int, *, steps: int, window: int) -> None:
    """Print the padding and the time of each way."""
    readers = [draw_views(manifest, reader) for reader in range(processes)]
    drawn = [
        [list(itertools.islice(one, batches * images)) for one in readers] for _ in range(steps // window * window)
    ]
    seen = sum(one.view[0] * one.view[1] for step in drawn for share in step for one in share)

    def plain(size: Callable[[View], Size]) -> Iterator[list[list[list[Size]]]]:
        return ([cut(list(map(size, share)), images) for share in step] for step in drawn)

    def dealt() -> Iterator[list[list[list[Size]]]]:
        for step in drawn:
            every = sorted((one.canvas for share in step for one in share), reverse=True)
            yield [cut(share, images) for share in cut(every, batches * images)]

    def by_step(size: Callable[[View], Size]) -> Iterator[list[list[list[Size]]]]:
        for step in drawn:
            shares = [list(map(size, share)) for share in step]
            yield [[[share[i] for i in own] for own in size_groups.split_by_size(share, images)] for share in shares]

    def by_window(size: Callable[[View], Size]) -> Iterator[list[list[list[Size]]]]:
        for start in range(0, len(drawn), window):
            some = drawn[start : start + window]
            sorted_shares = [sorted(size(one) for step in some for one in step[rank]) for rank in range(processes)]
            for at in range(window):
                whole = slice(at * batches * images, (at + 1) * batches * images)
                yield [cut(share[whole], images) for share in sorted_shares]

    ways = {
        "fixed canvas": plain(lambda one: one.canvas),
        "largest view": plain(lambda one: one.view),
        "dealt to processes": dealt(),
        "step by canvas": by_step(lambda one: one.canvas),
        "step by view": by_step(lambda one: one.view),
        f"window of {window} by canvas": by_window(lambda one: one.canvas),
        f"window of {window} by view": by_window(lambda one: one.view),
    }
    print(
        f"\n{processes} processes, {batches} x {images} images of each in a step; {len(drawn)} steps of {manifest.name}"
    )
    print(f"{'':24}{'padded/view':>12}{'batches':>9}{'time':>7}")
    first = 0.0
    for name, way in ways.items():
        padded = number = bound = 0.0
        for step in way:
            shares = [[len(own) * area(own) for own in share] for share in step]
            padded += sum(map(sum, shares))
            number += sum(map(len, shares)) / processes
            bound += max(sum(share) + len(share) * size_groups.BATCH_COST_PIXELS for share in shares)
        first = first or bound
        print(f"{name:24}{padded / seen:>12.2f}{number / len(drawn):>9.1f}{bound / first:>7.2f}")


def cut(items: Sequence[Size], length: int) -> list[list[Size]]:
    """The items in pieces of `length`."""
    return [list(items[start : start + length]) for start in range(0, len(items), length)]


def area(sizes: Sequence[Size]) -> int:
    """Pixels of the canvas of images."""
    height, width = round_up_size(sizes)
    return height * width


def train(args: argparse.Namespace, folder: Path) -> None:
    """Train both ways on the same images, step by step, and print what they take."""
    prepare(folder, args.data, scale=0, repeat=5, tars=False)
    source = {"shards": "bench/train/human"}
    content = {
        "name": "batching",
        "store": str(folder / "shards"),
        # As in mqformer_full, but for the whole views of phrases, which COCO does not have.
        "mixture": [
            {**source, "task": task, "ratio": ratio}
            for task, ratio in (("instance", 79), ("semantic", 8.5), ("foreground", 12.5))
        ],
        "augment": {
            "size": args.size, "semantic_crop_size": args.size // 2, "foreground_size": args.size * 3 // 8,
            "semantic_max_size": 2 * args.size,
        },
        "model": {
            "backbone": args.backbone, "backbone_weights": "random", "text_encoder": "tiny", "hidden_dim": 64,
            "encoder_layers": 2, "decoder_layers": 3, "learnable_queries": 20, "conditional_queries": 60,
        },
        "schedule": {"steps": 1000, "batch_size": args.batch_size * args.batches, "mask_points": 1024},
    }  # fmt: skip
    (folder / "batching.yaml").write_text(json.dumps(content))
    manifest = load_manifest(folder / "batching.yaml")
    device = torch.device("cpu")
    learners = [SegmentationLearner(manifest, device) for _ in range(2)]
    # A batch of a small network on a CPU costs little besides its pixels.
    size_groups.BATCH_COST_PIXELS = size_groups.BATCH_COST_PIXELS * args.size**2 // 1024**2
    options = {"batch_size": args.batch_size, "batches_per_step": args.batches, "num_workers": 0}
    seconds: list[tuple[float, float]] = []
    pixels: list[tuple[int, int]] = []
    with TrainLoader(manifest, **options) as plain, TrainLoader(manifest, group_by_size=True, **options) as by_size:
        for number in range(args.train_steps + 1):
            steps = plain.next_step(), by_size.next_step()
            times = [0.0, 0.0]
            for way in (0, 1) if number % 2 else (1, 0):
                times[way] = train_step(learners[way], steps[way])
            if number:  # the first one asks for memory
                seconds.append((times[0], times[1]))
                padded = [sum(batch.padding_mask.numel() for batch in step) for step in steps]
                pixels.append((padded[0], padded[1]))
                batches = "{} batches, {:.2f} million pixels, {:.2f} s"
                told = [batches.format(len(steps[i]), padded[i] / 1e6, times[i]) for i in (0, 1)]
                print(f"step {number}: {told[0]}; by size {told[1]}", flush=True)
    print(
        f"\n{args.backbone}, {args.size} pixels, {args.batches} x {args.batch_size} images, {args.train_steps} steps, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name, unit, pairs in (
        ("CPU time", "s", seconds),
        ("padded pixels", "million", [(a / 1e6, b / 1e6) for a, b in pixels]),
    ):
        before, after = (statistics.median(pair[way] for pair in pairs) for way in (0, 1))
        ratios = [pair[1] / pair[0] for pair in pairs]
        print(
            f"{name}: {before:.2f} {unit} with fixed canvases, {after:.2f} by size; ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def train_step(learner: SegmentationLearner, batches: Sequence[Batch]) -> float:
    """Seconds of CPU time of forward, losses and backward of a step."""
    began = time.process_time()
    objects = max(1, sum(map(learner.count_targets, batches)))
    for batch in batches:
        torch.stack(list(learner.compute_losses(batch, num_targets=objects).values())).sum().backward()
    learner.module.zero_grad(set_to_none=True)
    return time.process_time() - began


if __name__ == "__main__":
    main()
