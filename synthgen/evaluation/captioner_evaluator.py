"""Evaluate captions of a network against human captions: CIDEr and token F1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from synthgen.dataloading.collate import PIXEL_MEAN, PIXEL_STD, Batch
from synthgen.dataloading.manifest import Manifest
from synthgen.distributed import DistributedContext
from synthgen.evaluation import evaluator
from synthgen.evaluation.metrics import GroundTruth, ImageResult, cider
from synthgen.evaluation.results import EvalResult
from synthgen.models.ofa.beam import BeamSearchConfig, generate_hypotheses
from synthgen.models.ofa.model import Ofa
from synthgen.models.ofa.preprocess import quantize_boxes
from synthgen.models.ofa.tokenizer import OfaTokenizer, normalize_caption
from synthgen.progress import NoProgress, OpenProgress

#: Beam search settings of OFA's own evaluation.
BEAM_SETTINGS = BeamSearchConfig(num_beams=5, max_length=16, no_repeat_ngram_size=3)

#: Batch sizes of images and boxes.
_EVAL_BATCH_SIZE, _BEAM_CHUNK = 8, 64


def evaluate_captioner(
    network: Ofa,
    tokenizer: OfaTokenizer,
    manifest: Manifest,
    context: DistributedContext,
    *,
    num_workers: int = 0,
    precision: str = "fp32",
    progress: OpenProgress = NoProgress,
) -> list[EvalResult]:
    """Evaluate the captions of the objects of the manifest's `eval` against human captions: CIDEr and token F1.

    Args:
        network: on the device of `context`. Each process evaluates a part of the images, and all return the full
            result.
        tokenizer: of the network.
        manifest: names the layers.
        context: rank, world size and device of this process.
        num_workers: data loader workers of each process.
        precision: fp32 or bf16, of activations.
        progress: opens a progress bar.

    Raises:
        SynthgenError: see `EvalLoader`; or the package for CIDEr is not installed.
    """
    cider.require_package()

    def compare(batch: Batch) -> list[tuple[GroundTruth, ImageResult]]:
        with torch.autocast(context.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return list(_compare_batch(network, tokenizer, batch))

    return [
        evaluator.evaluate_layer(
            manifest,
            index,
            context,
            compare,
            description="describing",
            progress=progress,
            batch_size=_EVAL_BATCH_SIZE,
            num_workers=num_workers,
        )
        for index in range(len(manifest.eval))
    ]


def _compare_batch(network: Ofa, tokenizer: OfaTokenizer, batch: Batch) -> Iterator[tuple[GroundTruth, ImageResult]]:
    """For each image of a batch, the ground truth and the comparison with the network's captions."""
    ids = [
        tokenizer.encode_region_prompt(corners)
        for target in batch.targets
        for corners in target_box_bins(target).tolist()
    ]
    owner = [i for i, target in enumerate(batch.targets) for _ in target["labels"]]
    image = network.extract_image_tokens(normalize_images(batch.images.to(network.device)))
    spoken = generate_hypotheses(
        network, image, owner, torch.tensor(ids, device=network.device), BEAM_SETTINGS, chunk_size=_BEAM_CHUNK
    )
    texts = (normalize_caption(tokenizer.decode(found[0].tokens)) if found else "" for found in spoken)
    for target in batch.targets:
        asked = GroundTruth(target["sample"], target["original"])
        # zip takes only the texts of this image's regions from the iterator.
        captions = dict(zip(target["annotation_ids"], texts, strict=False))
        yield asked, cider.compare(asked, [captions.get(region, "") for region in asked.target.annotation_ids])


def normalize_images(images: Tensor) -> Tensor:
    """Images in the levels of OFA and the box segmenter, in [-1, 1]: float [..., 3, H, W].

    Args:
        images: float [..., 3, H, W], RGB, normalized as in `Batch.images`.
    """
    mean, std = (images.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (images * std + mean) / 127.5 - 1


def target_box_bins(target: Mapping[str, Any]) -> Tensor:
    """The bins of the box corners of a target, int64 [n, 4], computed as in caption generation."""
    height, width = target["size"]
    middle, half = target["boxes"][:, :2].double(), target["boxes"][:, 2:].double() / 2
    corners = torch.cat([middle - half, middle + half], dim=1) * torch.tensor([width, height] * 2)
    return quantize_boxes(corners, height, width, side=height)
