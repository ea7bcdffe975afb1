"""The content digest: one for equal rows however they are stored, another for every other content."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import hypothesis_strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthgen.records.content_digest import ContentDigest, content_digest
from synthgen.records.parquet_schema import SCHEMA, samples_from_batch, table_from_samples
from synthgen.records.sample import Annotation, Caption, Rle, Sample

GOLDEN = Path(__file__).parents[1] / "golden" / "shard_v1.parquet"
LISTS = st.lists(hypothesis_strategies.samples, max_size=5)


def digest(samples: list[Sample]) -> str:
    return content_digest(table_from_samples(samples))


def digest_in_batches(table: pa.Table, ends: list[int]) -> str:
    """Of a table that is cut at these rows; the batches share its buffers, so they have offsets."""
    found = ContentDigest()
    for start, end in itertools.pairwise([0, *sorted(min(end, len(table)) for end in ends), len(table)]):
        for batch in table.slice(start, end - start).to_batches():
            found.update(batch)
    return found.hexdigest()


@given(LISTS, st.lists(st.integers(0, 5), max_size=4))
def test_how_rows_are_cut_into_batches_makes_no_difference(made, ends):
    table = table_from_samples(made)
    assert digest_in_batches(table, ends) == content_digest(table) == content_digest(table.combine_chunks())


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=LISTS, rows=st.integers(1, 5), version=st.sampled_from(["1.0", "2.6"]), dictionary=st.booleans())
def test_how_a_file_is_encoded_makes_no_difference(made, rows, version, dictionary, tmp_path):
    path, table = tmp_path / "x.parquet", table_from_samples(made)
    pq.write_table(table, path, row_group_size=rows, version=version, use_dictionary=dictionary, compression="snappy")
    found = ContentDigest()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=2):
            found.update(batch)
    assert found.hexdigest() == content_digest(table)


@settings(max_examples=60)
@given(LISTS, LISTS)
def test_other_samples_have_another_digest(one, two):
    assert (digest(one) == digest(two)) == (repr(one) == repr(two))  # repr tells -0.0 from 0.0


CAPTION = Caption("a dog", "ofa", -0.5, True, ("repeats",))
ANNOTATION = Annotation(
    7, (1.0, 2.0, 3.0, 4.0), "dog", flags=("clipped",), segmentation=Rle((8, 9), b"abc"), mask_source="sam",
    predicted_iou=0.5, stability_score=0.25, box_iou=0.125, sam_predicted_iou=0.75, soft_iou=0.625,
    captions=(CAPTION, CAPTION),
)  # fmt: skip
SAMPLE = Sample(1, "k/1", "1.jpg", 8, 9, (ANNOTATION, ANNOTATION), "no such file", ("cat",), ("dog",))

#: Field -> other values of it.
SAMPLE_CHANGES = {
    "image_id": [2, -1], "image_key": ["k/2", ""], "file_name": ["1.jpeg"], "height": [9], "width": [8],
    "annotations": [(), (ANNOTATION,), (ANNOTATION,) * 3], "error": [None, "", "no such file "],
    "neg_categories": [None, (), ("cat", ""), ("c", "at")], "not_exhaustive_categories": [(), ("dog", "dog")],
    "license_id": [3, 0],
}  # fmt: skip
ANNOTATION_CHANGES = {
    "id": [8], "bbox": [(1.0, 2.0, 3.0, 4.5), (2.0, 1.0, 3.0, 4.0)], "category": ["dogs", ""], "iscrowd": [True],
    "isthing": [False], "flags": [(), ("clipped", "crowd")],
    "segmentation": [None, Rle((9, 8), b"abc"), Rle((8, 9), b"")], "mask_source": [None, ""],
    "predicted_iou": [None, 0.0], "stability_score": [None, 0.26], "box_iou": [None, 0.5],
    "sam_predicted_iou": [None, 0.5], "soft_iou": [None, 0.75], "captions": [(), (CAPTION,)],
    "category_id": [17, 0], "area": [12.5, 0.0], "provenance": ["reviewed", "human"],
}  # fmt: skip
CAPTION_CHANGES = {
    "text": ["a dog ", ""], "source": ["human"], "score": [None, 0.5], "category_match": [None, False],
    "reasons": [(), ("low_score",)],
}  # fmt: skip


def test_every_change_of_a_value_gives_another_digest():
    """One field of one record at a time, in every record of the second sample; all digests differ from each other."""
    made = [SAMPLE, dataclasses.replace(SAMPLE, image_id=5)]
    variants = [made]
    for kind, changes in ((Sample, SAMPLE_CHANGES), (Annotation, ANNOTATION_CHANGES), (Caption, CAPTION_CHANGES)):
        assert changes.keys() == {field.name for field in dataclasses.fields(kind)}
    for name, values in SAMPLE_CHANGES.items():
        variants += [[made[0], dataclasses.replace(made[1], **{name: value})] for value in values]
    annotations = [dataclasses.replace(ANNOTATION, **{n: v}) for n, vs in ANNOTATION_CHANGES.items() for v in vs]
    captions = [dataclasses.replace(CAPTION, **{name: v}) for name, values in CAPTION_CHANGES.items() for v in values]
    annotations += [dataclasses.replace(ANNOTATION, captions=(CAPTION, caption)) for caption in captions]
    variants += [[made[0], dataclasses.replace(made[1], annotations=(ANNOTATION, a))] for a in annotations]
    variants += [made[:1], made[::-1], []]
    assert len({digest(variant) for variant in variants}) == len(variants)


def test_a_column_that_holds_nothing_does_not_count():
    """So a later release may add nullable columns, and older shards keep their digests."""
    plain = dataclasses.replace(ANNOTATION, sam_predicted_iou=None, soft_iou=None, captions=())
    table = table_from_samples([dataclasses.replace(SAMPLE, annotations=(plain,), neg_categories=None)])
    before = content_digest(table)
    later = table.append_column("licence", pa.nulls(1, pa.string()))
    later = later.append_column("links", pa.array([[]], pa.list_(pa.string())))
    assert content_digest(later) == before
    older = table.drop_columns(["neg_categories"])
    struct = older["annotations"].combine_chunks().flatten()
    kept = [f.name for f in struct.type if f.name not in ("sam_predicted_iou", "soft_iou", "captions")]
    poorer = pa.StructArray.from_arrays([struct.field(name) for name in kept], names=kept)
    place = older.schema.get_field_index("annotations")
    assert content_digest(older.set_column(place, "annotations", pa.ListArray.from_arrays([0, 1], poorer))) == before
    assert content_digest(table.append_column("licence", pa.array(["CC0"]))) != before


def test_a_shard_of_an_older_release_has_the_digest_of_its_samples():
    """It lacks the columns that were added since."""
    table = pq.read_table(GOLDEN)
    assert set(SCHEMA.names) - set(table.schema.names)
    made = [sample for batch in table.to_batches() for sample in samples_from_batch(batch)]
    assert content_digest(table) == digest(made)


def test_the_digest_never_changes():
    """Every shard's footer holds it: another algorithm would call all of them damaged."""
    assert content_digest(pq.read_table(GOLDEN)) == "c23226c527be96f093923621a8fcf4166f43537de917626b3ccac58548124980"
    assert digest([]) == "935725c05f03572657347136afad9c55aabecbdfd981c52050dbcffd00419f79"


def test_a_type_without_a_digest_is_named():
    table = pa.table({"when": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))})
    with pytest.raises(pa.ArrowInvalid, match="'when' is of the unknown type map"):
        content_digest(table)
