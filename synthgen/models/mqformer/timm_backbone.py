"""Backbones of timm: any network of its registry with features of strides 4, 8, 16 and 32, for images of any size."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from synthgen.models.box_segmenter.network import unfold_backbone
from synthgen.models.box_segmenter.weights import is_segmenter_file, load_segmenter
from synthgen.models.mqformer.frozen_batch_norm import freeze_batch_norms
from synthgen.models.timm_networks import architecture, load_features, read_timm_weights

#: Strides of the features.
STRIDES = (4, 8, 16, 32)

#: Mean and standard deviation by which the trainer normalizes images (ImageNet's), of levels from 0 to 1.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

#: Sides of a trial image; no network has them as its own size.
_TRIAL_SIZE = (64, 96)

#: The end of a sentence about a network that cannot be used.
_REMEDY = "choose another, such as timm/convnext_tiny, timm/resnet50 or timm/tf_efficientnet_lite0"

#: Largest configuration file of a folder of weights, in bytes.
_MAX_CONFIG_BYTES = 2**20


class UnsuitableNetworkError(ValueError):
    """A network of timm that cannot be a backbone. The message is the rest of a sentence about it, with the remedy."""


def build_timm_backbone(
    name: str, *, weights: Path | None = None, drop_path: float = 0.0, checkpointing: bool = False
) -> TimmBackbone:
    """Build a network of timm as a backbone, with random or given weights.

    Args:
        name: one of `timm_networks.list_networks`.
        weights: see `timm_networks.read_timm_weights`; or a file of a box segmenter with this backbone.
        drop_path: probability of dropping a branch of the last block; earlier blocks use less.
        checkpointing: activation checkpointing of the stages.

    Raises:
        UnsuitableNetworkError: it has no features of the four strides, takes images of one size only, or does not know
            an option.
        ValueError: the weights do not fit; one sentence without the path.
    """
    indices = _pyramid_indices(name)
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        body = timm.create_model(name, pretrained=False, features_only=True, out_indices=indices, **options)
    except TypeError:
        raise UnsuitableNetworkError("has no drop path; take model.drop_path out") from None
    if weights is not None:
        load_features(body, name, _read_weights(name, weights))
    mean, std = _pixel_statistics(name, weights)
    return TimmBackbone(body, mean=mean, std=std, checkpointing=checkpointing)


class TimmBackbone(nn.Module):
    """A features-only network of timm with frozen batch norms.

    The network sees pixels as it was pretrained: with its own mean and standard deviation. Images are multiplied by
    `pixel_scale` and `pixel_shift` is added, both float32 [3, 1, 1]. They are part of the weights.

    Args:
        body: gives features of strides 4, 8, 16 and 32; changed in place.
        mean: of red, green and blue by which its images are normalized, of levels from 0 to 1.
        std: standard deviations, likewise.
        checkpointing: activation checkpointing of the stages.

    Attributes:
        channels: channels of the four features.

    Raises:
        UnsuitableNetworkError: it does not know activation checkpointing.
    """

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, body: Any, *, mean: Sequence[float], std: Sequence[float], checkpointing: bool = False) -> None:
        super().__init__()
        freeze_batch_norms(body)
        self.body = body
        self.channels: tuple[int, ...] = tuple(body.feature_info.channels())
        self._channels_last = getattr(body, "output_fmt", "NCHW") == "NHWC"
        image_mean, image_std = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGE_MEAN, IMAGE_STD))
        own_mean, own_std = (torch.tensor(list(numbers))[:, None, None] for numbers in (mean, std))
        self.register_buffer("pixel_scale", image_std / own_std)
        self.register_buffer("pixel_shift", (image_mean - own_mean) / own_std)
        if checkpointing:
            _set_checkpointing(body)

    def forward(self, images: Tensor) -> list[Tensor]:
        """`images`, float32 [B, 3, H, W], normalized, any size -> four [B, channels, ceil(H / stride), ceil(W /
        stride)].
        """
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))
        features = self.body(padded * self.pixel_scale + self.pixel_shift)
        if self._channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return [
            feature[..., : math.ceil(height / stride), : math.ceil(width / stride)]
            for feature, stride in zip(features, STRIDES, strict=True)
        ]


def _pyramid_indices(name: str) -> list[int]:
    """The indices of the features of strides 4, 8, 16 and 32. The network is tried without memory for its weights."""
    info: Any
    body: Any
    try:
        with torch.device("meta"):
            info = timm.create_model(name, pretrained=False, features_only=True).feature_info
    except Exception as why:  # networks that cannot do this raise errors of any kind
        raise UnsuitableNetworkError(f"gives no features ({_first_line(why)}); {_REMEDY}") from None
    index = dict(zip(info.reduction(), info.out_indices, strict=True))
    if not set(STRIDES) <= index.keys():
        raise UnsuitableNetworkError(
            f"has features of strides {', '.join(map(str, index))}, and 4, 8, 16 and 32 are needed; {_REMEDY}"
        )
    indices = [index[stride] for stride in STRIDES]
    height, width = _TRIAL_SIZE
    try:
        with torch.device("meta"), torch.no_grad():
            body = timm.create_model(name, pretrained=False, features_only=True, out_indices=indices).eval()
            found = TimmBackbone(body, mean=IMAGE_MEAN, std=IMAGE_STD)(torch.zeros(1, 3, height, width))
    except Exception as why:
        raise UnsuitableNetworkError(
            f"takes no images of {height} by {width} pixels ({_first_line(why)}), and images here are of any size; "
            f"{_REMEDY}"
        ) from None
    channels = body.feature_info.channels()
    wanted = [(1, own, height // stride, width // stride) for own, stride in zip(channels, STRIDES, strict=True)]
    if [tuple(feature.shape) for feature in found] != wanted:
        raise UnsuitableNetworkError(f"has features of other sizes than it says; {_REMEDY}")
    return indices


def _read_weights(name: str, path: Path) -> dict[str, Tensor]:
    if not is_segmenter_file(path):
        return read_timm_weights(name, path)
    segmenter = load_segmenter(path)
    if segmenter.config.backbone != architecture(name):
        raise ValueError(f"it is a box segmenter with {segmenter.config.backbone}")
    return unfold_backbone(segmenter)


def _pixel_statistics(name: str, weights: Path | None) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation for the weights: of the folder's config.json, as in timm's repositories, else of
    timm's registry.
    """
    path = weights / "config.json" if weights is not None else None
    if path is None or not path.is_file():
        config = timm.get_pretrained_cfg(name)
        return (config.mean, config.std) if config is not None else (IMAGE_MEAN, IMAGE_STD)
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_CONFIG_BYTES))
        own = content["pretrained_cfg"]
        mean, std = ([float(number) for number in own[key]] for key in ("mean", "std"))
        said = content["architecture"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("its config.json is damaged, or is not one of timm") from None
    if said != architecture(name):
        raise ValueError(f"its config.json is of {ascii(said)[1:-1][:40]}")
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError("its config.json has a mean and std that are not three numbers each, std above 0")
    return mean, std


def _set_checkpointing(body: Any) -> None:
    switch: Any = getattr(body, "set_grad_checkpointing", None)
    if switch is None:
        switch = getattr(getattr(body, "model", None), "set_grad_checkpointing", None)
    try:
        switch(enable=True)
    except (TypeError, AssertionError):  # it is None, or the network says that it does not know this
        remedy = "take schedule.activation_checkpointing out"
        raise UnsuitableNetworkError(f"has no activation checkpointing; {remedy}, or {_REMEDY}") from None
    for module in body.modules():  # an activation in place would change what is kept for the second pass
        if getattr(module, "inplace", False) is True:
            module.inplace = False


def _first_line(why: Exception) -> str:
    text = next((line.strip() for line in str(why).splitlines() if line.strip()), type(why).__name__)
    return ascii(text[:120])[1:-1]
