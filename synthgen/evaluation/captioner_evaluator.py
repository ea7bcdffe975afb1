"""Captions of a network measured against captions by people: CIDEr and token F1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from synthgen.dataloading.collate import PIXEL_MEAN, PIXEL_STD, Batch
from synthgen.dataloading.manifest import Manifest
from synthgen.distributed import Ranks
from synthgen.evaluation import evaluator
from synthgen.evaluation.metrics import Asked, Compared, cider
from synthgen.evaluation.results import Measured
from synthgen.models.ofa.beam import BeamSettings, describe
from synthgen.models.ofa.model import Ofa
from synthgen.models.ofa.preprocess import box_bins
from synthgen.models.ofa.tokenizer import OfaTokenizer, clean
from synthgen.progress import NoProgress, OpenProgress

#: How OFA's own evaluation of captions searches.
SEARCH = BeamSettings(beams=5, max_length=16, no_repeat_ngram=3)

#: Images and boxes that are evaluated at a time.
_IMAGES, _BOXES = 8, 64


def measure(
    network: Ofa,
    tokenizer: OfaTokenizer,
    manifest: Manifest,
    here: Ranks,
    *,
    workers: int = 0,
    precision: str = "fp32",
    bar: OpenProgress = NoProgress,
) -> list[Measured]:
    """What a captioner says of the objects of the manifest's `eval`, against what people said: CIDEr and token F1.

    Args:
        network: on the device of `here`; each process describes its part of the images, and all return the whole.
        precision: fp32 or bf16, of activations.

    Raises:
        SynthgenError: see `Once`; what counts CIDEr is not installed.
    """
    cider.need_package()

    def compare(batch: Batch) -> list[tuple[Asked, Compared]]:
        with torch.autocast(here.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return list(_compared(network, tokenizer, batch))

    return [
        evaluator.measure(
            manifest, index, here, compare, doing="describing", bar=bar, batch_size=_IMAGES, workers=workers
        )
        for index in range(len(manifest.eval))
    ]


def _compared(network: Ofa, tokenizer: OfaTokenizer, batch: Batch) -> Iterator[tuple[Asked, Compared]]:
    """Of each image of a batch what is true of it, and what the network says of its regions, compared."""
    ids = [tokenizer.region_prompt(corners) for target in batch.targets for corners in bins(target).tolist()]
    owner = [i for i, target in enumerate(batch.targets) for _ in target["labels"]]
    image = network.stem(pixels(batch.images.to(network.device)))
    spoken = describe(network, image, owner, torch.tensor(ids, device=network.device), SEARCH, chunk=_BOXES)
    texts = (clean(tokenizer.decode(found[0].tokens)) if found else "" for found in spoken)
    for target in batch.targets:
        asked = Asked(target["sample"], target["original"])
        said = dict(zip(target["annotation_ids"], texts, strict=False))  # the next texts, as many as it has regions
        yield asked, cider.compare(asked, [said.get(region, "") for region in asked.target.annotation_ids])


def pixels(images: Tensor) -> Tensor:
    """Images of a batch, [B, 3, side, side], normalised as OFA's are."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (images * std + mean) / 127.5 - 1


def bins(target: Mapping[str, Any]) -> Tensor:
    """The bins of the corners of a target's boxes, int64 [n, 4]; as the generating wing counts them."""
    height, width = target["size"]
    middle, half = target["boxes"][:, :2].double(), target["boxes"][:, 2:].double() / 2
    corners = torch.cat([middle - half, middle + half], dim=1) * torch.tensor([width, height] * 2)
    return box_bins(corners, height, width, side=height)
