"""CSV files line by line: the same rows whatever the size of the chunks, byte positions, bounded lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.errors import SynthgenError
from synthgen.formats.readers import _csv_lines
from synthgen.formats.readers._csv_lines import CsvTable, iter_lines, read_line_at, split_line


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1_000])
def test_lines_and_their_positions_do_not_depend_on_the_chunks(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_csv_lines, "_CHUNK_BYTES", chunk)
    monkeypatch.setattr(_csv_lines, "MAX_LINE_BYTES", 20)
    data = b"a,b\r\n\n1,2\n  \n" + b"x" * 50 + b"\n" + b"y" * 20 + b"\nlast"
    path = tmp_path / "x.csv"
    path.write_bytes(data)
    found = list(iter_lines(path))
    assert [line.rstrip(b"\r") for _, line in found] == [b"a,b", b"1,2", b"", b"y" * 20, b"last"]
    assert all(data[at : at + len(line)] == line for at, line in found if line)
    seen: list[int] = []
    assert len(list(iter_lines(path, seen.append))) == 5 and sum(seen) == len(data)


def test_a_table_finds_columns_by_name_and_reports_short_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbfB, a \r\n1,"x, y"\r\n2\r\n3,"bad\n4,5,6\n')
    table = CsvTable(path, ("A",), ("b", "c"), None)
    assert dict(table.columns) == {"A": 1, "b": 0}
    rows = list(table.rows())
    assert [(number, fields) for number, _, fields in rows] == [
        (1, ["1", "x, y"]), (2, None), (3, None), (4, ["4", "5", "6"]),
    ]  # fmt: skip
    assert read_line_at(path, rows[0][1]) == ["1", "x, y"] and read_line_at(path, 10_000) == []
    with pytest.raises(SynthgenError, match="no column Z"):
        CsvTable(path, ("Z",), (), None)


def test_fields_may_be_quoted() -> None:
    assert split_line(b'a,"b ""c"", d",e\r') == ["a", 'b "c", d', "e"]
    assert split_line(b'a,"b') is None and split_line(b"") is None
    assert split_line(b"\xff,1") == ["\ufffd", "1"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SynthgenError, match="not a file"):
        list(iter_lines(tmp_path))
