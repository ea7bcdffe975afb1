"""SAM and HQ-SAM as segmenters: segment-anything's masks, batches, too little memory, options and checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import tiny_sam
from fakes.sam_segmenters import build_segmenter, draw_image, random_boxes
from segment_anything import SamPredictor

from synthgen import plugins
from synthgen.errors import BrokenWorkerError, SynthgenError
from synthgen.generate.segmenters import _sam, sam
from synthgen.generate.segmenters._sam_zoom import plan_zoom_crops
from synthgen.models.hq_sam import build_hq_sam
from synthgen.models.sam import build_sam, infer_config, load_weights
from synthgen.models.sam_masks import select_masks
from synthgen.records.rle import decode_mask
from synthgen.weights import cached_file_sha256

PLUGIN_PACKAGE = "generate.segmenters"
IMAGES = [draw_image(100, 150, 1), draw_image(150, 90, 2), draw_image(60, 60, 3)]
BOXES = [random_boxes(100, 150, 4, 1), random_boxes(150, 90, 0), random_boxes(60, 60, 7, 2)]


def reference(name="sam"):
    """The same network, plain, as whoever read the checkpoint would have it."""
    weights = tiny_sam.weights(f"{name}_tiny")
    net = (build_hq_sam if name == "hq_sam" else build_sam)(infer_config(weights))
    load_weights(net, weights)
    return net


def alike(some, others) -> bool:
    """The same masks up to the pixels whose logits are all but zero; the same scores."""
    return len(some) == len(others) and all(
        (decode_mask(a.rle) != decode_mask(b.rle)).mean() < 1e-3 and a[1:] == pytest.approx(b[1:], abs=1e-3)
        for a, b in zip(some, others, strict=True)
    )


def test_masks_and_scores_are_the_predictors(checkpoints):
    predictor = SamPredictor(reference())
    found = list(build_segmenter(checkpoints).segment(IMAGES, BOXES))
    assert [len(predictions) for predictions in found] == [4, 0, 7]
    for image, boxes, predictions in zip(IMAGES, BOXES, found, strict=True):
        if len(boxes):
            predictor.set_image(image)
        for box, prediction in zip(boxes, predictions, strict=True):
            logits, iou, _ = predictor.predict(box=box, multimask_output=False, return_logits=True)
            sure = np.abs(logits[0]) > 1e-4
            assert np.array_equal(decode_mask(prediction.rle) & sure, (logits[0] > 0) & sure)
            assert prediction.predicted_iou == pytest.approx(np.clip(iou[0], 0, 1), abs=1e-4)
            assert prediction.stability_score == pytest.approx(
                (logits > 1).sum() / max((logits > -1).sum(), 1), abs=1e-3
            )
            assert prediction.sam_predicted_iou is None
            mask, probabilities = logits[0] > 0, 1 / (1 + np.exp(-logits[0].astype(np.float64)))
            expected = probabilities[mask].sum() / max(mask.sum() + probabilities[~mask].sum(), 1)
            assert prediction.soft_iou == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["sam", "hq_sam"])
@pytest.mark.parametrize("options", [{}, {"multimask": True}, {"zoom": True}], ids=str)
def test_batches_and_chunks_change_nothing(checkpoints, name, options):
    whole = list(build_segmenter(checkpoints, name, box_chunk=1000, **options).segment(IMAGES, BOXES))
    narrow = build_segmenter(checkpoints, name, box_chunk=3, **options)
    for i, predictions in enumerate(whole):
        ((*alone,),) = narrow.segment([IMAGES[i]], [BOXES[i]])
        assert alike(predictions, alone)


def test_large_images_leave_the_device_in_parts(checkpoints, monkeypatch):
    expected = list(build_segmenter(checkpoints).segment(IMAGES, BOXES))
    monkeypatch.setattr(_sam, "MAX_LOGITS", {"cpu": 2 * 128 * 128})
    seen = []
    whole = _sam.postprocess_logits
    monkeypatch.setattr(
        _sam, "postprocess_logits", lambda net, logits, *a: seen.append(len(logits)) or whole(net, logits, *a)
    )
    found = list(build_segmenter(checkpoints).segment(IMAGES, BOXES))
    assert all(alike(a, b) for a, b in zip(found, expected, strict=True))
    assert max(seen) == 2
    assert sum(seen) == 11


def test_hq_sam_does_not_claim_to_score_its_masks(checkpoints):
    (plain,), (fine,) = (
        build_segmenter(checkpoints, name).segment(IMAGES[:1], BOXES[:1]) for name in ("sam", "hq_sam")
    )
    assert all(p.predicted_iou is None and 0 <= p.sam_predicted_iou <= 1 for p in fine)
    assert [p.rle for p in plain] != [p.rle for p in fine]
    assert build_segmenter(checkpoints, "hq_sam").source == "hq_sam vit 64x4"


def test_many_boxes_cost_the_memory_of_a_chunk(checkpoints, monkeypatch):
    segmenter = build_segmenter(checkpoints, box_chunk=64)
    seen = []
    whole = type(segmenter.network.mask_decoder).decode

    def counting(self, embeddings, image_pe, prompts, multimask):
        seen.append(len(prompts))
        return whole(self, embeddings, image_pe, prompts, multimask)

    monkeypatch.setattr(type(segmenter.network.mask_decoder), "decode", counting)
    (found,) = segmenter.segment([IMAGES[0]], [random_boxes(100, 150, 500)])
    assert len(found) == 500
    assert max(seen) == 64
    assert len(seen) == 8


def test_fewer_images_where_memory_runs_out(checkpoints, monkeypatch, caplog):
    segmenter = build_segmenter(checkpoints, batch_size="3")
    expected = list(segmenter.segment(IMAGES, BOXES))
    whole = _sam.encode_images

    def greedy(network, pixels):
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(network, pixels)

    monkeypatch.setattr(_sam, "encode_images", greedy)
    with caplog.at_level(logging.WARNING):
        found = list(segmenter.segment(IMAGES, BOXES))
    assert all(alike(a, b) for a, b in zip(found, expected, strict=True))
    assert segmenter.batch_size == 1
    assert "going on with 1 images at once" in caplog.text


def test_no_window_is_left_out_where_memory_runs_out(checkpoints, monkeypatch):
    image, small = draw_image(600, 600), np.arange(16)[:, None] // [4, 1] % 4 * 130 + 40
    boxes = np.hstack([small, np.add(small, [30, 25])]).astype(np.float32)
    assert len(plan_zoom_crops(boxes, 600, 600)) > 8
    (expected,) = build_segmenter(checkpoints, zoom=True, batch_size="4").segment([image], [boxes])
    whole = _sam.encode_images

    def greedy(network, pixels):
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(network, pixels)

    monkeypatch.setattr(_sam, "encode_images", greedy)
    (found,) = build_segmenter(checkpoints, zoom=True, batch_size="4").segment([image], [boxes])
    assert alike(found, expected)


def test_fewer_boxes_where_memory_runs_out(checkpoints, monkeypatch):
    segmenter = build_segmenter(checkpoints, box_chunk=64)
    (expected,) = segmenter.segment(IMAGES[2:], BOXES[2:])
    whole = _sam.decode_masks

    def greedy(network, embeddings, prompts, *, chunk_size, multimask_output):
        if chunk_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(network, embeddings, prompts, chunk_size=chunk_size, multimask_output=multimask_output)

    monkeypatch.setattr(_sam, "decode_masks", greedy)
    (found,) = segmenter.segment(IMAGES[2:], BOXES[2:])
    assert alike(found, expected)
    assert segmenter.oom_batcher.max_boxes == 2

    def hopeless(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(_sam, "decode_masks", hopeless)
    with pytest.raises(torch.OutOfMemoryError):
        list(segmenter.segment(IMAGES[2:], BOXES[2:]))


def test_a_lost_device_ends_the_worker(checkpoints, monkeypatch):
    segmenter = build_segmenter(checkpoints)

    def lost(*_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nand more")

    monkeypatch.setattr(_sam, "encode_images", lost)
    with pytest.raises(BrokenWorkerError, match=r"^the GPU failed \(CUDA error: an illegal memory access was enc"):
        list(segmenter.segment(IMAGES, BOXES))


def test_candidates_are_chosen_by_evidence(checkpoints):
    """Each mask kept is, of SAM's three, the one whose evidence is best; not always the one that SAM scores best."""
    image, boxes = draw_image(150, 90, 1), random_boxes(150, 90, 8, 1)
    (found,) = build_segmenter(checkpoints, multimask=True).segment([image], [boxes])
    predictor = SamPredictor(reference())
    predictor.set_image(image)
    chosen = set()
    for box, prediction in zip(boxes, found, strict=True):
        logits, iou, _ = predictor.predict(box=box, multimask_output=True, return_logits=True)
        one_by_one = (torch.tensor(logits)[:, None], torch.tensor(iou)[:, None], torch.tensor(box).expand(3, 4))
        best = int(select_masks(*one_by_one, always_score=True).selection_score.argmax())
        sure = np.abs(logits[best]) > 1e-4
        assert ((logits[best] > 0) == decode_mask(prediction.rle))[sure].all()
        chosen.add((best, int(iou.argmax())))
    assert any(best != theirs for best, theirs in chosen)


