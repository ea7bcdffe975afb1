"""The batches of a step by size: the same images, and the turns of its readers with the last one."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest
import torch
from fakes.batch_examples import make_example

from synthgen.dataloading import size_groups
from synthgen.dataloading.collate import PackedBatch, ReaderTurn, collate, unpack_batch
from synthgen.dataloading.mixture import StreamItem
from synthgen.dataloading.size_groups import BATCH_COST_PIXELS, round_up_size
from synthgen.dataloading.step_parts import form_parts


def packed_step(seed: int, *, turns: int, images: int) -> list[PackedBatch]:
    """The batches of a step: views of 1 to 160 pixels, a mask or two in each."""
    draw, batches = random.Random(seed), []
    for turn in range(turns):
        views = [(draw.randint(1, 160), draw.randint(1, 160)) for _ in range(images)]
        items = [
            StreamItem(make_example(view, (160, 160), [True] * (1 + i % 2)), i, f"{turn}/{i}")
            for i, view in enumerate(views)
        ]
        batches.append(collate(items, trim=True))
        batches[-1].turns = [ReaderTurn(turn % 2, {"turn": turn}, {})]
    return batches


@pytest.mark.parametrize("cost", [0, 1000, BATCH_COST_PIXELS])
def test_a_step_has_the_same_images_and_all_turns_with_its_last_part(
    cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_groups, "BATCH_COST_PIXELS", cost)
    made = packed_step(0, turns=3, images=4)
    plain = {t["image_key"]: (p, t, s) for b in made for p, t, s in zip(b.pixels, b.targets, b.source_ids, strict=True)}
    parts = list(form_parts(iter(packed_step(0, turns=3, images=4)), num_batches=3, max_images=4))
    assert len(parts) == (3 if cost == BATCH_COST_PIXELS else len(parts)) and len(parts) >= 3
    keys = [target["image_key"] for part in parts for target in part.targets]
    assert sorted(keys) == sorted(plain)
    for part in parts:
        for pixels, target, source in zip(part.pixels, part.targets, part.source_ids, strict=True):
            one, expected, expected_source = plain[target["image_key"]]
            assert all(np.array_equal(a, b) for a, b in zip(pixels, one, strict=True)) and source == expected_source
            assert target["size"] == expected["size"] and np.array_equal(target["boxes"], expected["boxes"])
    assert [turn.position["turn"] for part in parts for turn in part.turns] == [0, 1, 2]
    assert [len(part.turns) for part in parts] == [0] * (len(parts) - 1) + [3]


def test_a_part_is_padded_to_its_largest_view() -> None:
    parts = list(form_parts(iter(packed_step(1, turns=2, images=4)), num_batches=2, max_images=4))
    for part in parts:
        batch = unpack_batch(part)
        assert batch.images.shape[2:] == round_up_size([target["size"] for target in batch.targets])
        for i, target in enumerate(batch.targets):
            height, width = target["size"]
            assert not batch.padding_mask[i, :height, :width].any()
            assert batch.padding_mask[i, height:].all() and batch.padding_mask[i, :, width:].all()
            assert target["masks"].shape == (len(target["labels"]), *batch.images.shape[2:])
            assert torch.equal(target["masks"][:, :height, :width], torch.from_numpy(part.pixels[i].masks))
            assert not target["masks"][:, height:].any() and not target["masks"][:, :, width:].any()
            assert not target["ignore"][height:].any() and not target["ignore"][:, width:].any()


def test_steps_follow_each_other_and_a_step_that_is_cut_off_is_left_out() -> None:
    """Readers that are stopped end in the middle of a step."""
    batches = packed_step(0, turns=2, images=2) + packed_step(1, turns=2, images=2) + packed_step(2, turns=1, images=2)
    parts = form_parts(iter(batches), num_batches=2, max_images=2)
    turns = [turn for part in parts for turn in part.turns]
    assert [turn.position["turn"] for turn in turns] == [0, 1, 0, 1]
    endless = (batch for seed in range(10**6) for batch in packed_step(seed, turns=1, images=1))
    assert len(list(islice(form_parts(endless, num_batches=1, max_images=1), 3))) == 3
