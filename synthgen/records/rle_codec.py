"""Encodes and decodes COCO's text form of run lengths (RLE counts)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: By the number of letters after the first, what is subtracted: nothing, then the value of the sign of a negative run.
_SIGN_VALUES = np.array([*[0] * 6, *(32 << 5 * place for place in range(6))], np.int64)

#: Decoded runs of texts up to this length are cached, so that a mask which is first checked and then drawn is decoded
#: once. The cache takes at most 16 MiB.
_CACHE_SIZE, _CACHE_MAX_LENGTH = 512, 4096


def decode_counts(counts: bytes) -> NDArray[np.int64]:
    """Run lengths of COCO's text form, int64 [R], starting with background; read-only.

    The inverse of `rleToString` in cocoapi's `maskApi.c`: base 32 with sign, and from the fourth run on the difference
    to the run two before.

    Args:
        counts: ASCII, as in `Rle.counts`.

    Raises:
        ValueError: not COCO's text form.
    """
    return _decode_counts_cached(counts) if len(counts) <= _CACHE_MAX_LENGTH else _decode_counts(counts)


@lru_cache(maxsize=_CACHE_SIZE)
def _decode_counts_cached(counts: bytes) -> NDArray[np.int64]:
    runs = _decode_counts(counts)
    runs.flags.writeable = False
    return runs


def _decode_counts(counts: bytes) -> NDArray[np.int64]:
    code = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if code.size == 0:
        return np.zeros(0, np.int64)
    if code.min() < 0 or code.max() > 63 or code[-1] & 0x20:
        raise ValueError("not a COCO run-length text")
    last = (code & 0x20) == 0
    start = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(code.size) - np.repeat(start, np.diff(np.append(start, code.size)))
    if place.max() > 5:
        raise ValueError("a run is longer than any image")
    runs = np.add.reduceat((code & 0x1F) << (5 * place), start)
    negative = (code[last] & 0x10) != 0
    runs[negative] -= 1 << (5 * (place[last][negative] + 1))
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def sum_many_counts(texts: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pixels of many masks and of their images, from run lengths: several times as fast as one by one.

    Args:
        texts: ASCII, as in `Rle.counts`; at least one.

    Returns:
        Pixels inside the masks, and pixels in all: int64 [N] each.

    Raises:
        ValueError: one is not COCO's text form, or is empty, or has a negative run.
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    if not lengths.all():
        raise ValueError("not a COCO run-length text")
    code = np.frombuffer(b"".join(texts), dtype=np.uint8) - np.uint8(48)
    ends = np.cumsum(lengths)
    if code.max() > 63 or (code[ends - 1] & 0x20).any():  # a letter below 48 has wrapped around
        raise ValueError("not a COCO run-length text")
    stops = np.flatnonzero(code < 0x20)  # those without the bit that says that the run continues
    start = np.empty_like(stops)
    start[0], start[1:] = 0, stops[:-1] + 1
    size = stops - start
    if size.max() > 5:
        raise ValueError("a run is longer than any image")
    runs = (code[start] & 0x1F).astype(np.int64)
    rows = np.flatnonzero(size)  # most runs have one or two letters
    for place in range(1, 6):
        runs[rows] += (code[start[rows] + place] & 0x1F).astype(np.int64) << (5 * place)
        rows = rows[size[rows] > place]
    runs -= _SIGN_VALUES[size + 6 * (code[stops] >> 4)]
    # Two columns, background and mask, each text from a new row on. In each column a run is the difference to the one
    # above it, but for the third run, which is itself.
    first = np.searchsorted(start, ends - lengths)
    number = np.diff(np.append(first, runs.size))
    row_counts = (number + 1) // 2
    row = np.cumsum(row_counts) - row_counts
    table = np.zeros((int(row_counts.sum()), 2), np.int64)
    table.reshape(-1)[np.arange(runs.size) + np.repeat(2 * row - first, number)] = runs
    third = row[number > 2]
    table[third + 1, 0] -= table[third, 0]
    table = np.cumsum(table, axis=0)
    before = np.zeros((len(row), 2), np.int64)
    before[1:] = table[row[1:] - 1]
    table -= np.repeat(before, row_counts, axis=0)
    odd = np.flatnonzero(number & 1)
    table[row[odd] + row_counts[odd] - 1, 1] = 0  # there is no such run
    if table.min() < 0:
        raise ValueError("a run is negative")
    background, inside = np.add.reduceat(table, row, axis=0).T
    return inside, background + inside


def encode_counts(runs: NDArray[Any]) -> bytes:
    """COCO's text form of run lengths, `runs`: integers [R], each below 2^29. The inverse of `decode_counts`."""
    number = runs.astype(np.int64)
    number[3:] -= runs[1:-2]
    # Five bits per character, one bit in all is the sign: 2^29 fits into six characters.
    size = 1 + np.searchsorted([2**4, 2**9, 2**14, 2**19, 2**24], np.where(number < 0, ~number, number), side="right")
    end = np.cumsum(size)
    place = np.arange(size.sum()) - np.repeat(end - size, size)
    letters = (np.repeat(number, size) >> (5 * place)) & 0x1F
    letters[np.delete(np.arange(letters.size), end - 1)] |= 0x20  # the continuation bit
    text: bytes = (letters + 48).astype(np.uint8).tobytes()
    return text
