"""Layers of many empty images, committed as columns."""

from __future__ import annotations

import numpy as np

from synthgen.records.box_table import BoxColumns
from synthgen.storage.shard_store import Shard, ShardStore


def commit_empty_images(store: ShardStore, index: int, count: int, size: int) -> None:
    ids = np.arange(index * size, (index + 1) * size)
    keys = [f"many/{i:012d}" for i in ids]
    nothing = np.zeros(0, np.int64)
    columns = BoxColumns(
        image_id=ids,
        image_key=keys,
        file_name=keys,
        height=np.full(size, 8, np.int32),
        width=np.full(size, 8, np.int32),
        error=[None] * size,
        offsets=np.zeros(size + 1, np.int32),
        id=nothing,
        bbox=np.zeros((0, 4)),
        category=nothing.astype(np.int32),
        categories=["dog"],
        iscrowd=nothing.astype(bool),
        isthing=nothing.astype(bool),
        flags={},
    )
    store.commit(Shard("many", "train", "annotations", index, count), columns, {"fingerprint": "f"})
