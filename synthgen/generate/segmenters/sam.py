"""Segment Anything (Kirillov et al., 2023) with its official checkpoints: boxes in, masks and their scores out."""

from __future__ import annotations

from synthgen.generate.segmenters import Segmenter, _sam_load
from synthgen.generate.segmenters._sam_options import SamOptions
from synthgen.generate.segmenters._sam_weights import PUBLISHED_WEIGHTS


def resolve_options(options: SamOptions) -> SamOptions:
    """Resolve `options`; see the plugin folder."""
    return _sam_load.resolve_sam_options("sam", PUBLISHED_WEIGHTS, options)


def build(options: SamOptions) -> Segmenter:
    """Make the segmenter with `options`."""
    return _sam_load.build_sam_segmenter("sam", PUBLISHED_WEIGHTS, options)
