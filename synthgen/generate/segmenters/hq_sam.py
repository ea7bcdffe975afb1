"""HQ-SAM (Ke et al., 2023) with its official checkpoints: SAM with finer outlines, and no score of its own masks.

What it predicts is the IoU of SAM's mask, not of the one returned: it is kept as `sam_predicted_iou`, and
`predicted_iou` stays empty. Filter these masks by `stability_score` and `box_iou`.
"""

from __future__ import annotations

from synthgen.generate.segmenters import Segmenter, _sam_load
from synthgen.generate.segmenters._hq_sam_options import HqSamOptions
from synthgen.weights import PublishedFile

_BASE_URL = "https://huggingface.co/lkeab/hq-sam/resolve/main/"

#: https://github.com/SysCV/sam-hq#model-checkpoints
PUBLISHED_WEIGHTS = {
    "vit_b": PublishedFile(
        _BASE_URL + "sam_hq_vit_b.pth",
        379_335_069,
        "14a9d662cd6f5a9c2dba6d40ab0058d88d287e4a18fd6fdc6ad5fb1a3fdeaa57",
    ),
    "vit_l": PublishedFile(
        _BASE_URL + "sam_hq_vit_l.pth",
        1_254_865_805,
        "e1a6c385d62bf005ded91a54d5ec55c985cfc4103ef89c08d90f39f04934c343",
    ),
    "vit_h": PublishedFile(
        _BASE_URL + "sam_hq_vit_h.pth",
        2_570_940_653,
        "a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35",
    ),
}


def resolve_options(options: HqSamOptions) -> HqSamOptions:
    """See the plugin folder."""
    return _sam_load.resolve_sam_options("hq_sam", PUBLISHED_WEIGHTS, options)


def build(options: HqSamOptions) -> Segmenter:
    """Make the segmenter."""
    return _sam_load.build_sam_segmenter("hq_sam", PUBLISHED_WEIGHTS, options)
