"""Pickles of plain data: equal to `pickle.load`; other pickles are refused without running them."""

from __future__ import annotations

import json
import math
import os
import pickle
import pickletools
import re
import resource
import subprocess
import sys
import textwrap
from collections import OrderedDict
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.formats.readers import _refer_pickle as refer_pickle
from synthgen.formats.readers._refer_pickle import load_plain_pickle

PROTOCOLS = range(6)


def loads(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return load_plain_pickle(path)


def refused(path: Path, content: bytes) -> str:
    """The one sentence that a pickle is refused with."""
    with pytest.raises(SynthgenError) as why:
        loads(path, content)
    sentence = str(why.value)
    assert "\n" not in sentence and str(path) in sentence and sentence.isprintable() and len(sentence) < 500
    return sentence


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "refs(unc).p"


# ------------------------------------------------------------------------------------------------------------ data

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(st.characters())
)
keys = st.text() | st.integers(-(2**63), 2**63 - 1) | st.none() | st.booleans() | st.floats(allow_nan=False)
data = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys, inner),
    max_leaves=40,
)


@given(data, st.sampled_from(PROTOCOLS), st.booleans())
@example([True, False, 1, 0, -1, 255, 256, 65536, 2**31, -(2**31), 2**62, 1e300, math.inf], 0, False)
@example(["", "'\"\\\n\0é🧍\ud800"], 0, False)
@example("x" * 300, 4, True)
@example([[1]] * 300, 4, False)  # memo places beyond a byte
def test_data_is_what_pythons_own_machine_makes_of_it(
    tmp_path_factory: pytest.TempPathFactory, made: Any, protocol: int, optimized: bool
) -> None:
    content = pickle.dumps(made, protocol)
    content = pickletools.optimize(content) if optimized else content
    path = tmp_path_factory.getbasetemp() / "made.p"
    assert repr(loads(path, content)) == repr(pickle.loads(content)) == repr(made)  # repr: 1 is not True, () not []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_real_files(shared, file, protocol):
    """As they are, and packed again by every protocol."""
    found = sorted(shared("data/refcoco_excerpt").glob("*/*.p"))
    assert len(found) == 5
    for path in found:
        content = json.loads(path.with_suffix(".json").read_text())
        assert load_plain_pickle(path) == content == loads(file, pickle.dumps(content, protocol))


@pytest.mark.parametrize(
    ("content", "value"),
    [  # as Python 2 wrote them: its `str` is bytes, its `long` has an L
        (b"S'left man'\np0\n.", "left man"),
        (b'S"the man\'s hat"\n.', "the man's hat"),
        (b"S'caf\\xc3\\xa9 \\n \\\\ \\''\n.", "café \n \\ '"),
        (b"S'caf\\xe9'\n.", "café"),
        (b"S''\n.", ""),
        (b"U\x04caf\xe9.", "café"),
        (b"U\x05caf\xc3\xa9.", "café"),
        (b"T\x04\x00\x00\x00caf\xe9.", "café"),
        (b"Vcaf\\u00e9 \xe9\n.", "café é"),
        (b"L12345678901234567890L\n.", 12345678901234567890),
        (b"L-5L\n.", -5),
        (b"I01\n.", True),
        (b"I00\n.", False),
        (b"I1\n.", 1),
        (b"F-1.5e3\n.", -1500.0),
        (b"\x8a\x00.", 0),
        (b"\x80\x02\x8a\x05\xff\xff\xff\xff\x00.", 2**32 - 1),
        (b"(lp0\n(dp1\nS'a'\nI1\nsa(I1\nI2\nlp2\nag1\na.", [{"a": 1}, [1, 2], {"a": 1}]),
        (b"(I1\n(I2\n1I3\nl.", [1, 3]),  # POP_MARK
        (b"(I1\n(0I3\nl.", [1, 3]),  # POP of a mark
        (b"(I1\nI2\n0I3\nl.", [1, 3]),  # POP
        (b"(I1\n2l.", [1, 1]),  # DUP
        (b"N.what follows is nobody's", None),
    ],
)
def test_old_pickles(file, content, value):
    found = loads(file, content)
    assert found == value and type(found) is type(value)
    theirs = pickle.loads(content, encoding="latin-1")
    assert found == theirs or theirs.encode("latin-1").decode() == found  # where it is UTF-8


def test_bytes_of_python_2_that_are_not_all_utf_8(file):
    assert loads(file, b"U\x0acaf\xc3\xa9 t\xeate.") == "café tête"


