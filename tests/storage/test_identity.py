"""The identity of a shard: any other place, count of rows or incomplete member is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from synthgen.storage.identity import Shard, ShardIdentity, check_identity, is_stale, parse_identity
from synthgen.storage.parquet_file import ForeignShardError

SHARD = Shard("coco", "train", "masks", 3, 12)
IDENTITY = ShardIdentity(SHARD, 40, "0123456789abcdef" * 4)
FOOTER = {"identity": IDENTITY.to_json()}


def test_it_comes_back_from_json() -> None:
    assert parse_identity(FOOTER) == IDENTITY
    assert FOOTER["identity"] == {
        **dataclasses.asdict(SHARD),
        "num_rows": 40,
        "content_sha256": IDENTITY.content_sha256,
    }


def test_an_older_shard_has_none() -> None:
    assert parse_identity({"fingerprint": "f"}) is None
    check_identity(Path("x"), SHARD, {}, 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("dataset", 3), ("dataset", "../x"), ("index", "3"), ("index", True), ("num_rows", 4.0), ("num_rows", None)),
        *(("content_sha256", "0123"), ("content_sha256", "Z" * 64), ("split", "")),
    ],
)
def test_what_is_no_identity_is_damage(name: str, value: Any) -> None:
    with pytest.raises(pa.ArrowInvalid, match="the identity in its synthgen footer"):
        parse_identity({"identity": {**IDENTITY.to_json(), name: value}})
    without = {key: member for key, member in IDENTITY.to_json().items() if key != name}
    with pytest.raises(pa.ArrowInvalid, match="is incomplete"):
        parse_identity({"identity": without})


@pytest.mark.parametrize("change", [{"index": 2}, {"num_shards": 13}, {"index": 2, "layer": "captions"}])
def test_another_shard_is_named_with_its_place(change: dict[str, Any]) -> None:
    place = dataclasses.replace(SHARD, **change)
    match = re.escape("a/b.parquet is the shard coco/train/masks/00003-of-00012; move it there or out of the store")
    with pytest.raises(ForeignShardError, match=f"^{match}$"):
        check_identity(Path("a/b.parquet"), place, FOOTER, 40)


@pytest.mark.parametrize("change", [{"layer": "captions"}, {"split": "val"}, {"dataset": "lvis"}])
def test_a_renamed_folder_may_be_adopted(change: dict[str, Any]) -> None:
    place = dataclasses.replace(SHARD, **change)
    layer = f"{place.dataset}/{place.split}/{place.layer}"
    with pytest.raises(ForeignShardError, match=f"00003-of-00012; move it .*`synthgen migrate {layer} --rename`$"):
        check_identity(Path("x"), place, FOOTER, 40)


def test_another_count_of_rows_is_damage() -> None:
    check_identity(Path("x"), SHARD, FOOTER, 40)
    with pytest.raises(pa.ArrowInvalid, match="it has 39 rows of 40"):
        check_identity(Path("x"), SHARD, FOOTER, 39)


def test_a_shard_is_stale_if_its_parent_has_other_rows() -> None:
    child = {"parent": {"layer": "masks", "fingerprint": "f", "content_sha256": "a" * 64}}
    assert is_stale(child, "b" * 64)
    assert not is_stale(child, "a" * 64)
    assert not is_stale(child, None)  # unknown
    for older in ({}, {"parent": None}, {"parent": {"layer": "masks", "fingerprint": "f"}}):
        assert not is_stale(older, "b" * 64)
