"""Fuzz every reader of files from strangers: datasets, images, weights, tokenizers, shards, manifests.

    python benchmarks/fuzz.py [--inputs 20000] [--seconds 600] [--reader coco --reader shards] [--seed 0]
    python benchmarks/fuzz.py --reader coco --input 1234 --keep DIR      # one input again, with its files

Each input is a valid file with a few mutations: flipped bits, moved segments, odd numbers, changed nodes of JSON trees,
spliced pickle opcodes, exchanged members of archives. A reader must answer, or refuse in one sentence. A finding is
anything else: another exception, a signal, more than 10 s, more than 1 GiB, a write outside its folder, an executed
payload, or an answer that an oracle contradicts. Readers run in forked processes. Exit code 1 = there are findings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]


def main() -> int:
    from fakes.fuzz_runner import fuzz
    from fakes.fuzz_targets import fuzz_targets

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--inputs", type=int, default=20_000, help="inputs a reader")
    options.add_argument("--seconds", type=float, default=float("inf"), help="at most so long a reader")
    options.add_argument("--reader", action="append", help="only this one; may be repeated")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--input", type=int, help="only the input of this number")
    options.add_argument("--keep", type=Path, help="write the files of that input into this folder")
    options.add_argument("--json", type=Path, help="write the reports there as well")
    options.add_argument("--refusals", action="store_true", help="show which lines refused how many inputs")
    given = options.parse_args()
    targets = {target.name: target for target in fuzz_targets()}
    if unknown := set(given.reader or ()) - targets.keys():
        options.error(f"no reader {min(unknown)} (have: {', '.join(targets)})")
    start, count = (given.input, 1) if given.input is not None else (0, given.inputs)
    reports: list[dict[str, Any]] = []
    sys.stdout.write("| reader | inputs | accepted | refused | findings | slowest, s | peak, MiB | seconds |\n")
    sys.stdout.write("| --- | --: | --: | --: | --: | --: | --: | --: |\n")
    for name in given.reader or targets:
        report = fuzz(targets[name], inputs=count, start=start, seed=given.seed, seconds=given.seconds, keep=given.keep)
        reports.append(asdict(report))
        sys.stdout.write(_format_row(report))
        for finding in report.findings.values():
            sys.stdout.write(f"\n{finding.count} x {finding.cause}, inputs {finding.numbers}:\n{finding.detail}\n\n")
        if given.refusals:
            most_first = sorted(report.refusals.items(), key=lambda item: -item[1])
            sys.stdout.writelines(f"  {n:>7,} {place}\n" for place, n in most_first)
        sys.stdout.flush()
    if given.json is not None:
        given.json.write_text(json.dumps(reports, indent=1), encoding="utf-8")
    return int(any(report["findings"] for report in reports))


def _format_row(report: Any) -> str:
    wrong = sum(finding.count for finding in report.findings.values())
    numbers = f"{report.inputs:,} | {report.accepted:,} | {report.refused:,} | {wrong:,}"
    return (
        f"| {report.name} | {numbers} | {report.slowest[0]:.2f} | {report.largest[0] / 2**20:,.0f} | "
        f"{report.seconds:,.0f} |\n"
    )


if __name__ == "__main__":
    sys.exit(main())
