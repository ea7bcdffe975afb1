"""Contact sheets: all images in order, of bounded size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synthgen.visualize.contact_sheet import make_contact_sheet, make_thumbnail


def test_a_sheet_holds_all_pictures_in_order() -> None:
    pictures = [np.full((50, 100, 3), value, np.uint8) for value in (10, 90, 170)]
    page = make_contact_sheet([make_thumbnail(one, num_pictures=3, width=100) for one in pictures])
    assert page.shape == (100, 200, 3)
    assert [int(page[y, x, 0]) for y, x in ((25, 50), (25, 150), (75, 50))] == [10, 90, 170]
    assert make_contact_sheet([]).shape[2] == 3


@pytest.mark.parametrize("count", [1, 16, 120, 5000])
def test_a_sheet_of_many_pictures_is_no_larger(count: int) -> None:
    """Those of 120 images in the sizes of a few would be half a gigabyte."""
    one = make_thumbnail(np.zeros((1100, 1536, 3), np.uint8), num_pictures=count, width=800)
    columns = math.ceil(count**0.5)
    assert one.shape[1] == min(800, 4800 // columns)
    assert one.nbytes * columns**2 < 64 * 2**20
