"""`stream_records` reads what `json.load` reads: any JSON, order and spacing, in chunks of any size."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.formats.readers import _coco_json, _json_window
from synthgen.formats.readers._coco_json import stream_records


class Loose(msgspec.Struct):
    """Any record at all."""

    id: Any = None
    bbox: Any = None
    text: Any = None


class Strict(msgspec.Struct):
    id: int
    bbox: list[float] = []


KEYS = ("images", "annotations", "categories")
LOOSE = dict.fromkeys(KEYS, Loose)
SAME_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def collected(path: Path, wanted: dict[str, type], **options: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key, batch in stream_records(path, wanted, **options):
        found.setdefault(key, []).extend(batch)
    return found


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# Texts that look like structure, and letters that are escaped or take several bytes.
texts = st.text(alphabet=st.sampled_from('},{ []":\\\n\té漢😀ab'), max_size=12)
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
scalars = numbers | texts | st.booleans() | st.none()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
records = st.fixed_dictionaries(
    {}, optional={"id": scalars, "bbox": st.lists(numbers, max_size=4), "text": texts, "},{": values, "other": values}
)
blanks = st.text(alphabet=" \t\n\r", max_size=3)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[tuple[str, Any]]]:
    """A JSON text, and its top-level members in order; keys may be there twice."""
    members = draw(
        st.lists(
            st.tuples(st.sampled_from(KEYS), st.lists(records, max_size=6))
            | st.tuples(texts.filter(lambda key: key not in KEYS), values),
            max_size=6,
        )
    )
    ascii_only = draw(st.booleans())

    def written(value: Any) -> str:
        gap = draw(blanks)
        separators = (f"{gap},{draw(blanks)}", f"{draw(blanks)}:{gap}")
        text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
        return f"{draw(blanks)}{text}{draw(blanks)}"

    body = ",".join(f"{draw(blanks)}{json.dumps(key)}{draw(blanks)}:{written(value)}" for key, value in members)
    return draw(blanks) + "{" + body + draw(blanks) + "}" + draw(blanks), members


@SAME_FILE
@given(documents(), st.sampled_from([1, 2, 3, 7, 64, 2**19]), st.booleans())
def test_stream_reads_what_json_reads(tmp_path, document, chunk, bom):
    text, members = document
    json.loads(text)
    expected: dict[str, list[Any]] = {}
    for key, value in members:
        if key in KEYS:
            expected.setdefault(key, []).extend(value)
    path = file(tmp_path, b"\xef\xbb\xbf" * bom + text.encode())
    found = collected(path, LOOSE, chunk_bytes=chunk)
    assert list(found) == list(expected)
    for key, theirs in expected.items():
        ours = [(record.id, record.bbox, record.text) for record in found[key]]
        assert ours == [(r.get("id"), r.get("bbox"), r.get("text")) for r in theirs]


@SAME_FILE
@given(st.lists(records, max_size=8), st.sampled_from([1, 5, 2**19]))
def test_a_file_that_is_an_array_itself(tmp_path, elements, chunk):
    path = file(tmp_path, json.dumps(elements))
    assert [r.id for r in collected(path, {"": Loose}, chunk_bytes=chunk)[""]] == [e.get("id") for e in elements]


@SAME_FILE
@given(documents(), st.data())
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path, document, data):
    """Cut off, or with a byte changed: `SynthgenError` or records, never another exception; never silence on a cut."""
    whole = document[0].strip().encode()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = data.draw(st.none() | st.integers(0, 255))
    damaged = whole[:place] if changed is None else whole[:place] + bytes([changed]) + whole[place + 1 :]
    path = file(tmp_path, damaged)
    try:
        collected(path, LOOSE, chunk_bytes=data.draw(st.sampled_from([1, 4, 2**19])))
    except SynthgenError as why:
        assert str(path) in str(why) and "\n" not in str(why)
    else:
        assert changed is not None


@pytest.mark.parametrize("real", ["coco_tiny/annotations/instances_val2017.json", "lvis_excerpt/lvis_val_100.json"])
@pytest.mark.parametrize("chunk", [1000, 50_000, 2**19])
def test_real_files(shared, real, chunk):
    path = shared(f"data/{real}")
    content = json.loads(path.read_text())
    found = collected(path, LOOSE, chunk_bytes=chunk)
    for key in KEYS:
        assert [(r.id, r.bbox) for r in found[key]] == [(r["id"], r.get("bbox")) for r in content[key]]


def test_the_usual_file_goes_the_fast_way(tmp_path, monkeypatch):
    """Only the end of an array is looked at record by record."""
    path = file(tmp_path, json.dumps({"annotations": [{"id": i, "bbox": [1.5] * 4} for i in range(20_000)]}))
    exact = []
    monkeypatch.setattr(
        _coco_json, "_record_spans", lambda *a, _way=_coco_json._record_spans: exact.append(1) or _way(*a)
    )
    assert len(collected(path, {"annotations": Strict}, chunk_bytes=2**16)["annotations"]) == 20_000
    assert len(exact) == 1


def test_numbers_in_quotes_and_not_a_number_pass(tmp_path):
    path = file(tmp_path, '{"annotations": [{"id": "12", "bbox": [NaN, Infinity, "3.5", 1]}, {"id": 13, "bbox": [1]}]}')
    first, second = collected(path, {"annotations": Strict})["annotations"]
    assert first.id == 12 and math.isnan(first.bbox[0]) and first.bbox[1:] == [math.inf, 3.5, 1.0]
    assert second.id == 13


def test_coerce_gets_what_does_not_fit(tmp_path):
    class Mended(msgspec.Struct):
        id: int

        @classmethod
        def coerce(cls, value: dict[str, Any]) -> Mended:
            if value.get("id") is None:
                raise ValueError("no id")
            return cls(-1)

    path = file(tmp_path, '{"annotations": [{"id": 1}, {"id": "2"}, {"id": [3]}]}')
    assert [r.id for r in collected(path, {"annotations": Mended})["annotations"]] == [1, -1, -1]
    path = file(tmp_path, '{"annotations": [{"id": 1}, {}]}')
    with pytest.raises(SynthgenError, match=r"record 2 of 'annotations' cannot be understood \(no id\), at byte 28"):
        collected(path, {"annotations": Mended})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"nothing where a JSON object with 'images', 'annotations', 'categories' should be, at byte 0"),
        ("  \n", r"nothing where a JSON object"),
        ("[1]", r"a JSON array where a JSON object"),
        ("hello", r"'h' where a JSON object"),
        ("\ufeff", r"nothing where"),
        ('{"images": [{"id": 1}', r"the file ends inside record 1 of 'images'"),
        ('{"images": [{"id": 1},', r"the file ends inside record [12] of 'images'"),
        ('{"images": [{"id": 1', r"the file ends inside record 1 of 'images'"),
        ('{"images": [{"id": "', r"the file ends inside record 1 of 'images'"),
        ('{"images": [{"id": 1},]}', r"'\]' where record 1 of 'images' or one of the next should begin, at byte 22"),
        ('{"images": [{"id": 1} {"id": 2}]}', r"'{' where , or \] should stand, at byte 22"),
        ('{"images": [{"id": 1,,}]}', r"record 1 of 'images' is no JSON"),
        ('{"images": [{"id": 1]}', r"'\]' that closes nothing"),
        ('{"images": [1, 2]}', r"'1' where record 1"),
        ('{"images": [null]}', r"'n' where record 1"),
        ('{"images": {}}', r"'{' where the array of 'images' should begin"),
        ('{"images": null}', r"'n' where the array of 'images' should begin"),
        ('{"images": []', r"the end of the file where , or } should stand"),
        ('{"images": []} {}', r"more text after the end of its JSON"),
        ('{"images": [], }', r"'}' where a key in quotes should stand"),
        ('{"info": [1, 2}', r"'}' that closes nothing"),
        ('{"info": }', r"'}' where a value should stand|closes nothing"),
        ('{"info": "abc', r"an unfinished string"),
        ('{"inf', r"an unfinished string"),
        ('{"info" 1}', r"'1' where : should stand"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 2**19])
def test_what_is_no_such_json_is_refused(tmp_path, text, sentence, chunk):
    path = file(tmp_path, text)
    with pytest.raises(SynthgenError, match=sentence) as why:
        collected(path, LOOSE, chunk_bytes=chunk)
    assert str(why.value).startswith(f"{path}: ")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = file(tmp_path, b'{"images": [{"id": 1, "text": "\xff\xfe"}]}')
    with pytest.raises(SynthgenError, match="record 1 of 'images' is not in UTF-8, at byte 31"):
        collected(path, LOOSE)
    with pytest.raises(SynthgenError, match="is text in UTF-16, not JSON; save it in UTF-8"):
        collected(file(tmp_path, '{"images": []}'.encode("utf-16")), LOOSE)


@pytest.mark.parametrize(
    ("text", "depth"),
    [('{"images": [{"x": %s}]}', 200_000), ('{"images": [{"text": %s}]}', 100_000), ('{"info": %s}', 200_000)],
)
def test_deep_nesting_is_refused(tmp_path, text, depth):
    path = file(tmp_path, text % ("[" * depth + "]" * depth))
    with pytest.raises(SynthgenError, match="nested"):
        collected(path, LOOSE)


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(SynthgenError, match=r"cannot read .*No such file"):
        collected(tmp_path / "none.json", LOOSE)
    with pytest.raises(SynthgenError, match=r"cannot read .*directory"):
        collected(tmp_path, LOOSE)


def test_a_record_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_json_window, "MAX_RECORD", 2**20)
    path = file(tmp_path, '{"images": [{"text": "' + "x" * 2**23 + '"}]}')
    with pytest.raises(SynthgenError, match="a value of more than 1 MiB"):
        collected(path, LOOSE, chunk_bytes=2**16)


def test_what_is_not_wanted_may_be_of_any_size(tmp_path, monkeypatch):
    """Strings, arrays and objects larger than a record may be are passed over in the memory of a few chunks."""
    monkeypatch.setattr(_json_window, "MAX_RECORD", 2**17)
    long = json.dumps("}],{" * 2**18)
    many = "[" + ",".join(['{"a": [1, {"b": "]}"}]}'] * 30_000) + "]"
    path = file(tmp_path, f'{{"a": {long}, "b": {{"c": {long}, "d": {many}}}, "images": [{{"id": 7}}]}}')
    tracemalloc.start()
    try:
        found = collected(path, LOOSE, chunk_bytes=2**14)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [record.id for record in found["images"]] == [7]
    assert path.stat().st_size > 2.5e6 and peak < 3e5


def test_progress_adds_up_to_the_file(tmp_path):
    path = file(tmp_path, json.dumps({"images": [{"id": i} for i in range(1000)], "info": "x" * 10_000}))
    read: list[int] = []
    collected(path, LOOSE, chunk_bytes=100, on_bytes=read.append)
    assert sum(read) == path.stat().st_size and len(read) > 10


def test_an_empty_array_is_reported_and_a_missing_one_is_not(tmp_path):
    assert collected(file(tmp_path, '{"images": [ ], "x": 1}'), LOOSE) == {"images": []}
