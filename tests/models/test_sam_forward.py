"""The forward pass of SAM and HQ-SAM: the reference's values, batches, shared embeddings, precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.sam_outputs import is_close, predict_masks
from fakes.tiny_sam import golden, network
from segment_anything import SamPredictor

from synthgen.models.sam import (
    set_precision,
)
from synthgen.models.sam_attention import use_sdpa
from synthgen.models.sam_forward import (
    decode_masks,
    encode_images,
    encode_with_early_features,
    preprocess_images,
    resize_longest_side,
    scale_boxes,
)

NAMES = ["sam_tiny", "hq_sam_tiny"]
CLOSE = 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_way_in_is_the_references(name):
    known, net = golden(name), network(name)
    small = resize_longest_side(known["in.image_uint8"], 128)
    assert np.array_equal(small.numpy(), known["mid.resized_image_uint8"])
    frame = scale_boxes(torch.from_numpy(known["in.boxes_xyxy"]), (100, 150), tuple(small.shape[:2]))
    assert is_close(frame, known["mid.boxes_model_frame"])
    pixels = preprocess_images(net, [small])
    assert pixels.shape == (1, 3, 128, 128)
    assert not pixels[:, :, 85:].any(), "padding is zero, after normalisation"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("position", ["", "added", "folded"])
def test_the_encoder_is_the_references(name, position):
    known, net = golden(name), network(name)
    if position:
        use_sdpa(net.image_encoder, position)
    with torch.no_grad():
        image, early = encode_with_early_features(
            net.image_encoder, preprocess_images(net, [resize_longest_side(known["in.image_uint8"], 128)])
        )
    assert is_close(image, known["out.image_embeddings"])
    if name == "hq_sam_tiny":
        assert is_close(early, known["out.interm_embeddings_0"])


@pytest.mark.parametrize("name", NAMES)
def test_the_single_mask_is_the_references(name):
    """Masks, not only scores: an implementation of HQ-SAM is known whose scores are right and whose masks are not."""
    known = golden(name)
    logits, iou, large = predict_masks(network(name), known["in.image_uint8"], known["in.boxes_xyxy"])
    assert is_close(logits, known["out.single.low_res_logits"])
    assert is_close(iou, known["out.single.iou"])
    assert is_close(large, known["out.single.mask_logits_original_size"])
    assert 0.02 < (large > 0).float().mean() < 0.98, "masks that are all or nothing prove little"


def test_the_three_candidates_are_the_references():
    known = golden("sam_tiny")
    logits, iou, _ = predict_masks(network("sam_tiny"), known["in.image_uint8"], known["in.boxes_xyxy"], multimask=True)
    assert is_close(logits, known["out.multi.low_res_logits"])
    assert is_close(iou, known["out.multi.iou"])


def test_of_hq_candidates_the_reference_takes_the_one_of_best_iou():
    known = golden("hq_sam_tiny")
    logits, iou, _ = predict_masks(
        network("hq_sam_tiny"), known["in.image_uint8"], known["in.boxes_xyxy"], multimask=True
    )
    assert logits.shape == (3, 3, 32, 32)
    best = iou.argmax(1)
    assert is_close(iou.gather(1, best[:, None]), known["out.multi.iou"])
    assert is_close(logits[range(3), best][:, None], known["out.multi.low_res_logits"])


@pytest.mark.parametrize("multimask", [False, True])
def test_the_hq_mask_alone_is_the_references(multimask):
    known, net = golden("hq_sam_tiny"), network("hq_sam_tiny", hq_token_only=True)
    logits, iou, _ = predict_masks(net, known["in.image_uint8"], known["in.boxes_xyxy"], multimask=multimask)
    for candidate in logits.unbind(1):
        assert is_close(candidate[:, None], known["out.single_hqonly.low_res_logits"])
    if not multimask:
        assert is_close(iou, known["out.single_hqonly.iou"])


SHAPES = [(100, 150), (150, 100), (64, 64), (300, 7), (1, 90), (128, 128), (40, 33)]


def drawn(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth colours with some grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = [np.sin(x / rng.uniform(5, 30) + y / rng.uniform(5, 30) + rng.uniform(0, 6)) for _ in range(3)]
    return np.clip(128 + 90 * np.stack(waves, 2) + rng.normal(0, 8, (*shape, 3)), 0, 255).astype(np.uint8)


def some_boxes(shape: tuple[int, int], count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1)
    return (corners.reshape(count, 4) * np.array([shape[1], shape[0]] * 2)).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("multimask", [False, True])
def test_masks_are_the_predictors_pixel_for_pixel(shape, multimask):
    """segment-anything's own `SamPredictor`, a box at a time, on images of all shapes."""
    net, image, boxes = network("sam_tiny"), drawn(shape), some_boxes(shape, 3)
    _, iou, large = predict_masks(net, image, boxes, multimask=multimask)
    predictor = SamPredictor(net)
    predictor.set_image(image)
    for box, ours, score in zip(boxes, large, iou, strict=True):
        logits, scores, _ = predictor.predict(box=box, multimask_output=multimask, return_logits=True)
        sure = np.abs(logits) > CLOSE
        assert np.array_equal((ours.numpy() > 0) & sure, (logits > 0) & sure)
        assert np.abs(score.numpy() - scores).max() < CLOSE


