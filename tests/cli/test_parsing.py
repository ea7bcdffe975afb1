"""Option values with a syntax of their own: `-O KEY=VALUE` and `--part I/N`."""

from __future__ import annotations

import re

import pytest

from synthgen.cli.parsing import parse_part, parse_plugin_options
from synthgen.errors import SynthgenError


def test_assignments_join_the_flags():
    flags = {"batch_size": 4}
    found = parse_plugin_options(["checkpoint=a=b.pth", "side=64", "empty="], flags)
    assert found == {"batch_size": 4, "checkpoint": "a=b.pth", "side": "64", "empty": ""}
    assert flags == {"batch_size": 4}, "the caller's dictionary has not changed"


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (["batch_size"], "-O batch_size should be KEY=VALUE, such as -O batch_size=4"),
        (["=4"], "-O  should be KEY=VALUE"),
        ([""], "-O  should be KEY=VALUE"),
        (["side=3", "side=4"], "side is given twice, the second time as -O side=4; leave one out"),
        (["zoom=no"], "zoom is given twice, the second time as -O zoom=no; leave one out"),
    ],
)
def test_each_wrong_assignment_is_an_error(assignments, sentence):
    with pytest.raises(SynthgenError, match=re.escape(sentence)):
        parse_plugin_options(assignments, {"zoom": True})


@pytest.mark.parametrize(("text", "part"), [("0/1", (0, 1)), ("3/8", (3, 8)), ("007/10", (7, 10))])
def test_a_part_is_two_numbers(text, part):
    assert parse_part(text) == part


@pytest.mark.parametrize("text", ["3/3", "0/0", "x", "", "1", "-1/3", "1/3/5", " 1/3", "1/3\n", "1.0/3", "\u0661/3"])
def test_each_wrong_part_is_an_error(text):
    with pytest.raises(SynthgenError, match=r"should be I/N with I from 0 to N-1, such as --part 0/8"):
        parse_part(text)
