"""Differences between the arms of an ablation: paired seeds, missing results."""

from __future__ import annotations

import pytest
from fakes.eval_results import difference, eval_result

from synthgen.evaluation.ablation_stats import compare_arms, format_differences

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("with_it", "without_it", "sentence"),
    [
        ((31.0, 32.0, 33.0), (29.9, 30.9, 30.9), "AP is 1.4 higher (1.1 to 2.1 over 3 seeds)"),
        ((29.9, 30.9, 30.9), (31.0, 32.0, 33.0), "AP is 1.4 lower (1.1 to 2.1 over 3 seeds)"),
        ((31.0, 32.0), (30.0, 32.5), "AP is now higher, now lower (-0.5 to +1.0 over 2 seeds, +0.2 on average): no"),
        ((31.0, 32.0), (31.0, 32.0), "AP is now higher, now lower (+0.0 to +0.0 over 2 seeds"),
        ((31.0,), (30.0,), "AP is 1.0 higher (one seed: it may be chance)"),
    ],
)
def test_differences_in_words(with_it, without_it, sentence):
    assert difference(with_it, without_it).describe("it").startswith(f"with it {sentence}")


def test_seeds_are_paired():
    """Seeds that differ by ten and arms that differ by one: the one is seen."""
    one = difference((10.0, 20.0, 31.0), (9.0, 19.0, 29.0))
    assert one.by_seed == [1.0, 1.0, 2.0]
    assert one.standard_error == pytest.approx(((2 / 9 + 4 / 9) / 2) ** 0.5 / 3**0.5)
    assert difference((1.0,), (0.0,)).standard_error is None
    assert set(one.summarize()) >= {"with_mean", "without_mean", "standard_error", "least", "most"}


def test_what_was_not_measured_everywhere_is_not_compared():
    with_it = [[eval_result(AP=1.0, AP50=2.0), eval_result(AP=5.0)]] * 2
    without_it = [
        [eval_result(AP=0.5), eval_result(AP=0.0, images=0)],
        [eval_result(AP=0.5, AP50=1.0), eval_result(AP=5.0)],
    ]
    (only,) = compare_arms(with_it, without_it)
    assert only.name == "AP" and only.with_it == (1.0, 1.0) and only.without_it == (0.5, 0.5)
    lines = list(format_differences([only], 2, "it"))
    assert lines[0] == "d/s/l instance" and "+0.50 ± 0.00" in lines[2]
    assert lines[-1] == "by chance alone 2 seeds would all fall on one side in 1 of 2 cases"
    assert list(format_differences([], 2, "it")) == []
