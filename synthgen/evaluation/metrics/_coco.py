"""COCO average precision with pycocotools, image by image: only scores and matches are kept.

The following are passed to pycocotools as crowds, so that detections there count neither as right nor as wrong:
annotations that the target leaves out (crowds, unnamed regions, stuff with a thing's name), objects without a mask when
masks are compared, and the whole image for names that are not annotated exhaustively (LVIS). Names that were not
annotated in an image are not among the input texts.
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools.cocoeval import COCOeval

from synthgen import compat
from synthgen.evaluation.metrics import Detection, GroundTruth, ImageResult, Scores
from synthgen.records.boxes import clip_xyxy, xywh_to_xyxy
from synthgen.records.rle import rle_area, rle_bbox_xyxy
from synthgen.records.rle_ops import is_empty_rle, rle_from_box
from synthgen.records.sample import Rle

MAIN = "AP"

#: The twelve values of COCO, in pycocotools' order.
COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True, slots=True, eq=False)
class _CategoryMatches:
    """One name in one image, with G objects, D detections, A area ranges and T IoU thresholds.

    Attributes:
        scores: float64 [D], best first.
        matched, detection_ignored: bool [A, T, D].
        ground_truth_ignored: bool [A, G], objects that are not counted.
    """

    name: str
    scores: NDArray[np.float64]
    matched: NDArray[np.bool_]
    detection_ignored: NDArray[np.bool_]
    ground_truth_ignored: NDArray[np.bool_]


def compare(
    ground_truth: GroundTruth, detections: Sequence[Detection], *, iou_type: Literal["segm", "bbox"]
) -> ImageResult:
    """Match the detections of an image with its objects; see `synthgen.evaluation.metrics`."""
    truths: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, is_crowd, box, mask, area in _iter_ground_truth(ground_truth, iou_type):
        truths[name].append({"id": len(truths[name]) + 1, "ignore": is_crowd, "iscrowd": int(is_crowd),
                             "bbox": _to_xywh(box), "segmentation": _rle_to_dict(mask), "area": area})  # fmt: skip
    predictions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, one in enumerate(detections, 1):
        bbox = _to_xywh(one.box_xyxy)
        if iou_type == "segm" and one.mask is None:
            raise ValueError("masks are compared, and one is missing")
        area = rle_area(one.mask) if iou_type == "segm" and one.mask else bbox[2] * bbox[3]
        predictions[ground_truth.target.texts[one.label]].append(
            {"id": number, "score": one.score, "bbox": bbox, "segmentation": _rle_to_dict(one.mask), "area": area}
        )
    cells, right = [], []
    counted = {name for name, objects in truths.items() if not all(one["ignore"] for one in objects)}
    for name in sorted(counted | predictions.keys()):
        cell, hits = _match_category(name, truths[name], predictions[name], iou_type)
        cells.append(cell)
        right += [(name not in ground_truth.stuff_names, detections[number - 1].query) for number in hits]
    return ImageResult(cells, tuple(right))


def scores(image_results: Sequence[ImageResult]) -> Scores:
    """COCO's values, and AP by name; names without objects are left out of means."""
    cells: dict[str, list[_CategoryMatches]] = defaultdict(list)
    for one in image_results:
        for cell in one.stats:
            cells[cell.name].append(cell)
    judge = COCOeval(iouType="segm")
    precisions, recalls, by_name = [], [], {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        for name in sorted(cells):
            precision, recall = _accumulate(cells[name])
            precisions.append(precision)
            recalls.append(recall)
            if (known := precision[:, :, 0, 0, -1])[known > -1].size:
                by_name[name] = 100 * float(known[known > -1].mean())
        if not by_name:
            return Scores({}, {})
        judge.eval = {"precision": np.concatenate(precisions, axis=2), "recall": np.concatenate(recalls, axis=1)}
        judge.summarize()
    found = zip(COCO_METRICS, judge.stats.tolist(), strict=True)
    return Scores({name: 100 * value for name, value in found if value > -1}, by_name)


def _iter_ground_truth(
    ground_truth: GroundTruth, iou_type: str
) -> Iterator[tuple[str, bool, tuple[float, float, float, float], Rle | None, float]]:
    """The objects of the image: (name, whether to treat it as a crowd, box, mask, area)."""
    target, sample = ground_truth.target, ground_truth.sample
    masks = {a.id: a.segmentation for a in sample.annotations}
    for label, box, mask, ids in zip(
        target.labels, target.boxes_xyxy.tolist(), target.masks, target.annotation_ids, strict=True
    ):
        name, unknown = target.texts[label], iou_type == "segm" and mask is None
        if unknown:
            mask = rle_from_box(box, sample.height, sample.width)
        # COCO uses mask areas, also for box AP.
        drawn = mask if mask is not None else next((own for i in ids if (own := masks.get(i)) is not None), None)
        area = rle_area(drawn) if drawn is not None else (box[2] - box[0]) * (box[3] - box[1])
        yield name, unknown, tuple(box), mask, area
    whole = (0.0, 0.0, float(sample.width), float(sample.height))
    taken = {number for ids in target.annotation_ids for number in ids}
    texts = set(target.texts)
    left = [
        ([a.category] if a.category else target.texts, a.segmentation, a.bbox)
        for a in sample.annotations
        if a.id not in taken and (not a.category or a.category in texts)
    ]
    for names, own, bbox in left:
        box = clip_xyxy(xywh_to_xyxy(bbox), sample.height, sample.width)
        region = own if own is not None and not is_empty_rle(own) else rle_from_box(box, sample.height, sample.width)
        if not is_empty_rle(region):
            tight = tuple(box.tolist()) if np.isfinite(box).all() else rle_bbox_xyxy(region)
            for name in names:
                yield name, True, tight, region, rle_area(region)
    for name in sample.not_exhaustive_categories:
        if name in texts:
            yield name, True, whole, rle_from_box(whole, sample.height, sample.width), whole[2] * whole[3]


def _match_category(
    name: str, ground_truth: list[Any], detections: list[Any], iou_type: str
) -> tuple[_CategoryMatches, list[int]]:
    """The matches of a name, and the indices of correct detections at an IoU of 0.5."""
    evaluator = COCOeval(iouType=iou_type)
    compat.set_coco_objects(evaluator, ground_truth, detections)
    evaluator.ious[1, 1] = evaluator.computeIoU(1, 1)
    most, ranges = evaluator.params.maxDets[-1], evaluator.params.areaRng
    by_area = [evaluator.evaluateImg(1, 1, area, most) for area in ranges]
    hit = np.stack([one["dtMatches"] > 0 for one in by_area])
    ignored = np.stack([np.asarray(one["dtIgnore"], np.bool_) for one in by_area])
    cell = _CategoryMatches(
        name, np.array(by_area[0]["dtScores"], np.float64), hit, ignored,
        np.stack([np.asarray(one["gtIgnore"], np.bool_) for one in by_area]),
    )  # fmt: skip
    return cell, [by_area[0]["dtIds"][i] for i in np.flatnonzero(hit[0, 0] & ~ignored[0, 0])]


def _accumulate(cells: Sequence[_CategoryMatches]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision [T, R, 1, A, M] and recall [T, 1, A, M] of one name, computed by pycocotools."""
    judge = COCOeval(iouType="segm")
    judge.params.imgIds, judge.params.catIds = list(range(len(cells))), [1]
    compat.mark_coco_evaluated(judge)
    judge.evalImgs = [
        {
            "dtScores": cell.scores,
            "dtMatches": cell.matched[a],
            "dtIgnore": cell.detection_ignored[a],
            "gtIgnore": cell.ground_truth_ignored[a],
        }
        for a in range(len(judge.params.areaRng))
        for cell in cells
    ]
    judge.accumulate()
    return judge.eval["precision"], judge.eval["recall"]


def _to_xywh(box_xyxy: ArrayLike) -> list[float]:
    x1, y1, x2, y2 = np.asarray(box_xyxy, np.float64).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def _rle_to_dict(mask: Rle | None) -> dict[str, Any] | None:
    return None if mask is None else {"size": list(mask.size), "counts": mask.counts}
