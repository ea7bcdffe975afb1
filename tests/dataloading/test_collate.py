"""Collated batches: padding, and the same image in any batch."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from fakes.batch_examples import make_example

from synthgen.dataloading import collate as collate_module
from synthgen.dataloading.collate import PIXEL_MEAN, PIXEL_STD, collate, unpack_batch
from synthgen.dataloading.mixture import StreamItem


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    left = multiprocessing.active_children()
    assert not left, "reader processes outlive their loader"


def test_a_batch_is_as_large_as_its_largest_image_and_padded_right_and_bottom() -> None:
    examples = [make_example((10, 20), (24, 24), [True, False, True]), make_example((33, 8), (33, 40), []),
                make_example((4, 8), (4, 8), [False])]  # fmt: skip
    batch = unpack_batch(collate([StreamItem(one, i, f"toy/{i}") for i, one in enumerate(examples)]))
    assert batch.images.shape == (3, 3, 64, 64) and batch.images.dtype == torch.float32
    assert batch.padding_mask.shape == (3, 64, 64) and batch.padding_mask.dtype == torch.bool
    assert batch.source_ids == [0, 1, 2]
    for i, one in enumerate(examples):
        h, w = one.size
        target = batch.targets[i]
        expected = (one.image[:h, :w].astype(np.float64) - PIXEL_MEAN) / PIXEL_STD
        assert np.allclose(batch.images[i, :, :h, :w], expected.transpose(2, 0, 1), atol=1e-5)
        seen = torch.zeros(64, 64, dtype=torch.bool)
        seen[:h, :w] = True
        assert torch.equal(batch.padding_mask[i], ~seen)
        assert not batch.images[i][:, ~seen].any() and not target["ignore"][~seen].any()
        assert not target["masks"][:, ~seen].any()
        assert np.array_equal(target["masks"][:, :h, :w], one.masks[:, :h, :w])
        assert np.array_equal(target["ignore"][:h, :w], one.ignore[:h, :w])
        n = len(one.labels)
        assert target["masks"].shape == (int(one.has_mask.sum()), 64, 64) and target["masks"].dtype == torch.bool
        assert torch.equal(target["boxes"], torch.tensor([[3 / w, 3 / h, 4 / w, 2 / h]]).expand(n, 4))
        assert target["boxes"].shape == (n, 4) and target["boxes"].dtype == torch.float32
        assert target["labels"].dtype == torch.int64 and target["has_mask"].tolist() == one.has_mask.tolist()
        assert target["mask_weights"].tolist() == [0.5] * n
        kept = {key: target[key] for key in ("texts", "size", "orig_size", "annotation_ids", "image_key")}
        assert kept == {
            "texts": one.texts, "size": one.size, "orig_size": (99, 98),
            "annotation_ids": one.annotation_ids, "image_key": f"toy/{i}",
        }  # fmt: skip


@pytest.mark.parametrize("trim", [False, True])
def test_page_locked_batches_are_the_same(trim: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page-locked memory needs a GPU; ordinary memory of any content takes its place."""

    def allocate(shape: tuple[int, ...], dtype: type[np.generic], pin: bool) -> torch.Tensor:
        assert pin
        return torch.from_numpy(np.full(shape, 1, dtype))

    examples = [make_example((10, 20), (24, 24), [True, False, True]), make_example((33, 8), (40, 40), [])]
    packed = collate([StreamItem(one, i, f"toy/{i}") for i, one in enumerate(examples)], trim=trim)
    plain = unpack_batch(packed)
    assert plain.images.shape[2:] == ((64, 32) if trim else (64, 64)), "without padding, the views count"
    monkeypatch.setattr(collate_module, "_allocate", allocate)
    pinned = unpack_batch(packed, pin=True)
    for one, other in zip(pinned[:2], plain[:2], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(pinned.targets, plain.targets, strict=True):
        assert torch.equal(one["masks"], other["masks"]) and torch.equal(one["ignore"], other["ignore"])


def test_an_image_is_the_same_in_any_batch() -> None:
    """But for padding: so a result does not depend on what is beside it."""
    small, large = (StreamItem(make_example(s, s, [True]), 0, "k") for s in ((10, 20), (70, 50)))
    alone, together = unpack_batch(collate([small])), unpack_batch(collate([small, large]))
    assert torch.equal(alone.images[0], together.images[0][:, :32, :32]) and not together.images[0][:, 32:].any()
    assert torch.equal(alone.targets[0]["masks"][0], together.targets[0]["masks"][0][:32, :32])
