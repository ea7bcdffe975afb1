"""The external sort: ranges within the memory bound, and a full disk."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from fakes.ingest_runs import ingest_layer, write_annotations

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch
from synthgen.ingest import external_sort


def test_ranges_stay_within_the_bound(tmp_path, monkeypatch):
    """However the annotations lie: at most the bound is read back at once, or one image."""
    monkeypatch.setattr(external_sort, "MAX_RUN_BYTES", 64 * 100)
    rng = np.random.default_rng(0)
    image_id = np.concatenate([np.full(5000, 7), rng.integers(0, 50, 4000), rng.integers(0, 100_000, 4000)])
    rng.shuffle(image_id)
    ids = np.unique(image_id)
    for known in (np.empty(0, np.int64), ids[:10], ids):
        kept = external_sort.ExternalSorter(tmp_path, expected_bytes=10**6)
        for part in np.array_split(image_id, 20):
            none = np.zeros(len(part), np.int64)
            kept.add(AnnotationBatch(part, none, np.zeros((len(part), 4)), none, none == 1), known)
        total = 0
        for taken in kept.sorted_runs(ids):
            owners, counts = np.unique(taken.image_id, return_counts=True)
            assert counts.sum() - counts.max() <= 100 and (owners == np.sort(owners)).all()
            total += len(taken.image_id)
        assert total == len(image_id) and not list(tmp_path.iterdir())


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = write_annotations(tmp_path / "boxes.json")
    monkeypatch.setattr(external_sort._RangeFile, "write", full)
    with pytest.raises(SynthgenError, match="no space left"):
        ingest_layer(tmp_path / "s", files)
    assert not (tmp_path / "s" / "d").exists()
