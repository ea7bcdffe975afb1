"""Hypothesis strategies for records: any sample that the schema can hold."""

from __future__ import annotations

from hypothesis import strategies as st

from synthgen.records.sample import ANNOTATION_FLAGS, CAPTION_REASONS, PROVENANCES, Annotation, Caption, Rle, Sample

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(0, 2**31 - 1)
NUMBER = st.floats(allow_nan=False, allow_infinity=True)
TEXT = st.text(max_size=12)  # all of Unicode but lone surrogates, which are no Unicode

reasons = st.lists(st.sampled_from(sorted(CAPTION_REASONS)), unique=True).map(lambda codes: tuple(sorted(codes)))
captions = st.builds(Caption, TEXT, TEXT, st.none() | NUMBER, st.none() | st.booleans(), reasons)
rles = st.builds(Rle, st.tuples(INT32, INT32), st.binary(max_size=20))
annotations = st.builds(
    Annotation,
    id=INT64,
    bbox=st.tuples(NUMBER, NUMBER, NUMBER, NUMBER),
    category=TEXT,
    iscrowd=st.booleans(),
    isthing=st.booleans(),
    flags=st.lists(st.sampled_from(sorted(ANNOTATION_FLAGS)), unique=True).map(lambda flags: tuple(sorted(flags))),
    segmentation=st.none() | rles,
    mask_source=st.none() | TEXT,
    predicted_iou=st.none() | NUMBER,
    stability_score=st.none() | NUMBER,
    box_iou=st.none() | NUMBER,
    sam_predicted_iou=st.none() | NUMBER,
    soft_iou=st.none() | NUMBER,
    captions=st.lists(captions, max_size=9).map(tuple),
    category_id=st.none() | INT64,
    area=st.none() | NUMBER,
    provenance=st.none() | st.sampled_from(sorted(PROVENANCES)),
)
names = st.lists(TEXT, max_size=3).map(tuple)
samples = st.builds(
    Sample,
    image_id=INT64,
    image_key=TEXT,
    file_name=TEXT,
    height=INT32,
    width=INT32,
    annotations=st.lists(annotations, max_size=4).map(tuple),
    error=st.none() | TEXT,
    neg_categories=st.none() | names,
    not_exhaustive_categories=names,
    license_id=st.none() | INT64,
)
