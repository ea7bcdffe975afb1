"""Soak test of ingest, masks and captions: random faults, and what they leave; makes the table of docs/reliability.md.

    python benchmarks/soak.py [--minutes 30] [--rounds N] [--seed 0] [--folder FOLDER]

A round is one fault with one seed: a kill, a signal, a full disk, corrupt images, a jumping clock, two competing runs,
a swapped or damaged shard, a misbehaving plugin. Then the same commands run undisturbed until they are done. They must
end with 0, and every shard must have the bytes of a run that nothing disturbed, which has every image exactly once. No
other file may be left. Meanwhile, every image is committed once, or named as failed with its reason, and exit codes are
those of docs/reliability.md. `_soak_faults.py` holds the faults and what is checked beside.

Commands run in forks of a process that has imported the program, on tiny drawn images, so that a round takes about a
second. Round i has the seed `--seed` + i, and the fault follows from it. A finding prints the seed and keeps the folder
of the round. `--seed SEED --rounds 1` repeats it, as far as moments of time can be repeated. The exit code is 1 if
there is a finding.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]  # for the fake plugins

from _soak_faults import FAULTS, describe_results  # noqa: E402
from _soak_round import FindingError, Round  # noqa: E402
from _soak_world import World, make_world, store_differences  # noqa: E402

#: Modules that the commands import late.
_USED_MODULES = (
    *("cli.main", "ingest.ingest", "formats.readers.coco_json", "review.status"),
    *("generate.engine", "generate.job_builder", "generate.run", "generate.stages.captions", "generate.stages.masks"),
    *("generate.captioners.attributes", "generate.segmenters.box_fill"),
)


def run_round(world: World, folder: Path, seed: int) -> tuple[str, int, str]:
    """One fault, then its commands undisturbed.

    Returns:
        The fault, how often it was injected, and how it ended.

    Raises:
        FindingError: something is not as promised.
    """
    fault = list(FAULTS)[seed % len(FAULTS)]
    one = Round(world, folder, random.Random(seed))
    result = FAULTS[fault](one)
    for stage in one.plugins:
        one.run(stage, codes=[0])
    one.check(store_differences(one.store, one.reference))
    return fault, one.tried, result


def format_table(tried: Counter[str], results: dict[str, Counter[str]]) -> list[str]:
    """The table of docs/reliability.md."""
    rows = [
        f"| {fault} | {tried[fault]:,} in {results[fault].total():,} rounds | {describe_results(results[fault])} |"
        for fault in FAULTS
        if tried[fault]
    ]
    return ["| fault | tried | result |", "| --- | --- | --- |", *rows]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--rounds", type=int, default=10**9)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, help="where to work; default: a new one")
    args = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that small file systems are unmounted
    folder = args.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    _import_program()
    began = time.monotonic()
    world = make_world(folder / "world")
    tried: Counter[str] = Counter()
    results: defaultdict[str, Counter[str]] = defaultdict(Counter)
    rounds = findings = 0
    for seed in range(args.seed, args.seed + args.rounds):
        if time.monotonic() - began > 60 * args.minutes:
            break
        place = folder / f"seed-{seed}"
        try:
            fault, times, result = run_round(world, place, seed)
            shutil.rmtree(place)
        except FindingError as why:
            fault, times, result = list(FAULTS)[seed % len(FAULTS)], 1, "FINDING"
            findings += 1
            print(f"finding: seed {seed} ({fault}), kept in {place}: {why}", flush=True)
        rounds += 1
        tried[fault] += times
        results[fault][result] += 1
        if rounds % 100 == 0:
            print(f"{rounds:,} rounds, {findings} findings, {time.monotonic() - began:.0f} s", flush=True)
    if not findings:
        shutil.rmtree(folder)
    print(*format_table(tried, results), sep="\n")
    print(f"{rounds:,} rounds in {(time.monotonic() - began) / 60:.1f} minutes, {findings} findings")
    sys.exit(1 if findings else 0)


def _import_program() -> None:
    """Import here what the commands need, so that their forks need not."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in (
        "pandas",
        "pydantic",
        "rich.progress",
    ):  # pyarrow and typer import these late, where they are installed
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in _USED_MODULES:
        importlib.import_module(f"synthgen.{name}")


if __name__ == "__main__":
    main()
