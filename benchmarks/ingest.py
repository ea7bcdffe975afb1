"""How long does a file of Objects365's shape take, and how much memory, against json.load and pycocotools?

    python benchmarks/ingest.py [--scale 0.1] [--folder DIR] [--no-baselines]

Writes such a file (at scale 1: 1.74 M images, 25.4 M boxes in arbitrary order, 5.6 GB) into a temporary folder, reads
it in each way in a process of its own, one after the other, and prints seconds, peak memory and their ratios. Ours is
the whole ingest: digest, audit, sorted and synced Parquet shards; the others only parse, pycocotools also indexes.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

IMAGES, BOXES, CATEGORIES, PATCHES = 1_742_289, 25_407_598, 365, 51


def main() -> None:
    """Write the file, run each way, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="share of Objects365's images and boxes")
    parser.add_argument("--folder", type=Path, help="where to put the file and the shards; default: the system's")
    parser.add_argument("--no-baselines", action="store_true", help="ours only: json.load needs 3.5 times the file")
    parser.add_argument("--run", nargs=3, metavar=("WAY", "FILE", "STORE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given.run[0], Path(given.run[1]), Path(given.run[2]))
        return
    with tempfile.TemporaryDirectory(prefix="ingest-", dir=given.folder) as name:
        file = Path(name) / "zhiyuan_objv2_train.json"
        images, boxes = write(file, given.scale)
        print(f"{images:,} images, {boxes:,} boxes, {file.stat().st_size / 1e9:.2f} GB of JSON\n")
        print(f"{'':12} {'seconds':>8} {'ratio':>6} {'peak GiB':>9} {'ratio':>6}  found")
        ways = ["ours"] if given.no_baselines else ["json.load", "pycocotools", "ours"]
        base: dict[str, float] = {}
        for way in ways:
            command = [sys.executable, __file__, "--run", way, str(file), str(Path(name) / "shards")]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            base = base or found
            ratio = [f"{found[what] / base[what]:.2f}" for what in ("seconds", "peak")]
            print(
                f"{way:12} {found['seconds']:8.1f} {ratio[0]:>6} {found['peak']:9.2f} {ratio[1]:>6}  {found['found']}"
            )
            for what, seconds in found.get("of which", {}).items():
                print(f"  {what:10} {seconds:8.1f}")


def run(way: str, file: Path, store: Path) -> None:
    """Read the file in one way and print what it took, as JSON."""
    parts: dict[str, float] = {}
    if way == "ours":
        from synthgen.formats.readers import DatasetFiles, objects365
        from synthgen.ingest import ingest
        from synthgen.storage.shard_store import ShardStore

        start = time.perf_counter()

        def tell(what: str, done: int, total: int) -> None:  # noqa: ARG001
            parts[what] = time.perf_counter() - start

        report = ingest.ingest(
            ShardStore(store),
            objects365,
            DatasetFiles({"instances": file}, file.parent),
            name="objects365",
            split="train",
            on_progress=tell,
        )
        found = f"{report.images:,} images, {report.annotations:,} boxes, {report.shards} shards, {report.flags}"
        parts["writing"] -= parts["reading"]
    elif way == "json.load":
        start = time.perf_counter()
        with file.open() as opened:
            content = json.load(opened)
        found = f"{len(content['images']):,} images, {len(content['annotations']):,} boxes"
    else:
        import contextlib
        import io

        from pycocotools.coco import COCO

        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(file))
        found = f"{len(coco.imgs):,} images, {len(coco.anns):,} boxes"
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak": peak, "found": found, "of which": parts}))


def write(file: Path, scale: float, photographs: Sequence[tuple[str, int, int]] = ()) -> tuple[int, int]:
    """Write the file: keys, order and digits as in the release, boxes of arbitrary images one after the other.

    Args:
        photographs: (name, height, width), which the images are then, over and over; default: made-up ones.
    """
    rng = random.Random(0)
    images, boxes = int(IMAGES * scale), int(BOXES * scale)
    with file.open("w") as out:
        out.write('{"images": [')
        for i in range(images):
            name = f"images/v1/patch{i % PATCHES}/objects365_v1_{i:08d}.jpg"
            out.write(", " if i else "")
            height, width = rng.randrange(350, 1400), rng.randrange(350, 1400)
            if photographs:
                photograph, height, width = photographs[i % len(photographs)]
                name = f"images/v1/patch{i % PATCHES}/{photograph}"
            out.write(
                f'{{"height": {height}, "id": {i}, "license": 5, "width": {width}, "file_name": "{name}", "url": ""}}'
            )
        out.write('], "annotations": [')
        uniform = rng.random
        for i in range(boxes):
            # Most lie within their image, some beyond it; ten decimals where annotated, more where computed.
            x, y = round(uniform() * 350, 10), round(uniform() * 350, 10)
            w, h = uniform() * 50, uniform() * 50
            out.write(", " if i else "")
            out.write(
                f'{{"id": {i + 1}, "iscrowd": {int(i % 97 == 0)}, "isfake": {int(i % 89 == 0)}, "area": {w * h!r}, '
                f'"isreflected": {int(i % 83 == 0)}, "bbox": [{x!r}, {y!r}, {w!r}, {h!r}], '
                f'"image_id": {int(uniform() * images)}, "category_id": {1 + int(uniform() * CATEGORIES)}}}'
            )
        names = [{"name": f"Category {i}", "id": i} for i in range(1, CATEGORIES + 1)]
        out.write(f'], "categories": {json.dumps(names)}}}')
    return images, boxes


if __name__ == "__main__":
    main()