def test_a_list_may_hold_itself(file):
    found = loads(file, b"\x80\x02]q\x01(K\x01h\x01e.")
    assert found[0] == 1 and found[1] is found


# ----------------------------------------------------------------------------------------------------------- no data


class _Runs:
    """Executes a command when it is unpickled."""

    def __init__(self, call: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (call, arguments) if state is None else (call, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def _hostile(trace: Path) -> dict[str, bytes]:
    """Pickles that Python's own machine would make the file `trace` with, or try hard to."""
    shell = f"touch {trace}"
    made = {
        f"{name}, protocol {protocol}": pickle.dumps([{"sent": _Runs(*call)}], protocol)
        for name, call in {
            "os.system": (os.system, shell),
            "eval": (eval, f"open({str(trace)!r}, 'w')"),
            "exec": (exec, f"open({str(trace)!r}, 'w')"),
            "getattr": (getattr, "", "join"),
            "bytearray": (bytearray, 2**40),
            "subprocess": (subprocess.Popen, ["touch", str(trace)]),
        }.items()
        for protocol in PROTOCOLS
    }
    line = shell.encode()
    return made | {
        "GLOBAL": b"cos\nsystem\n(S'" + line + b"'\ntR.",
        "GLOBAL alone": b"cos\nsystem\n.",
        "INST": b"(S'" + line + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + line + b"'\no.",
        "NEWOBJ": b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04\x8c\x08builtins\x8c\x09bytearray\x93)}\x92.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(line)]) + line + b"\x85R.",
        "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
        "STACK_GLOBAL of nothing": b"\x80\x04\x93.",
        "a name that steers terminals": b"c\x1b[31mos\nsys\ntem\n.",
        "a name of a megabyte": b"c" + b"a" * 2**20 + b"\nb\n.",
        "REDUCE": b"K\x01)R.",
        "BUILD": b"}}b.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT2": b"\x80\x02\x83\x01\x00.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "PERSID": b"P1\n.",
        "BINPERSID": b"K\x01Q.",
        "BINBYTES": b"\x80\x03B\x01\x00\x00\x00x.",
        "SHORT_BINBYTES": b"\x80\x03C\x01x.",
        "BINBYTES8": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.",
        "BYTEARRAY8": b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00x.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "READONLY_BUFFER": b"\x80\x05N\x98.",
        "EMPTY_SET": b"\x80\x04\x8f.",
        "FROZENSET": b"\x80\x04(K\x01\x91.",
        "ADDITEMS": b"\x80\x04\x8f(K\x01\x90.",
        "EMPTY_TUPLE": b").",
        "TUPLE": b"(K\x01t.",
        "TUPLE1": b"\x80\x02K\x01\x85.",
        "TUPLE2": b"\x80\x02K\x01K\x02\x86.",
        "TUPLE3": b"\x80\x02K\x01K\x02K\x03\x87.",
    }


NAMES = list(_hostile(Path("x")))


@pytest.mark.parametrize("name", ["os.system, protocol 0", "os.system, protocol 5", "INST", "OBJ", "STACK_GLOBAL"])
def test_they_would_do_it(tmp_path, name):
    """Or the next test shows nothing."""
    pickle.loads(_hostile(tmp_path / "trace")[name])
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_executed(tmp_path, file, name):
    sentence = refused(file, _hostile(tmp_path / "trace")[name])
    assert "nothing was executed" in sentence or name in ("STACK_GLOBAL of nothing", "STACK_GLOBAL of numbers")
    assert not (tmp_path / "trace").exists()
    if name.startswith("os.system"):
        assert f"{os.system.__module__}.system" in sentence


@pytest.mark.parametrize(
    "made",
    [
        np.int64(5), np.array([1.5]), {1, 2}, frozenset([1]), b"bytes", bytearray(b"x"), 1j, Decimal(1),
        date(2020, 1, 1), OrderedDict(a=1), len, Path(), partial(print), range(3), ..., int, Exception("x"),
    ],
    ids=lambda made: type(made).__name__,
)  # fmt: skip
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_other_objects_are_refused(file, made, protocol):
    refused(file, pickle.dumps([{"ann_id": made}], protocol))


