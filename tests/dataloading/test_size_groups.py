"""The cut of a step: each image once, little padding, plain batches where all images have one size."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from synthgen.dataloading.size_groups import BATCH_COST_PIXELS, round_up_size, split_by_size


def padded_pixels(sizes: list[tuple[int, int]], batches: list[list[int]]) -> int:
    canvases = [round_up_size([sizes[i] for i in own]) for own in batches]
    return sum(len(own) * height * width for own, (height, width) in zip(batches, canvases, strict=True))


def random_sizes(count: int, seed: int) -> list[tuple[int, int]]:
    draw = random.Random(seed)
    return [(draw.randint(1, 1024), draw.randint(1, 1024)) for _ in range(count)]


@pytest.mark.parametrize("max_images", [1, 3, 16, 100])
@pytest.mark.parametrize("count", [1, 2, 15, 48])
def test_each_image_is_in_one_batch(count: int, max_images: int) -> None:
    batches = split_by_size(random_sizes(count, count), max_images)
    assert sorted(i for own in batches for i in own) == list(range(count))
    assert all(0 < len(own) <= max_images for own in batches)
    assert all(own == sorted(own) for own in batches) and batches == sorted(batches)


@pytest.mark.parametrize("count", [1, 7, 16, 64])
def test_images_of_one_padded_size_are_plain_batches(count: int) -> None:
    draw = random.Random(count)
    sizes = [(draw.randint(993, 1024), draw.randint(481, 512)) for _ in range(count)]
    plain = [list(range(start, min(start + 16, count))) for start in range(0, count, 16)]
    assert split_by_size(sizes, 16) == plain


@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_of_the_sorted_images_costs_less(seed: int) -> None:
    sizes, most = random_sizes(9, seed), 4
    order = sorted(range(9), key=lambda i: round_up_size([sizes[i]]))
    costs = []
    for inner in (cut for count in range(9) for cut in combinations(range(1, 9), count)):
        edges = [0, *inner, 9]
        batches = [order[a:b] for a, b in zip(edges, edges[1:], strict=False)]
        if all(len(own) <= most for own in batches):
            costs.append(padded_pixels(sizes, batches) + len(batches) * BATCH_COST_PIXELS)
    found = split_by_size(sizes, most)
    assert padded_pixels(sizes, found) + len(found) * BATCH_COST_PIXELS == min(costs)


def test_small_images_are_not_padded_to_a_large_one_but_share_a_batch() -> None:
    assert split_by_size([(384, 384), (1024, 1024), (512, 512), (1024, 1024), (384, 384)], 4) == [[0, 2, 4], [1, 3]]
    assert split_by_size([(32, 32), (64, 64), (96, 96)], 4) == [[0, 1, 2]], "one more batch costs more than they do"
