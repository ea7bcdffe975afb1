"""HQ-SAM (Ke et al., 2023) with its official checkpoints: SAM with finer outlines, and no score of its own masks.

What it predicts is the IoU of SAM's mask, not of the one returned: it is kept as `sam_predicted_iou`, and
`predicted_iou` stays empty. Filter these masks by `stability_score` and `box_iou`.
"""

from __future__ import annotations

from typing import Any

from synthgen.generate.segmenters import Segmenter, _sam_load
from synthgen.weights import Published

_FROM = "https://huggingface.co/lkeab/hq-sam/resolve/main/"

#: https://github.com/SysCV/sam-hq#model-checkpoints; of the smaller two the Hub says size and digest with the file.
PUBLISHED = {
    "vit_b": Published(_FROM + "sam_hq_vit_b.pth"),
    "vit_l": Published(_FROM + "sam_hq_vit_l.pth"),
    "vit_h": Published(
        _FROM + "sam_hq_vit_h.pth",
        2_570_940_653,
        "a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35",
    ),
}


def settle(**options: Any) -> dict[str, Any]:
    """See the shelf."""
    return _sam_load.settled("hq_sam", PUBLISHED, options)


def build(
    *,
    variant: str = "",
    checkpoint: str = "",
    weights: str = "",
    precision: str = "fp32",
    hq_token_only: bool = False,
    multimask: bool = False,
    zoom: bool = False,
    device: str = "auto",
    compile: bool = False,
    batch_size: str = "auto",
    box_chunk: int = 0,
    self_test: bool = True,
) -> Segmenter:
    """Make the segmenter.

    Args:
        hq_token_only: the HQ mask alone, rather than added to SAM's; for single, large objects.

    The others are those of `sam.build`.
    """
    return _sam_load.make("hq_sam", PUBLISHED, locals())
