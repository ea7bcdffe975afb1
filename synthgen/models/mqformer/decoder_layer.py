"""One layer of the decoder: queries see their like, the other kind, the image, and think for themselves.

The exchange is what makes queries mixed (MQ-Former's dual-query cross-attention): learnable ones attend to conditional
ones and these to those, both to what the other was before, so that a region without borders is told by the objects in
it, and an object by what it stands on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthgen.models.mqformer.ms_deform_attn import MSDeformAttn


@dataclass(frozen=True, slots=True, eq=False)
class ImageMemory:
    """What queries look at: see `Pyramid` for `memory` [B, S, dim] and `spatial_shapes`; `padding_mask` bool [B, S]."""

    memory: Tensor
    spatial_shapes: Sequence[tuple[int, int]]
    padding_mask: Tensor


class DualQueryCrossAttention(nn.Module):
    """Dual-query cross-attention: two sets of queries, each of which looks at the other, at once."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.to_learnable = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.to_conditional = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm_conditional = nn.LayerNorm(dim)
        self.norm_learnable = nn.LayerNorm(dim)

    def forward(
        self, conditional: Tensor, learnable: Tensor, query_pos: tuple[Tensor, Tensor], num_denoising: int = 0
    ) -> tuple[Tensor, Tensor]:
        """[B, C, dim] and [B, L, dim] -> the same; `query_pos` are added where they ask and are asked, not to values.

        The first `num_denoising` of the conditional ones ask and are not asked.
        """
        place_c, place_l = query_pos
        asked_c, asked_l = conditional + place_c, learnable + place_l
        from_learnable = self.to_learnable(asked_c, asked_l, learnable, need_weights=False)[0]
        from_conditional = self.to_conditional(
            asked_l, asked_c[:, num_denoising:], conditional[:, num_denoising:], need_weights=False
        )[0]
        return (
            self.norm_conditional(conditional + from_learnable),
            self.norm_learnable(learnable + from_conditional),
        )


class DecoderLayer(nn.Module):
    """See this module. Conditional queries stand before learnable ones, noised objects of training before both.

    Args:
        exchange: whether the two kinds see each other by `DualQueryCrossAttention`; not where there is one kind only.
        joint_self_attention: whether self-attention is over all queries, as in the reference programs, or within
            each kind.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        levels: int,
        points: int,
        feedforward: int,
        exchange: bool,
        joint_self_attention: bool,
    ) -> None:
        super().__init__()
        self.joint_self_attention = joint_self_attention
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.exchange = DualQueryCrossAttention(dim, heads) if exchange else None
        self.cross_attn = MSDeformAttn(dim, heads=heads, levels=levels, points=points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self,
        content: Tensor,
        query_pos: Tensor,
        reference_points: Tensor,
        image_memory: ImageMemory,
        num_conditional: int,
        num_denoising: int = 0,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Refine queries.

        Args:
            content: [B, Q, dim]; query_pos: [B, Q, dim], added to queries where they ask.
            reference_points: [B, Q, levels, 4] CXCYWH, in parts of each level with its padding.
            num_conditional: how many of the queries are of that kind; they stand before the learnable ones.
            num_denoising: how many noised objects stand before these; they go the way of conditional queries.
            attention_mask: bool [B * heads, Q, Q], where a query (a row) must not see another; None = nowhere.
        """
        first, seen = num_denoising + num_conditional, []
        for kind in [slice(None)] if self.joint_self_attention else [slice(first), slice(first, None)]:
            own, at = content[:, kind], query_pos[:, kind]
            if own.shape[1]:
                hidden = None if attention_mask is None else attention_mask[:, kind, kind]
                seen.append(self.self_attn(own + at, own + at, own, attn_mask=hidden, need_weights=False)[0])
        content = self.norm2(content + torch.cat(seen, dim=1))
        if self.exchange is not None:
            places = query_pos[:, :first], query_pos[:, first:]
            content = torch.cat(self.exchange(content[:, :first], content[:, first:], places, num_denoising), dim=1)
        looked = self.cross_attn(
            content + query_pos,
            reference_points,
            image_memory.memory,
            image_memory.spatial_shapes,
            image_memory.padding_mask,
        )
        content = self.norm1(content + looked)
        thought: Tensor = self.norm3(content + self.linear2(functional.relu(self.linear1(content))))
        return thought
