"""Small datasets whose images are in archives: tar shards, Parquet files, Arrow files; and the same unpacked."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ["cat", "dog"]

OBJECT_FEATURES = {
    "bbox": {"feature": {"feature": {"dtype": "float64", "_type": "Value"}, "length": 4, "_type": "List"}},
    "category": {"feature": {"names": NAMES, "_type": "ClassLabel"}, "_type": "List"},
}


def jpeg(seed: int, *, width: int = 48, height: int = 32) -> bytes:
    """A photograph of a bright ellipse on noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
    rows, columns = np.ogrid[:height, :width]
    pixels[((rows - height / 2) / 9) ** 2 + ((columns - width / 2) / 12) ** 2 < 1] = (230, 200, 40 + seed % 100)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def objects(seed: int) -> list[dict[str, Any]]:
    """The boxes of a photograph."""
    first = {"id": 10 * seed + 1, "bbox": [12.0, 7.0, 24.0, 18.0], "category": seed % 2, "iscrowd": 0}
    return [first, {"id": 10 * seed + 2, "bbox": [1.5, 2.0, 8.0, 6.25], "category": 1, "iscrowd": 0}][: 1 + seed % 2]


def columns_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """A list for each field of some objects."""
    return {field: [one[field] for one in records] for field in ("id", "bbox", "category", "iscrowd")}


def coco(count: int) -> dict[str, Any]:
    """The dataset as a COCO file; images are named 000.jpg, 001.jpg, ..."""
    return {
        "images": [{"id": i, "file_name": f"{i:03d}.jpg", "height": 32, "width": 48} for i in range(count)],
        "annotations": [
            {**one, "image_id": i, "category_id": one["category"]} for i in range(count) for one in objects(i)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
    }


def write_loose(folder: Path, count: int) -> Path:
    """The dataset as files, and its COCO file, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i:03d}.jpg").write_bytes(jpeg(i))
    (folder / "boxes.json").write_text(json.dumps(coco(count)))
    return folder / "boxes.json"


def table(count: int, *, seed: int = 0, features: bool = True, **columns: list[Any]) -> pa.Table:
    """The dataset as a table of `datasets`; `columns` are added or replace others."""
    ids = range(seed, seed + count)
    content: dict[str, Any] = {
        "image_id": list(ids),
        "image": [{"bytes": jpeg(i), "path": f"{i:03d}.jpg"} for i in ids],
        "width": [48] * count,
        "height": [32] * count,
        "objects": [columns_of(objects(i)) for i in ids],
        **columns,
    }
    made = pa.table({name: values for name, values in content.items() if values})
    if not features:
        return made
    described = {"image": {"_type": "Image"}, "objects": OBJECT_FEATURES}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": described}})})


def write_parquet(path: Path, content: pa.Table, **options: Any) -> Path:
    """A table as a Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, **{"row_group_size": 4, **options})
    return path


def write_arrow(path: Path, content: pa.Table, *, batch_rows: int = 4, options: Any = None) -> Path:
    """A table as a stream of record batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, pa.ipc.new_stream(file, content.schema, options=options) as writer:
        writer.write_table(content, max_chunksize=batch_rows)
    return path


def write_saved(folder: Path, content: pa.Table) -> Path:
    """A table as `Dataset.save_to_disk` writes it."""
    write_arrow(folder / "data-00000-of-00001.arrow", content)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], *, format: int = tarfile.GNU_FORMAT) -> Path:
    """A tar file with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(count: int, *, seed: int = 0) -> list[tuple[str, bytes]]:
    """The members of a shard: an image and a json for each sample."""
    found = []
    for i in range(seed, seed + count):
        record = {
            "width": 48,
            "height": 32,
            "annotations": [{**o, "category": NAMES[o["category"]]} for o in objects(i)],
        }
        found += [(f"{i:03d}.jpg", jpeg(i)), (f"{i:03d}.json", json.dumps(record).encode())]
    return found
