"""A small referring dataset in the format of the RefCOCO releases, and what an ingest makes of it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, refcoco
from synthgen.ingest.ingest import IngestReport, ingest
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import ShardStore


def ingested(store: Path, module: Any, files: DatasetFiles, layer: str = "human") -> tuple[list[Sample], IngestReport]:
    report = ingest(ShardStore(store), module, files, name="d", split=files.split, layer=layer)
    shards = ShardStore(store).list_shards("d", files.split, layer)
    samples = [sample for shard in shards for sample in ShardStore(store).read_samples(shard)]
    assert report.annotations == sum(len(sample.annotations) for sample in samples)
    return samples, report


def caption_texts(annotation: Annotation) -> list[str]:
    return [caption.text for caption in annotation.captions]


def toy(root: Path, folder: str = "refcoco", by: str = "unc") -> tuple[list[Any], dict[str, Any]]:
    """Two images of three objects each: one is described in train, one in val, one not at all."""
    refs, annotations = [], []
    for image in (1, 2):
        for place, split in enumerate(["train", "val", ""]):
            number = 10 * image + place
            box = [10 * place, 5, 8, 8]
            polygon = [box[0], 5, box[0] + 8, 5, box[0] + 8, 13, box[0], 13]
            annotations.append(
                {
                    "id": number,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": box,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
            if split:
                sentences = [
                    {"sent": f"{split} cup {number}", "raw": f"{split.upper()} Cup, {number}!", "sent_id": number}
                ]
                refs.append({"image_id": image, "ann_id": number, "category_id": 1, "split": split, "ref_id": number})
                refs[-1]["sentences"] = sentences
    names = [f"COCO_train2014_{image:012d}.jpg" for image in (1, 2)]
    content = {
        "images": [{"id": i, "file_name": n, "height": 20, "width": 30} for i, n in enumerate(names, start=1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cup"}],
    }
    write(root, refs, content, folder, by)
    return refs, content


def write(root: Path, refs: Any, content: Any, folder: str = "refcoco", by: str = "unc") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / f"refs({by}).p").write_bytes(refs if isinstance(refs, bytes) else pickle.dumps(refs, 2))
    (root / folder / "instances.json").write_text(json.dumps(content))


def read(root: Path, split: str = "train", layer: str = "human") -> tuple[list[Sample], IngestReport]:
    return ingested(root / "store", refcoco, refcoco.files(root / "refcoco", split, None), layer)


def refused(root: Path, sentence: str, split: str = "train") -> None:
    with pytest.raises(SynthgenError, match=sentence) as why:
        read(root, split)
    assert "\n" not in str(why.value)
    assert not list((root / "store").rglob("*.parquet"))
