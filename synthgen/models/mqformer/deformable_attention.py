"""Multi-scale deformable attention (Zhu et al., Deformable DETR, arXiv 2010.04159) in plain PyTorch.

Each query attends to a few points around its reference point on each pyramid level. Offsets and weights are linear
functions of the query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def ms_deform_attn(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of the values at the sampling locations, with bilinear interpolation and zero padding.

    Args:
        value: float [B, S, heads, dim]; the levels concatenated, each row by row.
        spatial_shapes: (height, width) of the levels; the products sum to S.
        sampling_locations: float [B, Q, heads, levels, points, 2]; (x, y) relative to the level, from 0 at the left or
            upper edge to 1 at the opposite edge.
        attention_weights: float [B, Q, heads, levels, points].

    Returns:
        [B, Q, heads * dim].
    """
    batch, _, heads, dim = value.shape
    queries = sampling_locations.shape[1]
    grids = (2 * sampling_locations.float() - 1).transpose(1, 2).flatten(0, 1)  # [B * heads, Q, levels, points, 2]
    shares = attention_weights.transpose(1, 2).flatten(0, 1)[:, None]  # [B * heads, 1, Q, levels, points]
    total = value.new_zeros(batch * heads, dim, queries)
    # Accumulated level by level: concatenating the samples of all levels would copy a large tensor.
    for level, part in enumerate(torch.split(value, [h * w for h, w in spatial_shapes], dim=1)):
        image = part.permute(0, 2, 3, 1).reshape(batch * heads, dim, *spatial_shapes[level])
        # align_corners=False: -1 and 1 are the edges of the border pixels, as 0 and 1 are here. Locations are always
        # float32, because bfloat16 cannot distinguish neighbouring pixels in a row of 200.
        found = functional.grid_sample(image.float(), grids[:, :, level], align_corners=False).to(value.dtype)
        total = total + (found * shares[..., level, :]).sum(-1)
    return total.reshape(batch, heads * dim, queries).transpose(1, 2)


class MSDeformAttn(nn.Module):
    """Layer of multi-scale deformable attention: offsets and weights from the query, values from the pyramid.

    Args:
        dim: channels of queries and values.
        heads: attention heads; divides `dim`.
        levels: pyramid levels.
        points: sampling points per head and level.
    """

    def __init__(self, dim: int, *, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize one direction per head, points at 1, 2, 3, ... pixels along it, and equal weights."""
        angle = torch.arange(self.heads, dtype=torch.float32) * (2.0 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = (direction[:, None, None] * steps[:, None]).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.weight.zero_()
            self.sampling_offsets.bias.copy_(offsets.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend to the pyramid.

        Args:
            query: float [B, Q, dim], with position encoding added.
            reference_points: float [B, Q, levels, 2 or 4] in [0, 1]: points (x, y), with offsets in pixels of each
                level, or boxes CXCYWH, with offsets in half side lengths divided by the number of points.
            memory: float [B, S, dim]; the levels concatenated.
            spatial_shapes: (height, width) of the levels.
            padding_mask: bool [B, S], True on padding, where values are zero.

        Returns:
            [B, Q, dim].
        """
        batch, queries, dim = query.shape
        value = self.value_proj(memory)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0.0)
        value = value.view(batch, -1, self.heads, dim // self.heads)
        offsets = self.sampling_offsets(query).view(batch, queries, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).view(batch, queries, self.heads, self.levels * self.points)
        weights = weights.softmax(-1).to(value.dtype).view(batch, queries, self.heads, self.levels, self.points)
        around = reference_points[:, :, None, :, None]
        if reference_points.shape[-1] == 2:
            sizes = torch.tensor([[w, h] for h, w in spatial_shapes], dtype=offsets.dtype)
            sizes = sizes.to(offsets.device, non_blocking=True)  # does not synchronize with the GPU
            locations = around + offsets / sizes[:, None]
        else:
            locations = around[..., :2] + offsets / self.points * around[..., 2:] * 0.5
        return cast(Tensor, self.output_proj(ms_deform_attn(value, spatial_shapes, locations, weights)))
