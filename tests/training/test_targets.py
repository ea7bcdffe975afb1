"""Mask targets: the part of the padded canvas that each image covers."""

from __future__ import annotations

import pytest
import torch

from synthgen.training.targets import build_mask_targets

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_truth_of_each_image_knows_which_part_of_the_canvas_it_is():
    def target(height: int, width: int) -> dict:
        empty = {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
        masks = {"masks": torch.zeros(0, 64, 128, dtype=torch.bool), "ignore": torch.zeros(64, 128, dtype=torch.bool)}
        kinds = {"has_mask": torch.zeros(0, dtype=torch.bool), "mask_weights": torch.zeros(0)}
        return {**empty, **masks, **kinds, "size": (height, width)}

    wide, tall = build_mask_targets([target(16, 128), target(64, 32)], torch.device("cpu"))
    assert wide["valid_ratio"].tolist() == [1.0, 0.25]  # of the width, of the height
    assert tall["valid_ratio"].tolist() == [0.25, 1.0]
