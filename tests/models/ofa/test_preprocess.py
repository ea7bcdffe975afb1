"""OFA's box bins and pixels: the original's values."""

from __future__ import annotations

import json

import numpy as np
import torch
from fakes.tiny_ofa import FOLDER

from synthgen.models.ofa.preprocess import preprocess_images, quantize_boxes, resize_to_square


def test_bins_are_the_originals():
    cases = json.loads((FOLDER / "ofa_box_bins.json").read_text())
    assert {case["patch_image_size"] for case in cases} == {384, 480, 512}
    for case in cases:
        boxes = torch.tensor([case["box_xyxy"]])
        found = quantize_boxes(boxes, case["image_h"], case["image_w"], case["patch_image_size"])
        assert found.tolist() == [case["bins"]]


def test_bins_are_of_512_pixels_whatever_the_image_is():
    whole = torch.tensor([[0.0, 0.0, 640.0, 480.0]])
    assert [quantize_boxes(whole, 480, 640, side)[0, 2].item() for side in (512, 480, 384)] == [999, 937, 749]
    assert quantize_boxes(torch.tensor([[-9.0, -9.0, 700.0, 500.0]]), 480, 640, 512).tolist() == [[0, 0, 999, 999]]
    assert quantize_boxes(torch.zeros(0, 4), 480, 640, 512).shape == (0, 4)


def test_pixels_are_the_originals():
    with np.load(FOLDER / "ofa_preprocess.npz") as known:
        image = known["in.image_uint8"]
        for name in ("caption_transform_64", "caption_transform_128", "positioning_transform_64"):
            side = int(name.rsplit("_", 1)[1])
            small = resize_to_square(image, side)
            assert small.dtype == torch.uint8
            pixels = preprocess_images([small, small], torch.device("cpu"))
            assert np.array_equal(pixels[1].numpy(), known[f"out.{name}"])
