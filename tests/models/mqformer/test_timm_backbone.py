"""Backbones of timm: timm's own features, any size of image, frozen norms, weights of several kinds of files."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from fakes.backbone_inputs import random_images, randomize
from fakes.tiny_lite import build_network
from safetensors.torch import save_file

from synthgen.dataloading.collate import PIXEL_MEAN, PIXEL_STD
from synthgen.models.box_segmenter.weights import TRAINED_WEIGHTS, load_segmenter, save_segmenter
from synthgen.models.mqformer.timm_backbone import (
    IMAGE_MEAN,
    IMAGE_STD,
    STRIDES,
    UnsuitableNetworkError,
    build_timm_backbone,
)

pytestmark = pytest.mark.usefixtures("one_thread")

LITE0 = "tf_efficientnet_lite0"
NAMES = (LITE0, "resnet18", "convnext_atto")


def close(found: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float = 1e-5) -> bool:
    assert len(found) == len(expected) == 4
    return all(
        ours.shape == theirs.shape and (ours - theirs).abs().max() <= tolerance * theirs.abs().max()
        for ours, theirs in zip(found, expected, strict=True)
    )


def write_classifier(name: str, folder: Path) -> Path:
    """A folder as on the Hugging Face hub, with random weights of the whole network."""
    torch.manual_seed(0)
    whole = timm.create_model(name)
    randomize(whole)
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in whole.state_dict().items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_timm_for_pixels_as_timm_normalizes_them(tmp_path: Path, name: str) -> None:
    weights = write_classifier(name, tmp_path)
    overlay = {"file": str(weights / "model.safetensors")}
    theirs = timm.create_model(name, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay).eval()
    ours = build_timm_backbone(name, weights=weights).eval()
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    config = timm.get_pretrained_cfg(name)
    normalize = {
        "ours": (torch.tensor(PIXEL_MEAN) / 255, torch.tensor(PIXEL_STD) / 255),
        "theirs": (torch.tensor(config.mean), torch.tensor(config.std)),
    }
    images = {who: (pixels - mean[:, None, None]) / std[:, None, None] for who, (mean, std) in normalize.items()}
    with torch.no_grad():
        found, expected = ours(images["ours"]), theirs(images["theirs"])[-4:]
    assert close(found, expected)
    assert ours.channels == tuple(theirs.feature_info.channels()[-4:])


def test_the_trainer_normalizes_as_this_module_says() -> None:
    assert pytest.approx([255 * number for number in (*IMAGE_MEAN, *IMAGE_STD)]) == [*PIXEL_MEAN, *PIXEL_STD]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(33, 200), (1, 1), (31, 5)])
def test_images_of_any_size(name: str, height: int, width: int) -> None:
    with torch.no_grad():
        features = build_timm_backbone(name).eval()(random_images(height, width))
    assert [f.shape[2:] for f in features] == [(math.ceil(height / s), math.ceil(width / s)) for s in STRIDES]
    assert all(f.isfinite().all() for f in features)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_gives_equal_gradients_to_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    plain, again = build_timm_backbone(name).train(), build_timm_backbone(name, checkpointing=True).train()
    again.load_state_dict(plain.state_dict())
    gradients = []
    for backbone in (plain, again):
        sum(f.square().mean() for f in backbone(random_images(64, 32))).backward()
        gradients.append({key: own.grad for key, own in backbone.named_parameters()})
    assert all(own is not None and own.isfinite().all() for own in gradients[0].values())
    assert all(torch.allclose(own, gradients[1][key], rtol=1e-4, atol=1e-6) for key, own in gradients[0].items())


def test_checkpointing_computes_activations_again() -> None:
    backbone = build_timm_backbone("convnext_atto", checkpointing=True).train()
    calls: list[int] = []
    middle = dict(backbone.body.named_modules())["stages_1"]
    middle.register_forward_pre_hook(lambda *_: calls.append(1))
    sum(f.mean() for f in backbone(random_images(32, 32))).backward()
    assert len(calls) == 2


@pytest.mark.parametrize("name", [LITE0, "resnet18"])
def test_batch_norms_keep_their_statistics_in_training(name: str) -> None:
    backbone = build_timm_backbone(name).train()
    before = copy.deepcopy(backbone.state_dict())
    with torch.no_grad():
        trained, seen = backbone(random_images(64, 64, 2)), backbone.eval()(random_images(64, 64, 2))
    assert close(trained, seen)
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in before.items())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())
    assert not any("bn" in key for key, _ in backbone.named_parameters())


def test_drop_path_leaves_branches_out_of_training_only() -> None:
    torch.manual_seed(0)
    dropped, plain = build_timm_backbone("convnext_atto", drop_path=0.9), build_timm_backbone("convnext_atto")
    randomize(dropped)
    plain.load_state_dict(dropped.state_dict())
    images = random_images(32, 32)
    with torch.no_grad():
        assert close(dropped.eval()(images), plain.eval()(images), 0.0)
        dropped.train()
        assert any(not close(dropped(images), plain(images), 1e-3) for _ in range(5))


def test_half_precision_keeps_its_dtype_through_the_norms() -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = build_timm_backbone("resnet18").eval()(random_images(64, 64))
    assert {f.dtype for f in features} == {torch.bfloat16}


def test_a_network_on_the_meta_device_has_the_shapes_of_the_real_one() -> None:
    with torch.device("meta"):
        empty = build_timm_backbone(LITE0)
    real = build_timm_backbone(LITE0)
    assert all(value.is_meta for value in empty.state_dict().values())
    assert {key: value.shape for key, value in empty.state_dict().items()} == {
        key: value.shape for key, value in real.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_tiny_patch16_224", "has features of strides 16, and 4, 8, 16 and 32 are needed; choose another, such as"),
        ("swin_tiny_patch4_window7_224", r"takes no images of 64 by 96 pixels \(Input height \(64\)"),
        ("visformer_tiny", "has features of strides 8, 16, 32, and 4"),
    ],
)
def test_networks_that_cannot_be_backbones_are_refused(name: str, said: str) -> None:
    with pytest.raises(UnsuitableNetworkError, match=said) as refused:
        build_timm_backbone(name)
    assert "\n" not in str(refused.value) and "timm/resnet50" in str(refused.value)


def test_options_that_a_network_does_not_know_are_refused() -> None:
    with pytest.raises(UnsuitableNetworkError, match=r"has no drop path; take model.drop_path out"):
        build_timm_backbone("dla46_c", drop_path=0.1)
    with pytest.raises(UnsuitableNetworkError, match=r"has no activation checkpointing; take schedule.activation_ch"):
        build_timm_backbone("hrnet_w18_small", checkpointing=True)


def test_the_features_of_a_box_segmenter_are_taken_from_its_file() -> None:
    """BatchNorm is folded in the file. The trained file that comes with synthgen is one."""
    backbone = build_timm_backbone("tf_efficientnet_lite2", weights=TRAINED_WEIGHTS).eval()
    segmenter = load_segmenter(TRAINED_WEIGHTS).eval()
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    images = (pixels - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]
    with torch.no_grad():
        expected = [segmenter.stages[0](segmenter.stem(2 * pixels - 1))]
        for stage in segmenter.stages[1:]:
            expected.append(stage(expected[-1]))
        assert close(backbone(images), expected[1:])


def test_a_box_segmenter_of_another_backbone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lite0.safetensors"
    path.write_bytes(save_segmenter(build_network()))
    build_timm_backbone(f"{LITE0}.in1k", weights=path)
    with pytest.raises(ValueError, match=f"^it is a box segmenter with {LITE0}$"):
        build_timm_backbone("tf_efficientnet_lite2", weights=path)
    with pytest.raises(ValueError, match=f"^it is a box segmenter with {LITE0}$"):
        build_timm_backbone("resnet18", weights=path)


def write_config(folder: Path, **changes: object) -> None:
    config = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.2], **changes}
    architecture = config.pop("architecture", "convnext_atto")
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, "pretrained_cfg": config}))


def test_pixels_are_normalized_as_the_configuration_of_the_folder_says(tmp_path: Path) -> None:
    weights = write_classifier("convnext_atto", tmp_path)
    registered = build_timm_backbone("convnext_atto", weights=weights).eval()
    write_config(weights)
    configured = build_timm_backbone("convnext_atto", weights=weights).eval()
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def normalized(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    with torch.no_grad():
        expected = registered(normalized((0.1, 0.2, 0.3), (0.5, 0.25, 0.2)))
        assert close(configured(normalized(IMAGE_MEAN, IMAGE_STD)), expected)
    loaded = build_timm_backbone("convnext_atto")
    loaded.load_state_dict(configured.state_dict())
    assert torch.equal(loaded.pixel_scale, configured.pixel_scale), "they are part of a checkpoint"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text('"' + "x" * 3_000_000 + '"'), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text('{"architectures": ["Swin"]}'), "is not one of timm"),
        (lambda folder: write_config(folder, architecture="resnet\x1b18"), r"config.json is of resnet\\x1b18"),
        (lambda folder: write_config(folder, mean=[0.5]), "mean and std that are not three numbers"),
        (lambda folder: write_config(folder, std=[0.5, 0, 0.5]), "std above 0"),
        (lambda folder: write_config(folder, std=[0.5, math.inf, 0.5]), "three numbers each"),
        (lambda folder: write_config(folder, mean="abc"), "config.json is damaged"),
    ],
)
def test_wrong_configurations_are_refused(tmp_path: Path, change: Callable[[Path], object], said: str) -> None:
    weights = tmp_path / "hub"
    weights.mkdir()
    save_file(_atto(), weights / "model.safetensors")
    change(weights)
    with pytest.raises(ValueError, match=said) as refused:
        build_timm_backbone("convnext_atto", weights=weights)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 300


def _atto() -> dict[str, torch.Tensor]:
    return {key: torch.zeros_like(own) for key, own in timm.create_model("convnext_atto").state_dict().items()}
