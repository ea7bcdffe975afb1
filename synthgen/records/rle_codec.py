"""Encodes and decodes COCO's text form of run lengths (RLE counts)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
