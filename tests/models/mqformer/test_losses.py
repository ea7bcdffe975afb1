"""Losses: the reference's values and gradients, and invariants for any input."""

from __future__ import annotations

import pytest
import torch
from fakes.mqformer_parts import (
    RecordedRandom,
    factored_predictions,
    golden_part,
    is_close,
    random_predictions,
    random_target,
    recorded_target,
    sum_losses,
)
from hypothesis import given
from hypothesis import strategies as st

from synthgen.models.mqformer import losses as loss_module
from synthgen.models.mqformer import matcher
from synthgen.models.mqformer.losses import PointSampling, compute_losses
from synthgen.models.mqformer.matcher import HungarianMatcher, LossWeights
from synthgen.models.mqformer.predictions import Predictions
from synthgen.models.mqformer.targets import MaskTarget

LOSSES = {"label": 10.5956, "mask": 0.81005234, "dice": 0.92905188, "box": 0.41901216, "giou": 1.1266174}
TOTAL = 55.426220


def test_losses_and_their_gradients(golden, monkeypatch):
    g = golden_part(golden, "matcher_losses")
    logits, boxes, masks = (g[name].clone().requires_grad_() for name in ("pred_logits", "pred_boxes", "pred_masks"))
    drawn = RecordedRandom(g["points0"], g["points1"], g["loss.rand_oversampled"], g["loss.rand_random"])
    monkeypatch.setattr(torch, "rand", drawn)
    # The reference matches with 200 points and counts with 128: matching takes what is drawn for it.
    monkeypatch.setattr(loss_module, "HungarianMatcher", lambda weights, _: HungarianMatcher(weights, 200))
    predictions = Predictions(list(logits), boxes, masks)
    found = compute_losses(
        [predictions],
        [recorded_target(g, 0), recorded_target(g, 1)],
        num_objects=7,
        weights=LossWeights(),
        sampling=PointSampling(num_points=128),
    )
    assert {name: float(loss.detach()) for name, loss in found.items()} == pytest.approx(LOSSES, rel=1e-5)
    total = sum(getattr(LossWeights(), name) * loss for name, loss in found.items())
    assert float(total.detach()) == pytest.approx(TOTAL, rel=1e-5)
    total.backward()
    assert is_close(logits.grad, g["loss.grad_logits"])
    assert is_close(boxes.grad, g["loss.grad_boxes"])
    assert is_close(masks.grad, g["loss.grad_masks"])


SMALL = PointSampling(num_points=64)


def test_masks_of_each_image_are_compared_where_that_image_is(monkeypatch):
    """In matching and in the losses, of a batch of a wide and a tall one."""
    ratios = torch.tensor([[1.0, 0.25], [0.5, 1.0]])
    both = [MaskTarget(**{**random_target(i, 2 + i), "valid_ratio": ratios[i]}) for i in (0, 1)]
    matched, learned = [], []
    cost, draw = matcher.compute_costs, loss_module.sample_uncertain_points

    def noted_costs(logits, boxes, guesses, truth, points):
        matched.append(points.amax((0, 1)))
        return cost(logits, boxes, guesses, truth, points)

    def noted_points(guess, ratio, *more, **options):
        learned.append(ratio)
        return draw(guess, ratio, *more, **options)

    monkeypatch.setattr(matcher, "compute_costs", noted_costs)
    monkeypatch.setattr(loss_module, "sample_uncertain_points", noted_points)
    compute_losses(
        [random_predictions(0)], both, num_objects=1, weights=LossWeights(), sampling=PointSampling(num_points=400)
    )
    assert is_close(torch.stack(matched), ratios, 0.02)
    assert torch.equal(learned[0], ratios.repeat_interleave(torch.tensor([2, 3]), 0))


@pytest.mark.parametrize("part", [slice(None), slice(2, 5)])
def test_masks_as_factors_are_masks(part):
    """Of all that is lost and learned, ignored regions and images without objects or masks included."""
    truths = [
        random_target(0, 3, masked=[True, False, True]),
        random_target(1, 2),
        random_target(2, 2, masked=[False] * 2),
    ]
    truths[1]["ignore_mask"][:, 24:] = True
    found = []
    for whole in (False, True):
        given = factored_predictions(3, images=3)
        given.mask_features.requires_grad_()
        given.mask_embeddings.requires_grad_()
        layer = Predictions(given.logits, given.boxes, given.mask_logits) if whole else given
        rng = torch.Generator().manual_seed(0)
        parts = compute_losses(
            [layer.select_queries(part)], truths, num_objects=3.0, weights=LossWeights(), sampling=SMALL, generator=rng
        )
        sum(parts.values()).backward()
        found.append([*parts.values(), given.mask_features.grad, given.mask_embeddings.grad])
    assert all(is_close(a, b) for a, b in zip(*found, strict=True))


