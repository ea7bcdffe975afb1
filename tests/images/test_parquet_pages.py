"""Images in Parquet files: every encoding that writers use, damaged files, bombs."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.images import parquet_pages
from synthgen.images.image_error import ImageError
from synthgen.images.parquet_footer import read_footer
from synthgen.images.parquet_pages import check_sizes, open_column, read_value

CODECS = ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]


def write(path: Path, values: list[Any], **options: Any) -> Path:
    pq.write_table(pa.table({"image": values, "n": list(range(len(values)))}), path, **options)
    return path


@given(
    values=st.lists(st.none() | st.binary(max_size=60), min_size=1, max_size=30),
    in_struct=st.booleans(),
    codec=st.sampled_from(CODECS),
    version=st.sampled_from(["1.0", "2.0"]),
    use_dictionary=st.booleans(),
    row_group_size=st.sampled_from([3, 7, 1_000]),
    page_size=st.sampled_from([1, 64, 2**20]),
)
def test_every_row_is_what_arrow_wrote(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[bytes | None],
    in_struct: bool,
    codec: str,
    version: str,
    use_dictionary: bool,
    row_group_size: int,
    page_size: int,
) -> None:
    rows = [value if value is None or not in_struct else {"bytes": value, "path": "x"} for value in values]
    rows = [None, *rows] if not in_struct else [{"bytes": None, "path": "y"}, *rows]
    path = write(
        tmp_path_factory.mktemp("parquet") / "x.parquet",
        [*rows, rows[-1]],
        compression=codec,
        data_page_version=version,
        use_dictionary=use_dictionary,
        row_group_size=row_group_size,
        data_page_size=page_size,
        write_batch_size=2,
    )
    if all(value is None for value in values):
        return  # Arrow gives such a column another type
    for i, value in enumerate([None, *values, values[-1]]):
        if value is None:
            with pytest.raises(ImageError, match="its row has no image"):
                read_value(path, "image", i)
        else:
            assert read_value(path, "image", i) == value
    with pytest.raises(ImageError, match="no row"):
        read_value(path, "image", len(values) + 2)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [False, True])
def test_pages_of_many_rows(tmp_path: Path, codec: str, version: str, use_dictionary: bool) -> None:
    """The lengths of runs of levels and of indices take several bytes."""
    values = [None if i % 7 == 3 and i > 4_000 else b"%d" % (i % 300) for i in range(5_000)]
    path = write(
        tmp_path / "x.parquet", values, compression=codec, data_page_version=version, use_dictionary=use_dictionary
    )
    for i in (0, 299, 4_000, 4_001, 4_999):
        if values[i] is None:
            with pytest.raises(ImageError, match="no image"):
                read_value(path, "image", i)
        else:
            assert read_value(path, "image", i) == values[i]


def test_a_column_without_nulls_and_large_binary(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("image", pa.large_binary(), nullable=False)])
    pq.write_table(pa.table({"image": [b"a", b"bc"]}, schema=schema), tmp_path / "x.parquet", compression="none")
    assert [read_value(tmp_path / "x.parquet", "image", i) for i in (1, 0)] == [b"bc", b"a"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["text"], "does not hold one image a row"),
        ([7], "does not hold one image a row"),
        ([[b"x", b"y"]], "no column image"),
        ([{"bytes": [b"x"]}], "no column image|does not hold"),
    ],
)
def test_a_column_that_is_not_one_image_a_row_is_refused(tmp_path: Path, values: list[Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        open_column(write(tmp_path / "x.parquet", values), "image")


def test_a_rare_encoding_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.parquet", [b"abc", b"abd"], use_dictionary=False, column_encoding={"image": "DELTA_BYTE_ARRAY"}
    )
    with pytest.raises(ImageError, match="write it again with the encoding PLAIN"):
        read_value(path, "image", 0)


def test_only_the_page_of_a_row_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [bytes([i]) * 50_000 for i in range(64)]
    path = write(tmp_path / "x.parquet", values, use_dictionary=False, data_page_size=100_000, write_batch_size=1)
    decoded: list[int] = []
    original = parquet_pages._ChunkReader._decompress
    monkeypatch.setattr(
        parquet_pages._ChunkReader,
        "_decompress",
        lambda self, data, size: decoded.append(size) or original(self, data, size),
    )
    assert read_value(path, "image", 40) == values[40]
    assert decoded and sum(decoded) < 400_000


def test_a_page_that_expands_beyond_the_limit_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.parquet", [bytes(2**24)], compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 2**20)
    tracemalloc.start()
    with pytest.raises(ImageError, match="is in a page of 16 MiB; write the file with smaller pages"):
        read_value(path, "image", 0)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("values", "options", "bytes_each"),
    [
        (["long " * 10_000] * 2_000, {}, 50_000),  # one value of a dictionary, again and again
        (["x" * 30_000 + str(i) for i in range(50)], {"column_encoding": {"image": "DELTA_BYTE_ARRAY"}}, 30_000),
        ([bytes(2**20)] * 20, {"use_dictionary": False}, 2**20),
    ],
)
def test_columns_that_decode_to_more_than_a_limit_are_refused(
    tmp_path: Path, values: list[Any], options: dict[str, Any], bytes_each: int
) -> None:
    options = {"compression": "zstd", "use_dictionary": "column_encoding" not in options, **options}
    path = write(tmp_path / "x.parquet", values, **options)
    assert path.stat().st_size < len(values) * bytes_each / 100
    footer = read_footer(path)
    check_sizes(path, footer, 0, {1}, 2**20)
    with pytest.raises(ImageError, match="decodes to more than"):
        check_sizes(path, footer, 0, {0, 1}, len(values) * bytes_each // 2)
    check_sizes(path, footer, 0, {0, 1}, 2**33)


def test_damaged_pages_are_errors_of_the_image(tmp_path: Path) -> None:
    values = [bytes([i]) * 300 for i in range(8)]
    path = write(tmp_path / "x.parquet", values, compression="snappy", use_dictionary=False)
    content = path.read_bytes()
    outcomes = set()
    for at in range(4, 400, 3):
        damaged = tmp_path / f"{at}.parquet"
        damaged.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        for row in (0, 7):
            try:
                outcomes.add(len(read_value(damaged, "image", row)) >= 0)
            except ImageError as why:
                assert "\n" not in str(why)
                outcomes.add(str(why)[:7])
    assert True in outcomes and len(outcomes) > 1
