"""The pixel decoder: Mask DINO's values, and independence of the padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.models.mqformer.pixel_decoder import DeformableEncoderLayer, PixelDecoder

GOLDEN = Path(__file__).parents[2] / "golden"
CHANNELS = (8, 16, 24, 32)

#: Names of the reference's weights -> ours; the others are the same.
NAMES = {
    "transformer.encoder.": "",
    "transformer.": "",
    "adapter_1.norm": "lateral.1",
    "adapter_1": "lateral.0",
    "layer_1.norm": "output.1",
    "layer_1": "output.0",
}


def ours(name: str) -> str:
    for theirs, own in NAMES.items():
        name = name.replace(theirs, own)
    return name


def small(**changes: object) -> PixelDecoder:
    given = {"dim": 32, "mask_dim": 16, "levels": 4, "num_layers": 2, "heads": 8, "points": 4, "feedforward": 48}
    return PixelDecoder(CHANNELS, **{**given, **changes})


def pyramid(height: int, width: int, seed: int = 0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    strides = enumerate((4, 8, 16, 32))
    return [torch.randn(2, CHANNELS[i], -(-height // s), -(-width // s), generator=rng) for i, s in strides]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_is_the_reference(checkpointing):
    found = np.load(GOLDEN / "pixel_decoder.npz")
    golden = {name: torch.from_numpy(found[name]) for name in found.files}
    decoder = small(checkpointing=checkpointing).train(checkpointing)
    weights = {ours(name.removeprefix("weights.")): t for name, t in golden.items() if name.startswith("weights.")}
    decoder.load_state_dict(weights)
    features = [golden[f"in.res{i}"] for i in (2, 3, 4, 5)]
    out = decoder(features, torch.zeros(2, 128, 96, dtype=torch.bool))
    assert out.spatial_shapes == [(16, 12), (8, 6), (4, 3), (2, 2)]
    assert torch.allclose(out.mask_features, golden["mask_features"], atol=1e-5)
    levels = out.memory.split([h * w for h, w in out.spatial_shapes], dim=1)
    for i, (level, (height, width)) in enumerate(zip(levels, out.spatial_shapes, strict=True)):
        image = level.transpose(1, 2).reshape(2, 32, height, width)
        assert torch.allclose(image, golden[f"multi_scale_{i}"], atol=1e-5)


def test_one_layer_is_the_reference():
    found = np.load(GOLDEN / "mqformer_parts.npz")
    golden = {name.removeprefix("layers/"): torch.from_numpy(found[name]) for name in found.files if "layers/" in name}
    layer = DeformableEncoderLayer(32, heads=4, levels=3, points=4, feedforward=64)
    prefix = "enc.weights."
    layer.load_state_dict({name.removeprefix(prefix): t for name, t in golden.items() if name.startswith(prefix)})
    shapes = [(int(h), int(w)) for h, w in golden["spatial_shapes"]]
    out = layer(
        golden["enc.src"], golden["enc.pos"], golden["enc.reference_points"], shapes, golden["padding_mask"].bool()
    )
    assert torch.allclose(out, golden["enc.out"], atol=1e-5)


@pytest.mark.parametrize("larger", [(128, 128), (160, 288)])
@pytest.mark.parametrize(("height", "width"), [(64, 128), (60, 90), (33, 70), (96, 96)])
def test_an_image_is_the_same_in_a_batch_of_larger_ones(height, width, larger):
    """Whatever the backbone makes of padding; sides are multiples of 32, which the coarsest level halves or not."""
    torch.manual_seed(0)
    decoder = small().eval()
    least = tuple(-(-side // 32) * 32 for side in (height, width))
    image, found = pyramid(*least), []
    for size, filler in ((least, 0.0), (tuple(max(sides) for sides in zip(least, larger, strict=True)), 9.0)):
        padding = torch.ones(2, *size, dtype=torch.bool)
        padding[:, :height, :width] = False
        features = []
        for stride, own in zip((4, 8, 16, 32), image, strict=True):
            canvas = torch.full((2, own.shape[1], size[0] // stride, size[1] // stride), filler)
            h, w = -(-height // stride), -(-width // stride)
            canvas[:, :, :h, :w] = own[:, :, :h, :w]
            features.append(canvas)
        out = decoder(features, padding)
        levels = out.memory.split([p[0].numel() for p in out.padding_masks], dim=1)
        memory = [level[~p.flatten(1)] for level, p in zip(levels, out.padding_masks, strict=True)]
        found.append([*memory, out.mask_features[:, :, : height // 4, : width // 4]])
    assert all(torch.allclose(alone, within, atol=1e-5) for alone, within in zip(*found, strict=True))


def test_what_lies_in_the_padding_changes_nothing_of_attention():
    torch.manual_seed(0)
    layer = DeformableEncoderLayer(32, heads=4, levels=1, points=4, feedforward=48).eval()
    padding = torch.zeros(1, 6, 8, dtype=torch.bool)
    padding[:, :, 5:] = True
    memory, references = torch.randn(1, 48, 32), torch.rand(1, 48, 1, 2)
    hidden = padding.flatten(1)
    loud = torch.where(hidden[..., None], 50.0, memory)
    positions = torch.zeros_like(memory)
    plain, changed = (layer(m, positions, references, [(6, 8)], hidden) for m in (memory, loud))
    assert torch.allclose(plain[~hidden], changed[~hidden], atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(128, 96), (100, 72), (33, 200), (32, 32)])
def test_any_size_of_image_and_every_parameter_learns(height, width):
    decoder = small()
    padding = torch.zeros(2, height, width, dtype=torch.bool)
    padding[1, :, width // 2 :] = True
    out = decoder(pyramid(height, width), padding)
    assert out.mask_features.shape == (2, 16, -(-height // 4), -(-width // 4))
    assert out.memory.shape == (2, sum(h * w for h, w in out.spatial_shapes), 32)
    (out.memory.square().mean() + out.mask_features.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())
    assert [one[1].any().item() for one in out.padding_masks[:2]] == [True, True]


def test_a_thin_image_keeps_its_length():
    padding = torch.ones(1, 96, 64, dtype=torch.bool)
    padding[:, :90, :1] = False
    out = small()(pyramid(96, 64), padding.expand(2, -1, -1))
    assert [(~p[0]).nonzero().max(0).values.tolist() for p in out.padding_masks] == [[10, 0], [5, 0], [2, 0], [1, 0]]


def test_fewer_levels_than_the_backbone_has_are_refused():
    with pytest.raises(ValueError, match="2 levels cannot hold the 3"):
        small(levels=2)
