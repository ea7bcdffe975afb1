"""The parts of MQ-Former: what the reference programs compute, and laws that hold for any input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from synthgen.models.mqformer import losses as loss_module
from synthgen.models.mqformer import matcher, position_encoding
from synthgen.models.mqformer.boxes import box_iou, cxcywh_to_xyxy, generalized_iou, xyxy_to_cxcywh
from synthgen.models.mqformer.losses import PointSampling, compute_losses
from synthgen.models.mqformer.matcher import LossWeights, MaskTarget, compute_costs, hungarian_match
from synthgen.models.mqformer.ms_deform_attn import MSDeformAttn, ms_deform_attn
from synthgen.models.mqformer.point_sampling import sample_bool_points, sample_points, sample_uncertain_points
from synthgen.models.mqformer.predictions import Predictions

#: As the reference's facts say: matches and unweighted losses, with 128 points for the losses and 200 for matching.
MATCHES = [([2, 8, 10, 11], [0, 3, 2, 1]), ([1, 2, 3], [0, 1, 2])]
LOSSES = {"label": 10.5956, "mask": 0.81005234, "dice": 0.92905188, "box": 0.41901216, "giou": 1.1266174}
TOTAL = 55.426220


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    found = np.load(Path(__file__).parents[2] / "golden/mqformer_parts.npz")
    return {name: torch.from_numpy(found[name]) for name in found.files}


def part(golden: dict[str, Tensor], file: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{file}/"): t for name, t in golden.items() if name.startswith(f"{file}/")}


def near(found: Tensor, expected: Tensor, atol: float = 1e-5) -> bool:
    return found.shape == expected.shape and torch.allclose(found.detach(), expected, rtol=0, atol=atol)


def shapes_of(tensor: Tensor) -> list[tuple[int, int]]:
    return [(int(h), int(w)) for h, w in tensor]


class Draws:
    """In place of `torch.rand`: what the reference drew, in its order."""

    def __init__(self, *drawn: Tensor) -> None:
        self.left: Iterator[Tensor] = iter(drawn)

    def __call__(self, *size: int, **_: object) -> Tensor:
        drawn = next(self.left)
        assert drawn.shape == size
        return drawn


# --- attention and places ---------------------------------------------------------------------------------------------


def test_deformable_attention_and_its_gradients(golden):
    g = part(golden, "ms_deform_attn")
    value, locations, weights = (
        g[f"core.{name}"].clone().requires_grad_() for name in ("value", "sampling_locations", "attention_weights")
    )
    out = ms_deform_attn(value, shapes_of(g["core.spatial_shapes"]), locations, weights)
    out.backward(g["core.grad_out"])
    assert near(out, g["core.out"])
    assert near(value.grad, g["core.grad_value"])
    assert near(locations.grad, g["core.grad_locations"])
    assert near(weights.grad, g["core.grad_weights"])


def test_the_layer_of_deformable_attention(golden):
    g = part(golden, "ms_deform_attn")
    layer = MSDeformAttn(32, heads=4, levels=3, points=4)
    assert near(layer.sampling_offsets.bias, g["module.init.sampling_offsets.bias"])
    prefix = "module.weights."
    layer.load_state_dict({name.removeprefix(prefix): t for name, t in g.items() if name.startswith(prefix)})
    query, memory, shapes = g["module.query"], g["module.input_flatten"], shapes_of(g["core.spatial_shapes"])
    padding = g["module.padding_mask"].bool()
    assert near(layer(query, g["module.ref2"], memory, shapes), g["module.out_ref2"])
    assert near(layer(query, g["module.ref2"], memory, shapes, padding), g["module.out_ref2_mask"])
    assert near(layer(query, g["module.ref4"], memory, shapes), g["module.out_ref4"])
    changed = torch.where(padding[..., None], 99.0, memory)
    assert near(layer(query, g["module.ref2"], changed, shapes, padding), g["module.out_ref2_mask"]), (
        "padding is nothing"
    )


def test_in_half_precision_attention_still_looks_where_it_should():
    """At noise of 168 pixels a row, of which half a pixel beside is something else."""
    torch.manual_seed(0)
    layer = MSDeformAttn(64, heads=4, levels=1, points=4)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    query, references, memory = torch.randn(1, 200, 64), torch.rand(1, 200, 1, 2), torch.randn(1, 100 * 168, 64)
    whole = layer(query, references, memory, [(100, 168)])
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(query, references, memory, [(100, 168)])
    assert (whole - half).square().mean().sqrt() / whole.std() < 0.03


def test_places(golden):
    g = part(golden, "embeddings_proposals")
    nothing = torch.zeros(1, 5, 7, dtype=torch.bool)
    assert near(position_encoding.encode_pixel_positions(nothing, 32), g["pe.out_nomask"])
    assert near(position_encoding.encode_pixel_positions(nothing, 256), g["pe.out_128_5x7"])
    assert near(position_encoding.encode_pixel_positions(g["pe.mask"].bool(), 32), g["pe.out_mask"])
    assert near(position_encoding.inverse_sigmoid(g["inverse_sigmoid.in"]), g["inverse_sigmoid.out"])
    assert near(position_encoding.encode_box_positions(g["query_sine.in4"], 256), g["query_sine.out4"])
    assert near(position_encoding.encode_box_positions(g["query_sine.in4"][..., :2], 256), g["query_sine.out2"])
    refined = (g["refine.delta"] + position_encoding.inverse_sigmoid(g["refine.ref"])).sigmoid()
    assert near(refined, g["refine.out"])


def test_proposals_of_a_pyramid(golden):
    g = part(golden, "embeddings_proposals")
    shapes = shapes_of(g["proposals.spatial_shapes"])
    flat = g["proposals.padding_mask"].bool().split([h * w for h, w in shapes], dim=1)
    paddings = [one.reshape(2, h, w) for one, (h, w) in zip(flat, shapes, strict=True)]
    ratios = position_encoding.valid_ratios(paddings)
    assert near(ratios, g["encoder_ref.valid_ratios"])
    assert near(position_encoding.pixel_reference_points(shapes, ratios), g["encoder_ref.out"])
    memory, logits, valid = position_encoding.generate_proposals(g["proposals.memory"], paddings)
    assert near(memory, g["proposals.out_memory"])
    expected = g["proposals.out_proposals"]
    assert torch.equal(valid, expected.isfinite().all(-1))
    assert torch.equal(logits.isfinite(), expected.isfinite())
    assert near(logits[valid], expected[valid])
    assert not memory[~valid].any()


def test_overlaps_of_boxes(golden):
    g = part(golden, "matcher_losses")
    a, b = g["box.a_xyxy"][:, None], g["box.b_xyxy"]
    assert near(cxcywh_to_xyxy(g["box.a_cxcywh"]), g["box.a_xyxy"])
    assert near(xyxy_to_cxcywh(g["box.a_xyxy"]), g["box.a_cxcywh"])
    assert near(box_iou(a, b)[0], g["box.iou"])
    assert near(generalized_iou(a, b), g["box.giou"])


# --- matching and losses ----------------------------------------------------------------------------------------------


def truth_of(g: dict[str, Tensor], i: int) -> MaskTarget:
    count = len(g[f"target{i}.labels"])
    return MaskTarget(
        labels=g[f"target{i}.labels"],
        boxes=g[f"target{i}.boxes"],
        has_mask=torch.ones(count, dtype=torch.bool),
        masks=g[f"target{i}.masks"].bool(),
        mask_weights=torch.ones(count),
        ignore=torch.zeros(64, 80, dtype=torch.bool),
    )


def test_costs_and_assignments(golden, monkeypatch):
    g = part(golden, "matcher_losses")
    for i, (queries, objects) in enumerate(MATCHES):
        logits, boxes, masks = (g[name][i] for name in ("pred_logits", "pred_boxes", "pred_masks"))
        points = g[f"points{i}"]
        found = compute_costs(logits[None], boxes[None], [sample_points(masks, points)], truth_of(g, i), points)
        for name, theirs in (("label", "class"), ("mask", "mask"), ("dice", "dice"), ("box", "box"), ("giou", "giou")):
            assert near(getattr(found, name)[0], g[f"cost_{theirs}{i}"]), name
        assert near(found.total(LossWeights())[0], g[f"total_cost{i}"], 1e-4)
        monkeypatch.setattr(torch, "rand", Draws(g[f"points{i}"]))
        layer = Predictions([logits], boxes[None], masks[None])
        (((own, theirs),),) = hungarian_match([layer], [truth_of(g, i)], weights=LossWeights(), num_points=200)
        assert (own.tolist(), theirs.tolist()) == (queries, objects)
        monkeypatch.undo()


def test_points_of_the_losses(golden, monkeypatch):
    g = part(golden, "matcher_losses")
    logits = torch.cat([g["pred_masks"][i][g[f"match{i}.query"]] for i in (0, 1)])
    masks = torch.cat([g[f"target{i}.masks"][g[f"match{i}.target"]] for i in (0, 1)]).float()
    monkeypatch.setattr(torch, "rand", Draws(g["loss.rand_oversampled"], g["loss.rand_random"]))
    points = sample_uncertain_points(
        logits, torch.ones(len(logits), 2), 128, oversample_ratio=3.0, importance_sample_ratio=0.75
    )
    assert near(points, g["loss.point_coords"])
    assert near(sample_points(logits, points), g["loss.point_logits"])
    assert near(sample_points(masks, points), g["loss.point_labels"])


def test_points_of_the_losses_lie_in_the_image_and_not_in_its_padding():
    """All of them, however sure of itself the network is where the image is, and unsure where it pads."""
    logits = torch.full((2, 32, 32), 9.0)
    logits[0, :, 8:], logits[1, 4:] = 0.0, 0.0
    extent = torch.tensor([[0.25, 1.0], [1.0, 0.125]])
    points = sample_uncertain_points(logits, extent, 400, oversample_ratio=3.0, importance_sample_ratio=0.75)
    assert points.shape == (2, 400, 2) and bool((points <= extent[:, None]).all())
    assert near(points.amax(1), extent, 0.02), "and everywhere in it"


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_bits_are_sampled_as_numbers_are(seed, height, width):
    rng = torch.Generator().manual_seed(seed)
    maps, which = torch.rand(3, height, width, generator=rng) > 0.5, torch.randint(3, (5,), generator=rng)
    points = torch.rand(5, 40, 2, generator=rng) * 1.5 - 0.25  # some beyond the border
    points[:, :5] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.5]])
    assert near(sample_bool_points(maps, which, points), sample_points(maps[which].float(), points))


def test_losses_and_their_gradients(golden, monkeypatch):
    g = part(golden, "matcher_losses")
    logits, boxes, masks = (g[name].clone().requires_grad_() for name in ("pred_logits", "pred_boxes", "pred_masks"))
    drawn = Draws(g["points0"], g["points1"], g["loss.rand_oversampled"], g["loss.rand_random"])
    monkeypatch.setattr(torch, "rand", drawn)
    # The reference matches with 200 points and counts with 128: matching takes what is drawn for it.
    monkeypatch.setattr(loss_module, "hungarian_match", lambda *a, **k: hungarian_match(*a, **{**k, "num_points": 200}))
    predictions = Predictions(list(logits), boxes, masks)
    found = compute_losses(
        [predictions],
        [truth_of(g, 0), truth_of(g, 1)],
        num_objects=7,
        weights=LossWeights(),
        sampling=PointSampling(num_points=128),
    )
    assert {name: float(loss.detach()) for name, loss in found.items()} == pytest.approx(LOSSES, rel=1e-5)
    total = sum(getattr(LossWeights(), name) * loss for name, loss in found.items())
    assert float(total.detach()) == pytest.approx(TOTAL, rel=1e-5)
    total.backward()
    assert near(logits.grad, g["loss.grad_logits"])
    assert near(boxes.grad, g["loss.grad_boxes"])
    assert near(masks.grad, g["loss.grad_masks"])


# --- laws -------------------------------------------------------------------------------------------------------------

SMALL = PointSampling(num_points=64)


def guesses(seed: int, images: int = 2, queries: int = 6, texts: int = 4) -> Predictions:
    rng = torch.Generator().manual_seed(seed)
    return Predictions(
        [torch.randn(queries, texts, generator=rng) for _ in range(images)],
        torch.rand(images, queries, 4, generator=rng) * 0.5 + 0.25,
        torch.randn(images, queries, 8, 12, generator=rng) * 4,
    )


def objects_of(seed: int, count: int, *, masked: list[bool] | None = None) -> MaskTarget:
    rng = torch.Generator().manual_seed(seed)
    has_mask = torch.tensor([True] * count if masked is None else masked, dtype=torch.bool)
    return MaskTarget(
        labels=torch.randint(4, (count,), generator=rng),
        boxes=torch.rand(count, 4, generator=rng) * 0.5 + 0.25,
        has_mask=has_mask,
        masks=torch.rand(int(has_mask.sum()), 32, 48, generator=rng) > 0.5,
        mask_weights=torch.rand(count, generator=rng),
        ignore=torch.zeros(32, 48, dtype=torch.bool),
    )


def test_masks_of_each_image_are_compared_where_that_image_is(monkeypatch):
    """In matching and in the losses, of a batch of a wide and a tall one."""
    extents = torch.tensor([[1.0, 0.25], [0.5, 1.0]])
    both = [MaskTarget(**{**objects_of(i, 2 + i), "extent": extents[i]}) for i in (0, 1)]
    matched, learned = [], []
    cost, draw = matcher.compute_costs, loss_module.sample_uncertain_points

    def noted_costs(logits, boxes, guesses, truth, points):
        matched.append(points.amax((0, 1)))
        return cost(logits, boxes, guesses, truth, points)

    def noted_points(guess, extent, *more, **options):
        learned.append(extent)
        return draw(guess, extent, *more, **options)

    monkeypatch.setattr(matcher, "compute_costs", noted_costs)
    monkeypatch.setattr(loss_module, "sample_uncertain_points", noted_points)
    compute_losses([guesses(0)], both, num_objects=1, weights=LossWeights(), sampling=PointSampling(num_points=400))
    assert near(torch.stack(matched), extents, 0.02)
    assert torch.equal(learned[0], extents.repeat_interleave(torch.tensor([2, 3]), 0))


def lost(predictions: Predictions, truths: list[MaskTarget], seed: int = 0) -> dict[str, float]:
    rng = torch.Generator().manual_seed(seed)
    found = compute_losses([predictions], truths, num_objects=3.0, weights=LossWeights(), sampling=SMALL, generator=rng)
    return {name: float(loss) for name, loss in found.items()}


def factored(seed: int, images: int = 2, queries: int = 6, texts: int = 4) -> Predictions:
    rng = torch.Generator().manual_seed(seed)
    plain = guesses(seed, images, queries, texts)
    embeddings = torch.randn(images, queries, 5, generator=rng)
    return Predictions(plain.logits, plain.boxes, torch.randn(images, 5, 8, 12, generator=rng), embeddings)


@pytest.mark.parametrize("part", [slice(None), slice(2, 5)])
def test_masks_as_factors_are_masks(part):
    """Of all that is lost and learned, ignored regions and images without objects or masks included."""
    truths = [objects_of(0, 3, masked=[True, False, True]), objects_of(1, 2), objects_of(2, 2, masked=[False] * 2)]
    truths[1]["ignore"][:, 24:] = True
    found = []
    for whole in (False, True):
        given = factored(3, images=3)
        given.mask_features.requires_grad_()
        given.mask_embeddings.requires_grad_()
        layer = Predictions(given.logits, given.boxes, given.mask_logits) if whole else given
        rng = torch.Generator().manual_seed(0)
        parts = compute_losses(
            [layer.select_queries(part)], truths, num_objects=3.0, weights=LossWeights(), sampling=SMALL, generator=rng
        )
        sum(parts.values()).backward()
        found.append([*parts.values(), given.mask_features.grad, given.mask_embeddings.grad])
    assert all(near(a, b) for a, b in zip(*found, strict=True))


def test_several_layers_are_matched_each_for_itself():
    truths = [objects_of(0, 3), objects_of(1, 0), objects_of(2, 2)]
    layers = [factored(seed, images=3) for seed in range(3)]
    layers[1] = Predictions(layers[1].logits, layers[1].boxes, layers[0].mask_features, layers[1].mask_embeddings)
    how = {"weights": LossWeights(), "num_points": 64}
    together = hungarian_match(layers, truths, **how, generator=torch.Generator().manual_seed(0))
    alone = [hungarian_match([layer], truths, **how, generator=torch.Generator().manual_seed(0))[0] for layer in layers]
    assert [[torch.cat(pair).tolist() for pair in layer] for layer in together] == [
        [torch.cat(pair).tolist() for pair in layer] for layer in alone
    ]


@given(st.integers(0, 10_000), st.permutations([0, 1, 2]))
def test_the_order_of_objects_changes_nothing(seed, order):
    truth = objects_of(seed, 3)
    turned = MaskTarget(
        **{**truth, **{name: truth[name][order] for name in ("labels", "boxes", "masks", "mask_weights")}}
    )
    guess = guesses(seed, images=1)
    assert lost(guess, [truth]) == pytest.approx(lost(guess, [turned]), rel=1e-4)


def test_images_without_objects_still_teach_absence():
    guess = guesses(1)
    guess.boxes.requires_grad_()
    guess.mask_logits.requires_grad_()
    for logits in guess.logits:
        logits.requires_grad_()
    found = compute_losses(
        [guess], [objects_of(0, 0), objects_of(1, 0)], num_objects=1, weights=LossWeights(), sampling=SMALL
    )
    assert float(found["label"].detach()) > 0
    assert all(float(found[name].detach()) == 0 for name in ("box", "giou", "mask", "dice"))
    sum(found.values()).backward()
    assert all(logits.grad.abs().sum() > 0 for logits in guess.logits)
    assert guess.boxes.grad is not None
    assert guess.mask_logits.grad is not None


def test_what_has_no_mask_has_no_mask_loss():
    guess = guesses(2, images=1)
    known, unknown = objects_of(5, 2), objects_of(5, 2, masked=[False, False])
    assert lost(guess, [unknown])["mask"] == lost(guess, [unknown])["dice"] == 0
    assert lost(guess, [unknown])["box"] > 0
    assert lost(guess, [known])["mask"] > 0
    half = objects_of(5, 2, masked=[False, True])
    half["masks"] = known["masks"][1:]
    assert 0 < lost(guess, [half])["mask"] < lost(guess, [known])["mask"] + 10


@pytest.mark.parametrize("masked", [[True, False, True, False], [False, True, True], [True, False]], ids=str)
def test_an_object_costs_what_it_would_cost_alone(masked):
    """Of several, those without a mask are matched by label and box, not by the mask of another."""
    guess, truth = guesses(0, images=1), objects_of(0, len(masked), masked=masked)
    points = torch.rand(1, 64, 2, generator=torch.Generator().manual_seed(1))
    place = [sum(masked[:i]) for i in range(len(masked))]

    def of(truth: MaskTarget) -> list[Tensor]:
        at = [sample_points(guess.mask_logits[0], points)]
        found = compute_costs(guess.logits[0][None], guess.boxes, at, truth, points)
        return [found.label, found.mask, found.dice, found.box, found.giou]

    together = of(truth)
    for i, has_mask in enumerate(masked):
        own = {name: truth[name][[i]] for name in ("labels", "boxes", "has_mask", "mask_weights")}
        mask = truth["masks"][place[i] : place[i] + has_mask]
        alone = of(MaskTarget(**{**truth, **own, "masks": mask}))
        assert all(near(a[..., [i]], b) for a, b in zip(together, alone, strict=True)), i
        assert alone[1].any() == alone[2].any() == has_mask


def test_weights_of_masks_scale_their_losses():
    guess, truth = guesses(3, images=1), objects_of(3, 3)
    light = MaskTarget(**{**truth, "mask_weights": truth["mask_weights"] * 0.25})
    whole, quarter = lost(guess, [truth]), lost(guess, [light])
    for name in ("mask", "dice"):
        assert quarter[name] == pytest.approx(0.25 * whole[name], rel=1e-5)
    assert quarter["label"] == whole["label"]


@given(st.integers(0, 10_000))
def test_masks_in_ignored_regions_change_nothing(seed):
    guess, truth = guesses(seed, images=1), objects_of(seed, 3)
    truth["ignore"][:, 24:] = True
    flipped = MaskTarget(**{**truth, "masks": torch.where(truth["ignore"], ~truth["masks"], truth["masks"])})
    assert lost(guess, [truth]) == lost(guess, [flipped])


@pytest.mark.parametrize("columns", [0, 12, 44])
def test_a_mask_is_judged_by_the_points_that_count(columns):
    """A mean over them, not over all: a mask of 0 costs log 2, however much of the image is ignored."""
    guess, truth = guesses(0, images=1), objects_of(0, 1)
    guess.mask_logits[:], truth["mask_weights"][:], truth["ignore"][:, :columns] = 0.0, 1.0, True
    assert 3.0 * lost(guess, [truth])["mask"] == pytest.approx(np.log(2), rel=1e-5)
    points = torch.rand(1, 64, 2, generator=torch.Generator().manual_seed(0))
    found = compute_costs(guess.logits[0][None], guess.boxes, [torch.zeros(6, 64)], truth, points)
    assert near(found.mask, torch.full((1, 6, 1), float(np.log(2))))


def told(guess: Predictions, truth: MaskTarget) -> list[int]:
    """The queries whose labels cost something."""
    logits = guess.logits[0].requires_grad_()
    rng = torch.Generator().manual_seed(0)
    found = compute_losses([guess], [truth], num_objects=3.0, weights=LossWeights(), sampling=SMALL, generator=rng)
    return torch.autograd.grad(found["label"], logits)[0].any(1).nonzero().flatten().tolist()


def test_who_finds_an_object_is_told_so_wherever_it_lies():
    """An object that crowds surround still has a name to be learned; only absence is unknown there."""
    guess, truth = guesses(4, images=1), objects_of(0, 2)
    guess.mask_logits[:], truth["ignore"][:] = 5.0, True
    rng = torch.Generator().manual_seed(0)
    (((queries, _),),) = hungarian_match([guess], [truth], weights=LossWeights(), num_points=64, generator=rng)
    assert told(guess, truth) == sorted(queries.tolist())


def test_a_query_is_in_the_ignored_region_if_more_than_half_of_it_is():
    """With less, what it says of the rest is right or wrong; the halves are counted in its own pixels."""
    guess, truth = guesses(4, images=1), objects_of(0, 0)
    truth["ignore"][:, 24:] = True  # the right half: columns 6 to 11 of the guesses' masks
    guess.mask_logits[:] = -5.0
    for query, (first, last) in enumerate([(0, 12), (0, 11), (1, 12), (4, 8), (5, 8), (6, 7)]):
        guess.mask_logits[0, query, :, first:last] = 5.0
    assert told(guess, truth) == [0, 1, 3], "a half, 5 of 11, 2 of 4; not 6 of 11, 2 of 3, all"


def test_a_query_in_an_ignored_region_is_not_told_that_it_is_wrong():
    truth = objects_of(0, 1)
    truth["ignore"][:, 24:] = True
    guess = guesses(4, images=1)
    guess.mask_logits[:] = -5.0
    guess.mask_logits[0, :3, :, 6:] = 5.0  # three queries see the crowd
    guess.mask_logits[0, 3:, :, :6] = 5.0
    rng = torch.Generator().manual_seed(0)
    (((queries, _),),) = hungarian_match([guess], [truth], weights=LossWeights(), num_points=64, generator=rng)
    (taken,) = queries.tolist()
    before = lost(guess, [truth])["label"]
    for query in range(6):
        louder = [guess.logits[0].clone()]
        louder[0][query] = louder[0][query] + (0.1 if query != taken else 0.0)
        after = lost(Predictions(louder, guess.boxes, guess.mask_logits), [truth])["label"]
        assert (after != before) == (query >= 3 and query != taken), query


def test_predictions_that_are_no_numbers_still_come_to_an_assignment():
    guess = guesses(0, images=1)
    guess.logits[0][:] = float("nan")
    guess.boxes[0, 0] = float("inf")
    (((queries, objects),),) = hungarian_match([guess], [objects_of(0, 3)], weights=LossWeights(), num_points=64)
    assert sorted(objects.tolist()) == [0, 1, 2]
    assert len(set(queries.tolist())) == 3


def test_more_objects_than_queries():
    guess, truth = guesses(0, images=1), objects_of(0, 9)
    assert all(np.isfinite(value) for value in lost(guess, [truth]).values())
