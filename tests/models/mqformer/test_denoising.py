"""Denoising queries: the reference's noise, the attention mask, losses by known matches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from synthgen.models.mqformer import decoder as decoder_module
from synthgen.models.mqformer.criterion import SetCriterion
from synthgen.models.mqformer.decoder import Decoder, DecoderOutput
from synthgen.models.mqformer.denoising import MAX_DENOISING_QUERIES, NOISE_SCALE, NoisedTargets, add_noise
from synthgen.models.mqformer.losses import PointSampling, compute_losses
from synthgen.models.mqformer.matcher import LossWeights
from synthgen.models.mqformer.pixel_decoder import FeaturePyramid
from synthgen.models.mqformer.position_encoding import inverse_sigmoid
from synthgen.models.mqformer.targets import MaskTarget

SHAPES = ((8, 12), (4, 6))
KINDS = {"mixed": (6, 4), "conditional": (10, 0), "learnable": (0, 10)}


def objects(count: int, seed: int = 0, *, texts: int = 3, masked: bool = True) -> MaskTarget:
    rng = torch.Generator().manual_seed(seed)
    return MaskTarget(
        labels=torch.randint(texts, (count,), generator=rng),
        boxes=torch.rand(count, 4, generator=rng) * 0.5 + 0.2,
        has_mask=torch.full((count,), masked),
        masks=torch.rand(count if masked else 0, 32, 48, generator=rng) > 0.5,
        mask_weights=torch.ones(count),
        ignore_mask=torch.zeros(32, 48, dtype=torch.bool),
    )


# --- the noise --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    found = np.load(Path(__file__).parents[2] / "golden/mqformer_parts.npz")
    return {name.removeprefix("denoising/"): torch.from_numpy(found[name]) for name in found.files if "denois" in name}


def test_noise_and_what_is_hidden_are_the_reference(golden, monkeypatch):
    """Two copies of four objects and of three, with seven texts; draws of the reference, which has none for padding.

    A label's embedding there is a row of a table; here it is what `label_enc` makes of a text, which is the same where
    texts are unit vectors and its weights the table. The reference's boxes are logits.
    """
    real = torch.tensor([[True] * 4, [True] * 3 + [False]])
    slots = real.repeat(1, 2)

    def placed(drawn: Tensor, filler: float) -> Tensor:
        """Of copy, image, object -> [image, copy, place]."""
        whole = torch.full((2, 2, 4, *drawn.shape[1:]), filler)
        for copy, part in enumerate(drawn.reshape(2, 7, *drawn.shape[1:])):
            whole[0, copy], whole[1, copy, :3] = part[:4], part[4:]
        return whole

    flips = golden["rand_label_flip"]
    others = torch.zeros(14)
    others[flips < NOISE_SCALE / 2] = (golden["rand_new_label"] + 0.5) / 7
    draws = iter([placed(flips, 1.0), placed(others, 0.0), placed(golden["rand_box"], 0.5)])
    truths = [
        MaskTarget(**{**objects(0), "labels": golden[f"target{i}.labels"], "boxes": golden[f"target{i}.boxes"]})
        for i in (0, 1)
    ]
    monkeypatch.setattr(torch, "rand", lambda *_, **__: next(draws))
    found = add_noise(truths, [7, 7], 2)
    assert torch.equal(found.is_object, slots)
    images = golden["batch_idx"].repeat(2)
    for i, (queries, own) in enumerate(found.matches):
        assert torch.equal(queries, golden["map_known_indice"][images == i])
        assert own.tolist() == list(range(int(real[i].sum()))) * 2
    boxes = inverse_sigmoid(found.boxes)
    assert torch.allclose(boxes[slots], golden["out_box_unsigmoid"][slots], atol=1e-5)
    assert torch.equal(golden["label_enc"][found.labels][slots], golden["out_label_embed"][slots])
    everyone = replace(found, is_object=torch.ones_like(slots)).attention_mask(6)
    assert torch.equal(everyone, golden["attn_mask"].bool().expand(2, -1, -1))
    padded = found.attention_mask(6)
    assert torch.equal(padded[0], everyone[0])
    assert padded[1, :, [3, 7]].sum() == 2 * 14 - 2, "what is no object is seen by itself only"


@given(st.lists(st.integers(0, 130), min_size=1, max_size=3), st.integers(1, 200))
def test_every_object_has_its_copies_and_their_number_is_bounded(counts, groups):
    truths = [objects(count, i, masked=False) for i, count in enumerate(counts)]
    for truth in truths:  # up to the image's edges, beyond which noise must not carry them: there are no logits
        truth["boxes"] = truth["boxes"] * 2 - 0.4
    found = add_noise(truths, [3] * len(counts), groups)
    most = min(MAX_DENOISING_QUERIES, max(1, *counts))
    assert found.num_groups == max(1, min(groups, MAX_DENOISING_QUERIES // most))
    assert found.boxes.shape == (len(counts), found.num_groups * most, 4)
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
    for truth, (queries, own), there, boxes, labels in zip(
        truths, found.matches, found.is_object, found.boxes, found.labels, strict=True
    ):
        assert torch.equal(there.nonzero()[:, 0], queries)
        kept = min(MAX_DENOISING_QUERIES, len(truth["labels"]))
        assert torch.equal(own.bincount(minlength=len(truth["labels"])).clamp(max=1).sum(), torch.tensor(kept))
        assert len(own) == kept * found.num_groups
        right = truth["boxes"][own]
        moved = (boxes[queries] - right).abs()
        assert (moved <= NOISE_SCALE * right[:, [2, 3, 2, 3]] * torch.tensor([0.5, 0.5, 1, 1]) + 1e-6).all()
        assert not len(own) or labels[queries].max() < 3


def test_labels_change_as_often_as_said_and_to_texts_of_the_image():
    torch.manual_seed(0)
    truths = [objects(50, texts=1), objects(50, texts=1)]
    wrong = torch.stack([add_noise(truths, [1000, 1], 2).labels for _ in range(20)])
    assert (wrong[:, 0] > 0).float().mean() == pytest.approx(NOISE_SCALE / 2, abs=0.03)
    assert wrong[:, 0].max() > 900
    assert not wrong[:, 1].any()


# --- who sees whom ----------------------------------------------------------------------------------------------------


def small(kind: str = "mixed", **changes: object) -> Decoder:
    torch.manual_seed(0)
    conditional, learnable = KINDS[kind]
    given = {"dim": 32, "mask_dim": 16, "text_dim": 24, "levels": 2, "num_layers": 2, "heads": 4, "feedforward": 48}
    decoder = Decoder(
        conditional_queries=conditional, learnable_queries=learnable, **{**given, "denoising": 3, **changes}
    )
    for parameter in decoder.parameters():  # beginnings of zero would hide what depends on what
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return decoder.train()


def scene(images: int = 2, seed: int = 0) -> FeaturePyramid:
    rng = torch.Generator().manual_seed(seed)
    return FeaturePyramid(
        torch.randn(images, sum(h * w for h, w in SHAPES), 32, generator=rng),
        tuple(torch.zeros(images, h, w, dtype=torch.bool) for h, w in SHAPES),
        torch.randn(images, 16, 16, 24, generator=rng),
    )


def words(*counts: int, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.nn.functional.normalize(torch.randn(n, 24, generator=rng), dim=-1) for n in counts]


def equal(a: DecoderOutput, b: DecoderOutput) -> bool:
    return len(a.layers) == len(b.layers) and all(
        torch.allclose(torch.cat(list(x.logits)), torch.cat(list(y.logits)), atol=1e-5)
        and torch.allclose(x.boxes, y.boxes, atol=1e-5)
        and torch.allclose(x.mask_logits, y.mask_logits, atol=1e-4)
        for x, y in zip(a.layers, b.layers, strict=True)
    )


@pytest.mark.parametrize("union", [False, True], ids=["apart", "union"])
@pytest.mark.parametrize("kind", KINDS)
def test_matching_queries_never_see_a_noised_object(kind, union):
    decoder, pyramid, texts = small(kind, joint_self_attention=union), scene(), words(3, 3)
    with_them = decoder(pyramid, texts, [objects(4), objects(2)])
    assert with_them.denoising_output is not None
    assert with_them.denoising_output.layers[-1].boxes.shape == (2, 12, 4)
    assert len(with_them.denoising_output.layers) == 3, "all but the proposals"
    assert equal(with_them, decoder(pyramid, texts))


def test_at_inference_there_are_none():
    decoder = small()
    assert decoder(scene(), words(3, 3)).denoising_output is None
    assert decoder.eval()(scene(), words(3, 3), [objects(4), objects(2)]).denoising_output is None
    assert small(denoising=0)(scene(), words(3, 3), [objects(4), objects(2)]).denoising_output is None


def test_groups_do_not_see_each_other_and_see_themselves(monkeypatch):
    decoder, pyramid, texts = small(), scene(1), words(3)
    torch.manual_seed(0)
    noise = add_noise([objects(4)], [3], 3)

    def boxes_with(changed: Tensor) -> Tensor:
        monkeypatch.setattr(decoder_module, "add_noise", lambda *_: replace(noise, boxes=changed))
        found = decoder(pyramid, texts, [objects(4)]).denoising_output
        assert found is not None
        return found.layers[-1].mask_logits[0].detach()

    elsewhere = noise.boxes.clone()
    elsewhere[0, 5] = torch.tensor([0.2, 0.8, 0.1, 0.1])  # the second of the second group
    changes = (boxes_with(noise.boxes) - boxes_with(elsewhere)).abs().amax((1, 2))
    assert (changes[4:8] > 1e-4).all()
    assert (changes[:4] < 1e-6).all()
    assert (changes[8:] < 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_another_image_change_nothing(kind, monkeypatch):
    """What is noised of an image alone and beside a fuller one, whose number of places it then has."""
    decoder, pyramid, texts = small(kind), scene(), words(3, 3)
    torch.manual_seed(0)
    both = add_noise([objects(4), objects(2, 1)], [3, 3], 3)
    there = both.is_object[1].nonzero()[:, 0]
    alone = NoisedTargets(
        both.labels[1:, there], both.boxes[1:, there], both.is_object[1:, there],
        [(torch.arange(6), both.matches[1][1])], 3,
    )  # fmt: skip
    found = []
    for noise, images in ((both, slice(2)), (alone, slice(1, 2))):
        monkeypatch.setattr(decoder_module, "add_noise", lambda *_, noise=noise: noise)
        part = FeaturePyramid(
            pyramid.memory[images], tuple(p[images] for p in pyramid.padding_masks), pyramid.mask_features[images]
        )
        found.append(decoder(part, texts[images], [objects(1)]).denoising_output)
    for together, own in zip(found[0].layers, found[1].layers, strict=True):
        assert torch.allclose(together.logits[1][there], own.logits[0], atol=1e-5)
        assert torch.allclose(together.boxes[1, there], own.boxes[0], atol=1e-5)


# --- losses -----------------------------------------------------------------------------------------------------------


def totals(decoded: DecoderOutput, truths: list[MaskTarget], count: int = 6) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    criterion = SetCriterion(LossWeights(), PointSampling(num_points=64))
    return criterion(decoded, truths, num_objects=count, generator=rng)


def test_noised_objects_are_judged_by_what_they_were_made_of():
    decoder, truths = small(), [objects(4), objects(2, 1)]
    torch.manual_seed(0)
    decoded = decoder(scene(), words(3, 3), truths)
    found = totals(decoded, truths)
    denoised = decoded.denoising_output
    assert denoised is not None
    assert found.keys() == {
        prefix + name for prefix in ("", "dn_") for name in ("label", "box", "giou", "mask", "dice")
    }
    right = [truth["boxes"].repeat(3, 1) for truth in truths]
    box = sum(
        (layer.boxes[i, queries] - right[i]).abs().sum()
        for layer in denoised.layers
        for i, (queries, _) in enumerate(denoised.matches)
    )
    assert found["dn_box"].item() == pytest.approx(LossWeights().box * box.item() / (6 * 3), rel=1e-5)


def test_places_without_an_object_get_no_gradient():
    decoder, truths = small(), [objects(4), objects(2, 1)]
    decoded = decoder(scene(), words(3, 3), truths)
    denoised = decoded.denoising_output
    assert denoised is not None
    last = denoised.layers[-1]
    for part in (*last.logits, last.boxes, last.mask_embeddings):
        part.retain_grad()
    sum(
        compute_losses(
            [last],
            truths,
            num_objects=6,
            weights=LossWeights(),
            sampling=PointSampling(num_points=64),
            known_matches=denoised.matches,
        ).values()
    ).backward()
    empty = torch.ones(12, dtype=torch.bool)
    empty[denoised.matches[1][0]] = False
    assert empty.sum() == 6
    assert not last.logits[1].grad[empty].any()
    assert last.logits[1].grad[~empty].any(1).all()
    assert not last.boxes.grad[1, empty].any()
    assert not last.mask_embeddings.grad[1, empty].any()
    assert last.mask_embeddings.grad[1, ~empty].any(1).all()


def test_without_masks_there_are_boxes_and_without_objects_nothing():
    decoder = small()
    found = totals(decoder(scene(), words(3, 3), truths := [objects(4, masked=False), objects(0)]), truths)
    assert found["dn_box"] > 0
    assert found["dn_mask"] == found["dn_dice"] == 0
    decoded = decoder(scene(), words(3, 3), truths := [objects(0), objects(0)])
    found = totals(decoded, truths)
    assert {name for name, loss in found.items() if name.startswith("dn_") and loss == 0} == {
        "dn_label", "dn_box", "dn_giou", "dn_mask", "dn_dice"
    }  # fmt: skip
    sum(found.values()).backward()
    grad = decoder.label_enc.weight.grad
    assert grad is not None, "processes that have objects wait for those of all others"
    assert not grad.any()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_embedding_of_labels(kind, checkpointing):
    decoder, truths = small(kind, checkpointing=checkpointing), [objects(4), objects(2, 1)]
    sum(totals(decoder(scene(), words(3, 3), truths), truths).values()).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_ignored_regions_change_nothing_of_labels():
    decoder, plain = small(), [objects(4)]
    ignored = [MaskTarget(**{**plain[0], "ignore_mask": torch.ones(32, 48, dtype=torch.bool)})]
    with torch.no_grad():
        for truths in (plain, ignored):
            torch.manual_seed(1)
            found = totals(decoder(scene(1), words(3), truths), truths)
            if truths is plain:
                before = found
    assert found["dn_label"] == before["dn_label"]
    assert found["dn_mask"] == 0
