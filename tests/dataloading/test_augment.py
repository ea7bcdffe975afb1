"""Random views: rounded sizes as in the reference code, ranges of parameters, types of values."""

from __future__ import annotations

import random
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from synthgen.dataloading.augment import (
    AUGMENTATION_KINDS,
    AugmentConfig,
    ViewTransform,
    make_random_transform,
    make_resize_transform,
)

SIZE = (480, 640)
DEFAULT = AugmentConfig()
side = st.integers(1, 3000)


def drawn(kind, augment=DEFAULT, size=SIZE, n=3000, **rules):
    rng = random.Random(0)
    return [make_random_transform(kind, size, augment, rng, **rules) for _ in range(n)]


@given(st.sampled_from(AUGMENTATION_KINDS), side, side, st.integers(0, 99))
def test_any_view_lies_within_its_frames(kind, height, width, seed):
    view = make_random_transform(kind, (height, width), AugmentConfig(), random.Random(seed))
    for i, start in enumerate((view.top, view.left)):
        assert 1 <= view.size[i] <= view.canvas_size[i]
        assert 0 <= start <= start + view.size[i] <= view.resized_size[i]
        assert view.size[i] == min(view.resized_size[i], view.canvas_size[i])
    assert view == make_random_transform(kind, (height, width), AugmentConfig(), random.Random(seed))


def test_jitter_reaches_the_ends_of_its_range():
    views = drawn("jitter")
    longer = np.array([max(view.resized_size) for view in views]) / 1024
    assert 0.1 <= longer.min() + 5e-4 < 0.11
    assert 1.99 < longer.max() <= 2.0
    assert abs(longer.mean() - 1.05) < 0.03
    for view in views:
        assert abs(view.resized_size[0] / view.resized_size[1] - 3 / 4) < 0.01
    assert {view.canvas_size for view in views} == {(1024, 1024)}
    large = [view for view in views if view.resized_size[1] > 1024]
    assert len({view.left / (view.resized_size[1] - 1024) for view in large}) > 1000
    assert abs(np.mean([view.left / (view.resized_size[1] - 1024) for view in large]) - 0.5) < 0.03
    assert not any(view.degrees or view.color_steps for view in views)


def test_a_whole_view_loses_nothing():
    views = drawn("whole")
    longer = [max(view.resized_size) for view in views]
    assert 512 <= min(longer) < 515
    assert 1020 < max(longer) <= 1024
    assert all((view.top, view.left, view.size) == (0, 0, view.resized_size) for view in views)
    assert not any(view.degrees or view.color_steps for view in views)


def test_semantic_sides_are_those_of_the_reference():
    views = drawn("semantic")
    assert {view.resized_size[0] for view in views} == {int(x * 0.1 * 512) for x in range(5, 21)}
    assert {view.canvas_size for view in views} == {(512, 512)}
    assert {view.resized_size for view in drawn("semantic", size=(100, 1000), n=300)} >= {(205, 2048)}
    steps = [[name for name, _ in view.color_steps] for view in views]
    assert {name for names in steps for name in names} == {"add", "multiply", "saturate", "hue"}
    assert all(abs(sum(name in names for names in steps) / 3000 - 0.5) < 0.04 for name in ("add", "hue", "multiply"))
    assert all(names.index("add") == 0 for names in steps if "add" in names)
    assert not any(view.color_steps for view in drawn("semantic", AugmentConfig(semantic_color_jitter=False), n=99))


def test_no_category_fills_a_semantic_view_where_another_part_can_be_had():
    categories = np.ones(SIZE, np.int32)
    categories[:, 400:] = 2
    categories[:, 600:] = 0  # not labelled: does not count
    few = drawn("semantic", AugmentConfig(max_category_area=0.75), category_map=categories, n=600)
    any_ = drawn("semantic", AugmentConfig(), category_map=categories, n=600)

    def share(view):
        scale = SIZE[1] / view.resized_size[1]
        left, right = view.left * scale, (view.left + view.size[1]) * scale
        if view.flip:
            left, right = SIZE[1] - right, SIZE[1] - left
        ones, twos = max(0, min(right, 400) - left), max(0, min(right, 600) - max(left, 400))
        return max(ones, twos) / max(ones + twos, 1)

    assert np.mean([share(view) > 0.76 for view in any_]) > 0.25
    assert np.mean([share(view) > 0.76 for view in few]) < 0.05


