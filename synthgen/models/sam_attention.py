"""Fused attention for segment-anything's image encoder, numerically equivalent to the original.

The original stores the attention map [heads, tokens, tokens] several times; a fused kernel never does. The difficulty
is SAM's decomposed relative position, which adds to the score of query q and key k the terms

    q . R_h[row of q, row of k]  +  q . R_w[column of q, column of k].

Each term is small ([tokens, rows] and [tokens, columns]), but their sum has the size of the map. There are two ways to
compute it:

    added   The sum is passed to the kernel as its mask, for a band of queries at a time, so that at most
    `MAX_BIAS_NUMEL` numbers of it exist at once. Needs the least arithmetic.
    folded  The sum is a product of [q . R_h, q . R_w] and the one-hot row and column of k. Appended to q and k, it is
    part of the kernel's own product. The head size grows from d to d + rows + columns (64 to 192 at 1024 pixels), but
    kernels without mask support, such as CUDA's flash attention, can be used.
"""

from __future__ import annotations

from typing import Literal

import torch
from segment_anything.modeling.image_encoder import Attention, ImageEncoderViT
from torch import Tensor
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention

#: Maximum number of elements of the position mask at once: 512 MB in float32, 256 MB in bfloat16, for any batch size (a
#: whole mask of ViT-H at 1024 pixels would have twice as many per image).
MAX_BIAS_NUMEL = 2**27


def use_sdpa(encoder: ImageEncoderViT, rel_pos_mode: Literal["added", "folded"] = "added") -> None:
    """Replace the attention of every block of `encoder`, in place; parameters, names and hooks are kept.

    Supports windowed and global blocks, any grid that the original supports (relative positions are interpolated
    alike), any float dtype, with and without relative positions, and `torch.compile` (no graph breaks).

    Args:
        encoder: the image encoder; its blocks must have the attention of segment-anything.
        rel_pos_mode: "added" = relative positions are added as a bias; "folded" = they are put into additional channels
            of queries and keys. The results are equal up to rounding.
    """
    for block in encoder.blocks:
        block.attn.__class__ = _FoldedBiasAttention if rel_pos_mode == "folded" else _BiasAttention


class _BiasAttention(Attention):  # type: ignore[misc]  # segment-anything ships no types
    """The original's parameters with another `forward`."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend: [B, H, W, C] -> [B, H, W, C]."""
        q, k, v = self._project_qkv(x)
        if not self.use_rel_pos:
            return self._merge_heads(scaled_dot_product_attention(q, k, v), x)
        height, width = x.shape[1:3]
        by_row, by_column = self._rel_pos_terms(q, height, width)
        rows = max(1, MAX_BIAS_NUMEL // (q.shape[0] * q.shape[1] * width * height * width))
        bands = []
        for top in range(0, height, rows):
            band = slice(top, min(top + rows, height))
            mask = by_row[:, :, band, :, :, None] + by_column[:, :, band, :, None, :]
            queries = q[:, :, band.start * width : band.stop * width]
            bands.append(scaled_dot_product_attention(queries, k, v, attn_mask=mask.flatten(4).flatten(2, 3)))
        return self._merge_heads(bands[0] if len(bands) == 1 else torch.cat(bands, dim=2), x)

    def _project_qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values [B, heads, H * W, C / heads] of tokens [B, H, W, C]."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return q, k, v

    def _rel_pos_terms(self, q: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The position terms of each query [B, heads, H, W]: for each key row [..., H] and each key column [..., W]."""
        grid = q.reshape(*q.shape[:2], height, width, q.shape[3])
        by_row = torch.einsum("bnhwc,hkc->bnhwk", grid, _rel_pos_embeddings(self.rel_pos_h, height))
        by_column = torch.einsum("bnhwc,wkc->bnhwk", grid, _rel_pos_embeddings(self.rel_pos_w, width))
        return by_row, by_column

    def _merge_heads(self, heads: Tensor, x: Tensor) -> Tensor:
        projected: Tensor = self.proj(heads.transpose(1, 2).reshape(x.shape))
        return projected


class _FoldedBiasAttention(_BiasAttention):
    """Like `_BiasAttention`, with the positions in additional channels of queries and keys."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend: [B, H, W, C] -> [B, H, W, C]."""
        q, k, v = self._project_qkv(x)
        if not self.use_rel_pos:
            return self._merge_heads(scaled_dot_product_attention(q, k, v), x)
        height, width = x.shape[1:3]
        by_row, by_column = self._rel_pos_terms(q, height, width)
        rows = torch.eye(height, dtype=q.dtype, device=q.device).repeat_interleave(width, dim=0)
        columns = torch.eye(width, dtype=q.dtype, device=q.device).repeat(height, 1)
        place = torch.cat([rows, columns], dim=1).expand(*k.shape[:3], -1)
        q = torch.cat([q * self.scale, by_row.flatten(2, 3), by_column.flatten(2, 3)], dim=3)
        k = torch.cat([k, place], dim=3)
        # Flash kernels need values as wide as the keys.
        out = scaled_dot_product_attention(q, k, pad(v, (0, height + width)), scale=1.0)
        return self._merge_heads(out[..., : v.shape[3]], x)


def _rel_pos_embeddings(table: Tensor, size: int) -> Tensor:
    """Position embeddings [query size, key size, C] from a table [distances, C]."""
    if table.shape[0] != 2 * size - 1:
        table = interpolate(table.T[None], size=2 * size - 1, mode="linear")[0].T
    places = torch.arange(size, device=table.device)
    return table[places[:, None] - places[None, :] + size - 1]
