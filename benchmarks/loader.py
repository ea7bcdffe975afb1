"""Batches for training three ways: this reader, a Dataset around `pycocotools.COCO`, and WebDataset's tars.

    python benchmarks/loader.py --data COCO_TINY [--shape coco|objects365] [--scale 0.1] [--workers 2] [--rounds 3]

ours        shards, a manifest, `TrainLoader`
pycocotools the Dataset that one writes: all annotations in memory, `annToRLE`, torch's DataLoader
webdataset  tars of JPEG and JSON (with run lengths), its own pipeline and shuffling; `pip install -e '.[bench]'`
decoding    the same processes decode the same JPEGs and do nothing else: the limit

All take the same images and annotations, as many processes and batches made ahead, and the same `make_train_example`;
they pack and normalise batches with the same functions. Shape `coco`: the 80 photographs of `--data` with their masks,
`--repeat` times over, task `instance`. Shape `objects365`: `--scale` of its images and boxes, made up by
`benchmarks/ingest.py`, over the same photographs; boxes only, task `detection`. Photographs are referred to again and
again, not copied, but tars hold their pixels: of `objects365` they hold the first images only, and are listed as often
as makes up for it.

Each way runs in a process of its own, by turns, in an order that changes from round to round. Reported: the median
of seconds from the call to the first batch; images/s and CPU time (all processes) of `--count` images after that;
resident memory (PSS of all processes) behind them; ratios pair by pair. What is imported is imported before. Last,
where the time of one process goes. Goals, at Objects365's shape: the first batch at least 20 times sooner than by
pycocotools, in at most a twentieth of its memory; images/s not below either.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _loader_content import prepare
from _loader_ways import AHEAD, WAYS, Content, compare

from synthgen import plugins
from synthgen.dataloading import row_stream, train_loader, transforms
from synthgen.dataloading.manifest import load_manifest


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="a folder of annotations/instances_train2017.json and train2017/")
    options.add_argument("--shape", choices=["coco", "objects365"], default="coco")
    options.add_argument("--repeat", type=int, default=25, help="of `coco`: how often each photograph")
    options.add_argument("--scale", type=float, default=0.1, help="of `objects365`: share of its images and boxes")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--count", type=int, default=240, help="images that are timed, each way in each round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options.add_argument("--folder", type=Path, help="where to put files; default: the system's")
    options.add_argument("--run", nargs=3, metavar=("WAY", "FOLDER", "SEED"), help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.run:
        way, folder, seed = args.run
        content = Content(**json.loads(Path(folder, "content.json").read_text()))
        print(json.dumps(profile(content) if way == "profile" else run(WAYS[way], content, int(seed))))
        return
    if args.data is None:
        options.error("--data is needed: COCO's layout, such as an excerpt of COCO")
    if "webdataset" in args.ways:
        try:
            import webdataset as _  # noqa: F401
        except ImportError:
            options.error("webdataset is not installed; pip install -e '.[bench]', or leave it out of --ways")
    with tempfile.TemporaryDirectory(prefix="loader-", dir=args.folder) as folder:
        began = time.perf_counter()
        scale = args.scale if args.shape == "objects365" else 0
        made = prepare(
            Path(folder).absolute(), args.data, scale=scale, repeat=args.repeat, tars="webdataset" in args.ways
        )
        content = Content(**made, workers=args.workers, batch_size=args.batch_size, count=args.count)
        Path(folder, "content.json").write_text(json.dumps(asdict(content)))
        print(
            f"{args.shape}: {content.size:,} images, {content.boxes:,} boxes, {content.masks:,} masks; "
            f"{args.workers} processes, batches of {args.batch_size}; prepared in {time.perf_counter() - began:.0f} s; "
            f"load before {os.getloadavg()[0]:.1f}"
        )
        if args.shape == "coco":
            compare(content)
        found: dict[str, list[dict[str, float]]] = {way: [] for way in args.ways}
        for one in range(args.rounds):
            for way in args.ways[:: 1 if one % 2 else -1]:
                found[way].append(elsewhere(way, folder, one))
        tell(found)
        spent = elsewhere("profile", folder, 0)
        whole = sum(spent.values())
        parts = [f"{part} {value:.1f} ({value / whole:.0%})" for part, value in spent.items()]
        print(f"one process, CPU ms an image: {', '.join(parts)}; in all {whole:.1f}")
        print(f"load after {os.getloadavg()[0]:.1f}")


def elsewhere(way: str, folder: str, seed: int) -> dict[str, float]:
    """Run a way in a process of its own."""
    command = [sys.executable, __file__, "--run", way, folder, str(seed)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def run(way: Callable[[Content, int], Iterator[int]], content: Content, seed: int) -> dict[str, float]:
    """What one way takes."""
    began = time.perf_counter()
    batches = way(content, seed)
    next(batches)
    first = time.perf_counter() - began
    for _ in range((AHEAD + 1) * content.workers):  # what was made while nobody asked for it
        next(batches)
    began, used, done = time.perf_counter(), cpu(), 0
    while done < content.count:
        done += next(batches)
    seconds, used = time.perf_counter() - began, cpu() - used
    return {"first": first, "rate": done / seconds, "cpu": 1000 * used / done, "memory": resident()}


def family() -> dict[int, list[str]]:
    """This process and its children: what /proc/PID/stat says behind their names."""
    stat = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended
            stat[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    found = [os.getpid()]
    for own in found:
        found += [pid for pid, fields in stat.items() if int(fields[1]) == own]
    return {pid: stat[pid] for pid in found}


def cpu() -> float:
    """Seconds that all processes have computed."""
    return sum(int(fields[11]) + int(fields[12]) for fields in family().values()) / os.sysconf("SC_CLK_TCK")


def resident() -> float:
    """MiB of all processes; of what several share, each has its part."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in family()]
    return sum(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("Pss:")) / 1024