def settled(name="sam", **options):
    return plugins.resolve_options(PLUGIN_PACKAGE, name, options)


def test_settled_options_say_which_weights(checkpoints):
    path = checkpoints["sam"]
    found = settled(checkpoint=path)
    assert (found["variant"], found["weights"]) == ("vit 64x4", cached_file_sha256(Path(path)))
    assert settled()["variant"] == "vit_h"
    assert settled(variant="vit_b")["weights"] == sam.PUBLISHED_WEIGHTS["vit_b"].sha256
    assert settled(**found) == found, "a worker settles again, and finds the same"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "fp61"}, r"^--precision fp61 should be fp32 or bf16"),
        ({"precision": "bf61"}, r"did you mean 'bf16'\?"),
        ({"variant": "vit_x"}, r"^--variant vit_x should be vit_b or vit_l or vit_h"),
        ({"batch_size": "0"}, r"^--batch-size 0 should be a number of images, or auto"),
        ({"batch_size": "many"}, r"^--batch-size many should be a number"),
        ({"device": "gpu"}, r"^--device gpu should be auto, cpu, cuda"),
        (
            {"checkpoint": "missing.pth"},
            r"missing\.pth: it cannot be read \(No such file or directory\); name the offi",
        ),
    ],
)
def test_options_that_cannot_be_used_are_reported(options, sentence):
    with pytest.raises(SynthgenError, match=sentence):
        settled(**options)


