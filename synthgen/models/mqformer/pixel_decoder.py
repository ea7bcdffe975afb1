"""The pixel decoder (Mask DINO): a deformable-attention encoder over the feature pyramid, and the mask features.

Levels are ordered from fine to coarse. Each pixel attends to a few points on all levels. Mask features combine the
upsampled finest level with the backbone features of stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from synthgen.models.mqformer.deformable_attention import MSDeformAttn
from synthgen.models.mqformer.position_encoding import encode_pixel_positions, pixel_reference_points, valid_ratios

_NORM_GROUPS = 32


@dataclass(frozen=True, slots=True, eq=False)
class FeaturePyramid:
    """Encoded image features, the input of the decoder.

    Attributes:
        memory: float [B, S, dim]; the levels concatenated from fine to coarse, each row by row.
        padding_masks: bool [B, h, w] per level, True on padding.
        mask_features: float [B, mask_dim, H / 4, W / 4].
    """

    memory: Tensor
    padding_masks: tuple[Tensor, ...]
    mask_features: Tensor

    @property
    def spatial_shapes(self) -> list[tuple[int, int]]:
        """(height, width) of the levels."""
        return [(padding.shape[1], padding.shape[2]) for padding in self.padding_masks]


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm over unpadded pixels, zero on padding. The result for an image does not depend on the batch's size."""

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:  # type: ignore[override]
        """Normalize: float32 [B, dim, h, w].

        Args:
            x: float [B, dim, h, w].
            padding_mask: bool [B, h, w], True on padding.
        """
        hidden = padding_mask[:, None]
        groups = x.float().masked_fill(hidden, 0.0).reshape(len(x), self.num_groups, -1, *x.shape[2:])
        count = (~hidden).sum((1, 2, 3)).view(-1, 1, 1, 1, 1) * groups.shape[2]
        mean = groups.sum((2, 3, 4), keepdim=True) / count
        deviation = (groups - mean).masked_fill(hidden[:, None], 0.0)
        scale = (deviation.square().sum((2, 3, 4), keepdim=True) / count + self.eps).rsqrt()
        scale = scale * self.weight.view(self.num_groups, -1, 1, 1)  # per channel: saves a pass over the image
        return ((deviation * scale).flatten(1, 2) + self.bias[:, None, None]).masked_fill(hidden, 0.0)


