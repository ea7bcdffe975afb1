"""From network outputs to the original image, compared with the code of Mask2Former and Mask DINO."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from synthgen.evaluation import postprocess
from synthgen.evaluation.postprocess import (
    PANOPTIC_OVERLAP_THRESHOLD,
    PANOPTIC_SCORE_THRESHOLD,
    PANOPTIC_TEMPERATURE,
    RawPrediction,
)
from synthgen.records.rle import decode_mask, rle_bbox_xyxy


def random(seed=0, queries=12, texts=5, coarse=(16, 24), size=(60, 90), original=(75, 113), **more) -> RawPrediction:
    """Smooth random masks, of which each covers about a third of the image."""
    rng = torch.Generator().manual_seed(seed)
    small = torch.randn(queries, 1, 4, 6, generator=rng) * 4 - 1
    masks = F.interpolate(small, coarse, mode="bicubic")[:, 0]
    return RawPrediction(
        torch.randn(queries, texts, generator=rng) * 1.5, torch.rand(queries, 4, generator=rng), masks,
        (coarse[0] * 4, coarse[1] * 4), size, original, queries // 2, **more,
    )  # fmt: skip


def enlarged(seen: RawPrediction) -> torch.Tensor:
    """As Mask2Former's forward and detectron2's sem_seg_postprocess: [Q, H, W]."""
    masks = F.interpolate(seen.mask_logits[:, None], seen.padded_size, mode="bilinear", align_corners=False)
    masks = masks[:, :, : seen.size[0], : seen.size[1]]
    return F.interpolate(masks, seen.original_size, mode="bilinear", align_corners=False)[:, 0]


@pytest.fixture(params=[2**25, 1000], ids=["one strip", "strips"], autouse=True)
def strips(request, monkeypatch):
    monkeypatch.setattr(postprocess, "_MAX_STRIP_ELEMENTS", request.param)


@pytest.mark.parametrize("frame", [(60, 90), (75, 113), (30, 41), (240, 3)], ids=str)
def test_masks_are_enlarged_cut_and_resized(frame):
    seen = random(original=frame)
    wanted = enlarged(seen)
    strips = [strip for _, strip in postprocess._iter_mask_strips(seen, range(12))]
    found = torch.cat(strips, dim=2)
    assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-4)


def test_instances_are_those_of_mask_dino():
    seen = random(queries=30)
    masks = enlarged(seen)
    scores, pairs = seen.logits.sigmoid().flatten().topk(100)
    found = postprocess.instances(seen)
    wanted = {}
    for score, pair in zip(scores.tolist(), pairs.tolist(), strict=True):
        query, label = divmod(pair, 5)
        binary = (masks[query] > 0).float()
        mean = (masks[query].sigmoid() * binary).sum() / (binary.sum() + 1e-6)
        if binary.any():
            wanted[query, label] = score * float(mean), binary.bool().numpy()
    assert {(one.query, one.label) for one in found} == wanted.keys() and len(found) > 80
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        score, mask = wanted[one.query, one.label]
        assert one.score == pytest.approx(score, abs=1e-5)
        assert (decode_mask(one.mask) != mask).sum() <= 1, "but for a pixel at the very edge"


def test_a_text_that_others_leave_no_place_for_has_one_if_that_is_asked():
    seen = random(queries=120, texts=2)
    seen.logits[:, 0], seen.logits[:, 1] = 2.0, torch.linspace(-2, 1, 120)
    seen.mask_logits[119, 0, 0] = 9.0
    assert {one.label for one in postprocess.instances(seen)} == {0}
    (weak,) = (one for one in postprocess.instances(seen, every_text=True) if one.label == 1)
    assert weak.query == 119 and 0.5 < weak.score < 0.74


def test_boxes_are_in_pixels_of_the_original_and_within_it():
    seen = random(size=(60, 90), original=(120, 45))
    seen.boxes[0] = torch.tensor([0.5, 0.25, 0.5, 0.25])
    seen.boxes[1] = torch.tensor([0.9, 0.9, 0.5, 0.5])
    found = {one.query: one for one in postprocess.boxes(seen)}
    assert found[0].box_xyxy == pytest.approx((11.25, 15, 33.75, 45)) and found[0].mask is None
    assert found[1].box_xyxy == pytest.approx((0.65 * 45, 0.65 * 120, 45, 120))


def test_labels_are_those_of_mask2former_and_queries_that_are_unsure_say_little():
    seen = random(queries=20)
    likely = seen.logits.sigmoid()
    wanted = torch.einsum("qt,qhw->thw", likely, enlarged(seen).sigmoid()).argmax(0).numpy()
    found = postprocess.semantic(seen)
    assert (found.labels != wanted).mean() < 1e-3 and len(np.unique(wanted)) > 2
    assert found.query_by_label.keys() == set(np.unique(found.labels).tolist())
    for label, query in found.query_by_label.items():  # who says most of it, by all pixels of the original
        said = (likely[:, label, None] * enlarged(seen).sigmoid()[:, wanted == label]).sum(1)
        assert said[query] >= 0.999 * said.max()

    seen = random(queries=9, texts=2)  # one is sure of the first text, eight take it for the second, if for any
    seen.mask_logits[:] = 9.0
    seen.logits[0], seen.logits[1:] = torch.tensor([3.0, -6.0]), torch.tensor([-6.0, -2.5])
    assert (postprocess.semantic(seen).labels == 0).all()


@pytest.mark.parametrize("stuff", [frozenset(), frozenset({0, 2})], ids=["things", "stuff"])
@pytest.mark.parametrize("seed", range(4))
def test_a_panoptic_map_is_that_of_mask_dino(stuff, seed):
    seen = replace(random(seed, queries=20, texts=3), stuff_labels=stuff)
    seen.mask_logits[:] = tiles(seed)
    seen.logits[:, 0] += 1
    wanted, segments = mask_dino(seen)
    found = postprocess.panoptic(seen)
    assert (found.segment_ids != wanted).mean() < 1e-3 and len(segments) > (2 if stuff else 4)
    assert any(len(segment.queries) > 1 for segment in found.segments) == bool(stuff), "nothing was merged"
    assert [segment.label for segment in found.segments] == segments
    labels = [segment.label for segment in found.segments]
    assert all(labels.count(label) == 1 for label in stuff & set(labels))
    assert all(len(segment.queries) == 1 for segment in found.segments if segment.label not in stuff)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]], ids=str)
def test_a_region_of_several_queries_is_as_likely_as_the_surest_of_them(order):
    """Whichever comes last: thresholds of predictions keep the sky for the part of it that is surely sky."""
    seen = random(queries=3, texts=2, stuff_labels=frozenset({0}))
    seen.mask_logits[:] = -9.0
    for query, rank in enumerate(order):
        seen.mask_logits[query, :, 8 * query : 8 * query + 8] = 9.0
        seen.logits[query] = torch.tensor([float(rank), -9.0])
    (one,) = postprocess.panoptic(seen).segments
    assert one.queries == (0, 1, 2) and one.score == pytest.approx(float(torch.tensor(2.0).sigmoid()))


def tiles(seed: int) -> torch.Tensor:
    """Twenty regions that lie side by side, and of every fourth another one under it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :24]
    away = np.hypot(y - rng.uniform(0, 16, (20, 1, 1)), x - rng.uniform(0, 24, (20, 1, 1)))
    away[3::4] = away[2::4] + 0.5
    nearest = np.sort(away, axis=0)
    margin = np.where(away == nearest[0], nearest[1], nearest[0]) - away
    margin[3::4] += 1
    return torch.from_numpy(2 * margin).float()


