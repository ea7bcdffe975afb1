"""The estimate of padding: known cases, the mixture that mixes canvases, images without a size."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import train_layers

from synthgen.dataloading.augment import AugmentConfig
from synthgen.dataloading.config import ScheduleConfig
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.padding_estimate import estimate_padding


def manifest_of(tasks: dict[str, float], batch_size: int = 16, **augment: object) -> Manifest:
    sources = [train_layers.source(Path("x"), task=task, ratio=ratio) for task, ratio in tasks.items()]
    manifest = train_layers.manifest(Path("x"), *sources, schedule=ScheduleConfig(batch_size=batch_size))
    return manifest.model_copy(update={"augment": AugmentConfig(**augment)})


def test_views_that_fill_their_canvas_have_no_padding() -> None:
    manifest = manifest_of({"foreground": 1}, foreground_scale=(1.0, 1.0))
    assert estimate_padding(manifest, [[(480, 640)]]) == (1, 1)


def test_the_padding_of_one_scale_is_known() -> None:
    """Landscape images of half a canvas fill 3/8 of half of it; cut by size, nothing is left of it."""
    manifest = manifest_of({"instance": 1}, scale=(0.5, 0.5))
    fixed, by_size = estimate_padding(manifest, [[(384, 512)]])
    assert fixed == pytest.approx(1024 * 1024 / (384 * 512)) and by_size == 1


def test_a_mixture_of_canvases_is_mostly_padding_and_its_cut_is_not() -> None:
    manifest = manifest_of({"instance": 3, "semantic": 1, "foreground": 1})
    fixed, by_size = estimate_padding(manifest, [[(480, 640), (640, 480)]] * 3)
    assert 1.7 < fixed < 2.3 and 1 <= by_size < 1.4


def test_unknown_sizes_count_as_typical_ones() -> None:
    manifest = manifest_of({"instance": 1})
    expected = estimate_padding(manifest, [[(480, 640)]])
    assert estimate_padding(manifest, [[]]) == pytest.approx(expected, rel=0.2)
    assert estimate_padding(manifest, [[(0, 0)]]) == expected


def test_a_large_step_is_estimated_from_fewer_images() -> None:
    fixed, by_size = estimate_padding(manifest_of({"instance": 1}, batch_size=100_000), [[(480, 640)]])
    assert 1.3 < fixed < 2 and 1 <= by_size < 1.2
