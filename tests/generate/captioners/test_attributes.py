"""The captioner `attributes`: claims that are true, siblings told apart, English phrases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes.captioner_inputs import box_array, caption_one, caption_texts, describe, random_image
from hypothesis import given
from hypothesis import strategies as st

from synthgen.generate.captioners import _colours, attributes
from synthgen.images.decode import load_rgb
from synthgen.records.boxes import paired_box_iou

BROWN, WHITE, BLUE = (110, 65, 30), (250, 250, 250), (30, 60, 220)


def painted(*areas: tuple[tuple[int, int, int, int], tuple[int, int, int]], size=(100, 200)) -> np.ndarray:
    image = np.full((*size, 3), 128, np.uint8)
    for (x1, y1, x2, y2), colour in areas:
        image[y1:y2, x1:x2] = colour
    return image


def test_two_dogs():
    large, small = (10, 20, 80, 90), (120, 60, 150, 85)
    image = painted((large, BROWN), (small, WHITE))
    assert describe(box_array(large, small), ["dog", "dog"], image, 5) == [
        [
            "the larger brown dog on the left",
            "the larger brown dog",
            "the brown dog on the left",
            "the larger dog on the left",
            "the brown dog on the left of the image",
        ],
        [
            "the smaller white dog on the right",
            "the smaller white dog",
            "the white dog on the right",
            "the smaller dog on the right",
            "the white dog in the bottom right of the image",
        ],
    ]


def test_one_alone_is_not_singled_out():
    (own,) = describe(box_array((70, 30, 130, 70)), ["Apple"], painted(((70, 30, 130, 70), (200, 30, 30))))
    assert own == [
        "a red apple in the middle of the image",
        "a red apple",
        "an apple in the middle of the image",
        "an apple",
    ]


def test_three_in_a_row_and_five_in_a_row():
    row = box_array((0, 5, 30, 50), (80, 5, 110, 50), (160, 5, 190, 50))
    firsts = [own[0] for own in describe(row, ["cup"] * 3, painted())]
    assert [re.sub(r"^the (grey )?cup ", "", first) for first in firsts] == [
        "on the far left",
        "between the other two",
        "on the far right",
    ]
    row = box_array(*((x, 5, x + 30, 50) for x in (0, 40, 80, 120, 160)))
    said = [" | ".join(own) for own in describe(row, ["cup"] * 5, painted())]
    for text, where in zip(
        said, ["far left", "second from the left", "", "second from the right", "far right"], strict=True
    ):
        assert where in text
    assert "second" not in said[2]
    assert "far" not in said[2]


def test_a_sibling_whose_colour_has_no_name_might_have_this_one():
    left, right = (0, 0, 50, 50), (50, 0, 100, 50)
    turquoise = (64, 224, 208)
    for other, article in ((WHITE, "the brown dog"), (turquoise, "a brown dog"), (BROWN, "a brown dog")):
        first, _ = describe(box_array(left, right), ["dog", "dog"], painted((left, BROWN), (right, other)))
        assert article in first
    assert (
        "the brown cat"
        not in describe(box_array(left, right), ["cat", "dog"], painted((left, BROWN), (right, WHITE)))[0]
    )


def test_in_a_crowd_none_is_singled_out_nor_a_landmark():
    rows, categories = box_array((0, 0, 40, 40), (60, 60, 70, 70), (20, 50, 30, 60)), ["dog", "dog", "cat"]
    alone = [
        c.text for own in caption_one(attributes.build(), random_image(100, 100), rows, categories, 99) for c in own
    ]
    crowded = [
        c.text
        for own in caption_one(attributes.build(), random_image(100, 100), rows, categories, 99, ["Dog", "cat"])
        for c in own
    ]
    assert any(text.startswith("the ") for text in alone)
    assert any(text.endswith(" the cat") for text in alone)
    assert not any(text.startswith("the ") or text.endswith(" the cat") for text in crowded)


def test_the_same_box_twice_is_one_object():
    dog, other = (0, 0, 50, 50), (1, 0, 50, 50)
    assert all("the" not in text.split()[0] for own in describe(box_array(dog, other), ["dog", "dog"]) for text in own)
    twin = describe(box_array(dog, other, (150, 50, 160, 60)), ["dog"] * 3, random_image(100, 200))
    assert "on the left" in twin[0][0]


#: Left and large, middle, right and small.
ROW = box_array((5, 10, 195, 390), (210, 50, 300, 200), (450, 100, 490, 160))


def firsts(*categories: str, crowd: tuple[str, ...] = ()) -> list[str]:
    found = caption_one(attributes.build(), random_image(400, 600), ROW[: len(categories)], list(categories), 99, crowd)
    return [own[0].text for own in found]


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        # Two cars and a car of a kind are three cars, but there is one SUV.
        (
            ("SUV", "Car", "Car"),
            ["an suv on the left of the image", "the car between the other two", "the smallest car on the far right"],
        ),
        (
            ("person", "man", "man"),
            ["the largest person on the far left", "a man", "the smallest man on the far right"],
        ),
        # A van may be called a car, and a car a van.
        (("Van", "Car"), ["a van on the left of the image", "a car"]),
        # What has no name may be anything; anything is an object.
        (("", "dog", "dog"), ["the largest object on the far left", "a dog", "the smallest dog on the far right"]),
        (("dog", "", "cat"), ["a dog on the left of the image", "the object between the other two", "a cat"]),
        (("blorb", "dog"), ["a blorb on the left of the image", "a dog"]),
        (("dog", "cat"), ["a dog on the left of the image", "a cat in the top left of the image"]),
    ],
)
def test_what_may_be_of_its_kind_is_compared_with(categories, expected):
    found = firsts(*categories)
    assert [text.startswith(start) for text, start in zip(found, expected, strict=True)] == [True] * len(found), found


@pytest.mark.parametrize("more", ["SUV", "car", "Vehicle", "Van", "", "blorb"])
def test_more_of_what_may_be_of_its_kind_singles_nothing_out(more):
    for text in firsts("car", "car", "dog", crowd=(more,)):
        assert not text.startswith("the "), text
        assert not text.endswith(("the dog", "the car")) or more in ("SUV", "car", "Vehicle", "Van"), text


@pytest.mark.parametrize("other", ["person", "", "blorb", "boy"])
def test_what_others_may_be_called_is_no_landmark(other):
    found = caption_one(attributes.build(), random_image(400, 600), ROW, ["man", "dog", other], 99)
    said = [c.text for own in found for c in own]
    assert not any(text.endswith(("the man", "the person", "the boy", "the object")) for text in said), said
    assert any(text.endswith("the dog") for text in said) == (other in ("person", "boy"))


@pytest.mark.parametrize(
    ("category", "noun"),
    [
        ("Cabinet/shelf", "a cabinet or shelf"),
        ("Moniter/TV", "a monitor or tv"),
        ("Other Shoes", "shoes"),
        ("scissors", "scissors"),
        ("umbrella", "an umbrella"),
        ("SUV", "an suv"),
        ("broccoli", "broccoli"),
        ("hot-air_balloon", "a hot-air balloon"),
        ("bow_(weapon)", "a bow"),
        ("wall-brick", "a brick wall"),
        ("sky-other-merged", "sky"),
        ("door, double door", "a door"),
        ("", "an object"),
        ("犬", "a 犬"),
    ],
)
def test_categories_in_english(category, noun):
    assert noun in describe(box_array((10, 10, 60, 50)), [category])[0]


def claims(text: str) -> Iterator[str]:
    """The words of a caption that claim something."""
    for word in ("larger", "largest", "smaller", "smallest"):
        if re.search(rf"\b{word}\b", text):
            yield word
    if other := re.search(r"(to the left of|to the right of|above|below) the (dog|cat)$", text):
        yield other[0]
    elif " of the image" in text:
        yield re.search(r"\b(filling|taking|in|on|at) .*", text)[0]
    elif where := re.search(
        r"(on the (far )?(left|right)|at the (very )?(top|bottom)|between|second from the \w+)", text
    ):
        yield where[0]


def true(claim: str, box: np.ndarray, others: np.ndarray, width: float, height: float) -> bool:
    """Whether a claim holds of a box among others, from the words alone."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    xs, ys = (others[:, 0] + others[:, 2]) / 2, (others[:, 1] + others[:, 3]) / 2
    if claim.endswith("of the image"):
        return {
            "filling": area > width * height / 2,
            "taking": area < width * height / 50,
            **({"at": _touches(claim, box, width, height)} if "edge" in claim else {}),
            **dict.fromkeys(
                ("in", "on") if "edge" in claim else ("in", "on", "at"), _inside(claim, box, width, height)
            ),
        }[claim.split()[0]]
    if not len(others):
        return False
    lone = len(others) == 1
    return {
        "larger": lone and area > areas.max(),
        "smaller": lone and area < areas.min(),
        "largest": not lone and area > areas.max(),
        "smallest": not lone and area < areas.min(),
        "on the left": lone and x < xs.min(),
        "on the right": lone and x > xs.max(),
        "on the far left": not lone and x < xs.min(),
        "on the far right": not lone and x > xs.max(),
        "at the top": lone and y < ys.min(),
        "at the bottom": lone and y > ys.max(),
        "at the very top": not lone and y < ys.min(),
        "at the very bottom": not lone and y > ys.max(),
        "second from the left": (xs < x).sum() == 1,
        "second from the right": (xs > x).sum() == 1,
        "second from the top": (ys < y).sum() == 1,
        "second from the bottom": (ys > y).sum() == 1,
        "between": len(others) == 2 and xs.min() < x < xs.max(),
    }[claim]