def test_it_imports_nothing(tmp_path):
    """In a process of its own, where every import and every call that Python audits is seen."""
    for place, content in enumerate(_hostile(tmp_path / "trace").values()):
        (tmp_path / f"{place}.p").write_bytes(content)
    code = f"""
        import sys, pathlib
        from synthgen.errors import SynthgenError
        from synthgen.formats.readers._refer_pickle import load_plain_pickle
        files = sorted(pathlib.Path({str(tmp_path)!r}).glob("*.p"))
        seen = []
        sys.addaudithook(lambda event, args: seen.append((event, args)) if not event.startswith("object.") else None)
        for file in files:
            try:
                load_plain_pickle(file)
            except SynthgenError:
                pass
        assert {{event for event, _ in seen}} <= {{"open"}}, seen
        print(len(files))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(NAMES))]


# --------------------------------------------------------------------------------------------- damaged, and too large


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truncated_anywhere(shared, file, protocol):
    made = json.loads(shared("data/refcoco_excerpt/refcocog/refs(umd).json").read_text())
    content = pickle.dumps(made, protocol)
    for end in range(0, len(content), 7 if protocol else 31):
        assert "take the file from the dataset's release" in refused(file, content[:end])


@given(st.binary(max_size=60))
@example(b"")
@example(b"\x80")
def test_any_bytes_are_data_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.p"
    path.write_bytes(content)
    try:
        load_plain_pickle(path)
    except SynthgenError as why:
        assert "\n" not in str(why)


@given(st.data())
def test_damaged_anywhere(tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject) -> None:
    content = bytearray(
        pickle.dumps([{"a": [1, "two", (3.0, None)], "b": "x" * 300}] * 3, draw.draw(st.integers(0, 5)))
    )
    for _ in range(draw.draw(st.integers(1, 4))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.p"
    path.write_bytes(content)
    try:
        load_plain_pickle(path)
    except SynthgenError as why:
        assert "\n" not in str(why)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "truncated"),
        (b".", "damaged"),
        (b"0.", "damaged"),
        (b"(.", "damaged"),
        (b"l.", "damaged"),
        (b"q\x00.", "damaged"),
        (b"h\x05.", "damaged"),
        (b"g5\n.", "damaged"),
        (b"K\x01K\x02a.", "damaged"),
        (b"K\x01(K\x02e.", "damaged"),
        (b"](K\x01K\x02u.", "damaged"),
        (b"}(K\x01u.", "damaged"),
        (b"(K\x01d.", "damaged"),
        (b"}]K\x01s.", "damaged"),
        (b"})K\x01s.", "the opcode EMPTY_TUPLE, and only lists"),
        (b"Ixyz\n.", "damaged"),
        (b"Lxyz\n.", "damaged"),
        (b"Fxyz\n.", "damaged"),
        (b"Sxyz\n.", "damaged"),
        (b"S'\n.", "damaged"),
        (b"S'\\x'\n.", "damaged"),
        (b"V\\uzzzz\n.", "damaged"),
        (b"X\x02\x00\x00\x00\xff\xff.", "damaged"),
        (b"X\xff\xff\xff\xffabc", "truncated"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc", "truncated"),
        (b"T\xff\xff\xff\xffabc", "truncated"),
        (b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "truncated"),
        (b"\x95\x03\x00\x00\x00\x00\x00\x00\x00N.", "truncated"),
        (b"I" + b"9" * 10_000 + b"\n.", "a number of 10,000 digits"),
        (b"L" + b"9" * 10_000 + b"L\n.", "a number of 10,001 digits"),
        (b"p" + b"9" * 10_000 + b"\n.", "a number of 10,000 digits"),
        (b"\x8b\x00\x00\x00\x01" + b"\x01" * 2**24, "a number of 16,777,216 bytes"),
        (b"\x8a\xff" + b"\x01" * 255 + b".", "a number of 255 bytes"),
        (b"\x80\x06N.", "damaged"),
        (b"\xff\xd8\xff\xe0", "damaged, or not a pickle"),
        (b"PK\x03\x04", "nothing was executed"),
        (b'[{"sent": 1}]', "damaged"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_sentence(file, content, sentence):
    assert re.search(sentence, refused(file, content))


def framed(size: int, body: bytes) -> bytes:
    return b"\x80\x04\x95" + size.to_bytes(8, "little") + body


#: The text at the end of the frame has 4 bytes for the scan, and takes the bytes after the frame for the unpickler.
PADDING = b"N0" * 9996
HIDDEN_TAIL = b"}" + b")" + b"\x85" * 300_000 + b"Ns."


@pytest.mark.parametrize(
    "content",
    [
        framed(len(PADDING) + 7, PADDING + b"X\4\0\0\0AA" + b"AA" + b"U\x02\x88." + b"N."),
        framed(
            len(PADDING) + 7,
            PADDING + b"X\4\0\0\0AA" + b"AA" + b"U\x05X" + len(HIDDEN_TAIL).to_bytes(4, "little") + HIDDEN_TAIL + b".",
        ),
        framed(len(PADDING) + 20, PADDING + b"\x95" + (4).to_bytes(8, "little") + b"N0N0" + b"N0" * 3 + b"N."),
        framed(3, b"I12\nN."),
    ],
    ids=["hidden opcodes", "a tuple that overflows the stack", "a frame in a frame", "a line over the end"],
)
def test_an_opcode_over_the_end_of_its_frame_is_refused(file, content):
    """The unpickler goes on after the frame there, with opcodes that no scan has seen."""
    assert "damaged" in refused(file, content)


@pytest.mark.parametrize("protocol", [4, 5])
def test_frames_of_python_are_read(file, protocol):
    value = {"refs": [{"id": i, "sent": "a red car " * (i % 50)} for i in range(3000)]}
    file.write_bytes(pickle.dumps(value, protocol))
    assert file.read_bytes().count(b"\x95") > 5
    assert load_plain_pickle(file) == value


def test_keys_with_equal_hashes_are_few(file):
    """Python hashes integers modulo 2**61 - 1; a dict of keys with one hash takes quadratic time."""
    keys = [k * (2**61 - 1) for k in range(1, 100)]
    assert "a number of 9 bytes" in refused(file, pickle.dumps(dict.fromkeys(keys), 2))
    text = "".join(f"L{key}L\nN" for key in [10**30])
    assert "digits" in refused(file, b"}" + text.encode() + b"s.")


def test_a_text_that_is_not_utf_8_is_decoded_in_two_parts():
    """One call of the error handler for each byte takes minutes for a large file."""
    error = UnicodeDecodeError("utf-8", b"a\xff\xc3\xa9", 1, 2, "invalid start byte")
    assert refer_pickle._decode_latin_1(error) == ("\xff\xc3\xa9", 4)


@pytest.mark.parametrize(
    "content", [b"Nr\xff\xff\xff\x7f0j\xff\xff\xff\x7f.", b"Np2147483647\n.", b"Nr\x02\x00\x00\x00."]
)
def test_a_place_of_the_memo_costs_nothing(file, content):
    """Python's unpickler makes a table that reaches up to the place: 32 GB for these 8 bytes."""
    assert "of the memo after 1 opcodes" in refused(file, content)