@given(st.integers(0, 10_000), st.permutations([0, 1, 2]))
def test_the_order_of_objects_changes_nothing(seed, order):
    truth = random_target(seed, 3)
    turned = MaskTarget(
        **{**truth, **{name: truth[name][order] for name in ("labels", "boxes", "masks", "mask_weights")}}
    )
    guess = random_predictions(seed, images=1)
    assert sum_losses(guess, [truth]) == pytest.approx(sum_losses(guess, [turned]), rel=1e-4)


def test_images_without_objects_still_teach_absence():
    guess = random_predictions(1)
    guess.boxes.requires_grad_()
    guess.mask_logits.requires_grad_()
    for logits in guess.logits:
        logits.requires_grad_()
    found = compute_losses(
        [guess], [random_target(0, 0), random_target(1, 0)], num_objects=1, weights=LossWeights(), sampling=SMALL
    )
    assert float(found["label"].detach()) > 0
    assert all(float(found[name].detach()) == 0 for name in ("box", "giou", "mask", "dice"))
    sum(found.values()).backward()
    assert all(logits.grad.abs().sum() > 0 for logits in guess.logits)
    assert guess.boxes.grad is not None
    assert guess.mask_logits.grad is not None


def test_predicted_boxes_without_an_area_have_gradients_that_are_numbers():
    truth, guess = random_target(0, 3), random_predictions(0, images=1)
    guess.boxes[..., 2:] = 0.0
    guess.boxes[:, :3, :2] = truth["boxes"][:, :2]  # some lie inside the objects
    guess.boxes.requires_grad_()
    found = sum_losses(guess, [truth])
    assert all(torch.isfinite(torch.as_tensor(value)) for value in found.values())
    found = compute_losses([guess], [truth], num_objects=1, weights=LossWeights(), sampling=SMALL)
    (found["giou"] + found["box"]).backward()
    assert guess.boxes.grad.isfinite().all()


def test_what_has_no_mask_has_no_mask_loss():
    guess = random_predictions(2, images=1)
    known, unknown = random_target(5, 2), random_target(5, 2, masked=[False, False])
    assert sum_losses(guess, [unknown])["mask"] == sum_losses(guess, [unknown])["dice"] == 0
    assert sum_losses(guess, [unknown])["box"] > 0
    assert sum_losses(guess, [known])["mask"] > 0
    half = random_target(5, 2, masked=[False, True])
    half["masks"] = known["masks"][1:]
    assert 0 < sum_losses(guess, [half])["mask"] < sum_losses(guess, [known])["mask"] + 10


def test_weights_of_masks_scale_their_losses():
    guess, truth = random_predictions(3, images=1), random_target(3, 3)
    light = MaskTarget(**{**truth, "mask_weights": truth["mask_weights"] * 0.25})
    whole, quarter = sum_losses(guess, [truth]), sum_losses(guess, [light])
    for name in ("mask", "dice"):
        assert quarter[name] == pytest.approx(0.25 * whole[name], rel=1e-5)
    assert quarter["label"] == whole["label"]


@given(st.integers(0, 10_000))
def test_masks_in_ignored_regions_change_nothing(seed):
    guess, truth = random_predictions(seed, images=1), random_target(seed, 3)
    truth["ignore_mask"][:, 24:] = True
    flipped = MaskTarget(**{**truth, "masks": torch.where(truth["ignore_mask"], ~truth["masks"], truth["masks"])})
    assert sum_losses(guess, [truth]) == sum_losses(guess, [flipped])


def test_a_query_in_an_ignored_region_has_no_loss_for_being_wrong():
    truth = random_target(0, 1)
    truth["ignore_mask"][:, 24:] = True
    guess = random_predictions(4, images=1)
    guess.mask_logits[:] = -5.0
    guess.mask_logits[0, :3, :, 6:] = 5.0  # three queries see the crowd
    guess.mask_logits[0, 3:, :, :6] = 5.0
    rng = torch.Generator().manual_seed(0)
    (((queries, _),),) = HungarianMatcher(LossWeights(), 64)([guess], [truth], generator=rng)
    (taken,) = queries.tolist()
    before = sum_losses(guess, [truth])["label"]
    for query in range(6):
        louder = [guess.logits[0].clone()]
        louder[0][query] = louder[0][query] + (0.1 if query != taken else 0.0)
        after = sum_losses(Predictions(louder, guess.boxes, guess.mask_logits), [truth])["label"]
        assert (after != before) == (query >= 3 and query != taken), query