def _touches(claim: str, box: np.ndarray, width: float, height: float) -> bool:
    gaps = {"left": box[0], "right": width - box[2], "top": box[1], "bottom": height - box[3]}
    return abs(gaps[claim.split()[2]]) < 1


def _apart(claim: str, box: np.ndarray, other: np.ndarray) -> bool:
    return {
        "left": box[2] <= other[0],
        "right": box[0] >= other[2],
        "above": box[3] <= other[1],
        "below": box[1] >= other[3],
    }[re.search(r"left|right|above|below", claim)[0]]


def _inside(claim: str, box: np.ndarray, width: float, height: float) -> bool:
    off_centre = max(abs(box[0] + box[2] - width) / width, abs(box[1] + box[3] - height) / height)
    return (
        ("left" not in claim or box[2] <= width / 2)
        and ("right" not in claim or box[0] >= width / 2)
        and ("top" not in claim or box[3] <= height / 2)
        and ("bottom" not in claim or box[1] >= height / 2)
        and ("middle" not in claim or off_centre < 0.4)
    )


edge = st.integers(0, 20)

box = st.tuples(edge, edge, st.integers(1, 20), st.integers(1, 20)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


#: What each may be called, and what it is called for certain.
MAYBE = {
    "dog": ["dog", "poodle", ""],
    "poodle": ["dog", "poodle", ""],
    "cat": ["cat", ""],
    "": ["dog", "poodle", "cat", ""],
}

SURELY = {"dog": ["dog", ""], "poodle": ["dog", "poodle", ""], "cat": ["cat", ""], "": [""]}


@given(st.lists(st.tuples(box, st.sampled_from(["dog", "dog", "cat", "cat", "poodle", ""])), min_size=1, max_size=6))
def test_every_claim_is_true(objects):
    rows, categories = np.array([row for row, _ in objects], float), [name for _, name in objects]
    said = describe(rows.astype(np.float32), categories, random_image(40, 40))
    for i, own in enumerate(said):
        apart = paired_box_iou(rows, np.broadcast_to(rows[i], rows.shape)) < attributes.SAME_OBJECT_IOU
        apart &= np.arange(len(rows)) != i
        others = apart & np.array([categories[i] in MAYBE[name] for name in categories])
        certain = apart & np.array([categories[i] in SURELY[name] for name in categories])
        assert {"a dog", "a cat", "a poodle", "an object"} & set(own)
        for text in own:
            assert text.split()[0] in ("a", "an", "the")
            found = list(claims(text))
            for claim in found:
                if claim.endswith((" dog", " cat")):
                    (landmark,) = rows[np.array([claim.split()[-1] in MAYBE[name] for name in categories])]
                    assert _apart(claim, rows[i], landmark), (text, objects)
                else:
                    assert true(claim, rows[i], rows[others], 40, 40), (text, objects)
                    assert certain.any() or claim.endswith("of the image"), (text, objects)
                    if claim.startswith(("second", "between")):
                        assert (certain == others).all(), (text, objects)


@given(st.lists(box, min_size=2, max_size=5))
def test_the_singles_out(rows):
    """No other object, unless it is the same one to the eye, is spoken of by the same words with "the"."""
    said = describe(np.array(rows, np.float32), ["dog"] * len(rows), random_image(40, 40))
    for i, own in enumerate(said):
        for j, others in enumerate(said[:i]):
            if paired_box_iou(np.array(rows[i], float), np.array(rows[j], float)) < attributes.SAME_OBJECT_IOU:
                shared = set(own) & set(others)
                assert not any(text.startswith("the ") for text in shared), (rows, shared)


def test_on_photographs_most_objects_are_distinguished(shared):
    root: Path = shared("data/coco_tiny")
    truth = json.loads((root / "annotations/instances_val2017.json").read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    captioner, singled, several, coloured, count = attributes.build(), 0, 0, 0, 0
    for entry in truth["images"]:
        own = [a for a in truth["annotations"] if a["image_id"] == entry["id"] and not a["iscrowd"]]
        rows = box_array(*((x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in own)))
        categories = [names[a["category_id"]] for a in own]
        found = caption_texts(captioner, load_rgb(root / "val2017" / entry["file_name"]), rows, categories)
        for captions, category in zip(found, categories, strict=True):
            count += 1
            several += categories.count(category) > 1
            singled += categories.count(category) > 1 and captions[0].startswith("the ")
            coloured += any(set(_colours.COLOR_NAMES[1:]) & set(text.split()) for text in captions)
    assert count > 50
    assert singled > 0.25 * several
    assert 0.15 * count < coloured < 0.9 * count
