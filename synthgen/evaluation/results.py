"""Results of an evaluation: a table to print, and JSON."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from synthgen.dataloading.sample_stats import SKIP_REASONS
from synthgen.errors import SynthgenError, escape_control_chars
from synthgen.evaluation.query_shares import format_shares
from synthgen.storage.atomic import atomic_write

#: Remedy in errors about results that cannot be written.
REMEDY = "choose another --out"

#: Version of the rules of prediction and comparison. Increase it when the same network would get other values.
RULES_VERSION = 1


@dataclass(frozen=True, slots=True)
class EvalResult:
    """The results of one layer.

    Attributes:
        source: "dataset/split/layer".
        task: the task whose metric is used.
        metric: name of the main value. It is always in `values`, and 0 if no image could be evaluated.
        values: in percent, by name (AP, AP50, PQ, PQ_things, mIoU, cIoU, maxF, MAE, ...).
        images: number of evaluated images; 0 if no image has the required ground truth, such as a mask.
        by_name: the main value by category, in percent, if the metric has one.
        by_kind: for correct "things" and "stuff", the percentage found by "conditional" and by "learnable" queries, and
            their number ("found"); a kind without correct predictions is left out.
        seen: `SampleStats.state_dict` of the layer's images: how many were skipped, and why.
        by_machines: which ground truth is synthetic; see `source_checks.describe_synthetic_labels`.
    """

    source: str
    task: str
    metric: str
    values: Mapping[str, float]
    images: int
    by_name: Mapping[str, float] = field(default_factory=dict)
    by_kind: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)
    by_machines: Sequence[str] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read the results of a layer from the format of `save_results`.

        Args:
            content: an entry of `measured` in such a file; untrusted.

        Raises:
            ValueError: a value is not valid.
            TypeError: a key is unknown or missing.
            KeyError: the main value is missing.
        """
        found = cls(**content)
        if not all(isinstance(text, str) for text in (found.source, found.task, found.metric)):
            raise ValueError("no layer's")
        numbers = [*found.values.values(), *found.by_name.values(), found.values[found.metric], found.images]
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise ValueError("no numbers")
        return found

    def __str__(self) -> str:
        scores = "  ".join(f"{name} {value:.1f}" for name, value in self.values.items())
        return f"{self.source} {self.task}, {self.images:,} images: {scores}"


def average_by_task(results: Sequence[EvalResult]) -> dict[str, dict[str, float]]:
    """Mean and median of the main value, for each task with several layers (as reported for SeginW).

    Args:
        results: the results of all layers; those without an evaluated image do not count.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for one in results:
        if one.images:
            groups[f"{one.task} {one.metric}"].append(one.values[one.metric])
    return {
        name: {"mean": statistics.fmean(values), "median": statistics.median(values), "layers": len(values)}
        for name, values in groups.items()
        if len(values) > 1
    }


def format_results(results: Sequence[EvalResult]) -> Iterator[str]:
    """A paragraph for each layer of `results`, and averages."""
    for one in results:
        yield f"{one.source} {one.task}, {one.images:,} image{'s' * (one.images != 1)}"
        if one.images:
            width = max(map(len, one.values))
            yield from (f"  {name:<{width}}  {value:6.2f}" for name, value in one.values.items())
        else:
            yield "  nothing could be measured"
        if one.by_machines:
            made = ", ".join(map(escape_control_chars, one.by_machines))
            yield f"  the truth is {made}: this is agreement with machines"
        yield from (f"  {line}" for line in format_shares(one.by_kind))
        for count, names in zip(one.seen.get("counts", ()), one.seen.get("names", ()), strict=True):
            passed = [(key.partition("/")[2], n) for key, n in count.items() if key.startswith("skipped/")]
            if passed:
                yield "  passed over: " + ", ".join(f"{n:,} {SKIP_REASONS.get(reason, reason)}" for reason, n in passed)
            yield from (f"    {name}" for name in names)
    for name, values in average_by_task(results).items():
        yield f"{name} of {values['layers']:.0f} layers: mean {values['mean']:.2f}, median {values['median']:.2f}"


def save_results(path: Path, results: Sequence[EvalResult], **metadata: Any) -> None:
    """Write results as JSON, atomically.

    Args:
        path: the JSON file; replaced if it exists.
        results: of the layers, in order.
        **metadata: additional entries, placed first.

    Raises:
        SynthgenError: the file cannot be written.
    """
    content = {
        **metadata,
        "rules": RULES_VERSION,
        "measured": [asdict(one) for one in results],
        "averages": average_by_task(results),
    }
    with atomic_write(path, remedy=REMEDY) as temporary:
        temporary.write_text(printable_json(content), encoding="utf-8")


def load_results(path: Path) -> tuple[list[EvalResult], bool]:
    """Read results, and whether they were made with the current rules.

    Args:
        path: a file of `save_results`; untrusted.

    Raises:
        SynthgenError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [EvalResult.from_dict(one) for one in content["measured"]], content.get("rules") == RULES_VERSION
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SynthgenError(f"{path} is damaged; delete it, and the same command measures again") from None


def printable_json(content: Any) -> str:
    """ASCII-only JSON of `content`, which every file and terminal can display."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
