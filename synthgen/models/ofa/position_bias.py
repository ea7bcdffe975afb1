"""Relative position biases of OFA: buckets of token distances and their contribution to attention scores.

OFA does not add positions to the embeddings. The bias depends only on the image size and the text length, so it is
computed once for all boxes of all images of one size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: Longer distances do not occur in trained texts. The logarithm of the buckets spans this range in all OFA sizes.
MAX_TEXT_TOKENS = 1024

#: Attention divides scores by sqrt(2 * head_dim) instead of sqrt(head_dim).
SCALE_FACTOR = 2

#: CUDA's fused attention needs rows of a bias aligned to this many numbers, or copies the bias on every call.
_BIAS_ALIGNMENT = 16


def token_offset_buckets(bucket_size: int, device: torch.device | None = None) -> Tensor:
    """The bucket of each distance i - j between two text tokens: int64 [2 * MAX_TEXT_TOKENS - 1], at index i - j +
    MAX_TEXT_TOKENS - 1.

    Exact up to size / 2, then logarithmic. In float32, as in the reference: in float64 some bucket edges would differ.

    Args:
        bucket_size: the checkpoint's `token_bucket_size`; there are 2 * `bucket_size` - 1 buckets.
        device: where the result is made; None = PyTorch's default device.
    """
    offset = torch.arange(1 - MAX_TEXT_TOKENS, MAX_TEXT_TOKENS)
    middle = bucket_size // 2
    distance = torch.where(offset.abs() < middle, middle - 1, offset.abs())
    logarithm = torch.log(distance / middle) / math.log((MAX_TEXT_TOKENS - 1) / middle)
    far = (torch.ceil(logarithm * (middle - 1)) + middle).int() * offset.sign()
    return (torch.where(distance <= middle, offset, far) + bucket_size - 1).to(device)


def token_buckets(bucket_size: int, length: int, device: torch.device | None = None) -> Tensor:
    """The bucket of each pair (i, j) of text tokens, int64 [length, length].

    Args:
        bucket_size: as in `token_offset_buckets`.
        length: text tokens; at most MAX_TEXT_TOKENS.
        device: where the result is made; None = PyTorch's default device.
    """
    place = torch.arange(length, device=device)
    return token_offset_buckets(bucket_size, device)[place[:, None] - place[None] + MAX_TEXT_TOKENS - 1]


def image_buckets(bucket_size: int, rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """The bucket of each pair of image tokens, int64 [rows * columns, rows * columns], row by row.

    Args:
        bucket_size: the checkpoint's `image_bucket_size`: the largest number of rows and of columns.
        rows: rows of the grid of image tokens.
        columns: columns of the grid of image tokens.
        device: where the result is made; None = PyTorch's default device.
    """
    row = torch.arange(rows, device=device).repeat_interleave(columns)
    column = torch.arange(columns, device=device).repeat(rows)
    down, right = row[:, None] - row[None] + bucket_size - 1, column[:, None] - column[None] + bucket_size - 1
    return down * (2 * bucket_size - 1) + right


def image_positions(bucket_size: int, rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """The rows of `embed_image_positions` for the tokens of an image, int64 [rows * columns].

    A row of the grid takes `bucket_size` entries for every image width; entry 0 is not an image position.

    Args:
        bucket_size: the checkpoint's `image_bucket_size`.
        rows: rows of the grid of image tokens.
        columns: columns of the grid of image tokens.
        device: where the result is made; None = PyTorch's default device.
    """
    return (
        torch.arange(rows, device=device)[:, None] * bucket_size + torch.arange(columns, device=device) + 1
    ).flatten()


def position_scores(queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """Position scores for attention: [heads, q, k].

    Args:
        queries: float [q, dim], projected position embeddings.
        keys: float [k, dim], projected position embeddings.
        heads: attention heads; divides `dim`.
    """
    q, k = (x.view(len(x), heads, -1).transpose(0, 1) for x in (queries, keys))
    alike: Tensor = (q * (SCALE_FACTOR * q.shape[2]) ** -0.5) @ k.transpose(1, 2)
    return alike


def lookup_bias(table: nn.Module, buckets: Tensor) -> Tensor:
    """Look up the bias in a layer's table: float [heads, q, k].

    Args:
        table: an embedding [buckets, heads].
        buckets: int64 [q, k], from `token_buckets` or `image_buckets`.
    """
    return table(buckets).permute(2, 0, 1)  # type: ignore[no-any-return]


def align_bias(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """A bias as [1, heads, q, k], aligned for fused attention.

    Args:
        bias: float [heads, q, k].
        dtype: of the attention.
    """
    heads, queries, keys = bias.shape
    padded = bias.new_zeros(heads, queries, -(-keys // _BIAS_ALIGNMENT) * _BIAS_ALIGNMENT, dtype=dtype)
    padded[..., :keys] = bias
    return padded[None, ..., :keys]
