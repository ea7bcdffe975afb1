"""Where the images of a layer lie, by the diaries of the runs that made it; a diary may be stale, torn or missing."""

from __future__ import annotations

import json
from pathlib import Path

from synthgen.storage.atomic import write_text_atomic
from synthgen.storage.shard_store import ShardStore


def record_image_folder(store: ShardStore, dataset: str, split: str, layer: str, image_folder: Path) -> None:
    """Leave word of the folder in which the images of a layer were, or are to be."""
    path = store.layer_folder(dataset, split, layer) / "_log" / "images.json"
    write_text_atomic(path, json.dumps({"images_folder": str(image_folder.absolute())}, indent=1))


def find_image_folder(store: ShardStore, dataset: str, split: str, layer: str) -> Path | None:
    """Where a run on this layer, else one on another layer of the same images, found them; None = no such folder."""
    folder = store.layer_folder(dataset, split, layer)
    for path in [*sorted(folder.glob("_log/*.json")), *sorted(folder.parent.glob("*/_log/*.json"))]:
        try:
            found = Path(json.loads(path.read_text(encoding="utf-8"))["images_folder"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if found.is_dir():
            return found
    return None
