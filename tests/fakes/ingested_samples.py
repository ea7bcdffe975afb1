"""The samples that an ingest makes of an annotation file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from synthgen.formats.readers import DatasetFiles
from synthgen.ingest.ingest import IngestReport, ingest
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import ShardStore


def ingest_samples(
    folder: Path, module: Any, files: DatasetFiles, layer: str = "annotations", name: str = "d", split: str = "s"
) -> tuple[list[Sample], IngestReport]:
    store = ShardStore(folder)
    report = ingest(store, module, files, name=name, split=split, layer=layer)
    samples = [sample for shard in store.list_shards(name, split, layer) for sample in store.read_samples(shard)]
    assert report.images == len(samples)
    assert report.annotations == sum(len(sample.annotations) for sample in samples)
    return samples, report


def first_annotation(samples: list[Sample]) -> Annotation:
    return samples[0].annotations[0]


def without_file_numbers(samples: list[Sample]) -> list[Sample]:
    """The samples as a format gives them that has neither category ids nor areas of its own."""
    return [
        replace(s, annotations=tuple(replace(a, category_id=None, area=None) for a in s.annotations)) for s in samples
    ]
