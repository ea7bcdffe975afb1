"""What an annotation says about the origin of its mask: parsed, packed, and applied."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.formats.readers._mask_origin import (
    ORIGIN_MEMBERS,
    MaskOrigin,
    apply_origin,
    find_machine_file,
    find_machine_masks,
    own_models,
    pack_origin,
    parse_origin,
    split_origin,
)
from synthgen.records.sample import PROVENANCES, Annotation, Caption, Rle, mask_provenance

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MASK = Annotation(1, (0.0, 0.0, 2.0, 2.0), "cat", segmentation=Rle((4, 4), b"04`0"), mask_source="human")


def record(**members: Any) -> SimpleNamespace:
    raw = {
        name: msgspec.Raw(msgspec.json.encode(members.pop(name))) if name in members else msgspec.Raw()
        for name in ("captions", "flags", "segmentation")
    }
    return SimpleNamespace(**{**dict.fromkeys(ORIGIN_MEMBERS), "id": 5, "image_id": 6, **raw, **members})


@given(st.dictionaries(st.sampled_from(ORIGIN_MEMBERS), JSON))
def test_any_members_give_values_that_can_be_stored(members: dict[str, Any]) -> None:
    origin = parse_origin(members)
    if origin is None:
        return
    payload = pack_origin(origin, b"[[1,2,3]]")
    assert payload is not None and split_origin(payload) == (origin, b"[[1,2,3]]")
    done = apply_origin(MASK, origin)
    assert mask_provenance(done) in PROVENANCES and done.mask_source
    for score in (done.predicted_iou, done.stability_score, done.box_iou):
        assert score is None or 0 <= score <= 1
    for caption in done.captions:
        caption.text.encode()
    done.mask_source.encode()


@pytest.mark.parametrize(
    ("members", "stated"),
    [
        ({}, None),
        ({"provenance": "ImageNet"}, None),
        ({"provenance": 3, "mask_source": ""}, None),
        ({"predicted_iou": 0.5}, None),
        ({"mask_source": "human"}, "human"),
        ({"mask_source": "sam vit_h"}, "machine"),
        ({"mask_source": "sam vit_h", "provenance": "reviewed"}, "reviewed"),
        ({"mask_source": "human", "provenance": "machine"}, "machine"),
        ({"provenance": "human"}, "human"),
    ],
)
def test_who_answers_for_a_mask(members: dict[str, Any], stated: str | None) -> None:
    origin = parse_origin(members)
    assert (origin.stated if origin else None) == stated
    if origin is not None:
        assert mask_provenance(apply_origin(MASK, origin)) == stated


def test_a_provenance_that_the_source_tells_is_not_stored() -> None:
    for source, given_, stored in (("human", "human", None), ("sam", "machine", None), ("sam", "reviewed", "reviewed")):
        origin = parse_origin({"mask_source": source, "provenance": given_})
        assert origin is not None and apply_origin(MASK, origin).provenance == stored


def test_captions_as_texts_and_as_objects() -> None:
    whole = {
        "text": "a cat",
        "source": "ofa base",
        "score": -0.5,
        "category_match": True,
        "reasons": ["low_score", "?"],
    }
    origin = parse_origin({"mask_source": "sam", "captions": ["a dog", whole, 7, {"source": "x"}, {"text": "b"}]})
    assert origin is not None
    assert origin.captions == (
        Caption("a dog", "file"),
        Caption("a cat", "ofa base", -0.5, True, ("low_score",)),
        Caption("b", "file"),
    )


def test_a_segmentation_alone_is_its_own_payload() -> None:
    assert pack_origin(None, b"[[1]]") == b"[[1]]" and split_origin(b"[[1]]") == (None, b"[[1]]")
    for nothing in (b"", b"null", b"[]", b"{}"):
        assert pack_origin(MaskOrigin(provenance="human"), nothing) is None


def test_masks_of_machines_are_found_with_examples() -> None:
    drawn = [record(segmentation=[[1]], mask_source="sam", id=number) for number in range(5)]
    others = [
        record(segmentation=[[1]]),
        record(segmentation=[[1]], mask_source="human"),
        record(segmentation=[[1]], mask_source="sam", provenance="reviewed"),
        record(mask_source="sam"),  # without a mask
        record(segmentation=[], mask_source="sam"),
    ]
    assert find_machine_masks("a.json", others) is None
    found = find_machine_masks("a.json", others + drawn)
    assert found is not None and (found.code, found.unit, found.count) == ("machine_masks", "masks", 5)
    assert found.examples[0] == ("a.json", "annotation 0 of image 6 has a mask by sam") and len(found.examples) == 3


@pytest.mark.parametrize(
    ("info", "count"),
    [
        (None, 0),
        ("x", 0),
        ({"synthgen": "x"}, 0),
        ({"description": "x"}, 0),
        ({"synthgen": {"provenance": {"human": 3}}}, 0),
        ({"synthgen": {"provenance": {"machine": 0, "human": 3}}}, 0),
        ({"synthgen": {"provenance": {"machine": 7}}}, 7),
        ({"synthgen": {"layer": "a/b/c"}}, 1),
    ],
)
def test_an_export_says_it_in_its_info(info: Any, count: int) -> None:
    found = find_machine_file("a.json", info)
    assert (found.count if found else 0) == count


def test_the_models_of_an_export() -> None:
    assert own_models({"synthgen": {"models": ["sam", 3, "", "lite"]}}) == ("sam", "lite")
    assert own_models({"synthgen": {"models": math.nan}}) == () == own_models([])
