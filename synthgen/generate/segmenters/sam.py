"""Segment Anything (Kirillov et al., 2023) with its official checkpoints: boxes in, masks and their scores out."""

from __future__ import annotations

from synthgen.generate.segmenters import Segmenter, _sam_load
from synthgen.generate.segmenters._sam_options import SamOptions
from synthgen.weights import PublishedFile

_BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything/"

#: https://github.com/facebookresearch/segment-anything#model-checkpoints
PUBLISHED_WEIGHTS = {
    "vit_b": PublishedFile(
        _BASE_URL + "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": PublishedFile(
        _BASE_URL + "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": PublishedFile(
        _BASE_URL + "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}


def resolve_options(options: SamOptions) -> SamOptions:
    """See the plugin folder."""
    return _sam_load.resolve_sam_options("sam", PUBLISHED_WEIGHTS, options)


def build(options: SamOptions) -> Segmenter:
    """Make the segmenter."""
    return _sam_load.build_sam_segmenter("sam", PUBLISHED_WEIGHTS, options)
