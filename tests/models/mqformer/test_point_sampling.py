"""Sampled points of masks: the reference's values, and points within the image."""

from __future__ import annotations

import torch
from fakes.mqformer_parts import RecordedRandom, golden_part, is_close
from hypothesis import given
from hypothesis import strategies as st

from synthgen.models.mqformer.point_sampling import sample_bool_points, sample_points, sample_uncertain_points


def test_points_of_the_losses(golden, monkeypatch):
    g = golden_part(golden, "matcher_losses")
    logits = torch.cat([g["pred_masks"][i][g[f"match{i}.query"]] for i in (0, 1)])
    masks = torch.cat([g[f"target{i}.masks"][g[f"match{i}.target"]] for i in (0, 1)]).float()
    monkeypatch.setattr(torch, "rand", RecordedRandom(g["loss.rand_oversampled"], g["loss.rand_random"]))
    points = sample_uncertain_points(
        logits, torch.ones(len(logits), 2), 128, oversample_ratio=3.0, importance_sample_ratio=0.75
    )
    assert is_close(points, g["loss.point_coords"])
    assert is_close(sample_points(logits, points), g["loss.point_logits"])
    assert is_close(sample_points(masks, points), g["loss.point_labels"])


def test_points_of_the_losses_lie_in_the_image_and_not_in_its_padding():
    """All of them, however sure of itself the network is where the image is, and unsure where it pads."""
    logits = torch.full((2, 32, 32), 9.0)
    logits[0, :, 8:], logits[1, 4:] = 0.0, 0.0
    ratio = torch.tensor([[0.25, 1.0], [1.0, 0.125]])
    points = sample_uncertain_points(logits, ratio, 400, oversample_ratio=3.0, importance_sample_ratio=0.75)
    assert points.shape == (2, 400, 2) and bool((points <= ratio[:, None]).all())
    assert is_close(points.amax(1), ratio, 0.02), "and everywhere in it"


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_bits_are_sampled_as_numbers_are(seed, height, width):
    rng = torch.Generator().manual_seed(seed)
    maps, which = torch.rand(3, height, width, generator=rng) > 0.5, torch.randint(3, (5,), generator=rng)
    points = torch.rand(5, 40, 2, generator=rng) * 1.5 - 0.25  # some beyond the border
    points[:, :5] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.5]])
    assert is_close(sample_bool_points(maps, which, points), sample_points(maps[which].float(), points))
