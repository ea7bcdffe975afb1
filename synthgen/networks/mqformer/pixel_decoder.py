"""The pixel decoder: a pyramid of backbone features that has looked at itself, and features for masks (Mask DINO).

Levels stand from fine to coarse throughout. Each pixel of each level attends, by deformable attention, to a few places
of all levels. Mask features come from the finest level, enlarged, beside the backbone's own of stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from synthgen.networks.mqformer.deformable import DeformableAttention
from synthgen.networks.mqformer.places import pixel_positions, pixel_references, valid_ratios

_GROUPS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Pyramid:
    """What the decoder looks at.

    Attributes:
        memory: [B, S, dim]; the levels one after another, from fine to coarse, each row by row.
        paddings: bool [B, h, w] a level, True on padding; so its shapes.
        mask_features: [B, mask_dim, H / 4, W / 4].
    """

    memory: Tensor
    paddings: tuple[Tensor, ...]
    mask_features: Tensor

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of the levels."""
        return [(padding.shape[1], padding.shape[2]) for padding in self.paddings]


class EncoderLayer(nn.Module):
    """Pixels look at the pyramid, then each thinks for itself; normalised after each step."""

    def __init__(self, dim: int, *, heads: int, levels: int, points: int, feedforward: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, heads=heads, levels=levels, points=points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(
        self, memory: Tensor, positions: Tensor, references: Tensor, shapes: Sequence[tuple[int, int]], padding: Tensor
    ) -> Tensor:
        """[B, S, dim] -> the same; see `DeformableAttention.forward`."""
        looked = self.self_attn(memory + positions, references, memory, shapes, padding)
        memory = self.norm1(memory + looked)
        thought: Tensor = self.norm2(memory + self.linear2(functional.relu(self.linear1(memory))))
        return thought


class PixelDecoder(nn.Module):
    """See this module.

    Args:
        channels: of the backbone's features, from fine to coarse; the first is that of stride 4.
        dim: of the pyramid, a multiple of 32; mask_dim: of the mask features.
        levels: of the pyramid: all of the backbone's but the first (or all of them, if there are so many more), and
            further ones of half the size each.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        dim: int = 256,
        mask_dim: int = 256,
        levels: int = 4,
        layers: int = 6,
        heads: int = 8,
        points: int = 4,
        feedforward: int = 1024,
        finest: int = 1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        own = channels[finest:]
        if levels < len(own):
            raise ValueError(f"{levels} levels cannot hold the {len(own)} of the backbone")
        self.finest, self.checkpointing = finest, checkpointing
        further = [(own[-1] if i == 0 else dim) for i in range(levels - len(own))]
        self.input_proj = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(count, dim, 1), nn.GroupNorm(_GROUPS, dim)) for count in own]
            + [
                nn.Sequential(nn.Conv2d(count, dim, 3, stride=2, padding=1), nn.GroupNorm(_GROUPS, dim))
                for count in further
            ]
        )
        self.level_embed = nn.Parameter(torch.randn(levels, dim))
        self.layers = nn.ModuleList(
            EncoderLayer(dim, heads=heads, levels=levels, points=points, feedforward=feedforward) for _ in range(layers)
        )
        self.lateral = nn.Sequential(nn.Conv2d(channels[0], dim, 1, bias=False), nn.GroupNorm(_GROUPS, dim))
        self.output = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, dim), nn.ReLU()
        )
        self.mask_features = nn.Conv2d(dim, mask_dim, 1)
        for module in self.input_proj.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in (*self.lateral, *self.output, self.mask_features):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)

    def forward(self, features: Sequence[Tensor], padding: Tensor) -> Pyramid:
        """The pyramid of a batch.

        Args:
            features: [B, channels, h, w], from fine (stride 4) to coarse.
            padding: bool [B, H, W] of the images, True on padding.
        """
        own = features[self.finest :]
        levels = [project(feature) for project, feature in zip(self.input_proj, own, strict=False)]
        for project in list(self.input_proj)[len(own) :]:
            levels.append(project(own[-1] if len(levels) == len(own) else levels[-1]))
        paddings = tuple(_shrunk(padding, level.shape[2], level.shape[3]) for level in levels)
        shapes = [(level.shape[2], level.shape[3]) for level in levels]
        positions = torch.cat(
            [
                (pixel_positions(hidden, level.shape[1]).to(level.dtype) + embed[:, None, None]).flatten(2)
                for level, hidden, embed in zip(levels, paddings, self.level_embed, strict=True)
            ],
            dim=2,
        ).transpose(1, 2)
        memory = torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)
        hidden = torch.cat([one.flatten(1) for one in paddings], dim=1)
        references = pixel_references(shapes, valid_ratios(paddings)).to(memory.dtype)
        for layer in self.layers:
            if self.checkpointing and self.training:
                memory = checkpoint(layer, memory, positions, references, shapes, hidden, use_reentrant=False)
            else:
                memory = layer(memory, positions, references, shapes, hidden)
        height, width = shapes[0]
        finest = memory[:, : height * width].transpose(1, 2).reshape(len(memory), -1, height, width)
        beside = self.lateral(features[0])
        enlarged = functional.interpolate(finest, size=beside.shape[-2:], mode="bilinear", align_corners=False)
        return Pyramid(memory, paddings, self.mask_features(self.output(beside + enlarged)))


def _shrunk(padding: Tensor, height: int, width: int) -> Tensor:
    """bool [B, H, W] -> [B, height, width]; of a pixel that is partly padding its middle decides.

    The first pixel is the image's, however little of it: a level without a place would have no references.
    """
    shrunk = functional.interpolate(padding[:, None].float(), size=(height, width), mode="nearest-exact")[:, 0] > 0.5
    shrunk[:, 0, 0] = False
    return shrunk
