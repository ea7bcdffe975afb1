"""YAML of exporters: plain texts, lists and mappings; everything else is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synthgen.errors import SynthgenError
from synthgen.formats.readers import _plain_yaml
from synthgen.formats.readers._plain_yaml import read_plain_yaml


def read(tmp_path: Path, text: str | bytes) -> Any:
    (tmp_path / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_plain_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("a: 1\nb: [no, 007, ~, 1e-3, 'x']", {"a": "1", "b": ["no", "007", "~", "1e-3", "x"]}),
        ("names:\n  0: cat\n  1: ' dog '\nempty:\n", {"names": {"0": "cat", "1": " dog "}, "empty": ""}),
        ("- a\n- {b: c}\n", ["a", {"b": "c"}]),
        ("a: 1\na: 2\n", {"a": "2"}),
        ("\ufeffa: é # comment\n", {"a": "é"}),
        ("", ""),
        ("word", "word"),
        ("a: ! b", {"a": "b"}),
    ],
)
def test_every_scalar_is_its_text(text: str, content: Any, tmp_path: Path) -> None:
    assert read(tmp_path, text) == content


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: !!python/object/apply:os.system ['touch x']", "tag"),
        ("a: &x [1]\nb: *x", "alias"),
        ("a: [1", "line"),
        ("? [a, b]\n: 1", "key"),
        ("a: 1\n---\nb: 2", "second document"),
        ("[" * 40 + "]" * 40, "nested"),
        ('a: "\\0"', "control character"),
        (b"a: \xff", "UTF-8"),
    ],
)
def test_other_yaml_is_refused_in_one_sentence(text: str | bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SynthgenError) as why:
        read(tmp_path, text)
    assert reason in str(why.value) and "\n" not in str(why.value)


def test_a_large_file_and_no_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plain_yaml, "MAX_BYTES", 1024)
    with pytest.raises(SynthgenError, match="larger than 1 KiB"):
        read(tmp_path, "a: " + "b" * 2_000)
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(SynthgenError, match="not a file"):
            read_plain_yaml(path)