class ConvGroupNorm(nn.Sequential):
    """A convolution followed by a group norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel, in pixels; odd. The padding is half of it.
        stride: stride of the convolution, in pixels.
        bias: whether the convolution has a bias.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, bias: bool = True
    ) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=bias)
        super().__init__(conv, MaskedGroupNorm(_NORM_GROUPS, out_channels))

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve and normalize: float32 [B, out_channels, h, w], zero on padding.

        Args:
            x: float [B, in_channels, H, W].
            padding_mask: bool [B, h, w] at the output's size, True on padding.
        """
        normed: Tensor = self[1](self[0](x), padding_mask)
        return normed


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention over the pyramid and a feedforward network, with post-norm.

    Args:
        dim: channels of the pyramid.
        heads: attention heads; divides `dim`.
        levels: levels of the pyramid.
        points: sampling points of each head on each level.
        feedforward: channels between the two linear layers.
    """

    def __init__(self, dim: int, *, heads: int, levels: int, points: int, feedforward: int) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(dim, heads=heads, levels=levels, points=points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(
        self,
        memory: Tensor,
        positions: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor,
    ) -> Tensor:
        """Refine the pyramid: float [B, S, dim].

        Args:
            memory: float [B, S, dim]; the levels concatenated.
            positions: float [B, S, dim], position encoding, added to the queries.
            reference_points: float [B, S, levels, 2], (x, y) of each pixel, relative to the padded size of each level.
            spatial_shapes: (height, width) of the levels.
            padding_mask: bool [B, S], True on padding.
        """
        looked = self.self_attn(memory + positions, reference_points, memory, spatial_shapes, padding_mask)
        memory = self.norm1(memory + looked)
        thought: Tensor = self.norm2(memory + self.linear2(functional.relu(self.linear1(memory))))
        return thought


class PixelDecoder(nn.Module):
    """The pixel decoder; see the module docstring.

    Args:
        channels: channels of the backbone features, from fine to coarse; the first has stride 4.
        dim: channels of the pyramid, a multiple of 32.
        mask_dim: channels of the mask features.
        levels: pyramid levels. The backbone features without the first (with it, if enough levels are requested),
            followed by additional levels, each of half the size.
        num_layers: layers of the deformable-attention encoder.
        heads: attention heads; divides `dim`.
        points: sampling points per head and level.
        feedforward: hidden channels of the feedforward networks.
        start_level: index of the first backbone feature that becomes a level.
        checkpointing: activation checkpointing of the encoder layers in training.

    Raises:
        ValueError: fewer levels than backbone features from `start_level` on.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        dim: int = 256,
        mask_dim: int = 256,
        levels: int = 4,
        num_layers: int = 6,
        heads: int = 8,
        points: int = 4,
        feedforward: int = 1024,
        start_level: int = 1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        own = channels[start_level:]
        if levels < len(own):
            raise ValueError(f"{levels} levels cannot hold the {len(own)} of the backbone")
        self.start_level, self.checkpointing = start_level, checkpointing
        further = [(own[-1] if i == 0 else dim) for i in range(levels - len(own))]
        self.input_proj = nn.ModuleList(
            [ConvGroupNorm(count, dim, 1) for count in own]
            + [ConvGroupNorm(count, dim, 3, stride=2) for count in further]
        )
        self.level_embed = nn.Parameter(torch.randn(levels, dim))
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(dim, heads=heads, levels=levels, points=points, feedforward=feedforward)
            for _ in range(num_layers)
        )
        self.lateral = ConvGroupNorm(channels[0], dim, 1, bias=False)
        self.output = ConvGroupNorm(dim, dim, 3, bias=False)
        self.mask_features = nn.Conv2d(dim, mask_dim, 1)
        for module in self.input_proj.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in (*self.lateral, *self.output, self.mask_features):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)

    def forward(self, features: Sequence[Tensor], padding_mask: Tensor) -> FeaturePyramid:
        """Compute the pyramid of a batch.

        Args:
            features: float [B, channels, h, w], from fine (stride 4) to coarse.
            padding_mask: bool [B, H, W] of the images, True on padding.
        """
        own = features[self.start_level :]
        paddings = [_downsample_padding(padding_mask, feature.shape[2], feature.shape[3]) for feature in own]
        while len(paddings) < len(self.input_proj):
            paddings.append(paddings[-1][:, ::2, ::2])  # at the centres of the kernels of the stride-2 convolution
        shapes = [(hidden.shape[1], hidden.shape[2]) for hidden in paddings]
        levels: list[Tensor] = []
        for i, project in enumerate(self.input_proj):
            # The first additional level convolves the last backbone feature, whose padding is not zero.
            below = own[i] if i < len(own) else levels[-1]
            if i == len(own):
                below = own[-1].masked_fill(paddings[i - 1][:, None], 0.0)
            levels.append(project(below, paddings[i]))
        positions = torch.cat(
            [
                (encode_pixel_positions(hidden, level.shape[1]).to(level.dtype) + embed[:, None, None]).flatten(2)
                for level, hidden, embed in zip(levels, paddings, self.level_embed, strict=True)
            ],
            dim=2,
        ).transpose(1, 2)
        memory = torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)
        hidden = torch.cat([one.flatten(1) for one in paddings], dim=1)
        references = pixel_reference_points(shapes, valid_ratios(paddings)).to(memory.dtype)
        for layer in self.layers:
            if self.checkpointing and self.training:
                memory = checkpoint(layer, memory, positions, references, shapes, hidden, use_reentrant=False)
            else:
                memory = layer(memory, positions, references, shapes, hidden)
        height, width = features[0].shape[-2:]
        outside = _downsample_padding(padding_mask, height, width)
        beside = self.lateral(features[0], outside)
        finest = _replicate_into_padding(memory[:, : paddings[0][0].numel()], paddings[0])
        enlarged = functional.interpolate(finest, size=(height, width), mode="bilinear", align_corners=False)
        fine = self.output((beside + enlarged).masked_fill(outside[:, None], 0.0), outside)
        return FeaturePyramid(memory, tuple(paddings), self.mask_features(functional.relu(fine)))


def _replicate_into_padding(level: Tensor, padding: Tensor) -> Tensor:
    """[B, h * w, dim] -> [B, dim, h, w], with the border of the image replicated into the padding."""
    height, width = padding.shape[1:]
    last_row, last_column = (~padding).sum(1).amax(1) - 1, (~padding).sum(2).amax(1) - 1
    y = torch.minimum(torch.arange(height, device=padding.device), last_row[:, None])
    x = torch.minimum(torch.arange(width, device=padding.device), last_column[:, None])
    place = (y[:, :, None] * width + x[:, None]).flatten(1)
    whole = level.gather(1, place[..., None].expand(-1, -1, level.shape[2]))
    return whole.transpose(1, 2).reshape(len(level), -1, height, width)


def _downsample_padding(padding: Tensor, height: int, width: int) -> Tensor:
    """bool [B, H, W] -> [B, height, width]; a cell is padding if its centre is.

    The first row and column always belong to the image: a level without valid positions has no reference points.
    """
    rows, columns = (
        functional.interpolate(side[:, None].float(), size=size, mode="nearest-exact")[:, 0] > 0.5
        for side, size in ((padding[:, :, 0], height), (padding[:, 0], width))
    )
    rows[:, 0] = columns[:, 0] = False
    return rows[:, :, None] | columns[:, None]
