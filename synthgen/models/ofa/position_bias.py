"""Where OFA's tokens are: buckets of the distances between them, and what these add to attention.

Positions are not added to embeddings. They are a bias of the attention scores, which depends on the size of the image
and the length of the text alone: what is computed here serves all boxes of all images of one size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: Distances beyond are of no text that was ever trained; the buckets' logarithm is over this many, in all sizes of OFA.
MAX_TEXT_TOKENS = 1024

#: Attention divides its scores by sqrt(2 * channels of a head), not sqrt(channels of a head).
SCALE_FACTOR = 2

#: CUDA's fused attention reads a bias by rows that begin at multiples of so many numbers, or else copies it each time.
_BIAS_ALIGNMENT = 16


def token_offset_buckets(bucket_size: int, device: torch.device | None = None) -> Tensor:
    """The bucket of each distance i - j between two tokens of a text: int64 [2 * LONGEST - 1], at i - j + LONGEST - 1.

    Exact up to size / 2, then logarithmic. In float32 as the reference: in float64 some edge would lie elsewhere.
    """
    offset = torch.arange(1 - MAX_TEXT_TOKENS, MAX_TEXT_TOKENS)
    middle = bucket_size // 2
    distance = torch.where(offset.abs() < middle, middle - 1, offset.abs())
    logarithm = torch.log(distance / middle) / math.log((MAX_TEXT_TOKENS - 1) / middle)
    far = (torch.ceil(logarithm * (middle - 1)) + middle).int() * offset.sign()
    return (torch.where(distance <= middle, offset, far) + bucket_size - 1).to(device)


def token_buckets(bucket_size: int, length: int, device: torch.device | None = None) -> Tensor:
    """The bucket of each pair (i, j) of a text's tokens, int64 [length, length]."""
    place = torch.arange(length, device=device)
    return token_offset_buckets(bucket_size, device)[place[:, None] - place[None] + MAX_TEXT_TOKENS - 1]


def image_buckets(bucket_size: int, rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """The bucket of each pair of an image's tokens, int64 [rows * columns, rows * columns], row by row."""
    row = torch.arange(rows, device=device).repeat_interleave(columns)
    column = torch.arange(columns, device=device).repeat(rows)
    down, right = row[:, None] - row[None] + bucket_size - 1, column[:, None] - column[None] + bucket_size - 1
    return down * (2 * bucket_size - 1) + right


def image_positions(bucket_size: int, rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """The rows of `embed_image_positions` for an image's tokens, int64 [rows * columns].

    A line of the table is `bucket_size` long whatever the image's width is; its row 0 is no place of an image.
    """
    return (
        torch.arange(rows, device=device)[:, None] * bucket_size + torch.arange(columns, device=device) + 1
    ).flatten()


def position_scores(queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """What a pair of places adds to attention: [q, dim] and [k, dim], projected, to [heads, q, k]."""
    q, k = (x.view(len(x), heads, -1).transpose(0, 1) for x in (queries, keys))
    alike: Tensor = (q * (SCALE_FACTOR * q.shape[2]) ** -0.5) @ k.transpose(1, 2)
    return alike


def lookup_bias(table: nn.Module, buckets: Tensor) -> Tensor:
    """What a layer's table adds to attention: [heads, q, k]."""
    return table(buckets).permute(2, 0, 1)  # type: ignore[no-any-return]


def align_bias(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """A bias [heads, q, k] as [1, heads, q, k] in the attention's dtype, laid out as fused attention reads it."""
    heads, queries, keys = bias.shape
    room = bias.new_zeros(heads, queries, -(-keys // _BIAS_ALIGNMENT) * _BIAS_ALIGNMENT, dtype=dtype)
    room[..., :keys] = bias
    return room[None, ..., :keys]
