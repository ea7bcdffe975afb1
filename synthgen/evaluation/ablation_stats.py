"""Differences between the two arms of an ablation, their spread over seeds, and a description in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from synthgen.evaluation.results import EvalResult


@dataclass(frozen=True, slots=True)
class Difference:
    """The values of one metric in both arms, by seed.

    Attributes:
        source, task: the evaluated layer, and its task.
        name: of the value ("AP", "AP50", ...).
        is_main: whether it is the main value of the layer.
        with_it, without_it: in percent, with the seeds in the same order.
    """

    source: str
    task: str
    name: str
    is_main: bool
    with_it: tuple[float, ...]
    without_it: tuple[float, ...]

    @property
    def by_seed(self) -> list[float]:
        """With minus without, paired by seed: equal seeds have equal initial weights, which reduces the variance."""
        return [one - other for one, other in zip(self.with_it, self.without_it, strict=True)]

    @property
    def mean(self) -> float:
        """The mean difference."""
        return statistics.fmean(self.by_seed)

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean; None = only one seed."""
        return statistics.stdev(self.by_seed) / math.sqrt(len(self.by_seed)) if len(self.by_seed) > 1 else None

    def summarize(self) -> dict[str, object]:
        """All values, as JSON."""
        return {
            "with_mean": statistics.fmean(self.with_it), "without_mean": statistics.fmean(self.without_it),
            "by_seed": self.by_seed, "mean": self.mean, "standard_error": self.standard_error,
            "least": min(self.by_seed), "most": max(self.by_seed),
        }  # fmt: skip

    def describe(self, factor: str) -> str:
        """Describe the difference in a sentence.

        Args:
            factor: what the first arm has and the second has not.
        """
        least, most, seeds = min(self.by_seed), max(self.by_seed), len(self.by_seed)
        if least <= 0 <= most and seeds > 1:
            ends = f"{least:+.1f} to {most:+.1f} over {seeds} seeds, {self.mean:+.1f} on average"
            return f"with {factor} {self.name} is now higher, now lower ({ends}): no difference to speak of"
        word = "higher" if self.mean > 0 else "lower" if self.mean < 0 else "higher or lower"
        nearest, farthest = sorted((abs(least), abs(most)))
        ends = f"{nearest:.1f} to {farthest:.1f} over {seeds} seeds" if seeds > 1 else "one seed: it may be chance"
        return f"with {factor} {self.name} is {abs(self.mean):.1f} {word} ({ends})"


def compare_arms(
    with_it: Sequence[Sequence[EvalResult]], without_it: Sequence[Sequence[EvalResult]]
) -> Iterator[Difference]:
    """Pair the results of both arms by seed and layer; layers without evaluated images are left out.

    Args:
        with_it: for each seed, the results of the arm with the factor, in the order of the layers.
        without_it: the results of the other arm, with the same seeds and layers.
    """
    for i, one in enumerate(with_it[0]):
        every = [[seed[i] for seed in arm] for arm in (with_it, without_it)]
        if all(measured.images for arm in every for measured in arm):
            for name in one.values:
                if all(name in measured.values for arm in every for measured in arm):
                    values = [tuple(measured.values[name] for measured in arm) for arm in every]
                    yield Difference(one.source, one.task, name, name == one.metric, values[0], values[1])


def format_differences(differences: Sequence[Difference], num_seeds: int, factor: str) -> Iterator[str]:
    """A table for each layer, a sentence about its main value, and a note on how reliable they are; see
    `Difference.describe`.

    Args:
        differences: the differences of all layers; those of one layer and task stand together.
        num_seeds: the number of seeds of each arm.
        factor: what the first arm has and the second has not.
    """
    for (source, task), group in groupby(differences, key=lambda one: (one.source, one.task)):
        rows = list(group)
        width = max(len(one.name) for one in rows)
        yield f"{source} {task}"
        yield f"  {'':<{width}}  {'with':>14}  {'without':>14}  {'difference':>14}  by seed"
        for one in rows:
            error = f" ± {one.standard_error:4.2f}" if one.standard_error is not None else ""
            cells = (_format_mean_std(one.with_it), _format_mean_std(one.without_it), f"{one.mean:+.2f}{error}")
            by_seed = "  ".join(f"{value:+.2f}" for value in one.by_seed)
            yield f"  {one.name:<{width}}  {'  '.join(f'{cell:>14}' for cell in cells)}  {by_seed}"
        yield from (f"  {one.describe(factor)}" for one in rows if one.is_main)
        yield ""
    if differences and num_seeds > 1:
        yield "± is the standard deviation over seeds, of the difference its standard error"
        yield f"by chance alone {num_seeds} seeds would all fall on one side in 1 of {2 ** (num_seeds - 1)} cases"


def _format_mean_std(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):4.2f}" if len(values) > 1 else mean
