"""The schema: any sample comes back unchanged, old shards are read, newer ones are refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import hypothesis_strategies
from hypothesis import given
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.records import parquet_schema
from synthgen.records.parquet_schema import (
    SCHEMA,
    SCHEMA_VERSION,
    samples_from_batch,
    table_from_samples,
    table_from_stream,
)
from synthgen.records.sample import Annotation, Caption, Rle, Sample
from synthgen.storage.parquet_file import SEAL_MAGIC
from synthgen.storage.shard_store import Shard, ShardStore

GOLDEN = Path(__file__).parents[1] / "golden"
SHARD = Shard("golden", "train", "masks", 0, 1)


def back(table: pa.Table, rows: int = 64) -> list[Sample]:
    """The samples of a table, by batches of `rows`."""
    return [sample for batch in table.to_batches(max_chunksize=rows) for sample in samples_from_batch(batch)]


# --- there and back --------------------------------------------------------------------------------------------------


@given(st.lists(hypothesis_strategies.samples, max_size=6), st.integers(1, 4))
def test_any_samples_come_back(made, rows):
    """In batches that do not start at the table's first row, too: there the offsets of the lists do not start at 0."""
    table = table_from_samples(made)
    assert table.schema.equals(SCHEMA)
    assert back(table, rows) == made


@pytest.mark.parametrize("count", [0, 1, 256, 257, 600])
def test_a_stream_gives_the_table_of_its_samples(count):
    made = [Sample(number, f"a/{number}", "x.png", 4, 5) for number in range(count)]
    assert table_from_stream(iter(made)).equals(table_from_samples(made))


def test_numbers_that_are_none_stay_so():
    """NaN is not equal to itself, so the property above leaves it out."""
    made = [Sample(1, "k", "f", 1, 1, (Annotation(1, (math.nan, math.inf, -math.inf, -0.0), "c"),))]
    assert repr(back(table_from_samples(made))) == repr(made)


def test_types_come_back_as_well():
    """Equality does not tell 1 from 1.0 or True, nor a list from a tuple inside a frozen record."""
    caption = Caption("t", "s", 1.0, True, ("repeats",))
    rle = Rle((3, 4), b"<")
    made = Sample(1, "k", "f", 3, 4, (Annotation(1, (0, 1, 2, 3), "c", segmentation=rle, captions=(caption,)),))
    (sample,) = back(table_from_samples([made]))
    (annotation,) = sample.annotations
    assert [type(v) for v in annotation.bbox] == [float] * 4
    assert type(annotation.flags) is type(annotation.captions) is type(sample.annotations) is tuple
    assert type(annotation.captions[0].reasons) is tuple
    assert type(annotation.segmentation.size) is tuple
    assert type(annotation.segmentation.counts) is bytes
    assert type(annotation.iscrowd) is bool
    assert type(sample.image_id) is type(annotation.id) is int


def test_a_record_has_a_column_for_each_of_its_fields():
    def names(kind: Any) -> list[str]:
        return [field.name for field in kind]

    assert names(SCHEMA) == [f.name for f in dataclasses.fields(Sample)]
    annotation = SCHEMA.field("annotations").type.value_type
    assert names(annotation) == [f.name for f in dataclasses.fields(Annotation)]
    assert names(annotation.field("segmentation").type) == [f.name for f in dataclasses.fields(Rle)]
    assert names(annotation.field("captions").type.value_type) == [f.name for f in dataclasses.fields(Caption)]


def test_names_that_nobody_looked_for_are_not_names_that_nobody_found():
    """None is not (): of the one every name is a negative, of the other none."""
    made = [Sample(i, "k", "f", 1, 1, neg_categories=names) for i, names in enumerate([None, (), ("cat",), None])]
    assert [sample.neg_categories for sample in back(table_from_samples(made))] == [None, (), ("cat",), None]


# --- golden shards ---------------------------------------------------------------------------------------------------


def golden(version: int) -> tuple[Path, dict[str, Any]]:
    content = json.loads((GOLDEN / f"shard_v{version}.json").read_text(encoding="utf-8"))
    return GOLDEN / f"shard_v{version}.parquet", content


def from_json(sample: dict[str, Any]) -> Sample:
    def annotation(a: dict[str, Any]) -> Annotation:
        rle = a["segmentation"]
        return Annotation(
            **{
                **a,
                "bbox": tuple(a["bbox"]),
                "flags": tuple(a["flags"]),
                "segmentation": rle and Rle(tuple(rle["size"]), rle["counts"].encode()),
                "captions": tuple(Caption(**c) for c in a["captions"]),
            }
        )

    return Sample(**{**sample, "annotations": tuple(annotation(a) for a in sample["annotations"])})


def put(table: pa.Table | Path, root: Path) -> ShardStore:
    """A store that holds this table, or this file, as its one shard."""
    path = root / SHARD.relative_path
    path.parent.mkdir(parents=True)
    shutil.copyfile(table, path) if isinstance(table, Path) else pq.write_table(table, path)
    return ShardStore(root)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_shards_of_every_version_are_read(version, tmp_path):
    path, content = golden(version)
    store = put(path, tmp_path)
    assert list(store.read_samples(SHARD)) == [from_json(sample) for sample in content["samples"]]
    assert store.read_footer(SHARD) == content["footer"]
    assert len(content["samples"]) == 4


