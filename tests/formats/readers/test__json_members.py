"""Members of a large JSON object, and elements of an array: one at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.formats.readers import _json_members
from synthgen.formats.readers._json_members import stream_items, stream_members

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, width=32),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def put(path: Path, content: object, **how: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content, **how), encoding="utf-8")
    return path


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=5), values, max_size=6), st.sampled_from([None, 1]), st.integers(1, 64))
def test_members_that_are_objects_come_as_python_reads_them(tmp_path_factory, content, indent, chunk):
    path = put(tmp_path_factory.getbasetemp() / "members.json", content, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json_members, "_CHUNK_BYTES", chunk)
        found = list(stream_members(path, "no such key \x00"))
    assert found == [(key, value) for key, value in content.items() if isinstance(value, dict)]


@settings(max_examples=60)
@given(st.lists(values, max_size=6), st.sampled_from([None, 1]), st.integers(1, 64))
def test_elements_come_as_python_reads_them(tmp_path_factory, content, indent, chunk):
    path = put(tmp_path_factory.getbasetemp() / "members.json", content, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json_members, "_CHUNK_BYTES", chunk)
        assert list(stream_items(path)) == [value if isinstance(value, dict) else {} for value in content]


def test_the_members_of_an_inner_object_come_instead_of_it(tmp_path):
    path = put(tmp_path / "x.json", {"a": {"x": 1}, "inner": {"b": {"y": 2}, "c": 3, "inner": {"z": 4}}, "d": {}})
    assert list(stream_members(path, "inner")) == [("a", {"x": 1}), ("b", {"y": 2}), ("inner", {"z": 4}), ("d", {})]
    assert list(stream_members(put(path, {"inner": {}}), "inner")) == list(stream_members(put(path, {}), "inner")) == []


def test_nan_and_half_a_surrogate_pair_are_read(tmp_path):
    [(_, value)] = stream_members(put(tmp_path / "x.json", '{"a": {"n": NaN, "s": "\\ud800"}}'), "")
    assert value["n"] != value["n"] and value["s"] == "\ud800"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a"}', '{"a": {"b": }}', '{"a": {}} 1', '{"a": {}', '{"a": {"b": 1]}', "nul"]
)
def test_broken_objects_are_refused_with_their_place(tmp_path, text):
    with pytest.raises(SynthgenError, match=r"x\.json: .*at byte"):
        list(stream_members(put(tmp_path / "x.json", text), ""))


@pytest.mark.parametrize("text", ["", "{}", "[", "[1 2]", "[{]", "[{}] 1", '[{"a": ]', "[1,]x", "[] ]", "[1] ]"])
def test_broken_arrays_are_refused_with_their_place(tmp_path, text):
    with pytest.raises(SynthgenError, match=r"x\.json: .*at byte"):
        list(stream_items(put(tmp_path / "x.json", text)))


def test_a_missing_file_is_refused(tmp_path):
    for stream in (stream_items(tmp_path / "x"), stream_members(tmp_path / "x", "")):
        with pytest.raises(SynthgenError, match=r"cannot read .*No such file"):
            list(stream)
