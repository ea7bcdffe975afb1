"""Names of colours: focal colours, colours between two names, noise, people."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from fakes.captioner_inputs import box_array, describe
from hypothesis import given
from hypothesis import strategies as st

from synthgen.generate.captioners import _colours

NAMED = {
    "black": "000000 101010 1a1a22",
    "white": "ffffff f8f8f8 fafaff",
    "grey": "808080 a0a0a0 696969 b0b0b0",
    "red": "ff0000 c81e1e b22222 dc143c 8b0000",
    "orange": "ffa500 ff8c00 f08020",
    "yellow": "ffff00 ffd700 f0e030",
    "green": "008000 00ff00 228b22 567d46 556b2f 90ee90",
    "blue": "0000ff 000080 4169e1 87ceeb 4682b4",
    "purple": "800080 4b0082 9932cc 663399",
    "pink": "ffc0cb ff69b4 ffb6c1 ff1493",
    "brown": "8b4513 654321 7b3f00 5c4033 a0522d",
    "": "40e0d0 008080 f5deb3 d2b48c c0c0a8 ff00ff 808000 c68642 ff4500 fa8072 333333 dcdcdc",
}

FOCAL = [(name, bytes.fromhex(code)) for name, codes in NAMED.items() for code in codes.split()]


@pytest.mark.parametrize(("name", "colour"), FOCAL, ids=lambda value: value if isinstance(value, str) else value.hex())
def test_focal_colours_have_their_names_and_those_between_none(name, colour):
    assert _colours.dominant_color(np.full((9, 9, 3), list(colour), np.uint8), box_array((0, 0, 9, 9))[0]) == name


def test_names_lie_apart():
    """Between two names in the colour circle lies one without, so that noise does not turn the one into the other."""
    for value, saturation in ((0.9, 0.95), (0.7, 0.8), (0.5, 0.9)):
        circle = [colorsys.hsv_to_rgb(hue / 720, saturation, value) for hue in range(720)]
        found = _colours.classify_colors((np.array(circle) * 255).astype(np.uint8))
        change = np.flatnonzero(found != np.roll(found, 1))
        assert all(0 in (found[i], found[i - 1]) for i in change)


@given(st.sampled_from([pair for pair in FOCAL if pair[0]]), st.integers(0, 2**16), st.integers(0, 12))
def test_a_drawn_object_keeps_its_colour_in_noise_and_before_any_background(pair, seed, spread):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (80, 80, 3), np.uint8)
    y, x = np.mgrid[:80, :80]
    disc = np.hypot(y - 40, x - 40) < 30
    inner = np.clip(np.array(list(pair[1]), int) + rng.integers(-spread, spread + 1, (80, 80, 3)), 0, 255)
    image[disc] = inner[disc]
    assert _colours.dominant_color(image, box_array((10, 10, 70, 70))[0]) in (pair[0], "")
    if spread == 0:
        assert _colours.dominant_color(image, box_array((10, 10, 70, 70))[0]) == pair[0]


def test_a_patchwork_has_no_colour():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, ::2], image[:, 1::2] = (255, 0, 0), (0, 0, 255)
    assert _colours.dominant_color(image, box_array((0, 0, 40, 40))[0]) == ""


@pytest.mark.parametrize(
    "category", ["person", "Man", "Woman", "Baby", "People", "Human Face", "hand", "Police Officer"]
)
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (230, 20, 20), (120, 70, 20)])
def test_people_have_no_colour(category, colour):
    """A black coat makes no black person."""
    image = np.zeros((60, 80, 3), np.uint8) + np.array(colour, np.uint8)
    prompts = box_array((5, 5, 30, 50), (40, 5, 78, 50))
    words = {word for own in describe(prompts, [category, category], image) for text in own for word in text.split()}
    assert words.isdisjoint({"black", "white", "red", "brown", "grey", "yellow", "pink", "orange"})
    others = {word for own in describe(prompts, ["car", "car"], image) for text in own for word in text.split()}
    assert others & {"black", "white", "red", "brown"}
