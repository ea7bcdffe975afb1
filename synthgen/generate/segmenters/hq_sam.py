"""HQ-SAM (Ke et al., 2023) with its official checkpoints: SAM with finer outlines, and no score of its own masks.

What it predicts is the IoU of SAM's mask, not of the one returned: it is kept as `sam_predicted_iou`, and
`predicted_iou` stays empty. Filter these masks by `stability_score` and `box_iou`.
"""

from __future__ import annotations

from synthgen.generate.segmenters import Segmenter, _sam_load
from synthgen.generate.segmenters._hq_sam_options import HqSamOptions
from synthgen.generate.segmenters._hq_sam_weights import PUBLISHED_WEIGHTS


def resolve_options(options: HqSamOptions) -> HqSamOptions:
    """Resolve `options`; see the plugin folder."""
    return _sam_load.resolve_sam_options("hq_sam", PUBLISHED_WEIGHTS, options)


def build(options: HqSamOptions) -> Segmenter:
    """Make the segmenter with `options`."""
    return _sam_load.build_sam_segmenter("hq_sam", PUBLISHED_WEIGHTS, options)
