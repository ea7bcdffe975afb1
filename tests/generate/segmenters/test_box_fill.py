"""The segmenter `box_fill`."""

from __future__ import annotations

import numpy as np
from fakes.segmenter_inputs import box_array, segment_one

from synthgen.generate.segmenters import box_fill
from synthgen.records.rle import decode_mask


def test_a_filled_box_is_every_pixel_that_the_box_touches():
    (prediction,) = segment_one(box_fill.build(), np.zeros((10, 12, 3), np.uint8), box_array((2.5, 3, 5.1, 7.9)))
    expected = np.zeros((10, 12), bool)
    expected[3:8, 2:6] = True
    assert np.array_equal(decode_mask(prediction.rle), expected)
    assert set(prediction[1:]) == {None}
