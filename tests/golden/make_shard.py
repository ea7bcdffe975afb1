"""Makes the golden shard of the current schema version. Run once a version, never to make a test pass:

    python tests/golden/make_shard.py

`shard_v1.parquet` is a shard as it was written when version 1 was settled; `shard_v1.json` is its content, for which no
Parquet and none of this package is needed. Every later synthgen must read the one as the other: shards outlive the
code that wrote them. `shard_v1_identity.parquet` is the same content as the first release wrote it that gave shards an
identity, and their footers a digest.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.records.parquet_schema import SCHEMA_VERSION
from synthgen.records.rle import encode_mask, rle_from_coco
from synthgen.records.sample import Annotation, Caption, Rle, Sample
from synthgen.storage.shard_store import Shard, ShardStore

HERE = Path(__file__).parent
FOOTER = {
    "recipe": {"stage": "masks", "dataset": "golden"},
    "fingerprint": "0123456789abcdef",
    "categories": ["Person"],
}


def samples() -> list[Sample]:
    """Every field with a value, without one, and with its odd values."""
    ring = np.zeros((30, 40), bool)
    ring[5:25, 10:30] = True
    ring[10:20, 15:25] = False
    triangle = rle_from_coco([[1, 1, 38, 2, 20, 28]], 30, 40)
    full = Annotation(
        id=2**53 + 1,
        bbox=(10.25, 5.0, 20.0, 20.0),
        category="Person",
        flags=("clipped", "duplicate"),
        segmentation=encode_mask(ring),
        mask_source="sam vit_h",
        predicted_iou=0.9375,
        stability_score=0.5,
        box_iou=1.0,
        captions=(
            Caption("a person in a red jacket", "ofa base", -0.25, True),
            Caption("l'homme à gauche, 左の人 🧍", "human"),
            Caption("", "attributes", 0.0, False),
        ),
    )
    plain = Annotation(id=7, bbox=(-3.5, 0.0, 8.0, 1e-3), category=" Wild Bird ")
    crowd = Annotation(id=-1, bbox=(0.0, 0.0, 40.0, 30.0), category="", iscrowd=True, isthing=False, flags=("crowd",))
    human = dataclasses.replace(plain, id=8, segmentation=triangle, mask_source="human")
    return [
        Sample(1, "coco/000000000001", "000000000001.jpg", 30, 40, (full, plain, crowd)),
        Sample(2**62, "größe/写真", "patch8/ü 1.jpg", 30, 40),
        Sample(-5, "", "missing.jpg", 0, 0, (plain,), error="no such file"),
        Sample(4, "coco/4", "4.jpg", 30, 40, (human,) * 2),
    ]


def as_json(record: Any) -> Any:
    """A record as plain JSON; the counts of a mask are ASCII."""
    if isinstance(record, Rle):
        return {"size": list(record.size), "counts": record.counts.decode("ascii")}
    if dataclasses.is_dataclass(record):
        return {field.name: as_json(getattr(record, field.name)) for field in dataclasses.fields(record)}
    return [as_json(item) for item in record] if isinstance(record, tuple | list) else record


def main() -> None:
    """Write both files."""
    with tempfile.TemporaryDirectory() as folder:
        store, shard = ShardStore(folder), Shard("golden", "train", "masks", 0, 1)
        shutil.copyfile(store.commit(shard, samples(), FOOTER), HERE / f"shard_v{SCHEMA_VERSION}.parquet")
        content = {"footer": store.read_footer(shard), "samples": as_json(samples())}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (HERE / f"shard_v{SCHEMA_VERSION}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