def test_a_checkpoint_of_the_other_model_is_reported(checkpoints):
    with pytest.raises(SynthgenError, match=r"hq_sam_tiny\.pth is a checkpoint of hq_sam; say --segmenter hq_sam$"):
        settled(checkpoint=checkpoints["hq_sam"])
    with pytest.raises(SynthgenError, match=r"sam_tiny\.pth is a checkpoint of sam; say --segmenter sam$"):
        settled("hq_sam", checkpoint=checkpoints["sam"])


def test_a_checkpoint_of_another_size_is_reported(checkpoints):
    with pytest.raises(
        SynthgenError, match=r"sam_tiny\.pth is a vit 64x4, not the vit_b asked for; leave --variant out"
    ):
        settled(checkpoint=checkpoints["sam"], variant="vit_b")


def test_a_checkpoint_that_changed_since_the_job_began_is_reported(checkpoints, tmp_path):
    options = settled(checkpoint=checkpoints["sam"])
    other = {name: tensor + 0.01 for name, tensor in tiny_sam.weights("sam_tiny").items()}
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(SynthgenError, match=r"^-O weights=[0-9a-f]{64} asks for another checkpoint than other\.pth"):
        plugins.build_plugin(PLUGIN_PACKAGE, "sam", {**options, "checkpoint": str(tmp_path / "other.pth")})


def test_damaged_and_foreign_checkpoints_are_one_sentence(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"no checkpoint")
    torch.save({"weight": torch.ones(3)}, tmp_path / "b.pth")
    lacking = dict(tiny_sam.weights("sam_tiny"))
    del lacking["mask_decoder.iou_token.weight"]
    torch.save(lacking, tmp_path / "c.pth")
    for name, sentence in (
        ("a", "it is no PyTorch checkpoint"),
        ("b", "these weights are not SAM's"),
        ("c", "they lack"),
    ):
        with pytest.raises(SynthgenError, match=sentence) as told:
            build_segmenter({"sam": str(tmp_path / f"{name}.pth")})
        assert "\n" not in str(told.value)


def test_no_such_device_is_reported(checkpoints):
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(SynthgenError, match=r"^--device cuda: PyTorch sees no such device here"):
        build_segmenter(checkpoints, device="cuda")
