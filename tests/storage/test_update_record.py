"""The record of a layer's updates: the same bytes for the same update, and a stranger's record is not trusted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synthgen.errors import SynthgenError
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.storage.update_record import (
    RECORD_NAME,
    UpdateRecord,
    describe_unfinished,
    read_update_record,
    write_update_record,
)

RECORD = UpdateRecord({"instances": "a" * 64}, None, "drop", (10, 20), ("0" * 64, "1" * 64, "2" * 64))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_update_record(tmp_path) is None and describe_unfinished(tmp_path / "gone") is None
    for record in (RECORD, replace(RECORD, digests=None, image_names="b"), replace(RECORD, first_ids=(), digests=None)):
        write_update_record(tmp_path, record)
        written = (tmp_path / RECORD_NAME).read_bytes()
        assert read_update_record(tmp_path) == record
        write_update_record(tmp_path, record)
        assert (tmp_path / RECORD_NAME).read_bytes() == written
        assert (describe_unfinished(tmp_path) is None) == (record.digests is not None)


def test_what_a_shard_may_hold() -> None:
    assert RECORD.holds(1, "1" * 64)
    assert not RECORD.holds(1, "2" * 64) and not RECORD.holds(3, "2" * 64)
    assert replace(RECORD, digests=None).holds(7, "x")


VALID: dict[str, Any] = {
    "version": 1,
    "sources": {"instances": "a"},
    "image_names": None,
    "removed": "drop",
    "first_ids": [1, 2],
    "digests": None,
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        *(
            json.dumps({**VALID, **wrong}).encode()
            for wrong in (
                {"version": 2},
                {"sources": []},
                {"sources": {"a": 1}},
                {"image_names": 3},
                {"removed": "some"},
                {"removed": ["drop"]},
                {"first_ids": [2, 1]},
                {"first_ids": [1.5]},
                {"first_ids": [True]},
                {"first_ids": [2**63]},
                {"first_ids": "12"},
                {"first_ids": None},
                {"digests": ["0" * 64]},
                {"digests": ["0" * 64] * 2 + ["x"]},
                {"digests": [1, 2, 3]},
                {"digests": 3},
            )
        ),
        *(json.dumps({key: VALID[key] for key in sorted(VALID.keys() - {gone})}).encode() for gone in sorted(VALID)),
    ],
)
def test_a_strangers_record_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD_NAME).write_bytes(content)
    with pytest.raises(SynthgenError, match="is damaged; delete it, and ingest the dataset again with --update"):
        read_update_record(tmp_path)


def test_a_record_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / RECORD_NAME).mkdir()
    with pytest.raises(SynthgenError, match=r"cannot read .*Is a directory"):
        read_update_record(tmp_path)


def test_a_folder_whose_name_is_too_long_has_no_record(tmp_path: Path) -> None:
    assert read_update_record(tmp_path / ("x" * 300)) is None


def test_an_unfinished_layer_is_listed_only_on_request(tmp_path: Path) -> None:
    store, shard = ShardStore(tmp_path), Shard("d", "train", "annotations", 0, 1)
    folder = store.commit(shard, [], {"fingerprint": "f"}).parent
    write_update_record(folder, replace(RECORD, digests=None))
    with pytest.raises(SynthgenError, match=r"annotations has not finished, .* again, with --update"):
        store.list_shards("d", "train", "annotations")
    assert store.list_shards("d", "train", "annotations", check_update=False) == [shard]
    write_update_record(folder, RECORD)
    assert store.list_shards("d", "train", "annotations") == [shard]