@pytest.mark.parametrize("shape", [(1, 400), (400, 1), (1, 1)])
def test_images_that_would_be_resized_to_nothing_keep_a_pixel(shape):
    """Where segment-anything's own arithmetic says 0 pixels, and Pillow refuses."""
    image = drawn(shape)
    assert min(resize_longest_side(image, 128).shape[:2]) == (128 if shape == (1, 1) else 1)
    _, _, large = predict_masks(network("sam_tiny"), image, some_boxes(shape, 2))
    assert large.shape == (2, 1, *shape)
    assert large.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_images_and_boxes_in_batches_are_as_one_by_one(name, chunk, monkeypatch):
    net = network(name)
    counts = [3, 0, 1, 7]
    images = [drawn(shape, seed) for seed, shape in enumerate(SHAPES[:4])]
    boxes = [some_boxes(image.shape[:2], n, n) for image, n in zip(images, counts, strict=True)]
    small = [resize_longest_side(image, 128) for image in images]
    frames = [
        scale_boxes(torch.from_numpy(b), i.shape[:2], tuple(s.shape[:2]))
        for b, i, s in zip(boxes, images, small, strict=True)
    ]
    seen: list[int] = []
    whole = type(net.mask_decoder).decode

    def counting(self, embeddings, image_pe, prompts, multimask):
        seen.append(len(prompts))
        return whole(self, embeddings, image_pe, prompts, multimask)

    monkeypatch.setattr(type(net.mask_decoder), "decode", counting)
    done = list(decode_masks(net, encode_images(net, preprocess_images(net, small)), frames, chunk_size=chunk))
    assert max(seen) <= chunk, "the chunk bounds the memory"
    assert sum(seen) == sum(counts)
    owner = [image for d in done for image in d.image_indices]
    assert owner == [0] * 3 + [2] + [3] * 7
    logits, iou = torch.cat([d.logits for d in done]), torch.cat([d.iou for d in done])
    place = 0
    for image, own in zip(images, boxes, strict=True):
        for box in own:
            alone, score, _ = predict_masks(net, image, box[None])
            assert float((logits[place] - alone[0]).abs().max()) < CLOSE
            assert float((iou[place] - score[0]).abs().max()) < CLOSE
            place += 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("multimask", [False, True])
def test_boxes_of_one_image_share_its_embedding(name, multimask, monkeypatch):
    """A chunk of one image is not told from its boxes among those of another, but by the work it saves."""
    net, shape = network(name), (100, 150)
    small = [resize_longest_side(drawn(shape, seed), 128) for seed in range(2)]
    frames = [scale_boxes(torch.from_numpy(some_boxes(shape, n, n)), shape, (85, 128)) for n in (3, 2)]
    embeddings = encode_images(net, preprocess_images(net, small))
    held: list[tuple[int, int]] = []
    whole = type(net.mask_decoder).decode

    def watching(self, embeddings, image_pe, prompts, multimask):
        held.append((len(prompts), *{len(e) for e in embeddings if e is not None}))
        return whole(self, embeddings, image_pe, prompts, multimask)

    monkeypatch.setattr(type(net.mask_decoder), "decode", watching)
    (mixed,) = decode_masks(net, embeddings, frames, chunk_size=5, multimask_output=multimask)
    alone = list(decode_masks(net, embeddings, frames, chunk_size=3, multimask_output=multimask))
    assert held == [(5, 5), (3, 1), (2, 1)]
    assert float((mixed.logits - torch.cat([d.logits for d in alone])).abs().max()) < CLOSE
    assert float((mixed.iou - torch.cat([d.iou for d in alone])).abs().max()) < CLOSE


@pytest.mark.parametrize(("images", "chunk"), [(1, 5), (3, 5), (2, 0), (2, -1)])
def test_boxes_that_no_image_has_are_reported(images, chunk):
    """On a GPU an index too far would end the process."""
    net = network("sam_tiny")
    embeddings = encode_images(
        net, preprocess_images(net, [resize_longest_side(drawn((50, 60), seed), 128) for seed in range(2)])
    )
    with pytest.raises(ValueError, match="do not go together"):
        next(decode_masks(net, embeddings, [torch.ones(1, 4)] * images, chunk_size=chunk))


def test_no_boxes_at_all_are_no_work():
    net = network("sam_tiny")
    embeddings = encode_images(net, preprocess_images(net, [resize_longest_side(drawn((50, 60)), 128)]))
    assert list(decode_masks(net, embeddings, [torch.zeros(0, 4)], chunk_size=5)) == []


def test_the_place_of_a_box_survives_low_precision():
    """In bfloat16, sines of some dozen turns would lose where the box is."""
    net, image, boxes = network("sam_tiny"), drawn((100, 150)), some_boxes((100, 150), 5)
    exact, _, _ = predict_masks(net, image, boxes)
    set_precision(net, torch.bfloat16)
    rough, iou, _ = predict_masks(net, image, boxes)
    assert rough.dtype == iou.dtype == torch.float32
    assert net.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.dtype == torch.float32
    assert float((rough - exact).abs().mean() / exact.abs().mean()) < 0.04
