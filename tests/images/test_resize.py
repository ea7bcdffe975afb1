"""Resizing: bit-for-bit Pillow's, windows of large images, any pair of sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from synthgen.images.resize import resize

side = st.integers(1, 40)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(image, size):
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


@given(side, side, side, side)
def test_the_whole_is_what_pillow_makes_of_it(height, width, new_height, new_width):
    image = picture(height, width)
    assert np.array_equal(resize(image, (new_height, new_width)), by_pillow(image, (new_height, new_width)))


@given(side, side, st.integers(1, 90), st.integers(1, 90), st.data())
def test_a_window_is_a_part_of_the_whole(height, width, new_height, new_width, data):
    """But for values halfway between two levels, in each of the filter's two passes."""
    top, left = data.draw(st.integers(0, new_height - 1)), data.draw(st.integers(0, new_width - 1))
    seen = data.draw(st.integers(1, new_height - top)), data.draw(st.integers(1, new_width - left))
    image = picture(height, width)
    window = resize(image, (new_height, new_width), (top, left, *seen))
    whole = by_pillow(image, (new_height, new_width))[top : top + seen[0], left : left + seen[1]]
    assert window.shape == whole.shape
    assert np.abs(window.astype(int) - whole).max() <= 2


@pytest.mark.parametrize("size", [(771, 1028), (961, 1281), (150, 201)])
def test_hardly_a_value_differs(size):
    """Even of noise, where every value is as far from its neighbours as can be."""
    image = picture(480, 640)
    top, left, height, width = size[0] // 3, size[1] // 4, size[0] // 2, size[1] // 2
    window = resize(image, size, (top, left, height, width))
    whole = by_pillow(image, size)[top : top + height, left : left + width]
    assert (window != whole).mean() < 5e-3
    assert np.abs(window.astype(int) - whole).max() <= 1


def test_the_same_size_is_the_same_pixels():
    image = picture(7, 9)
    assert np.array_equal(resize(image, (7, 9)), image)
    assert np.array_equal(resize(image, (7, 9), (2, 3, 4, 5)), image[2:6, 3:8])


@pytest.mark.parametrize(("old", "new"), [((1, 3000), (1, 1)), ((3000, 1), (2048, 1)), ((1, 1), (99, 1))])
def test_thin_images(old, new):
    assert resize(picture(*old), new).shape == (*new, 3)