def mask_dino(seen: RawPrediction):
    """`MaskDINO.panoptic_inference`, with the names of here."""
    scores, labels = seen.logits.sigmoid().max(-1)
    keep = scores > PANOPTIC_SCORE_THRESHOLD
    scores, labels = F.softmax(seen.logits.sigmoid() / PANOPTIC_TEMPERATURE, dim=-1).max(-1)
    scores, labels, masks = scores[keep], labels[keep], enlarged(seen).sigmoid()[keep]
    ids = (scores.view(-1, 1, 1) * masks).argmax(0)
    regions, segments, memory = np.zeros(seen.original_size, np.int32), [], {}
    for k in range(len(labels)):
        label = int(labels[k])
        mask_area, original_area = (ids == k).sum().item(), (masks[k] >= 0.5).sum().item()
        mask = (ids == k) & (masks[k] >= 0.5)
        if mask_area > 0 and original_area > 0 and mask.sum().item() > 0:
            if mask_area / original_area < PANOPTIC_OVERLAP_THRESHOLD:
                continue
            if label in seen.stuff_labels:
                if label in memory:
                    regions[mask.numpy()] = memory[label]
                    continue
                memory[label] = len(segments) + 1
            segments.append(label)
            regions[mask.numpy()] = len(segments)
    return regions, segments


