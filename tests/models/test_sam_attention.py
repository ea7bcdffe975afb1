"""Fused attention equals the original: windows, whole images, odd grids, interpolated tables."""

from __future__ import annotations

import copy

import pytest
import torch
from fakes.tiny_sam import network
from segment_anything.modeling.image_encoder import Attention, ImageEncoderViT

from synthgen.models import sam_attention
from synthgen.models.sam_attention import use_sdpa

WAYS = ["added", "folded"]


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """With random numbers where segment-anything begins with zeros: the positions, above all."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return module.eval().requires_grad_(False)


def encoder(**changes: object) -> ImageEncoderViT:
    numbers = {
        "img_size": 112, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "out_chans": 16,
        "use_rel_pos": True, "window_size": 5, "global_attn_indexes": (1,),
    }  # fmt: skip
    return shaken(ImageEncoderViT(**{**numbers, **changes}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("size", "input_size"),
    [((14, 14), (14, 14)), ((7, 11), (7, 11)), ((9, 6), (12, 12)), ((1, 5), (4, 4))],
    ids=["square", "oblong", "interpolated", "one row"],
)
@pytest.mark.parametrize("use_rel_pos", [True, False])
def test_attention_is_the_original(way, size, input_size, use_rel_pos):
    plain = shaken(Attention(48, num_heads=3, use_rel_pos=use_rel_pos, input_size=input_size))
    holder = torch.nn.Module()
    holder.blocks = [torch.nn.Module()]
    holder.blocks[0].attn = copy.deepcopy(plain)
    use_sdpa(holder, way)
    x = torch.randn(2, *size, 48, generator=torch.Generator().manual_seed(1))
    expected = plain(x)
    assert float((holder.blocks[0].attn(x) - expected).abs().max()) < 1e-4
    assert float(expected.std()) > 0.1


@pytest.mark.parametrize("way", WAYS)
def test_an_encoder_with_padded_windows_is_the_original(way):
    plain = encoder()
    fused = copy.deepcopy(plain)
    use_sdpa(fused, way)
    x = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(2))
    expected = plain(x)
    assert float((fused(x) - expected).abs().max() / expected.abs().max()) < 1e-4
    assert fused.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("rows", [1, 3, 14])
def test_the_position_mask_is_made_in_bands(rows, monkeypatch):
    plain = shaken(Attention(48, num_heads=3, use_rel_pos=True, input_size=(14, 14)))
    fused = copy.deepcopy(plain)
    fused.__class__ = sam_attention._BiasAttention
    x = torch.randn(2, 14, 14, 48, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(sam_attention, "MAX_BIAS_NUMEL", rows * 2 * 3 * 14 * 14 * 14)
    largest = []
    whole = sam_attention.scaled_dot_product_attention

    def watching(q, k, v, attn_mask):
        largest.append(attn_mask.numel())
        return whole(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(sam_attention, "scaled_dot_product_attention", watching)
    assert float((fused(x) - plain(x)).abs().max()) < 1e-4
    assert max(largest) <= sam_attention.MAX_BIAS_NUMEL
    assert len(largest) == -(-14 // rows)


@pytest.mark.parametrize("way", WAYS)
def test_bfloat16_is_near(way):
    plain = encoder()
    fused = copy.deepcopy(plain).to(torch.bfloat16)
    use_sdpa(fused, way)
    x = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(4))
    expected = plain(x)
    assert float((fused(x.bfloat16()).float() - expected).abs().mean() / expected.abs().mean()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_blocks_can_be_compiled_whole(way):
    """Without a graph break, or `--compile` would gain nothing."""
    net = network("sam_tiny")
    plain = copy.deepcopy(net.image_encoder)
    use_sdpa(net.image_encoder, way)
    for block in net.image_encoder.blocks:
        block.compile(fullgraph=True)
    x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        assert float((net.image_encoder(x) - plain(x)).abs().max()) < 1e-4