def test_foreground_is_inspyrenets():
    views = drawn("foreground")
    scaled = np.array([view.resized_size[0] for view in views if view.resized_size[0] != 384]) / 384
    assert all(view.resized_size[0] == view.resized_size[1] for view in views)
    assert abs(len(scaled) / 3000 - 0.5) < 0.03
    assert 0.75 <= scaled.min() + 2e-3 < 0.76
    assert 1.24 < scaled.max() <= 1.251
    turns = np.array([view.degrees for view in views if view.degrees])
    assert abs(len(turns) / 3000 - 0.5) < 0.03
    assert -10 <= turns.min() < -9.8
    assert 9.8 < turns.max() <= 10
    factors = [amount for view in views for _, amount in view.color_steps]
    assert abs(len(factors) / 9000 - 0.5) < 0.03
    assert min(factors) >= 1
    assert 1.099 < max(factors) <= 1.1
    assert {view.color_steps[0][0] for view in views if view.color_steps} == {"contrast", "sharpen", "multiply"}


def test_of_an_enlarged_foreground_view_the_middle_is_seen():
    enlarged = [view for view in drawn("foreground") if view.resized_size[0] > 384]
    assert {(view.top, view.left) for view in enlarged} == {
        ((view.resized_size[0] - 384) // 2,) * 2 for view in enlarged
    }
    assert max(view.top for view in enlarged) == 48
    assert not any(view.top or view.left for view in drawn("foreground") if view.resized_size[0] <= 384)


@pytest.mark.parametrize("kind", AUGMENTATION_KINDS)
def test_what_forbids_mirroring_changes_no_other_draw(kind):
    """A text that is changed leaves the views of its image as they were."""
    free, bound = drawn(kind, n=50), drawn(kind, n=50, may_flip=False)
    assert any(view.flip for view in free)
    assert [replace(view, flip=False) for view in free] == bound


@pytest.mark.parametrize("kind", AUGMENTATION_KINDS)
def test_half_are_mirrored_unless_that_is_forbidden(kind):
    assert abs(np.mean([view.flip for view in drawn(kind)]) - 0.5) < 0.03
    assert not any(view.flip for view in drawn(kind, n=99, may_flip=False))
    assert all(view.flip for view in drawn(kind, AugmentConfig(flip=1), n=99))
    assert not any(view.flip for view in drawn(kind, AugmentConfig(flip=0), n=99))


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((300, 1000), (400, 1333)),
        ((800, 800), (800, 800)),
        ((1, 1), (800, 800)),
        ((1, 3000), (1, 1333)),  # detectron2 would make it 0 pixels high
    ],
)
def test_evaluation_rounds_as_detectron2(size, resized):
    assert make_resize_transform(size, short_side=800, long_side=1333) == ViewTransform(resized, 0, 0, resized, resized)


def test_an_unknown_kind_is_reported():
    with pytest.raises(ValueError, match="no kind of augmentation named 'jiter'"):
        make_random_transform("jiter", SIZE, AugmentConfig(), random.Random(0))


def test_values_are_frozen_and_tell_all_that_is_wrong():
    with pytest.raises(FrozenInstanceError):
        AugmentConfig().size = 3
    with pytest.raises(ValueError, match=r"flip should be 0 to 1, got 1.5; .*whole_scale should be .* got 0.5, 2.0"):
        AugmentConfig(flip=1.5, whole_scale=(0.5, 2.0))
    for wrong in ({"scale": (2.0, 0.1)}, {"size": 0}, {"flip": float("nan")}, {"scale": (float("nan"), 1.0)}):
        with pytest.raises(ValueError, match="should be"):
            AugmentConfig(**wrong)


def test_a_manifest_can_type_them():
    parse = TypeAdapter(AugmentConfig).validate_json
    assert parse("{}") == AugmentConfig()
    assert parse('{"size": 640, "scale": [0.5, 1]}') == AugmentConfig(size=640, scale=(0.5, 1.0))
    for wrong in ('{"sise": 640}', '{"size": "640"}', '{"scale": [1, 2, 3]}', '{"flip": 2}'):
        with pytest.raises(ValidationError):
            parse(wrong)
