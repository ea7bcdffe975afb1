"""Small datasets for the validation, without a fault until a test plants one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synthgen.ingest.validation.diagnosis import (
    Finding,
    ValidationReport,
)
from synthgen.ingest.validation.validate import validate_dataset

HEIGHT = 48


WIDTH = 64


def clean(images: int = 12, boxes: int = 4) -> dict[str, Any]:
    """A COCO-style file without a fault: `images` images, `boxes` boxes each, of two categories."""
    rng = np.random.default_rng(0)
    annotations = []
    for i in range(images * boxes):
        x, y, w, h = (rng.uniform(low, high) for low, high in ((0, 30), (0, 20), (5, 30), (5, 25)))
        annotations.append(
            {"id": i + 1, "image_id": 100 + i // boxes, "category_id": 1 + i % 2, "bbox": [x, y, w, h], "iscrowd": 0}
        )
    return {
        "images": [
            {"id": 100 + i, "file_name": f"a/{i:04d}.png", "height": HEIGHT, "width": WIDTH} for i in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def write(root: Path, content: dict[str, Any], *, files: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "boxes.json"
    path.write_text(json.dumps(content))
    for image in content["images"] if files else ():
        file = root / "images" / image["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        # Noise, so that a file cut in half lacks pixels.
        Image.fromarray(np.random.default_rng(image["id"]).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(file)
    (root / "images").mkdir(exist_ok=True)
    return path


def look(root: Path, content: dict[str, Any], check_images: str | int = "none", **more: Any) -> ValidationReport:
    path = write(root, content, files=check_images != "none")
    return validate_dataset(
        "coco_json", root, annotations=path, images=root / "images", check_images=check_images, **more
    )


def findings(diagnosis: ValidationReport, split: int = 0) -> dict[str, Finding]:
    return {finding.code: finding for finding in diagnosis.splits[split].findings}


def copy_annotation(content: dict[str, Any], i: int, **changes: Any) -> None:
    content["annotations"].append({**content["annotations"][i], "id": 1000 + len(content["annotations"]), **changes})


def photo_path(root: Path, content: dict[str, Any], i: int) -> Path:
    return root / "images" / content["images"][i]["file_name"]
