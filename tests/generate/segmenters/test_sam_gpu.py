"""SAM on a GPU: the masks of the CPU, and too little memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import tiny_sam

from synthgen import plugins
from synthgen.models.sam import build_sam
from synthgen.records.rle import decode_mask, rle_iou

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")


def make(name, path, **options):
    own = {"checkpoint": str(path), "self_test": False, **options}
    return plugins.build_plugin("generate.segmenters", name, own)


def drawn(height, width, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(20, 90) + y / rng.uniform(20, 90) + rng.uniform(0, 6)) for _ in range(3)]
    return np.clip(128 + 90 * np.stack(waves, 2) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def some_boxes(height, width, count, seed=0):
    corners = np.sort(np.random.default_rng(seed).uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
    return (corners * np.array([width, height] * 2)).astype(np.float32)


IMAGES = [drawn(480, 640, 1), drawn(700, 300, 2), drawn(64, 64, 3)]
BOXES = [some_boxes(480, 640, 9), some_boxes(700, 300, 0), some_boxes(64, 64, 17)]


@pytest.mark.parametrize("name", ["sam", "hq_sam"])
@pytest.mark.parametrize("options", [{}, {"multimask": True}, {"zoom": True}, {"compile": True}], ids=str)
def test_masks_are_those_of_the_cpu(name, options, tmp_path):
    path = tiny_sam.checkpoint(tmp_path, f"{name}_tiny")
    there = list(make(name, path, device="cuda", batch_size="3", **options).segment(IMAGES, BOXES))
    here = list(make(name, path, device="cpu", **{**options, "compile": False}).segment(IMAGES, BOXES))
    for some, others in zip(there, here, strict=True):
        assert len(some) == len(others)
        for a, b in zip(some, others, strict=True):
            # TF32 in convolutions moves logits by some thousandths, and random weights leave many near zero.
            assert (decode_mask(a.rle) != decode_mask(b.rle)).mean() < 0.02
            assert a[1:] == pytest.approx(b[1:], abs=0.05)


def test_bfloat16_draws_what_float32_draws(tmp_path):
    path = tiny_sam.checkpoint(tmp_path)
    exact, rough = (
        [p.rle for own in make("sam", path, device="cuda", precision=precision).segment(IMAGES, BOXES) for p in own]
        for precision in ("fp32", "bf16")
    )
    ious = [1.0 if a == b else float(rle_iou([a], [b])[0, 0]) for a, b in zip(exact, rough, strict=True)]
    assert np.mean(ious) > 0.9, "random weights draw noise; trained ones are asked for 0.99 by the self-test"


def test_a_batch_too_large_for_the_memory_is_halved(tmp_path):
    torch.manual_seed(0)
    torch.save(build_sam("vit_b").state_dict(), tmp_path / "random.pth")
    segmenter = make("sam", tmp_path / "random.pth", device="cuda", batch_size="64", box_chunk=512)
    images, boxes = [drawn(480, 640, 1)] * 64, [some_boxes(480, 640, 8)] * 64
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 8 * 2**30 / total))
    try:
        found = list(segmenter.segment(images, boxes))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [len(own) for own in found] == [8] * 64
    assert segmenter.batch_size < 64 or segmenter.oom_batcher.max_boxes < 512
