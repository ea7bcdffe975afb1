"""Annotations as tables of pandas and as detections of supervision. Neither package is a dependency of synthgen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from synthgen.errors import SynthgenError
from synthgen.layers.layer_filter import annotation_area
from synthgen.records.boxes import xywh_to_xyxy
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Annotation, Sample

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

_SCORES = ("predicted_iou", "stability_score", "box_iou", "soft_iou")


def to_dataframe(samples: Iterable[Sample]) -> pd.DataFrame:
    """One row for each annotation; see `Layer.to_dataframe`.

    Args:
        samples: the images with their annotations.

    Raises:
        SynthgenError: pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as why:
        if why.name != "pandas":
            raise
        raise _missing_package_error("to_dataframe()", "pandas") from None
    columns: dict[str, list[Any]] = {name: [] for name in (*_IMAGE_COLUMNS, *_ANNOTATION_COLUMNS)}
    for sample in samples:
        for annotation in sample.annotations:
            for name, value in _IMAGE_COLUMNS.items():
                columns[name].append(getattr(sample, value))
            for name, of in _ANNOTATION_COLUMNS.items():
                columns[name].append(of(annotation))
    return pandas.DataFrame(columns)


def load_supervision() -> Any:
    """The module `supervision`.

    Raises:
        SynthgenError: it is not installed.
    """
    try:
        import supervision
    except ModuleNotFoundError as why:
        if why.name != "supervision":
            raise
        raise _missing_package_error("to_supervision()", "supervision") from None
    return supervision


def to_detections(supervision: Any, sample: Sample, categories: Sequence[str]) -> sv.Detections:
    """The annotations of a sample as `supervision.Detections`; see `Layer.to_supervision`.

    Args:
        supervision: the module.
        sample: the image with its annotations.
        categories: names; `class_id` is an index into them, and -1 for a name that is not there.

    Returns:
        Without the annotations whose box is not finite.

    Raises:
        SynthgenError: a mask is damaged.
    """
    own = [a for a in sample.annotations if all(map(math.isfinite, a.bbox))]
    masks = None
    if any(a.segmentation is not None for a in own):
        size = sample.height, sample.width
        masks = np.stack(
            [np.zeros(size, np.bool_) if a.segmentation is None else decode_mask(a.segmentation) for a in own]
        )
    numbers = {name: number for number, name in enumerate(categories)}
    boxes = np.array([a.bbox for a in own], np.float64).reshape(-1, 4)
    scores = {name: [math.nan if (s := getattr(a, name)) is None else s for a in own] for name in _SCORES}
    return supervision.Detections(
        xyxy=xywh_to_xyxy(boxes).astype(np.float32),
        mask=masks,
        class_id=np.array([numbers.get(a.category, -1) for a in own], np.int64),
        data={
            "class_name": np.array([a.category for a in own], dtype=np.str_),
            "annotation_id": np.array([a.id for a in own], np.int64),
            **{name: np.array(values, np.float64) for name, values in scores.items()},
        },
    )


def _segmentation(annotation: Annotation) -> dict[str, Any] | None:
    mask = annotation.segmentation
    return None if mask is None else {"size": list(mask.size), "counts": mask.counts.decode("ascii", "replace")}


#: Column -> attribute of the sample.
_IMAGE_COLUMNS = {"image_id": "image_id", "file_name": "file_name", "image_height": "height", "image_width": "width"}

#: Column -> its value for an annotation.
_ANNOTATION_COLUMNS: dict[str, Any] = {
    "annotation_id": lambda a: a.id,
    "category": lambda a: a.category,
    **{name: lambda a, place=place: a.bbox[place] for place, name in enumerate(("x", "y", "width", "height"))},
    "area": annotation_area,
    "iscrowd": lambda a: a.iscrowd,
    "isthing": lambda a: a.isthing,
    "flags": lambda a: a.flags,
    "mask_source": lambda a: a.mask_source,
    **{name: lambda a, name=name: getattr(a, name) for name in _SCORES},
    "captions": lambda a: tuple(caption.text for caption in a.captions),
    "segmentation": _segmentation,
}


def _missing_package_error(method: str, package: str) -> SynthgenError:
    return SynthgenError(f"{method} needs the package {package}; install it: pip install {package}")
