"""The network of the box segmenter: folded BatchNorm, frozen stages, maps of the box."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from fakes.tiny_lite import TINY, build_network
from torch import nn

from synthgen.models.box_segmenter.network import BoxSegmenter, BoxSegmenterConfig, draw_box_maps, unfold_backbone

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_the_folded_backbone_computes_the_features_of_timm(name: str) -> None:
    torch.manual_seed(0)
    backbone = timm.create_model(name, pretrained=False, features_only=True).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    image = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = backbone(image)
        network = BoxSegmenter(BoxSegmenterConfig(backbone=name), copy.deepcopy(backbone)).eval()
        features = [network.stages[0](network.stem(image))]
        for stage in network.stages[1:]:
            features.append(stage(features[-1]))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for ours, theirs in zip(features, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_the_unfolded_weights_are_those_of_timms_backbone(name: str) -> None:
    torch.manual_seed(0)
    backbone = timm.create_model(name, pretrained=False, features_only=True).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias, 0, 0.1)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(image)
        weights = unfold_backbone(BoxSegmenter(BoxSegmenterConfig(backbone=name), copy.deepcopy(backbone)))
        assert set(weights) == {key for key in backbone.state_dict() if not key.endswith("num_batches_tracked")}
        other = timm.create_model(name, pretrained=False, features_only=True).eval()
        other.load_state_dict(weights, strict=False)
        for ours, theirs in zip(other(image), expected, strict=True):
            assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_logits_have_half_the_side_of_the_crops() -> None:
    boxes = torch.tensor([[0.2, 0.3, 0.8, 0.7]] * 3)
    with torch.no_grad():
        assert build_network()(torch.randn(3, 3, 64, 64), boxes).shape == (3, 32, 32)


def test_the_first_two_stages_keep_their_weights() -> None:
    network = build_network().train()
    network(torch.randn(2, 3, 64, 64), torch.tensor([[0.2, 0.2, 0.8, 0.8]] * 2)).square().mean().backward()
    without = {name for name, own in network.named_parameters() if own.grad is None}
    assert without == {name for name, own in network.named_parameters() if not own.requires_grad}
    frozen = ("stem.", "stages.0.", "stages.1.")
    assert without == {name for name, _ in network.named_parameters() if name.startswith(frozen)}


def test_a_new_network_sees_the_box_only_in_its_decoder() -> None:
    """The convolution of the box into the backbone starts at zero, so that pretrained features stay what they are."""
    network = BoxSegmenter(TINY)
    assert not network.box_projection.weight.any()
    crops = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one, other = (
            network.eval()(crops, torch.tensor([box])) for box in ([0.2, 0.2, 0.8, 0.8], [0.4, 0.1, 0.6, 0.9])
        )
    assert not torch.equal(one, other)


def test_the_maps_of_a_box_say_inside_and_position() -> None:
    inside, across, down = draw_box_maps(torch.tensor([[0.25, 0.5, 0.75, 1.0]]), 8)[0]
    assert inside.sum() == 4 * 4 and inside[4:, 2:6].all()
    assert torch.allclose(across[0, 2:6], torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    assert torch.allclose(down[4:, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    assert across.min() >= -2 and across.max() <= 2


def test_half_covered_pixels_are_half_inside() -> None:
    inside = draw_box_maps(torch.tensor([[0.0, 0.0, 0.5625, 1.0]]), 8)[0, 0]
    assert inside[0].tolist() == [1, 1, 1, 1, 0.5, 0, 0, 0]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"backbone": "resnet50"}, "no backbone named 'resnet50'"),
        ({"hidden_dim": 20}, "hidden_dim should be a multiple of 16"),
        ({"crop_size": 100}, "crop_size should be a multiple of 32"),
        ({"margin": float("nan")}, "margin should be from 0.05 to 1"),
    ],
)
def test_values_out_of_range_are_refused(values: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        BoxSegmenterConfig(**values)
