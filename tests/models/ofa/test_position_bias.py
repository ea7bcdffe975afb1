"""OFA's buckets of relative positions: the original's values."""

from __future__ import annotations

import pytest
import torch
from fakes.tiny_ofa import (
    golden,
)

from synthgen.models.ofa.position_bias import image_buckets, image_positions, token_buckets, token_offset_buckets


@pytest.mark.parametrize("size", [8, 256])
def test_distances_within_a_text_are_the_originals(size):
    assert torch.equal(token_offset_buckets(size), torch.from_numpy(golden()[f"tables.token_bucket_{size}"]).long())
    square = token_buckets(size, 20)
    assert all(square[i, j] == token_offset_buckets(size)[i - j + 1023] for i in range(20) for j in range(20))


def test_distances_within_an_image_are_the_originals():
    table = torch.from_numpy(golden()["tables.image_bucket_7"]).long()
    assert torch.equal(image_buckets(7, 7, 7), table[1:, 1:])
    places = image_positions(7, 3, 5)
    assert places[5] == 8, "a row of places is as long as the table's, whatever the image's width is"
    assert torch.equal(image_buckets(7, 3, 5), table[places][:, places])
