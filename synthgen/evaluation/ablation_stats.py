"""What two arms of an experiment came to, seed by seed: their differences, how far they spread, and that in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from synthgen.evaluation.results import EvalResult


@dataclass(frozen=True, slots=True)
class Difference:
    """One number, by seed.

    Attributes:
        source, task: the layer that it was measured on, and how.
        name: of the number ("AP", "AP50", ...). is_main: whether it stands for all of that layer.
        with_it, without_it: in percent, by seed in the same order.
    """

    source: str
    task: str
    name: str
    is_main: bool
    with_it: tuple[float, ...]
    without_it: tuple[float, ...]

    @property
    def by_seed(self) -> list[float]:
        """With less without: the same seed is the same beginning, which is half of the noise."""
        return [one - other for one, other in zip(self.with_it, self.without_it, strict=True)]

    @property
    def mean(self) -> float:
        """Of the differences."""
        return statistics.fmean(self.by_seed)

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean; None = one seed tells nothing of it."""
        return statistics.stdev(self.by_seed) / math.sqrt(len(self.by_seed)) if len(self.by_seed) > 1 else None

    def summarize(self) -> dict[str, object]:
        """All of it, for programs."""
        return {
            "with_mean": statistics.fmean(self.with_it), "without_mean": statistics.fmean(self.without_it),
            "by_seed": self.by_seed, "mean": self.mean, "standard_error": self.standard_error,
            "least": min(self.by_seed), "most": max(self.by_seed),
        }  # fmt: skip

    def describe(self, factor: str) -> str:
        """In plain words.

        Args:
            factor: one arm has, and the other has not.
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
    """Compare what two arms measured, each by seed and layer by layer; without layers of which no image could be."""
    for i, one in enumerate(with_it[0]):
        every = [[seed[i] for seed in arm] for arm in (with_it, without_it)]
        if all(measured.images for arm in every for measured in arm):
            for name in one.values:
                if all(name in measured.values for arm in every for measured in arm):
                    values = [tuple(measured.values[name] for measured in arm) for arm in every]
                    yield Difference(one.source, one.task, name, name == one.metric, values[0], values[1])


def format_differences(differences: Sequence[Difference], num_seeds: int, factor: str) -> Iterator[str]:
    """A table for each layer, with its main number in a sentence, and how far to trust it all; see `sentence`."""
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
