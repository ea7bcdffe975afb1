"""Post-processing: outputs of the network to objects, segments and label maps in the coordinates of the image file.

The rules are Mask2Former's, with Mask DINO's changes for sigmoid scores. A mask is upsampled to the padded batch,
cropped to the image, and resized to the original. These steps are linear, so that each axis needs one matrix. An image
is processed in strips of columns, and the memory for masks is that of a few strips, for any image size and number of
masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert

from synthgen.dataloading.collate import Batch
from synthgen.evaluation.metrics import Detection, ForegroundMap, PanopticMap, PanopticSegment, SemanticMap
from synthgen.models.mqformer.decoder import DecoderOutput
from synthgen.models.mqformer.model import MQFormer
from synthgen.records.boxes import clip_xyxy
from synthgen.records.rle import encode_run_boundaries
from synthgen.records.sample import Rle

#: Maximum number of objects per image (COCO).
MAX_DETECTIONS = 100

#: Minimum probability of a query in a panoptic map (Mask DINO; Mask2Former uses 0.8 with softmax).
PANOPTIC_SCORE_THRESHOLD = 0.25
#: Minimum share of a mask that no other query covers (both).
PANOPTIC_OVERLAP_THRESHOLD = 0.8

#: Mask DINO sharpens sigmoids to a distribution over texts: softmax(probability / temperature).
PANOPTIC_TEMPERATURE = 0.06

#: Maximum number of elements of a strip of masks (128 MiB), and of its columns. Narrow strips have fewer zero products.
_MAX_STRIP_ELEMENTS, _STRIP_COLUMNS = 2**25, 128


@dataclass(frozen=True, slots=True, eq=False)
class RawPrediction:
    """Outputs of the last layer for one image with Q queries.

    Attributes:
        logits: float32 [Q, T], for its texts.
        boxes: float32 [Q, 4] CXCYWH in [0, 1], relative to the unpadded image.
        mask_logits: float32 [Q, h, w], of the padded batch.
        padded_size: (height, width) of the batch, in pixels.
        size: (height, width) of the image in it.
        original_size: (height, width) of the image file.
        num_conditional: number of conditional queries, which come first.
        stuff_labels: indices of texts that are stuff; each has at most one segment.
    """

    logits: Tensor
    boxes: Tensor
    mask_logits: Tensor
    padded_size: tuple[int, int]
    size: tuple[int, int]
    original_size: tuple[int, int]
    num_conditional: int
    stuff_labels: frozenset[int] = frozenset()


def split_predictions(
    decoded: DecoderOutput, batch: Batch, texts: Sequence[Sequence[str]], stuff_names: frozenset[str] = frozenset()
) -> list[RawPrediction]:
    """Split predictions by image; non-finite values are replaced so that nothing is detected.

    Args:
        decoded: output of the network for the batch; only the last layer is used.
        batch: gives the sizes of the images.
        texts: input texts of each image.
        stuff_names: names that are stuff.
    """
    last, (height, width) = decoded.layers[-1], batch.images.shape[-2:]
    return [
        RawPrediction(
            logits.float().nan_to_num(-torch.inf), boxes.float().nan_to_num(0), masks.float().nan_to_num(-1e4),
            (height, width), target["size"], target["orig_size"], decoded.num_conditional,
            frozenset(i for i, text in enumerate(asked) if text in stuff_names),
        )
        for logits, boxes, masks, target, asked in zip(
            last.logits, last.boxes, last.mask_logits, batch.targets, texts, strict=True
        )
    ]  # fmt: skip


@torch.inference_mode()
def predict_batch(
    network: MQFormer,
    batch: Batch,
    texts: Sequence[Sequence[str]],
    is_category_name: Sequence[bool | Sequence[bool]],
    *,
    precision: str = "fp32",
    stuff_names: frozenset[str] = frozenset(),
) -> list[RawPrediction]:
    """Run a network on a batch, on the network's device; see `split_predictions` and `MQFormer.forward`.

    Args:
        network: in evaluation mode.
        batch: images and their sizes, on any device.
        texts: input texts of each image, at least one.
        is_category_name: for each image, or for each of its texts, whether texts are category names.
        precision: fp32 or bf16, of activations.
        stuff_names: names that are stuff.
    """
    device = next(network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        decoded = network(
            batch.images.to(device, non_blocking=True),
            batch.padding_mask.to(device, non_blocking=True),
            texts,
            is_category_name,
        )
    return split_predictions(decoded, batch, texts, stuff_names)


def boxes(
    prediction: RawPrediction, *, max_detections: int = MAX_DETECTIONS, every_text: bool = False
) -> list[Detection]:
    """The most likely pairs of query and text, best first; without masks.

    Args:
        prediction: of one image.
        max_detections: the maximum number of pairs.
        every_text: also the most likely query of each text that is not among them.
    """
    pairs, places = _top_pairs(prediction, max_detections, every_text=every_text), _absolute_boxes(prediction)
    return [Detection(label, score, places[query], None, query) for score, query, label in pairs]


def instances(
    prediction: RawPrediction, *, max_detections: int = MAX_DETECTIONS, every_text: bool = False
) -> list[Detection]:
    """The most likely pairs of query and text; those with non-empty masks, best first.

    The score is the probability of the pair times the mean probability of the mask's pixels.

    Args:
        prediction: of one image.
        max_detections: see `boxes`.
        every_text: see `boxes`.
    """
    pairs, places = _top_pairs(prediction, max_detections, every_text=every_text), _absolute_boxes(prediction)
    masks = _encode_masks(prediction, sorted({query for _, query, _ in pairs}))
    found = [
        Detection(label, score * masks[query][1], places[query], masks[query][0], query)
        for score, query, label in pairs
        if masks[query][1]
    ]
    return sorted(found, key=lambda one: -one.score)


def referring(prediction: RawPrediction) -> list[Detection]:
    """For each text of `prediction` the best query; none if its mask is empty."""
    likely, queries = prediction.logits.sigmoid().max(0)
    places = _absolute_boxes(prediction)
    masks = _encode_masks(prediction, sorted(set(queries.tolist())))
    return [
        Detection(label, score, places[query], masks[query][0], query)
        for label, (score, query) in enumerate(zip(likely.tolist(), queries.tolist(), strict=True))
        if masks[query][1]
    ]


def foreground(prediction: RawPrediction) -> ForegroundMap:
    """The mask of the best query of `prediction` for the first text, as probabilities."""
    query = int(prediction.logits[:, 0].argmax())
    likely = np.empty(prediction.original_size, np.float32)
    for columns, strip in _iter_mask_strips(prediction, [query]):
        likely[:, columns] = strip[0].sigmoid().cpu().numpy()
    return ForegroundMap(likely)


def semantic(prediction: RawPrediction) -> SemanticMap:
    """For each pixel the text with the largest sum, over queries, of text probability times mask probability.

    This is Mask2Former's rule. Mask DINO also sharpens the text probabilities here, which gives uncertain queries the
    same weight as certain ones; docs/results.md shows the effect.

    Args:
        prediction: the outputs of the last layer for one image.
    """
    likely = prediction.logits.sigmoid()
    labels = np.empty(prediction.original_size, np.int32)
    weight = torch.zeros_like(likely)  # contribution of each query to each label at its pixels
    for columns, strip in _iter_mask_strips(prediction, range(len(likely)), extra_per_pixel=2 * likely.shape[1]):
        masks = strip.sigmoid()
        best = torch.einsum("qt,qhc->thc", likely, masks).argmax(0)
        labels[:, columns] = best.cpu().numpy()
        there, which = torch.unique(best, return_inverse=True)
        pixels = masks.flatten(1) @ functional.one_hot(which.flatten(), len(there)).to(masks.dtype)  # [Q, labels]
        weight[:, there] += likely[:, there] * pixels
    most = weight.argmax(0).tolist()
    return SemanticMap(labels, {label: most[label] for label in np.unique(labels).tolist()})


def panoptic(prediction: RawPrediction) -> PanopticMap:
    """Certain queries share the pixels, mostly hidden segments are dropped, and stuff segments of a name are merged.

    Args:
        prediction: the outputs of the last layer for one image.
    """
    likely = prediction.logits.sigmoid()
    kept = (likely.max(1).values > PANOPTIC_SCORE_THRESHOLD).nonzero().flatten()
    shares, labels = functional.softmax(likely[kept] / PANOPTIC_TEMPERATURE, dim=-1).max(1)
    count, regions = len(kept), np.zeros(prediction.original_size, np.int32)
    visible, whole, solid = (np.zeros(count, np.int64) for _ in range(3))
    for columns, strip in _iter_mask_strips(prediction, kept.tolist()) if count else ():
        masks = strip.sigmoid()
        winner = (shares[:, None, None] * masks).argmax(0)  # [H, columns]
        inside = masks.gather(0, winner[None])[0] >= 0.5
        visible += torch.bincount(winner.flatten(), minlength=count).cpu().numpy()
        solid += torch.bincount(winner[inside], minlength=count).cpu().numpy()
        whole += (masks >= 0.5).sum((1, 2)).cpu().numpy()
        regions[:, columns] = torch.where(inside, winner + 1, 0).cpu().numpy()
    stays = (solid > 0) & (visible >= PANOPTIC_OVERLAP_THRESHOLD * whole)
    places = np.zeros(count + 1, np.int32)
    segments: list[PanopticSegment] = []
    of_stuff: dict[int, int] = {}
    for i in np.flatnonzero(stays).tolist():
        label, query = int(labels[i]), int(kept[i])
        score = float(likely[query, label])
        if label in of_stuff:
            place = of_stuff[label]
            earlier = segments[place - 1]
            segments[place - 1] = PanopticSegment(label, max(score, earlier.score), (*earlier.queries, query))
        else:
            segments.append(PanopticSegment(label, score, (query,)))
            place = len(segments)
            if label in prediction.stuff_labels:
                of_stuff[label] = place
        places[i + 1] = place
    return PanopticMap(places[regions], tuple(segments))


def _top_pairs(prediction: RawPrediction, max_detections: int, *, every_text: bool) -> list[tuple[float, int, int]]:
    """(probability, query, text) of the most likely pairs, best first; see `boxes`."""
    likely, texts = prediction.logits.sigmoid(), prediction.logits.shape[1]
    scores, pairs = likely.flatten().topk(min(max_detections, likely.numel()))
    best = [(score, pair // texts, pair % texts) for score, pair in zip(scores.tolist(), pairs.tolist(), strict=True)]
    if every_text:
        among, (highest, queries) = {text for _, _, text in best}, likely.max(0)
        others = [(*pair, text) for text, pair in enumerate(zip(highest.tolist(), queries.tolist(), strict=True))]
        best += sorted((pair for pair in others if pair[2] not in among), reverse=True)
    return best


def _absolute_boxes(prediction: RawPrediction) -> list[tuple[float, float, float, float]]:
    """Boxes of all queries, (x1, y1, x2, y2) in absolute pixels of the original image, clipped to it."""
    height, width = prediction.original_size
    scale = np.array([width, height, width, height])
    found = clip_xyxy(box_convert(prediction.boxes, "cxcywh", "xyxy").cpu().double().numpy() * scale, height, width)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in found.tolist()]


def _encode_masks(prediction: RawPrediction, queries: Sequence[int]) -> dict[int, tuple[Rle, float]]:
    """The masks of queries, and the mean probability of their pixels; 0.0 for empty masks."""
    height, width = prediction.original_size
    found = {}
    at_once = max(1, _MAX_STRIP_ELEMENTS // (height * _STRIP_COLUMNS))
    for start in range(0, len(queries), at_once):
        some = queries[start : start + at_once]
        edges: list[list[NDArray[np.int64]]] = [[] for _ in some]
        total = torch.zeros(len(some), dtype=torch.float64)  # on the CPU, because some devices lack float64
        area = total.clone()
        for columns, strip in _iter_mask_strips(prediction, some):
            mask = strip > 0
            total += (strip.sigmoid() * mask).sum((1, 2)).cpu()
            area += mask.sum((1, 2)).cpu()
            for own, more in zip(edges, _run_edges(mask.mT.flatten(1)), strict=True):  # RLE is column-major
                own.append(more + columns.start * height)
        scores = (total / area.clamp(min=1)).tolist()
        for query, own, score in zip(some, edges, scores, strict=True):
            found[query] = encode_run_boundaries(np.concatenate(own), height, width), score
    return found


def _run_edges(masks: Tensor) -> list[NDArray[np.int64]]:
    """For each of k masks, bool [k, n], the positions where runs begin and end (exclusive), alternating."""
    padded = functional.pad(masks, (1, 1))
    row, place = (padded[:, 1:] != padded[:, :-1]).nonzero(as_tuple=True)
    ends = torch.bincount(row, minlength=len(masks)).cumsum(0).tolist()
    places = place.cpu().numpy()
    return [places[start:end] for start, end in pairwise([0, *ends])]


def _iter_mask_strips(
    prediction: RawPrediction, queries: Sequence[int], extra_per_pixel: int = 0
) -> Iterator[tuple[slice, Tensor]]:
    """Iterate over the mask logits of queries at original resolution, in strips: (columns, [queries, H, columns]).

    Args:
        prediction: of one image.
        queries: indices of the queries.
        extra_per_pixel: elements per pixel that the caller needs in addition to those of the queries.
    """
    height, width = prediction.original_size
    device = prediction.mask_logits.device
    coarse = prediction.mask_logits[list(queries)]
    down = _resize_matrix(coarse.shape[1], prediction.padded_size[0], prediction.size[0], height).to(device)
    across = _resize_matrix(coarse.shape[2], prediction.padded_size[1], prediction.size[1], width)
    step = min(_STRIP_COLUMNS, max(1, _MAX_STRIP_ELEMENTS // ((len(coarse) + extra_per_pixel) * height)))
    with torch.autocast(device.type, enabled=False):
        for first in range(0, width, step):
            own = across[first : first + step]
            used = own.any(0).nonzero().flatten()  # a few columns of the coarse masks
            begin, end = int(used[0]), int(used[-1]) + 1
            yield slice(first, first + len(own)), down @ coarse[:, :, begin:end] @ own[:, begin:end].T.to(device)


def _resize_matrix(coarse: int, padded: int, size: int, original: int) -> Tensor:
    """[original, coarse]: along one axis, upsampling to the padded batch, crop to the image, and resize to the
    original.
    """
    enlarged = functional.interpolate(torch.eye(coarse)[None], padded, mode="linear", align_corners=False)
    return functional.interpolate(enlarged[..., :size], original, mode="linear", align_corners=False)[0].T
