"""SAM and HQ-SAM as segmenters: segment-anything's masks, whatever the batch; refusals in a sentence."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from toys import tiny_sam

from synthgen import plugins
from synthgen.errors import BrokenWorkerError, SynthgenError
from synthgen.generate.segmenters import _sam, _sam_load, sam
from synthgen.generate.segmenters._sam_zoom import MIN_WINDOW_SIDE, SMALL_BOX_FRACTION, Crop, is_small, plan_zoom_crops
from synthgen.models.hq_sam import build_hq_sam
from synthgen.models.sam import build_sam, infer_config, load_weights
from synthgen.models.sam_masks import select_masks
from synthgen.records.geometry import decode_mask
from synthgen.weights import cached_file_sha256

SHELF = "generate.segmenters"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    return {name: str(tiny_sam.checkpoint(folder, f"{name}_tiny")) for name in ("sam", "hq_sam")}


def make(checkpoints, name="sam", **options):
    own = {"checkpoint": checkpoints[name], "device": "cpu", "self_test": False, **options}
    return plugins.build_plugin(SHELF, name, own)


def drawn(height, width, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(5, 30) + y / rng.uniform(5, 30) + rng.uniform(0, 6)) for _ in range(3)]
    return np.clip(128 + 90 * np.stack(waves, 2) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def some_boxes(height, width, count, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
    return (corners * np.array([width, height] * 2)).astype(np.float32)


IMAGES = [drawn(100, 150, 1), drawn(150, 90, 2), drawn(60, 60, 3)]
BOXES = [some_boxes(100, 150, 4, 1), some_boxes(150, 90, 0), some_boxes(60, 60, 7, 2)]


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
    found = list(make(checkpoints).segment(IMAGES, BOXES))
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


@pytest.mark.parametrize("name", ["sam", "hq_sam"])
@pytest.mark.parametrize("options", [{}, {"multimask": True}, {"zoom": True}], ids=str)
def test_batches_and_chunks_change_nothing(checkpoints, name, options):
    whole = list(make(checkpoints, name, box_chunk=1000, **options).segment(IMAGES, BOXES))
    narrow = make(checkpoints, name, box_chunk=3, **options)
    for i, predictions in enumerate(whole):
        ((*alone,),) = narrow.segment([IMAGES[i]], [BOXES[i]])
        assert alike(predictions, alone)


def test_large_images_leave_the_device_in_parts(checkpoints, monkeypatch):
    expected = list(make(checkpoints).segment(IMAGES, BOXES))
    monkeypatch.setattr(_sam, "MAX_LOGITS", {"cpu": 2 * 128 * 128})
    seen = []
    whole = _sam.postprocess_logits
    monkeypatch.setattr(
        _sam, "postprocess_logits", lambda net, logits, *a: seen.append(len(logits)) or whole(net, logits, *a)
    )
    found = list(make(checkpoints).segment(IMAGES, BOXES))
    assert all(alike(a, b) for a, b in zip(found, expected, strict=True))
    assert max(seen) == 2
    assert sum(seen) == 11


def test_hq_sam_does_not_claim_to_score_its_masks(checkpoints):
    (plain,), (fine,) = (make(checkpoints, name).segment(IMAGES[:1], BOXES[:1]) for name in ("sam", "hq_sam"))
    assert all(p.predicted_iou is None and 0 <= p.sam_predicted_iou <= 1 for p in fine)
    assert [p.rle for p in plain] != [p.rle for p in fine]
    assert make(checkpoints, "hq_sam").source == "hq_sam vit 64x4"


def test_many_boxes_cost_the_memory_of_a_chunk(checkpoints, monkeypatch):
    segmenter = make(checkpoints, box_chunk=64)
    seen = []
    whole = type(segmenter.network.mask_decoder).decode

    def counting(self, embeddings, image_pe, prompts, multimask):
        seen.append(len(prompts))
        return whole(self, embeddings, image_pe, prompts, multimask)

    monkeypatch.setattr(type(segmenter.network.mask_decoder), "decode", counting)
    (found,) = segmenter.segment([IMAGES[0]], [some_boxes(100, 150, 500)])
    assert len(found) == 500
    assert max(seen) == 64
    assert len(seen) == 8


# --- memory that does not do -----------------------------------------------------------------------------------------


def test_fewer_images_where_memory_runs_out(checkpoints, monkeypatch, caplog):
    segmenter = make(checkpoints, batch_size="3")
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
    image, small = drawn(600, 600), np.arange(16)[:, None] // [4, 1] % 4 * 130 + 40
    boxes = np.hstack([small, np.add(small, [30, 25])]).astype(np.float32)
    assert len(plan_zoom_crops(boxes, 600, 600)) > 8
    (expected,) = make(checkpoints, zoom=True, batch_size="4").segment([image], [boxes])
    whole = _sam.encode_images

    def greedy(network, pixels):
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(network, pixels)

    monkeypatch.setattr(_sam, "encode_images", greedy)
    (found,) = make(checkpoints, zoom=True, batch_size="4").segment([image], [boxes])
    assert alike(found, expected)


def test_fewer_boxes_where_memory_runs_out(checkpoints, monkeypatch):
    segmenter = make(checkpoints, box_chunk=64)
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
    segmenter = make(checkpoints)

    def lost(*_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nand more")

    monkeypatch.setattr(_sam, "encode_images", lost)
    with pytest.raises(BrokenWorkerError, match=r"^the GPU failed \(CUDA error: an illegal memory access was enc"):
        list(segmenter.segment(IMAGES, BOXES))


# --- trust -----------------------------------------------------------------------------------------------------------


def test_a_path_that_draws_otherwise_is_refused(checkpoints, monkeypatch):
    def broken(encoder, position):
        for block in encoder.blocks:
            block.attn.scale *= 3

    monkeypatch.setattr(_sam_load, "use_sdpa", broken)
    with pytest.raises(
        SynthgenError, match=r"self-test failed: with --precision fp32 on cpu .* mean IoU of 0\.\d+ only"
    ):
        make(checkpoints, self_test=True)
    make(checkpoints)


def test_a_path_broken_for_all_but_the_first_of_a_batch_is_refused(checkpoints, monkeypatch):
    whole = _sam.encode_images

    def broken(network, pixels):
        found = whole(network, pixels)
        found.image[1:] = 0
        return found

    monkeypatch.setattr(_sam_load, "set_precision", lambda *_: monkeypatch.setattr(_sam, "encode_images", broken))
    with pytest.raises(SynthgenError, match="self-test failed"):
        make(checkpoints, self_test=True)


def test_weights_that_draw_nothing_are_refused(tmp_path):
    weights = {name: tensor.clone() for name, tensor in tiny_sam.weights("sam_tiny").items()}
    weights["image_encoder.neck.0.weight"][:] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(SynthgenError, match=r"draw nothing at all on the test scene; is the checkpoint a trained one"):
        make({"sam": str(tmp_path / "nan.pth")}, self_test=True)


def test_a_path_that_does_not_run_is_refused(checkpoints, monkeypatch):
    def broken(network, dtype):
        network.mask_decoder.decode = lambda *_: 1 / 0

    monkeypatch.setattr(_sam_load, "set_precision", broken)
    with pytest.raises(
        SynthgenError, match=r"--precision bf16 does not run here \(ZeroDivisionError: .*; try --precision"
    ):
        make(checkpoints, precision="bf16", self_test=True)


def test_a_sound_path_passes_its_test(checkpoints, caplog):
    with caplog.at_level(logging.INFO):
        make(checkpoints, self_test=True)
    assert "self-test of --precision fp32 on cpu: mean IoU with float32 1.0000" in caplog.text


def test_the_scene_has_four_objects_within_it():
    image, boxes = _sam_load.draw_test_scene()
    assert (image.shape, image.dtype, boxes.shape) == ((480, 640, 3), np.uint8, (4, 4))
    assert (boxes[:, 2:] - boxes[:, :2] > 100).all()
    assert (boxes >= 0).all()
    assert (boxes <= [640, 480, 640, 480]).all()


def test_candidates_are_chosen_by_evidence(checkpoints):
    """Each mask kept is, of SAM's three, the one whose evidence is best; not always the one that SAM scores best."""
    image, boxes = drawn(150, 90, 1), some_boxes(150, 90, 8, 1)
    (found,) = make(checkpoints, multimask=True).segment([image], [boxes])
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


