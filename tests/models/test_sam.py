"""SAM and HQ-SAM against what the reference programs gave, and the laws of batching."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import tiny_sam
from fakes.tiny_sam import golden, network, weights
from segment_anything import SamPredictor

from synthgen.models.hq_sam import build_hq_sam
from synthgen.models.sam import (
    VARIANTS,
    SamConfig,
    build_sam,
    infer_config,
    is_hq_checkpoint,
    load_weights,
    set_precision,
    variant_name,
)
from synthgen.models.sam_attention import use_sdpa
from synthgen.models.sam_forward import (
    decode_masks,
    encode_images,
    encode_with_early_features,
    postprocess_logits,
    preprocess_images,
    resize_longest_side,
    scale_boxes,
)

NAMES = ["sam_tiny", "hq_sam_tiny"]
CLOSE = 1e-4


def close(ours: torch.Tensor, theirs: np.ndarray) -> bool:
    assert tuple(ours.shape) == theirs.shape
    return float((ours - torch.from_numpy(theirs)).abs().max()) < CLOSE


def answers(net, image, boxes, *, multimask=False, chunk=1000):
    """(low-res logits, IoU, logits of the image's size) by our way."""
    small = resize_longest_side(image, 128)
    size = tuple(small.shape[:2])
    frame = scale_boxes(torch.as_tensor(boxes), image.shape[:2], size)
    done = list(
        decode_masks(
            net,
            encode_images(net, preprocess_images(net, [small])),
            [frame],
            chunk_size=chunk,
            multimask_output=multimask,
        )
    )
    logits, iou = torch.cat([d.logits for d in done]), torch.cat([d.iou for d in done])
    return logits, iou, postprocess_logits(net, logits, size, image.shape[:2])


@pytest.mark.parametrize("name", NAMES)
def test_the_way_in_is_the_references(name):
    known, net = golden(name), network(name)
    small = resize_longest_side(known["in.image_uint8"], 128)
    assert np.array_equal(small.numpy(), known["mid.resized_image_uint8"])
    frame = scale_boxes(torch.from_numpy(known["in.boxes_xyxy"]), (100, 150), tuple(small.shape[:2]))
    assert close(frame, known["mid.boxes_model_frame"])
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
    assert close(image, known["out.image_embeddings"])
    if name == "hq_sam_tiny":
        assert close(early, known["out.interm_embeddings_0"])


@pytest.mark.parametrize("name", NAMES)
def test_the_single_mask_is_the_references(name):
    """Masks, not only scores: an implementation of HQ-SAM is known whose scores are right and whose masks are not."""
    known = golden(name)
    logits, iou, large = answers(network(name), known["in.image_uint8"], known["in.boxes_xyxy"])
    assert close(logits, known["out.single.low_res_logits"])
    assert close(iou, known["out.single.iou"])
    assert close(large, known["out.single.mask_logits_original_size"])
    assert 0.02 < (large > 0).float().mean() < 0.98, "masks that are all or nothing prove little"


def test_the_three_candidates_are_the_references():
    known = golden("sam_tiny")
    logits, iou, _ = answers(network("sam_tiny"), known["in.image_uint8"], known["in.boxes_xyxy"], multimask=True)
    assert close(logits, known["out.multi.low_res_logits"])
    assert close(iou, known["out.multi.iou"])


def test_of_hq_candidates_the_reference_takes_the_one_of_best_iou():
    known = golden("hq_sam_tiny")
    logits, iou, _ = answers(network("hq_sam_tiny"), known["in.image_uint8"], known["in.boxes_xyxy"], multimask=True)
    assert logits.shape == (3, 3, 32, 32)
    best = iou.argmax(1)
    assert close(iou.gather(1, best[:, None]), known["out.multi.iou"])
    assert close(logits[range(3), best][:, None], known["out.multi.low_res_logits"])


@pytest.mark.parametrize("multimask", [False, True])
def test_the_hq_mask_alone_is_the_references(multimask):
    known, net = golden("hq_sam_tiny"), network("hq_sam_tiny", hq_token_only=True)
    logits, iou, _ = answers(net, known["in.image_uint8"], known["in.boxes_xyxy"], multimask=multimask)
    for candidate in logits.unbind(1):
        assert close(candidate[:, None], known["out.single_hqonly.low_res_logits"])
    if not multimask:
        assert close(iou, known["out.single_hqonly.iou"])


# --- laws ------------------------------------------------------------------------------------------------------------

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
    _, iou, large = answers(net, image, boxes, multimask=multimask)
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
    _, _, large = answers(network("sam_tiny"), image, some_boxes(shape, 2))
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
            alone, score, _ = answers(net, image, box[None])
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
def test_boxes_that_no_image_has_are_told(images, chunk):
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
    exact, _, _ = answers(net, image, boxes)
    set_precision(net, torch.bfloat16)
    rough, iou, _ = answers(net, image, boxes)
    assert rough.dtype == iou.dtype == torch.float32
    assert net.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.dtype == torch.float32
    assert float((rough - exact).abs().mean() / exact.abs().mean()) < 0.04


# --- weights ---------------------------------------------------------------------------------------------------------

OTHER = SamConfig(vit_dim=48, vit_depth=3, vit_heads=3, global_blocks=(2,), image_size=96, patch_size=8, window_size=5,
                   dim=16, decoder_mlp_dim=24, iou_head_hidden_dim=8)  # fmt: skip


@pytest.mark.parametrize("numbers", [*VARIANTS.values(), OTHER], ids=variant_name)
@pytest.mark.parametrize("build", [build_sam, build_hq_sam])
def test_numbers_are_read_off_the_weights(numbers, build):
    with torch.device("meta"):
        state = build(numbers).state_dict()
    assert infer_config(state) == numbers
    assert is_hq_checkpoint(state) == (build is build_hq_sam)


def test_names_of_sizes():
    assert [variant_name(numbers) for numbers in VARIANTS.values()] == ["vit_b", "vit_l", "vit_h"]
    assert variant_name(OTHER) == "vit 48x3"
    with pytest.raises(ValueError, match="no SAM variant named 'vit_x'; there are vit_b, vit_l, vit_h"):
        build_sam("vit_x")


def test_names_of_weights_are_the_official_ones():
    for name in NAMES:
        assert set(network(name).state_dict()) == set(weights(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_memory_takes_the_weights_as_its_own(name):
    with torch.device("meta"):
        net = (build_hq_sam if name.startswith("hq") else build_sam)(tiny_sam.numbers(name))
    load_weights(net, weights(name))
    assert not any(tensor.is_meta for tensor in [*net.parameters(), *net.buffers()])
    assert not any(parameter.requires_grad for parameter in net.parameters())
    known = golden(name)
    _, _, large = answers(net, known["in.image_uint8"], known["in.boxes_xyxy"])
    assert close(large, known["out.single.mask_logits_original_size"])


def test_weights_in_half_precision_become_those_of_the_network():
    net = build_sam(tiny_sam.numbers("sam_tiny"))
    load_weights(net, {name: tensor.half() for name, tensor in weights("sam_tiny").items()})
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("mask_decoder.iou_token.weight"), r"they lack mask_decoder\.iou_token\.weight"),
        (lambda w: w.update(stray=torch.ones(1)), r"they have stray that this network has no place for"),
        (
            lambda w: w.update({"mask_decoder.iou_token.weight": torch.ones(2, 32)}),
            r"they differ: mask_decoder\.iou_token\.weight is \[2, 32\] instead of \[1, 32\]",
        ),
        (lambda w: w.update({"mask_decoder.iou_token.weight": 3}), r"is a int instead of \[1, 32\]"),
        (
            lambda w: w.update({"mask_decoder.iou_token.weight": torch.ones(1, 32, dtype=torch.int64)}),
            r"is \[1, 32\] of torch\.int64 instead of \[1, 32\]",
        ),
        (
            lambda w: w.update({"mask_decoder.iou_token.weight": torch.ones(1).expand(1, 32)}),
            r"is \[1, 32\] without as many numbers instead of",
        ),
        (
            lambda w: w.update({"mask_decoder.iou_token.weight": torch.ones(1, 32).to_sparse()}),
            r"is \[1, 32\] without as many numbers instead of",
        ),
    ],
)
def test_weights_that_do_not_fit_are_told(change, sentence):
    given = dict(weights("sam_tiny"))
    change(given)
    net = build_sam(tiny_sam.numbers("sam_tiny"))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        load_weights(net, given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.clear(),
        lambda w: w.pop("image_encoder.pos_embed"),
        lambda w: w.update({"image_encoder.pos_embed": "a text"}),
        lambda w: w.update({"image_encoder.pos_embed": torch.ones(3)}),
        lambda w: w.update({"image_encoder.pos_embed": torch.ones(1, 0, 0, 64)}),
        lambda w: w.update({"image_encoder.pos_embed": torch.ones(1).expand(1, 2**20, 2**20, 64)}),
        lambda w: w.pop("image_encoder.blocks.2.attn.rel_pos_h"),
        lambda w: w.update({"image_encoder.blocks.x.attn.rel_pos_h": torch.ones(2, 2)}),
        lambda w: [w.pop(name) for name in list(w) if name.startswith("image_encoder.blocks.")],
        lambda w: w.pop("image_encoder.neck.0.weight"),
        lambda w: w.update({"image_encoder.neck.0.weight": torch.ones(24, 64, 1, 1)}),
        lambda w: w.update({"image_encoder.blocks.0.attn.rel_pos_h": torch.ones(5, 15)}),
        lambda w: w.update({"image_encoder.pos_embed": torch.ones(1, 9, 9, 64)}),
        lambda w: (w.update({1: torch.ones(1)}), w.pop("image_encoder.pos_embed")),
    ],
)
def test_what_is_no_sam_is_told_without_a_crash(change):
    given: dict[str, object] = dict(weights("sam_tiny"))
    change(given)
    with pytest.raises(ValueError, match="these weights are"):
        infer_config(given)
