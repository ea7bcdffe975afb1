"""The network of the box segmenter: crops around boxes in, mask logits out.

The backbone is an EfficientNet-Lite of timm (Tan and Le, 2019), pretrained on ImageNet. Its BatchNorm is frozen, so it
is folded into the convolutions when the network is built. The first two stages stay as they were pretrained. After
them, maps of the box (inside, horizontal and vertical position) are added by a convolution that starts at zero. A
top-down decoder joins the five strides, as in a feature pyramid network (Lin et al., 2017); each of its levels sees the
maps of the box again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: Backbones: names of timm.
BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")

#: Sides of crops are multiples of this, the largest stride.
CROP_DIVISIBILITY = 32

#: Stride of the logits.
OUTPUT_STRIDE = 2

#: Maps of a box: inside, horizontal position, vertical position.
_NUM_BOX_MAPS = 3

#: Stages of the backbone whose pretrained weights are not trained. The maps of the box are added after the last one.
_FROZEN_STAGES = 2


@dataclass(frozen=True, slots=True)
class BoxSegmenterConfig:
    """The structure of a box segmenter, and the crops that it learned from.

    Attributes:
        backbone: one of `BACKBONES`.
        hidden_dim: channels of the decoder at strides 8 to 32; half of it at stride 4, a quarter at stride 2.
        crop_size: side of the crops, in pixels.
        margin: surroundings in a crop on each side, in parts of the box's longer side.

    Raises:
        ValueError: a value is out of its range.
    """

    backbone: str = "tf_efficientnet_lite0"
    hidden_dim: int = 64
    crop_size: int = 192
    margin: float = 0.25

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(f"no backbone named {self.backbone[:40]!a} (have: {', '.join(BACKBONES)})")
        if not 16 <= self.hidden_dim <= 512 or self.hidden_dim % 16:
            raise ValueError(f"hidden_dim should be a multiple of 16 from 16 to 512, got {str(self.hidden_dim)[:20]}")
        if not 64 <= self.crop_size <= 512 or self.crop_size % CROP_DIVISIBILITY:
            raise ValueError(
                f"crop_size should be a multiple of 32 from 64 to 512 pixels, got {str(self.crop_size)[:20]}"
            )
        if not 0.05 <= self.margin <= 1:
            raise ValueError(f"margin should be from 0.05 to 1 parts of the box, got {self.margin}")


class BoxSegmenter(nn.Module):
    """See the module's docstring.

    Args:
        config: the structure.
        backbone: a features-only EfficientNet of timm; None = a new one with random weights.
    """

    def __init__(self, config: BoxSegmenterConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        network: Any = backbone or timm.create_model(config.backbone, pretrained=False, features_only=True)
        channels: list[int] = network.feature_info.channels()
        network.eval()  # folding needs the running statistics
        _fold_batch_norm(network)
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.stages = nn.ModuleList(nn.Sequential(*network.blocks[own.start : own.stop]) for own in _stages(network))
        for part in (self.stem, *self.stages[:_FROZEN_STAGES]):
            part.requires_grad_(requires_grad=False)
        self.box_projection = nn.Conv2d(_NUM_BOX_MAPS, channels[_FROZEN_STAGES - 1], 1, bias=False)
        nn.init.zeros_(self.box_projection.weight)
        widths = [config.hidden_dim // 4, config.hidden_dim // 2, *[config.hidden_dim] * (len(channels) - 2)]
        above = [*widths[1:], 0]
        self.decoder = nn.ModuleList(
            _DecoderLevel(channels[i] + above[i] + _NUM_BOX_MAPS, widths[i]) for i in range(len(channels))
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(self, crops: Tensor, boxes: Tensor) -> Tensor:
        """Mask logits of the object in each box.

        Args:
            crops: float [N, 3, S, S], RGB; levels 0 to 255 are -1 to 1, and 0 beyond the image.
            boxes: float [N, 4], XYXY relative to the crop, in [0, 1].

        Returns:
            float [N, S / 2, S / 2].
        """
        with torch.no_grad():
            features = [crops, *self._run_frozen_stages(crops)][1:]
        prompts = [draw_box_maps(boxes, side).to(crops.dtype) for side in _pyramid_sides(crops.shape[-1])]
        features[-1] = features[-1] + self.box_projection(prompts[_FROZEN_STAGES - 1])
        for stage in self.stages[_FROZEN_STAGES:]:
            features.append(stage(features[-1]))
        above: list[Tensor] = []
        for level, feature, prompt in zip(reversed(self.decoder), reversed(features), reversed(prompts), strict=True):
            upsampled = [functional.interpolate(x, feature.shape[-2:], mode="nearest") for x in above]
            above = [level(torch.cat([feature, *upsampled, prompt], 1))]
        logits: Tensor = self.head(above[0])[:, 0]
        return logits

    def _run_frozen_stages(self, crops: Tensor) -> list[Tensor]:
        found = [self.stages[0](self.stem(crops))]
        for stage in self.stages[1:_FROZEN_STAGES]:
            found.append(stage(found[-1]))
        return found


class _DecoderLevel(nn.Module):
    """Two convolutions of 3 x 3."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, width, 3, padding=1) for channels in (in_channels, width)]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            assert conv.bias is not None  # noqa: S101 - for the type checker
            nn.init.zeros_(conv.bias)
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = functional.relu(conv(x))
        return x