# --- zoom ------------------------------------------------------------------------------------------------------------


def test_windows_hold_their_boxes_within_the_image():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        height, width = (int(v) for v in rng.integers(65, 700, 2))
        middle = rng.uniform(0, 1, (40, 2)) * [width, height]
        half = rng.uniform(0.5, 0.08 * max(height, width), (40, 2)) / 2
        boxes = np.clip(np.hstack([middle - half, middle + half]), 0, [width, height] * 2).astype(np.float32)
        small = is_small(boxes, height, width)
        crops = plan_zoom_crops(boxes, height, width)
        members = sorted(int(i) for _, own in crops for i in own)
        assert members == np.flatnonzero(small).tolist(), "each small box once"
        assert len(crops) < small.sum(), "near ones share a window"
        for crop, own in crops:
            assert 0 <= crop.top <= crop.top + crop.height <= height
            assert 0 <= crop.left <= crop.left + crop.width <= width
            inside = crop.boxes_to_window(boxes[own])
            assert (inside >= -1e-3).all()
            assert (inside <= np.array([crop.width, crop.height] * 2) + 1e-3).all()
            assert max(crop.size) <= max(MIN_WINDOW_SIDE, 4 * SMALL_BOX_FRACTION * max(height, width) + 1), (
                "enlarged, not reduced"
            )


