"""The visual stem of OFA: a ResNet v1.5 without its last stage, with torchvision's parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, max_pool2d, relu

#: Output channels.
OUT_CHANNELS = 1024

#: Stride: pixels per token along a side.
STRIDE = 16


class FrozenBatchNorm(nn.Module):
    """Batch norm with the fixed statistics of the checkpoint. Unlike torchvision's, scale and bias are trained.

    `weight`, `bias`, `running_mean` and `running_var` are float [channels].
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`x`, float [B, channels, h, w] -> the same shape."""
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-5)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with stride) and 1x1 convolutions to four times the width, with a residual connection.

    Args:
        channels: channels of the input.
        width: channels of the middle convolution; the output has four times as many.
        stride: stride of the middle convolution, in pixels.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = FrozenBatchNorm(4 * width)
        self.downsample: nn.Sequential | None = None
        if channels != 4 * width:
            shortcut = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, FrozenBatchNorm(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """`x`, float [B, channels, h, w] -> [B, 4 * width, ceil(h / stride), ceil(w / stride)]."""
        out = relu(self.bn1(self.conv1(x)))
        out = relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNetStem(nn.Module):
    """The stages of a ResNet without the last one. The `blocks` (3, 4, 6) are those of a ResNet-50, (3, 4, 23) of a
    ResNet-101, (3, 8, 36) of a ResNet-152.
    """

    def __init__(self, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(64)
        self.layer1 = _make_stage(64, 64, blocks[0], stride=1)
        self.layer2 = _make_stage(256, 128, blocks[1], stride=2)
        self.layer3 = _make_stage(512, 256, blocks[2], stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Images `x`, float [B, 3, h, w] -> [B, 1024, ceil(h / 16), ceil(w / 16)]."""
        x = max_pool2d(relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        return self.layer3(self.layer2(self.layer1(x)))  # type: ignore[no-any-return]


def _make_stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(4 * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(channels, width, stride), *rest)
