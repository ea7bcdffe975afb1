"""The image folder of a layer, recorded in its run log. A log may be stale, truncated or missing."""

from __future__ import annotations

import json
from pathlib import Path

from synthgen.storage.atomic import write_text_atomic
from synthgen.storage.disk import check_folder_exists, create_folder
from synthgen.storage.run_log import log_folder
from synthgen.storage.shard_store import ShardStore


def record_image_folder(store: ShardStore, dataset: str, split: str, layer: str, image_folder: Path) -> None:
    """Record the folder of a layer's images. The layer must exist.

    Args:
        store: where the shards lie.
        dataset: name of the dataset.
        split: name of the split.
        layer: name of the layer.
        image_folder: folder below which `Sample.file_name` is found.
    """
    check_folder_exists(store.layer_folder(dataset, split, layer))
    folder = log_folder(store, dataset, split, layer)
    create_folder(folder)
    write_text_atomic(folder / "images.json", json.dumps({"images_folder": str(image_folder.absolute())}, indent=1))


def find_image_folder(store: ShardStore, dataset: str, split: str, layer: str) -> Path | None:
    """The image folder of a run on this layer, else on another layer of the same images; None = no such folder.

    Args:
        store: where the shards lie.
        dataset: name of the dataset.
        split: name of the split.
        layer: name of the layer.
    """
    folder = store.layer_folder(dataset, split, layer)
    for path in [*sorted(folder.glob("_log/*.json")), *sorted(folder.parent.glob("*/_log/*.json"))]:
        try:
            found = Path(json.loads(path.read_text(encoding="utf-8"))["images_folder"])
            if found.is_dir():
                return found
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None
