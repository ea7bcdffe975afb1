"""Segment Anything (Kirillov et al., 2023) with its official checkpoints: boxes in, masks and their scores out."""

from __future__ import annotations

from typing import Any

from synthgen.generate.segmenters import Segmenter, _sam_load
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


def resolve_options(**options: Any) -> dict[str, Any]:
    """See the shelf."""
    return _sam_load.resolve_sam_options("sam", PUBLISHED_WEIGHTS, options)


def build(
    *,
    variant: str = "",
    checkpoint: str = "",
    weights: str = "",
    precision: str = "fp32",
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
        variant: vit_b, vit_l or vit_h; "" = the checkpoint's, without one vit_h.
        checkpoint: a .pth of one's own or the official one; "" = the official one, from the folder of weights.
        weights: SHA-256 that the checkpoint must have; "" = any.
        precision: fp32 or bf16, of encoder and decoder; pixels, prompts and what is done with logits stay float32.
        multimask: the best of SAM's three candidates by evidence, rather than its single mask.
        zoom: prompt small boxes again on an enlarged window of the image.
        device: auto, cpu, cuda, cuda:1, mps.
        compile: `torch.compile` the encoder's blocks; minutes at the start, some percent afterwards.
        batch_size: images at once; auto = by the device's free memory, halved when that turns out too many.
        box_chunk: boxes at once, which bounds the memory; 0 = by the device's free memory.
        self_test: compare the path chosen with plain float32 before the first image.
    """
    return _sam_load.build_sam_segmenter("sam", PUBLISHED_WEIGHTS, locals())
