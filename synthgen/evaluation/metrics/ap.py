"""Average precision of masks (COCO)."""

from __future__ import annotations

from collections.abc import Sequence

from synthgen.evaluation.metrics import Asked, Compared, Found, _coco
from synthgen.evaluation.metrics._coco import scores

__all__ = ["MAIN", "TAKES", "compare", "scores"]

TAKES = "instances"
MAIN = _coco.MAIN


def compare(asked: Asked, found: Sequence[Found]) -> Compared:
    """One image; see `_coco`."""
    return _coco.compare(asked, found, kind="segm")
