"""Recorded inputs and results of the reference implementations of the metrics."""

from __future__ import annotations

import json
import random
from pathlib import Path

from synthgen import plugins
from synthgen.evaluation.metrics import (
    GroundTruth,
)
from synthgen.records.sample import Rle, Sample

GOLDEN = Path(__file__).parents[1] / "golden" / "eval"


def read(name):
    return json.loads((GOLDEN / name).read_text())


def asked(task: str, number: int, size, annotations, names, stuff=()) -> GroundTruth:
    sample = Sample(number, f"golden/{number}", f"{number}.png", *size, tuple(annotations))
    target = plugins.load_plugin("dataloading.tasks", task).target(sample, names, random.Random(0))
    return GroundTruth(sample, target, frozenset(stuff))


def rle(given) -> Rle:
    return Rle(tuple(given["size"]), given["counts"].encode())
