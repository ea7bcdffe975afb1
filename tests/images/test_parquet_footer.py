"""Footers of Parquet files, as Arrow reads them; damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fakes import packed_datasets as packed

from synthgen.images import parquet_footer
from synthgen.images.image_error import ImageError
from synthgen.images.parquet_footer import BYTE_ARRAY, read_footer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return packed.write_parquet(tmp_path / "x.parquet", packed.table(10), compression="zstd")


def test_a_footer_is_what_arrow_reads(path: Path) -> None:
    footer, theirs = read_footer(path), pq.read_metadata(path)
    assert footer.num_rows == theirs.num_rows == 10
    assert len(footer.groups) == theirs.num_row_groups == 3
    for number, leaf in enumerate(footer.leaves):
        column = theirs.schema.column(number)
        assert leaf.path == column.path
        assert (leaf.max_definition, leaf.max_repetition) == (
            column.max_definition_level,
            column.max_repetition_level,
        )
        assert (leaf.physical_type == BYTE_ARRAY) == (column.physical_type == "BYTE_ARRAY")
        assert leaf.is_text == (column.logical_type.type == "STRING")
        for group, chunks in enumerate(footer.groups):
            chunk, given = chunks[number], theirs.row_group(group).column(number)
            assert chunk.size == given.total_compressed_size
            assert chunk.start == (given.dictionary_page_offset or given.data_page_offset)
            assert (chunk.first_row, chunk.num_rows) == (4 * group, theirs.row_group(group).num_rows)
            assert (chunk.codec, chunk.num_nulls) == ("zstd", given.statistics.null_count)


def test_a_file_that_is_cut_or_no_parquet_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for wrong in (b"", b"PAR1", content[:-1], content[: len(content) // 2], b"x" * 100):
        path.write_bytes(wrong)
        with pytest.raises(ImageError, match="is in a file that is cut off or not in Parquet's format"):
            read_footer(path)
    path.write_bytes(content[:-8] + b"\xff\xff\xff\x7fPAR1")
    with pytest.raises(ImageError, match="footer has 2,147,483,647 bytes"):
        read_footer(path)


def test_a_cut_file_with_its_footer_is_refused(path: Path) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[:200] + content[-8 - length :])
    with pytest.raises(ImageError, match="cut off, or whose footer is damaged"):
        read_footer(path)


def test_row_groups_that_share_their_pages_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small file cannot be read again and again."""
    original = parquet_footer.parse_struct

    def repeat_groups(data: bytes, *, max_fields: int) -> tuple[dict[int, Any], int]:
        fields, used = original(data, max_fields=max_fields)
        return {**fields, 4: fields[4] * 50}, used

    monkeypatch.setattr(parquet_footer, "parse_struct", repeat_groups)
    with pytest.raises(ImageError, match="footer is damaged"):
        read_footer(path)


def test_no_damage_of_a_footer_is_more_than_an_error(path: Path) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    refused = 0
    for at in range(len(content) - 8 - length, len(content) - 8, 23):
        for byte in (0, 0x7F, 0xFF):
            path.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
            try:
                read_footer(path)
            except ImageError:
                refused += 1
    assert refused > 20
