"""The YAML loader: hostile files, YAML 1.2, round trips with PyYAML."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from synthgen.dataloading import yaml_loader
from synthgen.dataloading.manifest import load_manifest
from synthgen.errors import SynthgenError

LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))

HOSTILE = [
    (
        "!!python/object/apply:os.system ['touch pwned']",
        r"has a tag \(tag:yaml.org,2002:python/object/apply:os.sys",
    ),
    ("name: !!python/name:os.system", r"has a tag .* in line 1"),
    ("name: !x y", r"has a tag \(!x\)"),
    ("name: !!binary aGFsbG8=", "has a tag"),
    ("name: ! x", r"has a tag \(!\)"),
    (LAUGHS, r"has an anchor or alias \(&a\) in line 1, and a manifest has none"),
    ("a: &b x\n", "has an anchor"),
    ("a: *b\n", "has an anchor or alias"),
    # PyYAML has a limit of its own since 6.0.4, which its C scanner reaches before the first event.
    ("[" * 100_000, "is nested 16 levels deep at line 1|is not valid YAML at line 1"),
    ("a:\n" + "".join(" " * i + "- - -\n" for i in range(1, 400)), "is nested 16 levels deep|is not valid YAML"),
    ("{a: " * 50_000, "is nested 16 levels deep|is not valid YAML at line 1"),
    ("? " * 50_000, "is nested 16 levels deep|a mapping as a key|is not valid YAML at line 1"),
    ("", "is empty, and a manifest is a mapping"),
    ("# only words\n", "is empty"),
    ("- a\n- b\n", "is a list, and a manifest is a mapping"),
    ("just words", "is a single value, and a manifest"),
    ("name: x\n\tseed: 1\n", r"is not valid YAML at line 2, column 1: it is indented by a tab; use blanks"),
    ("name: 'x", r"is not valid YAML at line \d+, column \d+: .*; fix it there"),
    ("name: {x", r"is not valid YAML at line"),
    ("name: x\n---\nname: y\n", "holds a second document at line 2"),
    ("? [a, b]\n: c\n", "has a list or a mapping as a key in line 1"),
    ("name: x\0y", "holds a control character in line 1"),
    ('name: x\nseed: "a\\0b"', "holds a control character in line 2"),
    ('name: "\\e[2J"', "holds a control character in line 1"),
    ("%YAML 9.9\n--- x", "is not valid YAML at line 1"),
    ("x" * (yaml_loader.MAX_BYTES + 1), "is larger than 256 KiB and is no manifest"),
]


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize(("text", "sentence"), HOSTILE, ids=[sentence[:30] for _, sentence in HOSTILE])
def test_hostile_yaml_is_a_sentence_and_executes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str, loader: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if not hasattr(yaml, loader):
        pytest.skip(f"PyYAML was built without {loader}")
    monkeypatch.setattr(yaml_loader, "_LOADER", getattr(yaml, loader))
    path = tmp_path / "m.yaml"
    path.write_text(text)
    begun = time.process_time()
    with pytest.raises(SynthgenError, match=sentence) as why:
        load_manifest(path)
    assert "\n" not in str(why.value)
    assert len(str(why.value)) < 500
    assert time.process_time() - begun < 2
    assert [p.name for p in tmp_path.iterdir()] == ["m.yaml"]


def test_yaml_is_of_its_later_version(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "a: no\nb: 1e-4\nc: 010\nd: 0o10\ne: 12:30\nf: 2020-01-01\ng: '1'\nh: ~\ni: .5\nj: -1_000\nk: +3.e2\nl: 1.2.3\n"
        "m: TRUE\nn: Yes\no: 0x1f\np: _1\nq: e5\nr: .\ns: '<<'\nt: =\nu: -.inf\n1: [2, {3: 4}]\n"
    )
    assert yaml_loader.load_yaml(path) == {
        **{"a": "no", "b": 1e-4, "c": 10, "d": "0o10", "e": "12:30", "f": "2020-01-01", "g": "1", "h": None, "i": 0.5},
        **{"j": -1000, "k": 300.0, "l": "1.2.3", "m": True, "n": "Yes", "o": "0x1f", "p": "_1", "q": "e5", "r": "."},
        **{"s": "<<", "t": "=", "u": float("-inf"), "1": [2, {"3": 4}]},
    }


_PLAIN = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text()
_TREES = st.recursive(_PLAIN, lambda some: st.lists(some) | st.dictionaries(st.text(), some), max_leaves=20)


@given(st.dictionaries(st.text(), _TREES))
def test_what_pyyaml_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]) -> None:
    """Whatever plain data: our reading of the events of a text is that of the data which it was made from."""
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    path.write_text(yaml.dump(tree, Dumper=PlainDumper, allow_unicode=True), encoding="utf-8")
    try:
        found = yaml_loader.load_yaml(path)
    except SynthgenError as why:
        assert "control character" in str(why) or "levels deep" in str(why)
        return
    assert found == tree


class PlainDumper(yaml.SafeDumper):
    """Quotes every text, and refers to nothing."""

    def ignore_aliases(self, data: object) -> bool:
        return True


PlainDumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