def test_each_phrase_gets_the_query_that_fits_it_best():
    seen = random()
    seen.mask_logits[int(seen.logits[:, 3].argmax())] = -5  # an empty mask is none
    found = {one.label: one for one in postprocess.referring(seen)}
    best = seen.logits.argmax(0).tolist()
    assert found.keys() == {label for label in range(5) if best[label] != best[3]}
    for label, one in found.items():
        assert one.query == best[label] and one.score == pytest.approx(float(seen.logits[:, label].max().sigmoid()))
        assert (decode_mask(one.mask) != (enlarged(seen)[one.query] > 0).numpy()).sum() <= 1


def test_foreground_is_the_mask_of_the_likeliest_query():
    seen = random(texts=1)
    wanted = enlarged(seen)[int(seen.logits[:, 0].argmax())].sigmoid()
    assert np.allclose(postprocess.foreground(seen).probabilities, wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 5), (1, 9), (9, 1)], ids=str)
def test_run_lengths_are_those_of_the_pixels(shape):
    rng = np.random.default_rng(0)
    for share in (0, 0.1, 0.5, 1):
        pixels = torch.from_numpy(rng.random((4, *shape)) < share)
        one = RawPrediction(torch.zeros(4, 1), torch.zeros(4, 4), pixels * 2.0 - 1, shape, shape, shape, 0)
        for query, (mask, score) in postprocess._encode_masks(one, range(4)).items():
            assert (decode_mask(mask) == pixels[query].numpy()).all()
            assert score == pytest.approx(float(pixels[query].any()) * float(torch.tensor(1.0).sigmoid()))
            x1, y1, x2, y2 = rle_bbox_xyxy(mask)
            assert 0 <= x1 <= x2 <= shape[1] and 0 <= y1 <= y2 <= shape[0]


def test_what_is_no_number_is_nothing(strips):
    from synthgen.dataloading.collate import Batch
    from synthgen.models.mqformer.decoder import DecoderOutput
    from synthgen.models.mqformer.predictions import Predictions

    nan = torch.full((1, 6, 4), torch.nan)
    decoded = DecoderOutput((Predictions([nan[0, :, :2]], nan, torch.full((1, 6, 8, 8), torch.nan)),), 3)
    batch = Batch(torch.zeros(1, 3, 32, 32), torch.zeros(1, 32, 32), [{"size": (32, 32), "orig_size": (40, 40)}], [0])
    (seen,) = postprocess.split_predictions(decoded, batch, [["a", "b"]])
    assert postprocess.instances(seen) == [] and postprocess.referring(seen) == []
    assert not postprocess.panoptic(seen).segment_ids.any() and not postprocess.foreground(seen).probabilities.any()
    assert all(one.score == 0 and np.isfinite(one.box_xyxy).all() for one in postprocess.boxes(seen))
    assert postprocess.semantic(seen).labels.shape == (40, 40)
