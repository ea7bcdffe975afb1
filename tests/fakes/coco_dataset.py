"""Drawn photographs of coloured ellipses, with the COCO JSON of their boxes."""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

CATEGORIES = ("ball", "plate", "coin")


def write_coco_dataset(
    folder: Path, *, images: int = 8, objects: int = 3, size: tuple[int, int] = (96, 72), seed: int = 0
) -> Path:
    """Write `photos/` and `boxes.json` below `folder`; returns the path of the JSON. Same arguments, same bytes."""
    rng = random.Random(seed)
    photos = folder / "photos"
    photos.mkdir(parents=True)
    records: dict[str, list[dict[str, object]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CATEGORIES)],
    }
    width, height = size
    for number in range(1, images + 1):
        picture = Image.new("RGB", size, (rng.randrange(60), rng.randrange(60), rng.randrange(60)))
        pen = ImageDraw.Draw(picture)
        for _ in range(objects):
            w, h = rng.randrange(16, width // 2), rng.randrange(16, height // 2)
            x, y = rng.randrange(width - w), rng.randrange(height - h)
            category = rng.randrange(len(CATEGORIES))
            colour = tuple(255 if channel == category else rng.randrange(120, 200) for channel in range(3))
            pen.ellipse((x, y, x + w - 1, y + h - 1), fill=colour)
            records["annotations"].append(
                {
                    "id": len(records["annotations"]) + 1,
                    "image_id": number,
                    "category_id": category + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        name = f"{number:04d}.png"
        picture.save(photos / name)
        records["images"].append({"id": number, "file_name": name, "width": width, "height": height})
    path = folder / "boxes.json"
    path.write_text(json.dumps(records))
    return path
