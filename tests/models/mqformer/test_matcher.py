"""Matching costs and assignments: the reference's values, and invariants for any input."""

from __future__ import annotations

import numpy as np
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
from torch import Tensor

from synthgen.models.mqformer.losses import PointSampling, compute_losses
from synthgen.models.mqformer.matcher import HungarianMatcher, LossWeights, compute_costs
from synthgen.models.mqformer.point_sampling import sample_points
from synthgen.models.mqformer.predictions import Predictions
from synthgen.models.mqformer.targets import MaskTarget

#: As the reference's facts say: matches and unweighted losses, with 128 points for the losses and 200 for matching.
MATCHES = [([2, 8, 10, 11], [0, 3, 2, 1]), ([1, 2, 3], [0, 1, 2])]


def test_costs_and_assignments(golden, monkeypatch):
    g = golden_part(golden, "matcher_losses")
    for i, (queries, objects) in enumerate(MATCHES):
        logits, boxes, masks = (g[name][i] for name in ("pred_logits", "pred_boxes", "pred_masks"))
        points = g[f"points{i}"]
        found = compute_costs(logits, boxes, [sample_points(masks, points)], recorded_target(g, i), points)
        for name, theirs in (("label", "class"), ("mask", "mask"), ("dice", "dice"), ("box", "box"), ("giou", "giou")):
            assert is_close(getattr(found, name), g[f"cost_{theirs}{i}"]), name
        assert is_close(found.total(LossWeights()), g[f"total_cost{i}"], 1e-4)
        monkeypatch.setattr(torch, "rand", RecordedRandom(g[f"points{i}"]))
        layer = Predictions([logits], boxes[None], masks[None])
        (((own, theirs),),) = HungarianMatcher(LossWeights(), 200)([layer], [recorded_target(g, i)])
        assert (own.tolist(), theirs.tolist()) == (queries, objects)
        monkeypatch.undo()


SMALL = PointSampling(num_points=64)


def test_several_layers_are_matched_each_for_itself():
    truths = [random_target(0, 3), random_target(1, 0), random_target(2, 2)]
    layers = [factored_predictions(seed, images=3) for seed in range(3)]
    layers[1] = Predictions(layers[1].logits, layers[1].boxes, layers[0].mask_features, layers[1].mask_embeddings)
    layers.insert(0, layers[0].select_queries(slice(4)))  # proposals are fewer than queries
    match = HungarianMatcher(LossWeights(), num_points=64)
    together = match(layers, truths, generator=torch.Generator().manual_seed(0))
    alone = [match([layer], truths, generator=torch.Generator().manual_seed(0))[0] for layer in layers]
    assert [[torch.cat(pair).tolist() for pair in layer] for layer in together] == [
        [torch.cat(pair).tolist() for pair in layer] for layer in alone
    ]


@pytest.mark.parametrize("masked", [[True, False, True, False], [False, True, True], [True, False]], ids=str)
def test_an_object_costs_what_it_would_cost_alone(masked):
    """Of several, those without a mask are matched by label and box, not by the mask of another."""
    guess, truth = random_predictions(0, images=1), random_target(0, len(masked), masked=masked)
    points = torch.rand(1, 64, 2, generator=torch.Generator().manual_seed(1))
    place = [sum(masked[:i]) for i in range(len(masked))]

    def of(truth: MaskTarget) -> list[Tensor]:
        at = [sample_points(guess.mask_logits[0], points)]
        found = compute_costs(guess.logits[0], guess.boxes[0], at, truth, points)
        return [found.label, found.mask, found.dice, found.box, found.giou]

    together = of(truth)
    for i, has_mask in enumerate(masked):
        own = {name: truth[name][[i]] for name in ("labels", "boxes", "has_mask", "mask_weights")}
        mask = truth["masks"][place[i] : place[i] + has_mask]
        alone = of(MaskTarget(**{**truth, **own, "masks": mask}))
        assert all(is_close(a[..., [i]], b) for a, b in zip(together, alone, strict=True)), i
        assert alone[1].any() == alone[2].any() == has_mask


@pytest.mark.parametrize("columns", [0, 12, 44])
def test_a_mask_is_judged_by_the_points_that_count(columns):
    """A mean over them, not over all: a mask of 0 costs log 2, however much of the image is ignored."""
    guess, truth = random_predictions(0, images=1), random_target(0, 1)
    guess.mask_logits[:], truth["mask_weights"][:], truth["ignore_mask"][:, :columns] = 0.0, 1.0, True
    assert 3.0 * sum_losses(guess, [truth])["mask"] == pytest.approx(np.log(2), rel=1e-5)
    points = torch.rand(1, 64, 2, generator=torch.Generator().manual_seed(0))
    found = compute_costs(guess.logits[0], guess.boxes[0], [torch.zeros(6, 64)], truth, points)
    assert is_close(found.mask, torch.full((6, 1), float(np.log(2))))


def told(guess: Predictions, truth: MaskTarget) -> list[int]:
    """The queries whose labels cost something."""
    logits = guess.logits[0].requires_grad_()
    rng = torch.Generator().manual_seed(0)
    found = compute_losses([guess], [truth], num_objects=3.0, weights=LossWeights(), sampling=SMALL, generator=rng)
    return torch.autograd.grad(found["label"], logits)[0].any(1).nonzero().flatten().tolist()


def test_a_query_matches_its_object_wherever_it_lies():
    """An object that crowds surround still has a name to be learned; only absence is unknown there."""
    guess, truth = random_predictions(4, images=1), random_target(0, 2)
    guess.mask_logits[:], truth["ignore_mask"][:] = 5.0, True
    rng = torch.Generator().manual_seed(0)
    (((queries, _),),) = HungarianMatcher(LossWeights(), 64)([guess], [truth], generator=rng)
    assert told(guess, truth) == sorted(queries.tolist())


def test_a_query_is_in_the_ignored_region_if_more_than_half_of_it_is():
    """With less, what it says of the rest is right or wrong; the halves are counted in its own pixels."""
    guess, truth = random_predictions(4, images=1), random_target(0, 0)
    truth["ignore_mask"][:, 24:] = True  # the right half: columns 6 to 11 of the guesses' masks
    guess.mask_logits[:] = -5.0
    for query, (first, last) in enumerate([(0, 12), (0, 11), (1, 12), (4, 8), (5, 8), (6, 7)]):
        guess.mask_logits[0, query, :, first:last] = 5.0
    assert told(guess, truth) == [0, 1, 3], "a half, 5 of 11, 2 of 4; not 6 of 11, 2 of 3, all"


def test_predictions_that_are_no_numbers_still_come_to_an_assignment():
    guess = random_predictions(0, images=1)
    guess.logits[0][:] = float("nan")
    guess.boxes[0, 0] = float("inf")
    (((queries, objects),),) = HungarianMatcher(LossWeights(), 64)([guess], [random_target(0, 3)])
    assert sorted(objects.tolist()) == [0, 1, 2]
    assert len(set(queries.tolist())) == 3


def test_more_objects_than_queries():
    guess, truth = random_predictions(0, images=1), random_target(0, 9)
    assert all(np.isfinite(value) for value in sum_losses(guess, [truth]).values())
