"""What an evaluation measured: a table for people, JSON for programs."""

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
from synthgen.storage.atomic import atomic_write

#: Where results cannot be written.
REMEDY = "choose another --out"

#: Of the rules by which predictions are made and compared: raised where the same network would be given other numbers.
RULES_VERSION = 1


@dataclass(frozen=True, slots=True)
class EvalResult:
    """What was measured on one layer.

    Attributes:
        source: "dataset/split/layer".
        task: whose metric it is.
        metric: which of the values stands for all; it is always among them, and 0 where no image could be measured.
        values: in percent, by name (AP, AP50, PQ, PQ_things, mIoU, cIoU, maxF, MAE, ...).
        images: how many were measured; 0 where none holds anything to measure by, such as a mask.
        by_name: the main value by category, in percent, where the metric has one.
        by_kind: of the "things" and of the "stuff" that were found rightly, the share in percent that "conditional"
            and that "learnable" queries found, and how many there were ("found"); without a kind that was not found.
        seen: what `Seen.state` says of the layer's images: how many were passed over, and why.
        by_machines: what of the truth machines made; see `layers.machines`.
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
        """What `save_results` wrote of a layer.

        Raises:
            ValueError, TypeError, KeyError: it did not write that.
        """
        found = cls(**content)
        if not all(isinstance(text, str) for text in (found.source, found.task, found.metric)):
            raise ValueError("no layer's")
        numbers = [*found.values.values(), *found.by_name.values(), found.values[found.metric], found.images]
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise ValueError("no numbers")
        return found

    def __str__(self) -> str:
        told = "  ".join(f"{name} {value:.1f}" for name, value in self.values.items())
        return f"{self.source} {self.task}, {self.images:,} images: {told}"


def average_by_task(results: Sequence[EvalResult]) -> dict[str, dict[str, float]]:
    """Mean and median of the main value, for each task that several layers were measured by (as SeginW is told)."""
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
    """A paragraph a layer, and what they come to together."""
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
        for kind, shares in one.by_kind.items():
            yield (
                f"  {kind} found: {shares['conditional']:.1f} % by conditional queries, "
                f"{shares['learnable']:.1f} % by learnable ones, of {shares['found']:,.0f}"
            )
        for count, names in zip(one.seen.get("counts", ()), one.seen.get("names", ()), strict=True):
            passed = [(key.partition("/")[2], n) for key, n in count.items() if key.startswith("skipped/")]
            if passed:
                yield "  passed over: " + ", ".join(f"{n:,} {SKIP_REASONS.get(reason, reason)}" for reason, n in passed)
            yield from (f"    {name}" for name in names)
    for name, values in average_by_task(results).items():
        yield f"{name} of {values['layers']:.0f} layers: mean {values['mean']:.2f}, median {values['median']:.2f}"


def save_results(path: Path, results: Sequence[EvalResult], **metadata: Any) -> None:
    """Write it as JSON, whole or not at all.

    Args:
        metadata: what else is to stand there, in front.

    Raises:
        SynthgenError: it cannot be written.
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
    """What `save_results` wrote, and whether it is by today's rules.

    Raises:
        SynthgenError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [EvalResult.from_dict(one) for one in content["measured"]], content.get("rules") == RULES_VERSION
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SynthgenError(f"{path} is damaged; delete it, and the same command measures again") from None


def printable_json(content: Any) -> str:
    """JSON of letters that every file and terminal takes."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
