"""Evaluation results and their differences, by numbers given in a test."""

from __future__ import annotations

from synthgen.evaluation.ablation_stats import Difference
from synthgen.evaluation.results import EvalResult


def eval_result(*, images: int = 3, **values: float) -> EvalResult:
    return EvalResult("d/s/l", "instance", "AP", values, images)


def difference(with_it: tuple[float, ...], without_it: tuple[float, ...]) -> Difference:
    return Difference("d/s/l", "instance", "AP", True, with_it, without_it)
