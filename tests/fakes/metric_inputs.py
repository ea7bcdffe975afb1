"""Ground truth of three drawn images, and predictions that match it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch

from fakes.ascii_samples import ascii_sample, human_captions, masked_annotation
from synthgen import plugins
from synthgen.evaluation.evaluate import _with_all_phrases
from synthgen.evaluation.metrics import Detection, GroundTruth
from synthgen.evaluation.postprocess import RawPrediction
from synthgen.records.rle import decode_mask

#: Letters are objects, capitals are stuff; dots are of nothing.
DRAWINGS = (
    "aaaa....GGGG aaaabbbbGGGG ....bbbbGGGG SSSSSSSS.GGG SSSSSSSS.GGG",
    "SSSSSSSSSSSS SSSSSaaaSSSS SSSSSaaaSSSS GGGGGGGGGGGG GGGGbbGGGGGG",
    "GGGGGGGGGGGG GGGcccGGGGGG GGGcccGGGGGG aaaaGGGGGGGG aaaa....GGGG",
)

NAMES = {"a": "cat", "b": "dog", "c": "cat", "S": "sky", "G": "grass"}
PHRASES = {"a": ("the first one", "a cat"), "b": ("the dog",), "c": ("the other cat",)}


def drawn_samples():
    return [
        ascii_sample(drawing, [
            masked_annotation(drawing, letter, 10 * i + place, NAMES[letter], isthing=letter.islower(),
                   captions=human_captions(*PHRASES.get(letter, ())))
            for place, letter in enumerate(sorted(set(drawing) - set(". ")), 1)
        ], image_id=i, image_key=f"ascii/{i}")
        for i, drawing in enumerate(DRAWINGS)
    ]  # fmt: skip


def make_ground_truth(task, sample, names=("cat", "dog", "sky", "grass", "cow")):
    if task == "foreground":
        sample = replace(sample, annotations=tuple(a for a in sample.annotations if a.isthing))
    target = plugins.load_plugin("dataloading.tasks", task).target(sample, names, random.Random(0))
    target = _with_all_phrases(sample, target) if task == "referring" else target
    return GroundTruth(sample, target, frozenset({"sky", "grass"}))


def perfect_prediction(one: GroundTruth, queries=8) -> RawPrediction:
    """A network that knows the truth: a query for each object, in an order of its own; the others see nothing."""
    target, size = one.target, (one.sample.height, one.sample.width)
    logits, masks = torch.full((queries, len(target.texts)), -12.0), torch.full((queries, *size), -20.0)
    boxes = torch.rand(queries, 4, generator=torch.Generator().manual_seed(1))
    place = random.Random(2).sample(range(queries), len(target.labels))
    for query, label, box, mask in zip(place, target.labels, target.boxes_xyxy, target.masks, strict=True):
        logits[query, label] = 12.0
        x1, y1, x2, y2 = (box / np.array(size[::-1] * 2)).tolist()
        boxes[query] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        if mask is not None:
            masks[query][torch.from_numpy(decode_mask(mask))] = 20.0
    stuff = frozenset(i for i, text in enumerate(target.texts) if text in one.stuff_names)
    return RawPrediction(logits, boxes, masks, size, size, size, queries // 2, stuff)


def detection_at(drawing, letter, label, score=0.9, query=0) -> Detection:
    one = masked_annotation(drawing, letter, 1, "")
    x, y, w, h = one.bbox
    return Detection(label, score, (x, y, x + w, y + h), one.segmentation, query)
