"""Images in Arrow files: streams, files, compression, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fakes import packed_datasets as packed

from synthgen.images.arrow_stream import open_stream, read_batch, read_value
from synthgen.images.image_error import ImageError


def write(path: Path, values: Any) -> Path:
    return packed.write_arrow(path, pa.table({"image": values}), batch_rows=2)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_value_of_a_column_of_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    path = write(tmp_path / "x.arrow", pa.array([b"a", None, b"", b"bcd", b"e"], kind))
    assert [read_value(path, "image", i) for i in (0, 2, 3, 4)] == [b"a", b"", b"bcd", b"e"]
    with pytest.raises(ImageError, match="its row has no image"):
        read_value(path, "image", 1)


def test_a_value_of_a_struct(tmp_path: Path) -> None:
    values = [{"bytes": b"a", "path": "p"}, None, {"bytes": None, "path": "p"}, {"bytes": b"b", "path": None}]
    path = write(tmp_path / "x.arrow", values)
    assert [read_value(path, "image", i) for i in (0, 3)] == [b"a", b"b"]
    for row in (1, 2):
        with pytest.raises(ImageError, match="its row has no image"):
            read_value(path, "image", row)


def test_the_file_format_is_read_as_well(tmp_path: Path) -> None:
    content = packed.table(7)
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_file(file, content.schema) as writer:
        writer.write_table(content, max_chunksize=3)
    index = open_stream(tmp_path / "x.arrow")
    assert (index.num_rows, index.damage, index.first_rows.tolist()) == (7, "", [0, 3, 6, 7])
    assert [read_value(tmp_path / "x.arrow", "image", i) for i in range(7)] == [packed.jpeg(i) for i in range(7)]
    assert read_batch(tmp_path / "x.arrow", 1).column("image_id").to_pylist() == [3, 4, 5]


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_file_is_refused(tmp_path: Path, codec: str) -> None:
    options = pa.ipc.IpcWriteOptions(compression=codec)
    path = packed.write_arrow(tmp_path / "x.arrow", packed.table(2), options=options)
    with pytest.raises(ImageError, match="write it without compression"):
        open_stream(path)


def test_dictionaries_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.arrow", pa.array([b"a", b"a"]).dictionary_encode())
    with pytest.raises(ImageError, match="with dictionaries"):
        open_stream(path)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff\xff\xff\xff\x10\0\0\0" + b"\0" * 16, b"ARROW1\0\0"])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.arrow").write_bytes(content)
    with pytest.raises(ImageError, match="not in Arrow's format"):
        open_stream(tmp_path / "x.arrow")


def test_of_a_cut_file_the_batches_before_the_cut_are_read(tmp_path: Path) -> None:
    path = packed.write_arrow(tmp_path / "x.arrow", packed.table(8), batch_rows=2)
    third = int(open_stream(path).starts[2])
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(path.read_bytes()[: third + 500])
    index = open_stream(cut)
    assert (index.num_rows, index.damage) == (4, f"is cut off or damaged at byte {third:,}")
    assert read_value(cut, "image", 3) == packed.jpeg(3)
    with pytest.raises(ImageError, match="no row 4 in its Arrow file of 4 rows; the file is cut off"):
        read_value(cut, "image", 4)


def test_no_damage_is_more_than_an_error(tmp_path: Path) -> None:
    content = packed.write_arrow(tmp_path / "x.arrow", packed.table(2)).read_bytes()
    read = refused = 0
    for number, at in enumerate(range(0, len(content), 61)):
        path = tmp_path / f"{number}.arrow"
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        for row in (0, 1):
            try:
                read += len(read_value(path, "image", row)) >= 0
            except ImageError as why:
                assert "\n" not in str(why)
                refused += 1
    assert read > 20 and refused > 20
