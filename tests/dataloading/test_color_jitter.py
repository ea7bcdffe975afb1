"""Color jitter: bit-for-bit Pillow's and SSD's, and the identity step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from synthgen.dataloading.color_jitter import apply_channel_tables, apply_color_steps

PICTURE = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "enhance"),
    [("contrast", ImageEnhance.Contrast), ("multiply", ImageEnhance.Brightness), ("sharpen", ImageEnhance.Sharpness)],
)
@given(amount=st.floats(0.5, 1.5))
def test_as_pillow_enhances(name, enhance, amount):
    """By one level at most, where a value comes to a whole one: Pillow multiplies in an order of its own."""
    ours, theirs = (
        apply_color_steps(PICTURE, ((name, amount),)),
        np.asarray(enhance(Image.fromarray(PICTURE)).enhance(amount)),
    )
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.15


@given(st.floats(-32, 32), st.floats(0.5, 1.5))
def test_add_and_multiply_as_ssd(amount, factor):
    level = PICTURE.astype(np.float32)
    added = np.clip(level + np.float32(amount), 0, 255).astype(np.uint8)
    assert np.array_equal(apply_color_steps(PICTURE, (("add", amount),)), added)
    multiplied = np.clip(added.astype(np.float32) * np.float32(factor), 0, 255).astype(np.uint8)
    assert np.array_equal(apply_color_steps(PICTURE, (("add", amount), ("multiply", factor))), multiplied)


def test_hue_and_saturation_by_hand():
    red, green = np.full((2, 2, 3), (200, 0, 0), np.uint8), np.full((2, 2, 3), (0, 200, 0), np.uint8)
    assert np.array_equal(apply_color_steps(red, (("hue", 60.0),)), green)
    assert np.array_equal(apply_color_steps(green, (("hue", -60.0),)), red)
    assert apply_color_steps(red, (("hue", -18.0),))[0, 0].tolist() == [200, 0, 120]  # around the end of the circle
    assert apply_color_steps(red, (("saturate", 0.5),))[0, 0].tolist() == [200, 100, 100]


@pytest.mark.parametrize("name", ["saturate", "hue"])
def test_grey_has_no_colour_to_change(name):
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert np.array_equal(apply_color_steps(grey, ((name, 1.4),)), grey)


def test_no_steps_no_change_and_the_image_is_left_alone():
    before = PICTURE.copy()
    assert apply_color_steps(PICTURE, ()) is PICTURE
    assert np.array_equal(apply_color_steps(PICTURE, (("multiply", 1.0), ("contrast", 1.0), ("add", 0.0))), PICTURE)
    apply_color_steps(PICTURE, (("sharpen", 1.1), ("saturate", 1.5)))
    assert np.array_equal(PICTURE, before)
    assert apply_color_steps(PICTURE[:1, :1], (("sharpen", 1.1),)).shape == (1, 1, 3)
    with pytest.raises(ValueError, match="no change of colour named 'sepia'"):
        apply_color_steps(PICTURE, (("sepia", 1.0),))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (256, 1), (64, 65), (300, 300)])
def test_planes_are_what_their_tables_say_wherever_they_are_written(size):
    """Into a part of a canvas, of whatever shape, and beside it nothing; to the bit what arithmetic gives."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size[0] + 2, size[1] + 3, 3), dtype=np.uint8)[2:, 3:]
    mean, std = (
        np.array([[123.675], [116.28], [103.53]], np.float32),
        np.array([[58.395], [57.12], [57.375]], np.float32),
    )
    canvas = np.full((3, size[0] + 5, size[1] + 4), np.nan, np.float32)
    apply_channel_tables(image, (np.arange(256, dtype=np.float32) - mean) / std, canvas[:, 1 : 1 + size[0], : size[1]])
    expected = (image.transpose(2, 0, 1).astype(np.float32) - mean[..., None]) / std[..., None]
    assert np.array_equal(canvas[:, 1 : 1 + size[0], : size[1]], expected)
    assert np.isnan(canvas).sum() == canvas.size - expected.size
