"""Backbones: published sizes, any size of image, gradient checkpointing, drop path."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from fakes.backbone_inputs import all_close, random_images, randomize

from synthgen.models.mqformer.backbone import BACKBONES, build_backbone

#: Of the networks without their classifiers, in millions: Swin's paper and code, torchvision's ResNet-50.
MILLIONS = {"swin_t": 27.52, "swin_s": 48.84, "swin_b": 86.88, "swin_l": 195.20, "resnet50": 23.45}

CHANNELS = {
    "tiny": (16, 32, 64, 128),
    "swin_t": (96, 192, 384, 768),
    "swin_s": (96, 192, 384, 768),
    "swin_b": (128, 256, 512, 1024),
    "swin_l": (192, 384, 768, 1536),
    "resnet50": (256, 512, 1024, 2048),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_numbers_are_the_published(name):
    with torch.device("meta"):
        backbone = build_backbone(name)
    count = sum(p.numel() for p in backbone.parameters()) / 1e6
    assert backbone.channels == CHANNELS[name]
    assert count == pytest.approx(MILLIONS.get(name, count), abs=0.01)
    assert [tuple(f.shape) for f in backbone(torch.empty(1, 3, 64, 96, device="meta"))] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(CHANNELS[name], (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("name", ["tiny", "resnet50"])
@pytest.mark.parametrize(("height", "width"), [(33, 200), (1, 1), (64, 64), (31, 5)])
def test_any_size_of_image(name, height, width):
    features = build_backbone(name).eval()(random_images(height, width))
    assert [f.shape[2:] for f in features] == [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
    assert all(f.isfinite().all() for f in features)


@pytest.mark.parametrize("name", ["tiny", "resnet50"])
def test_every_parameter_learns_with_and_without_checkpointing(name):
    torch.manual_seed(0)
    plain = build_backbone(name).train()
    again = build_backbone(name, checkpointing=True).train()
    again.load_state_dict(plain.state_dict())
    gradients = []
    for backbone in (plain, again, copy.deepcopy(again)):
        backbone.zero_grad()
        sum(f.square().mean() for f in backbone(random_images(70, 50))).backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters()})
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients[0].values())
    for other in gradients[1:]:
        assert all(torch.allclose(g, other[name], rtol=1e-4, atol=1e-6) for name, g in gradients[0].items())


@pytest.mark.parametrize("name", ["tiny", "resnet50"])
def test_an_image_is_seen_alone_and_in_half_precision(name):
    backbone = build_backbone(name).eval()
    images = random_images(40, 72, count=3)
    together = backbone(images)
    assert all_close([f[1:2] for f in together], backbone(images[1:2]), atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = backbone(images)
    if name == "resnet50":
        assert {h.dtype for h in half} == {torch.bfloat16}, "its norms keep the dtype, and so the memory"
    assert all((h.float() - t).abs().mean() < 0.05 * t.abs().mean() for h, t in zip(half, together, strict=True))


def test_batch_norms_are_frozen():
    backbone = build_backbone("resnet50").train()
    randomize(backbone)
    before = copy.deepcopy(backbone.state_dict())
    trained, seen = backbone(random_images(64, 64, 2)), backbone.eval()(random_images(64, 64, 2))
    assert all_close(trained, seen)
    assert all(torch.equal(tensor, backbone.state_dict()[name]) for name, tensor in before.items())
    assert not any("normalization" in name for name, _ in backbone.named_parameters())


def test_drop_path_leaves_branches_out_of_training_only():
    torch.manual_seed(0)
    backbone, plain = build_backbone("tiny", drop_path=0.9), build_backbone("tiny")
    plain.load_state_dict(backbone.state_dict())
    assert all_close(backbone.eval()(random_images(64, 64)), plain.eval()(random_images(64, 64)))
    last = backbone.train().body.swin.encoder.layers[3].blocks[1]
    out = [last.mlp(torch.ones(1, 4, 128)).abs().sum().item() for _ in range(60)]
    assert 35 < sum(value == 0 for value in out) < 60  # the second branch too, nine times of ten
    assert not all_close(backbone(random_images(64, 64)), backbone(random_images(64, 64)))


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match=re.escape("no backbone 'vit'; there are tiny, swin_t")):
        build_backbone("vit")
    with pytest.raises(ValueError, match="has no drop path; take"):
        build_backbone("resnet50", drop_path=0.3)
