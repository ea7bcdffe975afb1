"""Windows around boxes, crops of them, and maps back in the image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthgen.models.box_segmenter.crops import (
    MIN_PADDING,
    boxes_in_crops,
    extract_crops,
    place_window,
    plan_windows,
    restore_window,
)


def box(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


def test_a_window_is_a_square_around_the_middle_of_its_box() -> None:
    left, top, side = plan_windows(box(100, 50, 140, 70), 0.25)[0].tolist()
    assert side == 60, "40 pixels and a quarter of it on both sides"
    assert (left + side / 2, top + side / 2) == (120, 60)


def test_each_box_may_have_a_margin_of_its_own() -> None:
    boxes = box(100, 50, 140, 70).repeat(2, 1)
    assert plan_windows(boxes, torch.tensor([0.25, 0.5]))[:, 2].tolist() == [60, 80]


def test_boxes_of_a_few_pixels_get_surroundings() -> None:
    assert plan_windows(box(10, 10, 11, 11), 0.1)[0, 2] == 1 + 2 * MIN_PADDING


@given(x=st.floats(-20, 200), y=st.floats(-20, 200), w=st.floats(0.1, 300), h=st.floats(0.1, 300), m=st.floats(0.05, 1))
def test_a_box_lies_in_its_window(x: float, y: float, w: float, h: float, m: float) -> None:
    relative = boxes_in_crops(box(x, y, x + w, y + h), plan_windows(box(x, y, x + w, y + h), m))[0].tolist()
    assert all(-1e-4 <= value <= 1 + 1e-4 for value in relative)


def test_a_crop_without_resizing_is_a_copy_and_zero_beyond_the_image() -> None:
    image = torch.rand(3, 20, 30) + 1
    crop = extract_crops(image, torch.tensor([[-2, 10, 16]]), 16)[0]
    assert torch.equal(crop[:, :10, 2:], image[:, 10:20, :14])
    assert not crop[:, 10:].any() and not crop[:, :, :2].any()


def test_shrinking_averages_all_pixels() -> None:
    checkers = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    crop = extract_crops(checkers[None].float(), torch.tensor([[0, 0, 64]]), 16)
    assert (crop - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("window", [[0, 0, 40], [-7, 5, 33], [-30, -20, 90], [25, 15, 12], [39, 29, 8]])
def test_a_smooth_map_comes_back_where_it_was(window: list[int]) -> None:
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    image = (0.1 * x + 0.05 * y)[None]
    at = torch.tensor(window)
    place = place_window(at, 30, 40, 64)
    crop = extract_crops(image, at[None], 64)[0, 0]
    back = restore_window(crop, at, place)
    part = image[0, place.image_top : place.image_bottom, place.image_left : place.image_right]
    assert back.shape == part.shape
    inner = (slice(2, -2), slice(2, -2)) if min(part.shape) > 6 else (slice(None), slice(None))
    tolerance = 0.15 * max(1, at[2].item() / 64) + 0.05  # a pixel of the crop, and the blur of the zeros beyond
    assert (back - part)[inner].abs().max() < tolerance


@pytest.mark.parametrize("window", [[0, 0, 40], [-7, 5, 33], [-30, -20, 90], [3, 2, 100]])
@pytest.mark.parametrize("resolution", [16, 32, 96])
def test_a_ramp_over_a_crop_is_a_ramp_over_the_image(window: list[int], resolution: int) -> None:
    """Exact to the last digit: it finds a shift of a tenth of a pixel."""
    left, top, side = window
    centers = (torch.arange(resolution, dtype=torch.float64) + 0.5) * side / resolution
    ramp = (left + centers)[None, :] + 2 * (top + centers)[:, None]
    at = torch.tensor(window)
    place = place_window(at, 30, 40, 64)
    restored = restore_window(ramp, at, place)
    x = torch.arange(place.image_left, place.image_right) + 0.5
    y = torch.arange(place.image_top, place.image_bottom) + 0.5
    half = side / resolution / 2  # nearer to the sides of the window, the map is constant
    inside = ((x > left + half) & (x < left + side - half))[None] & ((y > top + half) & (y < top + side - half))[
        :, None
    ]
    assert inside.any()
    assert (restored - (x[None] + 2 * y[:, None]))[inside].abs().max() < 1e-3


@pytest.mark.parametrize("window", [[-7, 0, 100], [-3, -11, 77], [60, 60, 50]])
def test_a_picture_and_a_mask_of_half_its_side_have_the_same_border(window: list[int]) -> None:
    picture = place_window(torch.tensor(window), 90, 90, 192, grid=2)
    mask = place_window(torch.tensor(window), 90, 90, 96)
    assert [2 * value for value in mask[4:]] == list(picture[4:])


def test_levels_of_a_picture_become_minus_one_to_one() -> None:
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    image[1], image[2] = 255, 51
    crop = extract_crops(image, torch.tensor([[0, 0, 16]]), 16)[0]
    assert torch.allclose(crop.mean((1, 2)), torch.tensor([-1.0, 1.0, -0.6]), atol=1e-6)


def test_a_giant_window_is_averaged() -> None:
    image = torch.zeros(1, 40, 9000)
    image[:, :, 4500:] = 1
    crop = extract_crops(image, torch.tensor([[0, -4480, 9000]]), 64)[0, 0]
    visible = crop[crop.any(1)]
    assert visible.shape[0] == 1 and visible[0, :31].max() < 0.01 and visible[0, 33:].min() > 0.99


def test_a_constant_map_stays_constant_at_any_resolution() -> None:
    for resolution in (8, 32, 96):
        at = torch.tensor([-3, 4, 50])
        place = place_window(at, 40, 40, 64)
        restored = restore_window(torch.full((resolution, resolution), 2.5), at, place)
        assert torch.allclose(restored, torch.tensor(2.5))
        assert restored.shape == place.image_size


@given(
    left=st.integers(-60, 60), top=st.integers(-60, 60), side=st.integers(1, 80), height=st.integers(1, 40),
    width=st.integers(1, 40),
)  # fmt: skip
def test_what_is_visible_has_a_pixel_in_image_and_crop(left: int, top: int, side: int, height: int, width: int) -> None:
    if left >= width or top >= height or left + side <= 0 or top + side <= 0:
        return  # no box of the image has such a window
    place = place_window(torch.tensor([left, top, side]), height, width, 64)
    assert 0 <= place.image_top < place.image_bottom <= height
    assert 0 <= place.image_left < place.image_right <= width
    assert 0 <= place.crop_top < place.crop_bottom <= 64
    assert 0 <= place.crop_left < place.crop_right <= 64
