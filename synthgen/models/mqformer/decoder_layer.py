"""One decoder layer: self-attention, dual-query cross-attention, attention to the image, feedforward network.

In dual-query cross-attention (MQ-Former), learnable queries attend to conditional ones and vice versa. Both use the
state before the exchange. It relates regions without clear borders to the objects in them, and objects to their
background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthgen.models.mqformer.deformable_attention import MSDeformAttn


@dataclass(frozen=True, slots=True, eq=False)
class ImageMemory:
    """Image features for cross-attention.

    Attributes:
        memory: float [B, S, dim]; the levels concatenated from fine to coarse, each row by row.
        spatial_shapes: (height, width) of the levels.
        padding_mask: bool [B, S], True on padding.
    """

    memory: Tensor
    spatial_shapes: Sequence[tuple[int, int]]
    padding_mask: Tensor


class DualQueryCrossAttention(nn.Module):
    """Dual-query cross-attention: two sets of queries attend to each other simultaneously.

    Args:
        dim: channels of the queries.
        heads: attention heads; divides `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.to_learnable = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.to_conditional = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm_conditional = nn.LayerNorm(dim)
        self.norm_learnable = nn.LayerNorm(dim)

    def forward(
        self, conditional: Tensor, learnable: Tensor, query_pos: tuple[Tensor, Tensor], num_denoising: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Exchange information between the two sets: float [B, C, dim] and [B, L, dim].

        The first `num_denoising` conditional queries attend but are not attended to.

        Args:
            conditional: float [B, C, dim], conditional queries, after the denoising queries if there are any.
            learnable: float [B, L, dim], learnable queries.
            query_pos: position encodings of both, float [B, C, dim] and [B, L, dim]; added to queries and keys, not to
                values.
            num_denoising: how many of the first conditional queries attend but are not attended to.
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
    """A decoder layer. The order of the queries is: denoising, conditional, learnable.

    Args:
        dim: channels of queries and memory.
        heads: attention heads; divides `dim`.
        levels: levels of the feature pyramid.
        points: sampling points per head and level.
        feedforward: hidden channels of the feedforward network.
        exchange: whether to apply `DualQueryCrossAttention`; False if there is only one kind of query.
        joint_self_attention: self-attention over all queries, as in the reference code, instead of within each kind.
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
            content: float [B, Q, dim].
            query_pos: float [B, Q, dim], position encoding, added to queries and keys.
            reference_points: float [B, Q, levels, 4] CXCYWH in [0, 1], relative to the padded size of each level.
            image_memory: features of the B images.
            num_conditional: number of conditional queries; they precede the learnable ones.
            num_denoising: number of denoising queries; they come first and are processed like conditional ones.
            attention_mask: bool [B * heads, Q, Q], True where a query (row) must not attend to another; None = no mask.
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