def test_large_boxes_and_small_images_get_no_window():
    assert plan_zoom_crops(np.array([[0, 0, 100, 100]], np.float32), 200, 200) == []
    assert plan_zoom_crops(np.array([[0, 0, 3, 3]], np.float32), 50, 60) == []


def test_zoom_replaces_masks_of_small_boxes_by_better_ones_only(checkpoints):
    image = drawn(400, 600, 5)
    boxes = np.concatenate(
        [some_boxes(400, 600, 2, 3), [[100, 100, 130, 125], [110, 130, 125, 160], [500, 10, 520, 40]]]
    )
    boxes = boxes.astype(np.float32)
    (plain,), (zoomed,) = (make(checkpoints, zoom=zoom).segment([image], [boxes]) for zoom in (False, True))
    assert plain[:2] == zoomed[:2]
    assert plain[2:] != zoomed[2:]
    segmenter = make(checkpoints, zoom=True)
    whole = [Crop(0, 0, 400, 600)]
    (before,) = segmenter._predict_windows([image], [0], whole, [boxes])
    masks = {0: list(before)}
    segmenter._refine_small_boxes([image], [boxes], masks)
    assert all(after.evidence >= first.evidence for first, after in zip(before, masks[0], strict=True))
    for crop, own in plan_zoom_crops(boxes, 400, 600):
        for i in own:
            mask = decode_mask(zoomed[i].rle)
            if zoomed[i] != plain[i]:
                crop.extract(mask)[:] = False
                assert not mask.any(), "nothing beyond the window"


# --- options and weights ---------------------------------------------------------------------------------------------


def settled(name="sam", **options):
    return plugins.resolve_options(SHELF, name, options)


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
def test_options_that_cannot_be_are_told(options, sentence):
    with pytest.raises(SynthgenError, match=sentence):
        settled(**options)


def test_a_checkpoint_of_the_other_model_is_told(checkpoints):
    with pytest.raises(SynthgenError, match=r"hq_sam_tiny\.pth is a checkpoint of hq_sam; say --segmenter hq_sam$"):
        settled(checkpoint=checkpoints["hq_sam"])
    with pytest.raises(SynthgenError, match=r"sam_tiny\.pth is a checkpoint of sam; say --segmenter sam$"):
        settled("hq_sam", checkpoint=checkpoints["sam"])


def test_a_checkpoint_of_another_size_is_told(checkpoints):
    with pytest.raises(
        SynthgenError, match=r"sam_tiny\.pth is a vit 64x4, not the vit_b asked for; leave --variant out"
    ):
        settled(checkpoint=checkpoints["sam"], variant="vit_b")


def test_a_checkpoint_that_changed_since_the_job_began_is_told(checkpoints, tmp_path):
    options = settled(checkpoint=checkpoints["sam"])
    other = {name: tensor + 0.01 for name, tensor in tiny_sam.weights("sam_tiny").items()}
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(SynthgenError, match=r"^-O weights=[0-9a-f]{64} asks for another checkpoint than other\.pth"):
        plugins.build_plugin(SHELF, "sam", {**options, "checkpoint": str(tmp_path / "other.pth")})


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
            make({"sam": str(tmp_path / f"{name}.pth")})
        assert "\n" not in str(told.value)


def test_no_such_device_is_told(checkpoints):
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(SynthgenError, match=r"^--device cuda: PyTorch sees no such device here"):
        make(checkpoints, device="cuda")
