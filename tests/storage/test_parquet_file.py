"""One file: its footer is compared with its digest before Arrow sees it; what is no file is never opened."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import shard_writer

from synthgen.errors import SynthgenError
from synthgen.records.parquet_schema import table_from_samples
from synthgen.storage.parquet_file import (
    SEAL_MAGIC,
    DamagedShardError,
    ForeignShardError,
    open_parquet,
    write_parquet,
)

FOOTER = {"schema_version": 1, "fingerprint": "f", "identity": {"dataset": "d"}}
TABLE = table_from_samples(shard_writer.samples(0)[:3])
GOLDEN = Path(__file__).parents[1] / "golden" / "shard_v1.parquet"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "x.parquet", TABLE, FOOTER, row_group_size=2)
    return tmp_path / "x.parquet"


def parts(content: bytes) -> tuple[int, int]:
    """Where the seal and the footer of a file begin."""
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    seal = footer - len(SEAL_MAGIC) - 32
    assert content[seal:footer].startswith(SEAL_MAGIC)
    return seal, footer


def without_seal(path: Path) -> None:
    """The file as Arrow wrote it."""
    content = path.read_bytes()
    seal, footer = parts(content)
    path.write_bytes(content[:seal] + content[footer:])


def read(path: Path) -> dict[str, Any]:
    with open_parquet(path) as (_, footer):
        return footer


def damage(path: Path, content: bytes) -> str:
    """The one sentence that the file is refused with."""
    path.write_bytes(content)
    with pytest.raises(DamagedShardError, match=r"x\.parquet is damaged \(.*\); delete it and run the job") as why:
        read(path)
    assert "\n" not in str(why.value)
    return str(why.value)


def test_what_is_written_is_read_by_any_reader(path: Path) -> None:
    with open_parquet(path) as (file, footer):
        assert footer == FOOTER
        assert file.read().equals(TABLE)
        assert [file.metadata.row_group(i).num_rows for i in range(2)] == [2, 1]
    assert pq.read_table(path).equals(TABLE)
    assert json.loads(pq.read_metadata(path).metadata[b"synthgen"]) == FOOTER


def test_the_seal_is_the_digest_of_the_footer(path: Path) -> None:
    content = path.read_bytes()
    seal, footer = parts(content)
    assert content[seal:footer] == SEAL_MAGIC + hashlib.sha256(content[footer:-4]).digest()
    without_seal(path)
    assert pq.read_table(path).equals(TABLE)  # the rest is as Arrow wrote it


def flips(content: bytes, places: Iterator[tuple[int, int]]) -> Iterator[bytes]:
    for place, bit in places:
        yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_flipped_bits_of_the_end_are_refused(path: Path) -> None:
    """All of the seal and of the trailer, some of the footer."""
    content = path.read_bytes()
    seal, footer = parts(content)
    ends = [
        (place, bit) for place in (*range(seal, footer), *range(len(content) - 8, len(content))) for bit in range(8)
    ]
    rng = random.Random(0)
    ends += [(rng.randrange(footer, len(content) - 8), rng.randrange(8)) for _ in range(300)]
    for flipped in flips(content, iter(ends)):
        damage(path, flipped)


@pytest.mark.slow
def test_every_flipped_bit_of_the_end_is_refused(path: Path) -> None:
    content = path.read_bytes()
    count = 0
    with path.open("r+b", buffering=0) as file:
        for place in range(parts(content)[0], len(content)):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([content[place] ^ 1 << bit]), place)
                try:
                    read(path)
                except DamagedShardError as why:
                    assert "\n" not in str(why)
                    count += 1
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert count == 8 * (len(content) - parts(content)[0])
    assert read(path) == FOOTER


@pytest.mark.parametrize("count", [1, 8, 60, 512, 4096])
@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_an_overwritten_or_lost_end_is_refused(count: int, byte: bytes, path: Path) -> None:
    content = path.read_bytes()
    damage(path, content[:-count] + byte * count)
    damage(path, content[:-count])
    damage(path, content + byte * count)


def test_the_footer_of_another_file_is_refused(path: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "y.parquet", TABLE, {**FOOTER, "fingerprint": "g"}, row_group_size=2)
    mine, other = path.read_bytes(), (tmp_path / "y.parquet").read_bytes()
    assert "its footer is not what was written" in damage(path, mine[: parts(mine)[1]] + other[parts(other)[1] :])


def test_an_identity_without_a_seal_is_damage(path: Path) -> None:
    without_seal(path)
    assert "the digest of its footer is gone" in damage(path, path.read_bytes())


@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowMemoryError("malloc of size 64 failed")])
def test_where_memory_lacks_nobody_is_told_to_delete_a_whole_shard(
    error: Exception, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(SynthgenError, match=r"cannot be read for lack of memory \(.*\); if there is enough, it") as why:
        read(path)
    assert not isinstance(why.value, DamagedShardError)


def test_a_shard_of_an_older_release_has_neither() -> None:
    assert SEAL_MAGIC not in GOLDEN.read_bytes()
    with open_parquet(GOLDEN) as (file, footer):
        assert footer["schema_version"] == 1 and file.metadata.num_rows == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("counts", []), ("recipe", None), ("categories", {}), ("failed", "none")),
        *(("parent", 3), ("identity", []), ("fingerprint", 1), ("synthgen", None)),
    ],
)
def test_a_footer_with_a_member_of_a_wrong_type_is_damaged(name: str, value: Any, path: Path) -> None:
    write_parquet(path, TABLE, {**FOOTER, name: value}, row_group_size=2)
    assert f"the member '{name}' of its synthgen footer is of a wrong type" in damage(path, path.read_bytes())


def test_a_footer_that_is_nested_without_end_is_damaged(path: Path) -> None:
    table = TABLE.replace_schema_metadata({b"synthgen": b"[" * 100_000})
    pq.write_table(table, path)
    assert "its synthgen footer is no JSON" in damage(path, path.read_bytes())


def test_columns_of_another_type_are_refused_before_they_are_read(path: Path) -> None:
    for name, kind in (("image_id", pa.string()), ("height", pa.int64()), ("error", pa.binary())):
        place = TABLE.schema.get_field_index(name)
        column = pa.nulls(len(TABLE), kind)
        write_parquet(path, TABLE.set_column(place, name, column), FOOTER, row_group_size=2)
        assert f"its column '{name}' is of the type {kind}, not" in damage(path, path.read_bytes())


def test_fields_of_another_type_are_refused_before_they_are_read(path: Path) -> None:
    lists = TABLE["annotations"].combine_chunks()
    fields = {field.name: lists.flatten().field(field.name) for field in lists.type.value_type}
    fields["bbox"] = pa.array([[0.0] * 5] * len(lists.flatten()), pa.list_(pa.float64(), 5))
    struct = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    table = TABLE.set_column(5, "annotations", pa.ListArray.from_arrays(lists.offsets, struct))
    write_parquet(path, table, FOOTER, row_group_size=2)
    assert "its column 'annotations.bbox' is of the type fixed_size_list" in damage(path, path.read_bytes())


def make_irregular(kind: str, path: Path) -> None:
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        os.chdir(path.parent)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    else:
        path.symlink_to({"a device": "/dev/zero", "a link to nothing": path.with_name("nothing")}[kind])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["a folder", "a FIFO", "a socket", "a device", "a link to nothing"])
def test_what_is_no_file_is_not_opened(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    make_irregular(kind, path)
    with pytest.raises(ForeignShardError, match=f"x.parquet is {kind}, not a shard; move it out of the store"):
        read(path)


def test_a_link_to_a_file_is_a_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    assert read(tmp_path / "link") == FOOTER


def test_a_link_in_a_circle_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(SynthgenError, match=r"cannot be read \(Too many levels of symbolic links\)"):
        read(tmp_path / "a")
