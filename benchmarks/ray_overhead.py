"""What the cluster's engine costs a shard: the same shards on one machine's engine and on Ray, in one run.

    python benchmarks/ray_overhead.py [--seconds 10] [--shards 6] [--workers 2] [--images 100] [--boxes 15]

The model is a sleep, one batch at a time as on a device, and notes when each begins and ends. What counts is how long
it has nothing to do between two shards of a worker, the median of all such pauses: on one machine's engine, reading
and decoding the first batch of the next; on Ray also packing and commit of the last, the report to the driver and the
next call. Overhead is Ray's pause less the other's. What is lost inside a shard is the same code in both, and shows
how busy the machine is. Goal: less than 1 % of a shard of 10 seconds. Start-up, from the call to the first batch, is
reported separately: a run pays it once.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synthgen import plugins
from synthgen.generate.engine import run_in_process
from synthgen.generate.job import Job
from synthgen.generate.segmenters import MaskPrediction, box_fill
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore

ROOT = Path(__file__).parents[1]
SIZE = (480, 640)
PHOTO = "photo.jpg"


def build(*, seconds: float = 0.1, batch_size: int = 8, clock: str = "clock") -> Sleeper:
    """This file is also its own segmenter: `seconds` an image; the file `clock` gets a line a batch."""
    return Sleeper(seconds, batch_size, Path(clock))


class Sleeper:
    """See `Segmenter`. The device that it has not got does one batch at a time."""

    source = "sleeper"

    def __init__(self, seconds: float, batch_size: int, clock: Path) -> None:
        self.seconds, self.batch_size, self.clock = seconds, batch_size, clock
        self.device = threading.Lock()
        self.fill = box_fill.build()

    def segment(self, images: Sequence[Any], boxes_xyxy: Sequence[Any]) -> Iterator[list[MaskPrediction]]:
        with self.device:
            began = time.time()
            time.sleep(self.seconds * len(images))
            with self.clock.open("a") as file:
                file.write(f"{os.getpid()} {began} {time.time()}\n")
        yield from self.fill.segment(images, boxes_xyxy)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=10.0, help="of the model for a shard")
    options.add_argument("--shards", type=int, default=6)
    options.add_argument("--workers", type=int, default=2, help="on Ray; one machine's engine has one")
    options.add_argument("--images", type=int, default=100, help="a shard")
    options.add_argument("--boxes", type=int, default=15, help="an image")
    args = options.parse_args()
    if args.shards <= args.workers:
        options.error("more --shards than --workers, as there are pauses only between two shards")

    # A Ray of this run alone, though there may be others here; its workers import this file by its name.
    os.environ.update(RAY_ADDRESS="local", PYTHONPATH=str(ROOT))
    sys.path.insert(0, str(ROOT))
    from synthgen.cluster.ray_engine import run_on_cluster

    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)).save(Path(folder) / PHOTO)
        pause = {
            name: measure(Path(folder), name, engine, args, workers)
            for name, engine, workers in (
                ("in_process", run_in_process, 1),
                ("on_cluster", run_on_cluster, args.workers),
            )
        }
        stores = [sorted((Path(folder) / name).rglob("masks/*.parquet")) for name in pause]
        assert len(stores[0]) == args.shards
        assert [p.read_bytes() for p in stores[0]] == [p.read_bytes() for p in stores[1]], "the engines' bytes differ"
    added = pause["on_cluster"] - pause["in_process"]
    print(f"Ray adds {1000 * added:.1f} ms a shard: {added / args.seconds:.2%}")


def measure(folder: Path, name: str, engine: Any, args: argparse.Namespace, workers: int) -> float:
    """Make all shards with an engine into a store of its own; seconds between two shards of a worker."""
    store = folder / name
    shards = [Shard("bench", "train", "masks", i, args.shards) for i in range(args.shards)]
    for shard in shards:
        ShardStore(store).commit(shard.in_layer("annotations"), samples(shard.index, args), {"fingerprint": "bench"})
    given = plugins.complete_options(
        "generate.segmenters",
        "benchmarks.ray_overhead",
        {"seconds": args.seconds / args.images, "clock": str(folder / "clock")},
    )
    job = Job("masks", "bench", "train", "annotations", "masks", "benchmarks.ray_overhead", store, folder, given)
    (folder / "clock").write_text("")
    called = time.time()
    for report in engine(job, shards, workers=workers):
        assert report.error is None, report.error
    batches: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in (folder / "clock").read_text().splitlines():
        process, began, ended = line.split()
        batches[process].append((float(began), float(ended)))
    size = math.ceil(args.images / given["batch_size"])  # of a shard, in batches
    pauses, inside = [], []
    for own in batches.values():
        ends = [(own[i][0], own[i + size - 1][1]) for i in range(0, len(own), size)]
        inside += [ended - began - args.seconds for began, ended in ends]
        pauses += [began - ended for (_, ended), (began, _) in pairwise(ends)]
    pause = statistics.median(pauses)
    print(
        f"{name}: {args.shards} shards of {args.images} images by {len(batches)} of {workers} workers; start-up "
        f"{min(own[0][0] for own in batches.values()) - called:.2f} s; a shard {args.seconds:g} s + "
        f"{1000 * statistics.median(inside):.1f} ms inside + {1000 * pause:.1f} ms to the next "
        f"({1000 * min(pauses):.1f} to {1000 * max(pauses):.1f})"
    )
    return pause


def samples(shard: int, args: argparse.Namespace) -> list[Sample]:
    """Images with random boxes, all of the one photograph."""
    rng = np.random.default_rng(shard)
    low = rng.uniform(0, 0.5, (args.images, args.boxes, 2)) * SIZE[::-1]
    size = rng.uniform(0.05, 0.5, low.shape) * SIZE[::-1]
    return [
        Sample(
            shard * args.images + i,
            f"bench/{shard}/{i}",
            PHOTO,
            *SIZE,
            tuple(
                Annotation(args.boxes * i + j, (*map(float, low[i, j]), *map(float, size[i, j])), "thing")
                for j in range(args.boxes)
            ),
        )
        for i in range(args.images)
    ]


if __name__ == "__main__":
    main()