def unfold_backbone(network: BoxSegmenter) -> dict[str, Tensor]:
    """The weights of a segmenter's backbone with timm's names.

    BatchNorm is folded into the convolutions of a segmenter. Here it has the scale 1, and its shift is the bias of the
    convolution. So a features-only network of timm computes with these weights what the segmenter does without a box.

    Args:
        network: a segmenter with any weights.

    Returns:
        float32, by name; without the counters of BatchNorm.
    """
    with torch.device("meta"):
        own: Any = timm.create_model(network.config.backbone, pretrained=False, features_only=True)
    folded: dict[str, Any] = {"conv_stem": network.stem[0]}
    for stage, blocks in zip(network.stages, _stages(own), strict=True):
        for place, block in zip(blocks, stage.children(), strict=True):
            folded |= {f"blocks.{place}.{name}": part for name, part in block.named_modules()}
    found: dict[str, Tensor] = {}
    for parent_name, parent in own.named_modules():
        prefix = f"{parent_name}." if parent_name else ""
        for name, norm_name, norm in _convs_with_norm(parent):
            conv = folded[prefix + name]
            bias = conv.bias.detach().float()
            norm_values = {
                "weight": torch.ones_like(bias),
                "bias": bias,
                "running_mean": torch.zeros_like(bias),
                "running_var": torch.full_like(bias, 1 - norm.eps),
            }
            found[f"{prefix}{name}.weight"] = conv.weight.detach().float()
            found |= {f"{prefix}{norm_name}.{key}": value for key, value in norm_values.items()}
    return found


def draw_box_maps(boxes: Tensor, side: int) -> Tensor:
    """Maps of boxes over their crops.

    Args:
        boxes: float [N, 4], XYXY relative to the crop, in [0, 1].
        side: resolution of the maps.

    Returns:
        float32 [N, 3, side, side]: the share of a pixel inside the box; horizontal and vertical position, -1 and 1 at
        the sides of the box, limited to [-2, 2].
    """
    centers = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) / side
    low, high = boxes[:, :2, None].float(), boxes[:, 2:, None].float()  # [N, 2, 1]: x, y
    covered = ((centers - low) * side + 0.5).clamp(0, 1) * ((high - centers) * side + 0.5).clamp(0, 1)
    position = ((2 * centers - low - high) / (high - low).clamp(min=1e-6)).clamp(-2, 2)
    across, down = position[:, 0, None, :].expand(-1, side, -1), position[:, 1, :, None].expand(-1, -1, side)
    return torch.stack([covered[:, 1, :, None] * covered[:, 0, None, :], across, down], 1)


def _pyramid_sides(side: int) -> Sequence[int]:
    return [side >> level for level in range(1, 6)]


def _stages(network: Any) -> list[range]:
    """The places in `blocks` of the blocks of each stage, for an EfficientNet of timm.

    A stage of timm may end inside `blocks`: the blocks are grouped by the stride at which their features are taken.
    """
    ends = [int(info["module"].removeprefix("blocks.")) + 1 for info in network.feature_info.get_dicts()]
    return [range(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _convs_with_norm(module: nn.Module) -> list[tuple[str, str, nn.BatchNorm2d]]:
    """For each convolution that a BatchNorm follows among the children of `module`: both names, and the BatchNorm.

    The order of children is the order of use in the blocks of EfficientNet.
    """
    children = list(module.named_children())
    return [
        (name, norm_name, norm)
        for (name, conv), (norm_name, norm) in zip(children, children[1:], strict=False)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]


def _fold_batch_norm(module: nn.Module) -> None:
    """Fold each BatchNorm into the convolution before it, in place. Its activation, if any, stays."""
    children = list(module.children())
    for name, norm_name, norm in _convs_with_norm(module):
        conv: Any = module.get_submodule(name)
        folded = fuse_conv_bn_eval(conv, norm).requires_grad_(requires_grad=True)  # the new bias has no gradient
        setattr(module, name, folded)
        setattr(module, norm_name, getattr(norm, "act", nn.Identity()))
    for child in children:
        _fold_batch_norm(child)
