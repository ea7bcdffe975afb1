"""A store with layers and run logs for `status` and `show`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore


def write_store_with_failures(store: Path, *, shards: int = 3, committed: int = 2) -> Path:
    shard_store = ShardStore(store)
    for index in range(committed):
        samples = [
            Sample(n, f"w/{n}", f"{n:04d}.png", 72, 96, (Annotation(n, (1.0, 1.0, 9.0, 9.0), "ball"),))
            for n in range(index * 4 + 1, index * 4 + 5)
        ]
        if index == 0:
            sick = replace(samples[2].annotations[0], flags=("segmenter_failed",))
            samples[1] = replace(samples[1], error="no such file")
            samples[2] = replace(samples[2], annotations=(sick,))
        failed = [
            {"row": 1, "image_id": 2, "file_name": "0002.png", "error": "no such file"},
            {"row": 2, "image_id": 3, "file_name": "0003.png", "error": "toy failed (RuntimeError: poisoned)"},
        ] * (index == 0)
        footer = {
            "recipe": {"stage": "masks", "plugin": "toy", "options": {"level": 3}},
            "fingerprint": "f",
            "counts": {"images": 4, "annotations": 4, "masks": 3, "errors": int(index == 0), "flags": {"clipped": 1}},
            "failed": failed,
        }
        shard_store.commit(Shard("w", "train", "masks", index, shards), samples, footer)
    return shard_store.layer_folder("w", "train", "masks") / "_log"
