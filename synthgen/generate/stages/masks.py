"""The stage that draws masks for boxes, with the rules that all segmenters share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen import plugins
from synthgen.generate.output_checks import SCORE_DECIMALS, check_mask, checked_score, match_results
from synthgen.generate.segmenters import MaskPrediction, Segmenter
from synthgen.records.boxes import clip_xyxy, paired_box_iou, xywh_to_xyxy
from synthgen.records.rle import rle_area, rle_bbox_xyxy
from synthgen.records.sample import MASK_SCORES, UNPROMPTED_FLAGS, Annotation, Sample

#: The plugin folder of segmenters.
PLUGIN_PACKAGE = "generate.segmenters"

#: The segmenter that `auto` chooses where the given options fit no segmenter whose weights are here.
DEFAULT_PLUGIN = "lite"


def build(plugin: str, options: dict[str, Any]) -> MaskStage:
    """The stage around the segmenter `plugin` with its `options`."""
    return MaskStage(plugins.build_plugin(PLUGIN_PACKAGE, plugin, options))


def is_result(before: Sample, after: Sample) -> bool:
    """Whether the masks of `after` were drawn for a sample equal to `before`."""
    pairs = list(zip(before.annotations, after.annotations, strict=False))
    return (
        len(before.annotations) == len(after.annotations)
        and all(_has_result(new) for old, new in pairs if needs_mask(old))
        and replace(after, annotations=tuple(_without_result(old, new) for old, new in pairs))
        == replace(before, annotations=tuple(_without_result(old, old) for old, _ in pairs))
    )


class MaskStage:
    """The stage that draws masks. See `Stage`.

    Args:
        segmenter: draws the masks.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    @property
    def batch_size(self) -> int:
        """See `Stage`; the segmenter's current value."""
        return self.segmenter.batch_size

    def process(self, samples: Sequence[Sample], images: Sequence[NDArray[np.uint8]]) -> Iterator[Sample]:
        """Draw a mask for each annotation that may be prompted and has none. Existing masks are not replaced.

        Args:
            samples: without an error, and with the height and width of their images.
            images: uint8 [H, W, 3] RGB each, of the original size.

        Raises:
            PluginError: what the segmenter returned must not be stored.
        """
        wanted = [[a for a in sample.annotations if needs_mask(a)] for sample in samples]
        prompts = [prompts_xyxy(s, own) for s, own in zip(samples, wanted, strict=True)]
        returned = self.segmenter.segment(images, [p.astype(np.float32) for p in prompts])
        found = match_results(returned, [len(own) for own in wanted], "masks")
        for sample, own, boxes, predictions in zip(samples, wanted, prompts, found, strict=True):
            done = {}
            for annotation, box, prediction in zip(own, boxes, predictions, strict=True):
                check_mask(prediction, sample.height, sample.width, annotation.id)
                done[id(annotation)] = self._apply_prediction(annotation, box, prediction)
            yield replace(sample, annotations=tuple(done.get(id(a), a) for a in sample.annotations))

    def failed(self, sample: Sample) -> Sample:
        """Flag the annotations of `sample` that needed a mask."""
        return replace(
            sample,
            annotations=tuple(
                replace(a, flags=tuple(sorted({*a.flags, "segmenter_failed"}))) if needs_mask(a) else a
                for a in sample.annotations
            ),
        )

    def _apply_prediction(
        self, annotation: Annotation, box: NDArray[np.float64], prediction: MaskPrediction
    ) -> Annotation:
        kept = _kept_flags(annotation)
        predicted_iou, stability_score, sam_predicted_iou, soft_iou = (
            checked_score(getattr(prediction, name), name, annotation.id)
            for name in ("predicted_iou", "stability_score", "sam_predicted_iou", "soft_iou")
        )
        if rle_area(prediction.rle) == 0:
            return replace(annotation, flags=tuple(sorted({*kept, "empty_mask"})))
        tight = np.array(rle_bbox_xyxy(prediction.rle))
        return replace(
            annotation,
            flags=kept,
            segmentation=prediction.rle,
            mask_source=self.segmenter.source,
            predicted_iou=predicted_iou,
            stability_score=stability_score,
            box_iou=round(float(paired_box_iou(tight, box)), SCORE_DECIMALS),
            sam_predicted_iou=sam_predicted_iou,
            soft_iou=soft_iou,
            area=None,  # that of the source's own mask
            provenance=None,
        )


def needs_mask(annotation: Annotation) -> bool:
    """Whether a segmenter is asked for this annotation's mask."""
    return annotation.segmentation is None and UNPROMPTED_FLAGS.isdisjoint(annotation.flags)


def _kept_flags(annotation: Annotation) -> tuple[str, ...]:
    """The flags without the failures of an earlier segmenter, whose layer may be the input."""
    return tuple(flag for flag in annotation.flags if flag not in ("empty_mask", "segmenter_failed"))


def _without_result(before: Annotation, after: Annotation) -> Annotation:
    """The annotation `after` the stage, with what the stage writes as it was `before`."""
    if not needs_mask(before):
        return after
    written: dict[str, Any] = {name: getattr(before, name) for name in (*MASK_SCORES, "mask_source", "provenance")}
    return replace(after, flags=_kept_flags(after), segmentation=None, **written)


def _has_result(annotation: Annotation) -> bool:
    """Whether the stage has made the mask, which then has a `box_iou`, or a person has reviewed it since."""
    return annotation.box_iou is not None or "empty_mask" in annotation.flags or annotation.provenance == "reviewed"


def prompts_xyxy(sample: Sample, annotations: Sequence[Annotation]) -> NDArray[np.float64]:
    """The prompts of a sample's annotations: their boxes clipped to the image.

    Args:
        sample: gives the size of the image.
        annotations: any of its annotations.

    Returns:
        float64 [N, 4] XYXY, absolute pixels of the original image.
    """
    boxes = np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)
    return clip_xyxy(xywh_to_xyxy(boxes), sample.height, sample.width)