def test_the_first_shards_with_an_identity_are_read(tmp_path):
    """Their digests, too, must be those that every later release computes."""
    content = golden(1)[1]
    store = put(GOLDEN / "shard_v1_identity.parquet", tmp_path)
    assert list(store.read_samples(SHARD)) == [from_json(sample) for sample in content["samples"]]
    digest = store.compute_content_digest(SHARD)
    identity = {**dataclasses.asdict(SHARD), "num_rows": 4, "content_sha256": digest}
    assert store.read_footer(SHARD) == {**content["footer"], "identity": identity}
    assert SEAL_MAGIC in (GOLDEN / "shard_v1_identity.parquet").read_bytes()


def test_the_writer_still_writes_the_schema_of_its_version(tmp_path):
    """Whoever changes the schema changes the version, or sees this fail."""
    path, content = golden(SCHEMA_VERSION)
    made = [from_json(sample) for sample in content["samples"]]
    written = ShardStore(tmp_path).commit(SHARD, made, content["footer"])
    new, old = _parquet_columns(written), _parquet_columns(path)
    assert [column for column in new if not parquet_schema._OPTIONAL_COLUMNS.keys() & column[0].split(".")] == old
    fields = [*SCHEMA, *parquet_schema._ANNOTATION, *parquet_schema._CAPTION]
    assert all(
        any(field.name == name and field.nullable for field in fields) for name in parquet_schema._OPTIONAL_COLUMNS
    )


def _parquet_columns(path: Path) -> list[tuple[str, str, int, int]]:
    schema = pq.ParquetFile(path).schema
    columns = (schema.column(i) for i in range(len(schema)))
    return [(c.path, c.physical_type, c.max_definition_level, c.max_repetition_level) for c in columns]


def _struct_with(array: pa.Array, name: str, values: pa.Array | None) -> pa.Array:
    """A list<struct> with another field in its struct, or without that one."""
    struct = array.flatten()
    fields = {f.name: struct.field(f.name) for f in struct.type if f.name != name}
    if values is not None:
        fields[name] = values
    return pa.ListArray.from_arrays(
        array.offsets, pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    )


def _replaced(table: pa.Table, annotations: pa.Array) -> pa.Table:
    place = table.schema.get_field_index("annotations")
    return table.set_column(place, "annotations", annotations).replace_schema_metadata(table.schema.metadata)


@pytest.fixture
def table() -> pa.Table:
    return pq.read_table(golden(1)[0])


@pytest.fixture
def made() -> list[Sample]:
    return [from_json(sample) for sample in golden(1)[1]["samples"]]


def test_columns_of_the_future_are_passed_over(table, made, tmp_path):
    count = len(table["annotations"].combine_chunks().flatten())
    table = table.append_column("licence", pa.array(["CC0"] * len(table)))
    table = _replaced(table, _struct_with(table["annotations"].combine_chunks(), "depth", pa.array([1.5] * count)))
    assert list(put(table, tmp_path).read_samples(SHARD)) == made


def test_columns_that_a_shard_is_too_old_to_have_are_none(table, made, tmp_path, monkeypatch):
    later = {"stability_score": pa.float64(), "captions": pa.list_(parquet_schema._CAPTION), "error": pa.string()}
    monkeypatch.setattr(parquet_schema, "_OPTIONAL_COLUMNS", parquet_schema._OPTIONAL_COLUMNS | later)
    annotations = _struct_with(table["annotations"].combine_chunks(), "stability_score", None)
    annotations = _struct_with(annotations, "captions", None)
    table = _replaced(table, annotations).drop_columns(["error"])
    poorer = [
        dataclasses.replace(
            sample,
            error=None,
            annotations=tuple(dataclasses.replace(a, stability_score=None, captions=()) for a in sample.annotations),
        )
        for sample in made
    ]
    assert list(put(table, tmp_path).read_samples(SHARD)) == poorer


@pytest.mark.parametrize("column", ["image_id", "image_key", "annotations", "error"])
def test_a_shard_without_a_column_that_all_have_is_damaged(column, table, tmp_path):
    store = put(table.drop_columns([column]), tmp_path)
    with pytest.raises(SynthgenError, match=f"no column '{column}'"):
        list(store.read_samples(SHARD))


@pytest.mark.parametrize("column", ["id", "bbox", "segmentation", "captions"])
def test_annotations_without_a_field_that_all_have_are_damaged(column, table, tmp_path):
    store = put(_replaced(table, _struct_with(table["annotations"].combine_chunks(), column, None)), tmp_path)
    with pytest.raises(SynthgenError, match=f"is damaged .it has no column '{column}'"):
        list(store.read_samples(SHARD))


def test_a_newer_version_is_refused_in_words(table, tmp_path):
    footer = json.dumps({"schema_version": SCHEMA_VERSION + 1}).encode()
    store = put(table.replace_schema_metadata({b"synthgen": footer}), tmp_path)
    for use in (
        lambda: list(store.read_samples(SHARD)),
        lambda: store.read_footer(SHARD),
        lambda: list(store.read_columns(SHARD, [])),
    ):
        with pytest.raises(SynthgenError, match=r"schema version 2, .* reads up to 1; upgrade synthgen"):
            use()


def test_reading_imports_no_pandas():
    """Where it is installed, pyarrow's own conversions import it: a quarter of a second and 50 MiB a process."""
    code = (
        "import sys, json; from pathlib import Path; import pyarrow.parquet as pq\n"
        "from synthgen.records.parquet_schema import samples_from_batch\n"
        "found = [s for b in pq.ParquetFile(sys.argv[1]).iter_batches() for s in samples_from_batch(b)]\n"
        "print(len(found), 'pandas' in sys.modules)"
    )
    golden = Path(__file__).parents[1] / "golden" / "shard_v1.parquet"
    done = subprocess.run([sys.executable, "-c", code, str(golden)], capture_output=True, text=True, check=True)
    count, imported = done.stdout.split()
    assert int(count) > 0 and imported == "False"