def test_a_deep_nest_breaks_no_stack(file):
    depth = 200_000
    found = loads(file, b"]" * depth + b"a" * (depth - 1) + b".")
    count = 0
    while found:
        (found,), count = found, count + 1
    assert count == depth - 1


@pytest.mark.parametrize("nest", [b"\x85" * 200_000, b"2\x86" * 60, b"(22t" * 60], ids=["deep", "doubled", "tripled"])
def test_tuples_that_cannot_be_hashed_are_refused(file, nest):
    """As keys, the first would overflow the stack of C, and the others would take years."""
    assert "and only lists, dicts" in refused(file, b"}N" + nest + b"Ns.")


def test_the_limits(file, monkeypatch):
    monkeypatch.setattr(refer_pickle, "MAX_OPCODES", 1000)
    assert "more than 1,000 opcodes" in refused(file, b"N0" * 1000 + b"N.")
    monkeypatch.setattr(refer_pickle, "MAX_BYTES", 1000)
    assert "more than the limit" in refused(file, b"N0" * 1000 + b"N.")


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(SynthgenError, match=r"cannot read .*check the path"):
        load_plain_pickle(tmp_path / "nowhere.p")
    with pytest.raises(SynthgenError, match=r"cannot read .*check the path"):
        load_plain_pickle(tmp_path)


@pytest.mark.parametrize(
    ("before", "again"), [("", "}"), ("](", "}\x94"), ("]", "2")], ids=["dictionaries", "kept", "doubled"]
)
def test_memory_is_bounded_by_the_opcodes(file, before, again):
    """The dearest opcodes, in a process that may have 1.5 GiB: 200 bytes an opcode, and Python."""
    file.write_bytes(before.encode("latin-1") + again.encode("latin-1") * (5_000_000 // len(again)) + b".")
    code = f"""
        import pathlib
        from synthgen.formats.readers._refer_pickle import load_plain_pickle
        print(type(load_plain_pickle(pathlib.Path({str(file)!r}))).__name__)
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, 3 * 2**29))

    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, env=environment, check=False)
    assert done.returncode == 0 and done.stdout.strip() in ("dict", "list"), done.stderr[-500:]
