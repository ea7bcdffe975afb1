"""The contract of every captioner: order, batches, inputs of any size, bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from fakes.captioner_inputs import box_array, caption_one, caption_texts, random_image

from synthgen.text.phrases import clean_text

HOSTILE = [
    "",
    " ",
    "\x00\x1b[2J",
    "x" * 5000,
    "a " * 900,
    "犬",
    "ملعقة",
    "🧍",
    "Cabinet/shelf",
    "/",
    "()",
    "7",
    "a\nb",
    "l'été",
]


def random_boxes(count: int, height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2)), axis=1) * (width - 1, height - 1)
    corners[:, 1] += 1
    return corners.reshape(-1, 4).astype(np.float32)


def test_says_what_it_is(captioner):
    assert captioner.batch_size >= 1
    assert captioner.source


@pytest.mark.parametrize("top_k", [1, 3, 5, 50])
def test_captions_for_each_box_in_order_best_first_none_twice(captioner, top_k):
    images = [random_image(60, 80), random_image(33, 47, 1), random_image(100, 20, 2)]
    prompts = [random_boxes(5), box_array(), random_boxes(3, 100, 20)]
    categories = [["dog"] * 3 + ["cat"] * 2, [], ["tv", "dog", "Cabinet/shelf"]]
    found = list(captioner.caption(images, prompts, categories, [[], ["dog"], []], top_k))
    assert [len(own) for own in found] == [5, 0, 3]
    for captions in (captions for own in found for captions in own):
        assert 1 <= len(captions) <= top_k
        assert len({c.text for c in captions}) == len(captions)
        assert all(c.text and c.text == clean_text(c.text) and c.source == captioner.source for c in captions)
        scores = [c.score for c in captions]
        assert set(scores) == {None} or scores == sorted(scores, reverse=True)


def test_fewer_captions_are_the_best_of_more(captioner):
    image, prompts, categories = random_image(), random_boxes(6), ["dog"] * 6
    more = caption_one(captioner, image, prompts, categories, 5)
    assert caption_one(captioner, image, prompts, categories, 2) == [own[:2] for own in more]


def test_no_images_and_no_boxes(captioner):
    assert list(captioner.caption([], [], [], [], 5)) == []
    assert list(
        captioner.caption([random_image(), random_image()], [box_array(), box_array()], [[], []], [[], []], 5)
    ) == [[], []]


def test_a_batch_gives_what_its_images_give_alone_and_twice_the_same(captioner):
    images = [random_image(seed=seed) for seed in range(3)]
    prompts = [random_boxes(4, seed=seed) for seed in range(3)]
    categories = [["dog", "dog", "cup", "tv"]] * 3
    together = list(captioner.caption(images, prompts, categories, [[]] * 3, 5))
    assert together == [caption_one(captioner, *each) for each in zip(images, prompts, categories, strict=True)]
    assert together == list(captioner.caption(images, prompts, categories, [[]] * 3, 5))


def test_inputs_are_not_written_to(captioner):
    image, prompts = random_image(), random_boxes(3)
    image.flags.writeable = prompts.flags.writeable = False
    assert len(caption_one(captioner, image, prompts, ["dog"] * 3)) == 3


@pytest.mark.parametrize("category", HOSTILE)
def test_any_category_is_spoken_of_on_one_short_line(captioner, category):
    found = caption_texts(captioner, random_image(), random_boxes(3), [category] * 3)
    for text in (text for own in found for text in own):
        assert text == clean_text(text)
        assert 0 < len(text) < 200
        assert "\x1b" not in text


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (9, 9)])
def test_images_and_boxes_of_any_size(captioner, shape):
    image = np.full((*shape, 3), 90, np.uint8)
    height, width = shape
    found = caption_one(
        captioner,
        image,
        box_array((0, 0, width, height), (0, 0, 0.25, 0.25), (width, height, width, height)),
        ["a"] * 3,
    )
    assert all(found)


def test_many_boxes_on_one_image_in_bounded_memory(captioner):
    image, prompts = random_image(900, 1200), random_boxes(500, 900, 1200)
    tracemalloc.start()
    found = caption_one(captioner, image, prompts, ["dog"] * 500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 500
    assert peak < 64 * 2**20
