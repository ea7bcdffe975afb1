"""SAM and HQ-SAM: networks and names of the official weights, sizes, weights that do not fit."""

from __future__ import annotations

import pytest
import torch
from fakes import tiny_sam
from fakes.sam_outputs import is_close, predict_masks
from fakes.tiny_sam import golden, network, weights

from synthgen.models.hq_sam import build_hq_sam
from synthgen.models.sam import (
    VARIANTS,
    SamConfig,
    build_sam,
    infer_config,
    is_hq_checkpoint,
    load_weights,
    variant_name,
)

NAMES = ["sam_tiny", "hq_sam_tiny"]

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
    _, _, large = predict_masks(net, known["in.image_uint8"], known["in.boxes_xyxy"])
    assert is_close(large, known["out.single.mask_logits_original_size"])


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
def test_weights_that_do_not_fit_are_reported(change, sentence):
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
def test_what_is_no_sam_is_reported_without_a_crash(change):
    given: dict[str, object] = dict(weights("sam_tiny"))
    change(given)
    with pytest.raises(ValueError, match="these weights are"):
        infer_config(given)
