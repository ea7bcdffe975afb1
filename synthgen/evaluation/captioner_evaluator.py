"""Captions of a network measured against captions by people: CIDEr and token F1."""

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

#: How OFA's own evaluation of captions searches.
BEAM_SETTINGS = BeamSearchConfig(num_beams=5, max_length=16, no_repeat_ngram_size=3)

#: Images and boxes that are evaluated at a time.
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
    """What a captioner says of the objects of the manifest's `eval`, against what people said: CIDEr and token F1.

    Args:
        network: on the device of `context`; each process describes its part of the images, and all return the whole.
        precision: fp32 or bf16, of activations.

    Raises:
        SynthgenError: see `Once`; what counts CIDEr is not installed.
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
    """Of each image of a batch what is true of it, and what the network says of its regions, compared."""
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
        said = dict(zip(target["annotation_ids"], texts, strict=False))  # the next texts, as many as it has regions
        yield asked, cider.compare(asked, [said.get(region, "") for region in asked.target.annotation_ids])


def normalize_images(images: Tensor) -> Tensor:
    """Images of a batch, [B, 3, side, side], normalised as OFA's are."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (images * std + mean) / 127.5 - 1


def target_box_bins(target: Mapping[str, Any]) -> Tensor:
    """The bins of the corners of a target's boxes, int64 [n, 4]; as the generating wing counts them."""
    height, width = target["size"]
    middle, half = target["boxes"][:, :2].double(), target["boxes"][:, 2:].double() / 2
    corners = torch.cat([middle - half, middle + half], dim=1) * torch.tensor([width, height] * 2)
    return quantize_boxes(corners, height, width, side=height)
