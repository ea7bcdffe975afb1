"""Published weights of HQ-SAM and those of this machine, without heavy imports; see `_sam_weights`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.generate.segmenters._sam_weights import describe_download, list_published_files
from synthgen.weights import LocalWeights, PublishedFile

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

#: See the plugin folder, and `_sam_weights.RANK` for why SAM is before it.
RANK = {"cpu": 10, "cuda": 30}


def list_local_weights() -> list[LocalWeights]:
    """See the plugin folder: the largest variant first."""
    return list_published_files(PUBLISHED_WEIGHTS)


def how_to_get(options: Mapping[str, Any]) -> str:
    """See the plugin folder."""
    return describe_download("hq_sam", "HQ-SAM's", PUBLISHED_WEIGHTS, options)
