"""Loading SAM: the self-test of the fast path, and weights that draw nothing."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from fakes import tiny_sam
from fakes.sam_segmenters import build_segmenter

from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import _sam, _sam_load


def test_a_path_that_draws_otherwise_is_refused(checkpoints, monkeypatch):
    def broken(encoder, position):
        for block in encoder.blocks:
            block.attn.scale *= 3

    monkeypatch.setattr(_sam_load, "use_sdpa", broken)
    with pytest.raises(
        SynthgenError, match=r"self-test failed: with --precision fp32 on cpu .* mean IoU of 0\.\d+ only"
    ):
        build_segmenter(checkpoints, self_test=True)
    build_segmenter(checkpoints)


def test_a_path_broken_for_all_but_the_first_of_a_batch_is_refused(checkpoints, monkeypatch):
    whole = _sam.encode_images

    def broken(network, pixels):
        found = whole(network, pixels)
        found.image[1:] = 0
        return found

    monkeypatch.setattr(_sam_load, "set_precision", lambda *_: monkeypatch.setattr(_sam, "encode_images", broken))
    with pytest.raises(SynthgenError, match="self-test failed"):
        build_segmenter(checkpoints, self_test=True)


def test_weights_that_draw_nothing_are_refused(tmp_path):
    weights = {name: tensor.clone() for name, tensor in tiny_sam.weights("sam_tiny").items()}
    weights["image_encoder.neck.0.weight"][:] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(SynthgenError, match=r"draw nothing at all on the test scene; is the checkpoint a trained one"):
        build_segmenter({"sam": str(tmp_path / "nan.pth")}, self_test=True)


def test_a_path_that_does_not_run_is_refused(checkpoints, monkeypatch):
    def broken(network, dtype):
        network.mask_decoder.decode = lambda *_: 1 / 0

    monkeypatch.setattr(_sam_load, "set_precision", broken)
    with pytest.raises(
        SynthgenError, match=r"--precision bf16 does not run here \(ZeroDivisionError: .*; try --precision"
    ):
        build_segmenter(checkpoints, precision="bf16", self_test=True)


def test_a_sound_path_passes_its_test(checkpoints, caplog):
    with caplog.at_level(logging.INFO):
        build_segmenter(checkpoints, self_test=True)
    assert "self-test of --precision fp32 on cpu: mean IoU with float32 1.0000" in caplog.text


def test_the_scene_has_four_objects_within_it():
    image, boxes = _sam_load.draw_test_scene()
    assert (image.shape, image.dtype, boxes.shape) == ((480, 640, 3), np.uint8, (4, 4))
    assert (boxes[:, 2:] - boxes[:, :2] > 100).all()
    assert (boxes >= 0).all()
    assert (boxes <= [640, 480, 640, 480]).all()
