"""Everything that a reader yields for one layer, by name: images, annotations, categories, findings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch, SourceFinding
from synthgen.ingest.validation.finding_codes import FINDING_CODES
from synthgen.records.sample import ANNOTATION_FLAGS


@dataclass
class ReadImage:
    """One image with its annotations, in the order of the file."""

    id: int
    height: int
    width: int
    error: str | None
    neg_categories: list[int]
    annotations: list[ReadAnnotation] = field(default_factory=list)


@dataclass
class ReadAnnotation:
    """One annotation; `category` is the name, or the number if it has none."""

    id: int
    bbox: list[float]
    category: str | int
    iscrowd: bool
    flags: set[str]
    payload: bytes | None


@dataclass
class ReadDataset:
    """Images by file name, names by category id, findings by code."""

    images: dict[str, ReadImage]
    names: dict[int, str]
    findings: dict[str, SourceFinding]


def read_dataset(module: Any, files: DatasetFiles, layer: str = "annotations") -> ReadDataset:
    """Read a layer, and check what holds for every reader."""
    images: dict[str, ReadImage] = {}
    by_id: dict[int, ReadImage] = {}
    rows: list[tuple[int, ReadAnnotation]] = []
    names: dict[int, str] = {}
    findings: dict[str, SourceFinding] = {}
    for part in module.read(files, layer):
        if isinstance(part, ImageBatch):
            errors = part.error or [None] * len(part.image_id)
            absent = part.neg_categories or [()] * len(part.image_id)
            for i, file_name in enumerate(part.file_name):
                assert file_name not in images and int(part.image_id[i]) not in by_id
                image = ReadImage(
                    int(part.image_id[i]), int(part.height[i]), int(part.width[i]), errors[i], list(absent[i])
                )
                images[file_name] = by_id[image.id] = image
        elif isinstance(part, AnnotationBatch):
            assert part.bbox.shape == (len(part.id), 4) and part.bbox.dtype == np.float64
            assert set(part.flags) <= set(ANNOTATION_FLAGS)
            assert part.payload is None or len(part.payload) == len(part.id)
            for i in range(len(part.id)):
                flags = {flag for flag, on in part.flags.items() if on[i]}
                payload = part.payload[i] if part.payload is not None else None
                row = ReadAnnotation(
                    int(part.id[i]),
                    part.bbox[i].tolist(),
                    int(part.category[i]),
                    bool(part.iscrowd[i]),
                    flags,
                    payload,
                )
                rows.append((int(part.image_id[i]), row))
        elif isinstance(part, Categories):
            names |= part.names
        else:
            assert part.code in FINDING_CODES and part.count > 0 and part.code not in findings
            findings[part.code] = part
    assert len({row.id for _, row in rows}) == len(rows)
    for image_id, row in rows:
        row.category = names.get(int(row.category), row.category)
        by_id[image_id].annotations.append(row)
    return ReadDataset(images, names, findings)