def tell(found: dict[str, list[dict[str, float]]]) -> None:
    """The table, and ratios."""
    middle = {
        way: {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}
        for way, rounds in found.items()
    }
    print(f"{'':12}{'first batch':>14}{'images/s':>10}{'CPU':>16}{'resident':>12}")
    for way, m in middle.items():
        print(f"{way:12}{m['first']:>12.2f} s{m['rate']:>10.1f}{m['cpu']:>10.1f} ms/im{m['memory']:>8.0f} MiB")
    for way in found:
        if way != "ours" and "ours" in found:
            pairs = {
                what: [a[what] / b[what] for a, b in zip(found["ours"], found[way], strict=True)]
                for what in middle[way]
            }
            told = {what: f"{statistics.median(r):.3g} ({min(r):.3g} to {max(r):.3g})" for what, r in pairs.items()}
            print(
                f"ours/{way}: images/s {told['rate']}, CPU {told['cpu']}, first batch {told['first']}, "
                f"memory {told['memory']}"
            )


#: Where time goes: (whose, function) -> what it is.
PARTS: list[tuple[Any, str, str]] = [
    (row_stream.ShuffledRows, "__next__", "rows"),
    (row_stream, "load_rgb", "decoding"),
    (transforms, "_render_image", "resizing"),
    (transforms, "_render_mask", "masks"),
    (train_loader, "collate", "packing"),
    (train_loader, "unpack_batch", "normalising"),
]


def profile(content: Content) -> dict[str, float]:
    """CPU milliseconds an image of what this reader does, in one process."""
    spent: Counter[str] = Counter()

    def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[part] += time.process_time() - began

        return wrapped

    manifest = load_manifest(Path(content.folder, "manifest.yaml"))
    task = plugins.load_plugin("dataloading.tasks", manifest.mixture[0].task)
    for whose, name, part in [*PARTS, (task, "target", "targets")]:
        setattr(whose, name, timed(getattr(whose, name), part))
    batches = iter(train_loader.TrainLoader(manifest, batch_size=content.batch_size, num_workers=0))
    next(batches)
    spent.clear()
    began, done = time.process_time(), 0
    while done < content.count // 2:
        done += len(next(batches).targets)
    whole = time.process_time() - began
    spent["rest"] = whole - spent.total()
    return {part: 1000 * seconds / done for part, seconds in spent.most_common()}


if __name__ == "__main__":
    main()
