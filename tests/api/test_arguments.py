"""Arguments that functions share: paths, numbers, choices, progress, and what they say about a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthgen.api import arguments
from synthgen.errors import ArgumentError, SynthgenError
from synthgen.generate.dataset_spec import DatasetRequest
from synthgen.progress import NoProgress, TerminalProgress


def test_a_url_is_not_a_path() -> None:
    with pytest.raises(SynthgenError, match=r"^gs://bucket/x is a URL"):
        arguments.resolve_store("gs://bucket/x")


def test_the_environment_names_store_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def data() -> Path:
        nothing = dict.fromkeys(("path", "dataset", "name", "split", "annotations", "images", "data"))
        return arguments.dataset_request(**nothing, match_names=False, crowds_as_objects=False).data  # type: ignore[arg-type]

    monkeypatch.delenv("SYNTHGEN_STORE", raising=False)
    monkeypatch.delenv("SYNTHGEN_DATA", raising=False)
    assert (arguments.resolve_store(None), data()) == (Path("shards"), Path("data"))
    monkeypatch.setenv("SYNTHGEN_STORE", "s")
    monkeypatch.setenv("SYNTHGEN_DATA", "d")
    assert (arguments.resolve_store(None), data()) == (Path("s"), Path("d"))
    assert arguments.resolve_store("own") == Path("own")


def test_a_request_holds_every_argument() -> None:
    found = arguments.dataset_request(
        "p", "coco", "n", "s", "a.json", "i", "d", match_names=True, crowds_as_objects=True
    )
    assert found == DatasetRequest(
        path=Path("p"), dataset="coco", name="n", split="s", annotations=Path("a.json"), images=Path("i"),
        data=Path("d"), match_names=True, crowds_as_objects=True,
    )  # fmt: skip


@pytest.mark.parametrize("value", [1, 2.5, 3, None])
def test_a_number_in_its_range_passes(value: Any) -> None:
    assert arguments.check_number("n", value, 1, 3) == value


@pytest.mark.parametrize("value", [np.float32(2.5), np.int64(2), np.float64(2)])
def test_a_number_of_numpy_becomes_one_of_python(value: Any) -> None:
    assert arguments.check_number("n", value, 1, 3) == value
    assert type(arguments.check_number("n", value, 1, 3)) in (int, float)
    assert type(arguments.check_count("n", np.int64(2), 1)) is int


def test_none_passes_only_where_the_argument_is_optional() -> None:
    with pytest.raises(ArgumentError, match=r"^n=None is not valid; give a number from 1 to 3$"):
        arguments.check_number("n", None, 1, 3, optional=False)
    with pytest.raises(ArgumentError, match=r"^n=None is not valid; give a whole number of at least 1$"):
        arguments.check_count("n", None, 1, optional=False)


@pytest.mark.parametrize("value", ["no", 1, None, np.bool_(True)])
def test_a_flag_is_true_or_false(value: Any) -> None:
    arguments.check_flag("n", False)
    with pytest.raises(ArgumentError, match=r"^n=.* is not valid; give True or False$"):
        arguments.check_flag("n", value)


def test_options_of_captions_have_the_types_of_the_command_line() -> None:
    found = arguments.caption_options(np.int64(3), -1, Path("words.txt"))  # type: ignore[arg-type]
    assert found == {"top_k": 3, "min_score": -1.0, "forbidden": "words.txt"}
    assert [type(value) for value in found.values()] == [int, float, str]
    assert arguments.caption_options(None, None, "") == {}


@pytest.mark.parametrize(
    ("top_k", "min_score", "forbidden", "sentence"),
    [
        ("3", None, "", r"^top_k='3' is not valid"),
        (None, "x", "", r"^min_score='x' is not valid; give a number of at most 0, such as -1\.5"),
        (None, float("nan"), "", r"^min_score=nan is not valid"),
        (None, -float("inf"), "", r"^min_score=-inf is not valid"),
        (None, 0.5, "", r"^min_score=0\.5 is not valid"),
        (None, None, ["a"], r"^forbidden=\['a'\] is not valid; give words with commas between them, or a file"),
    ],
)
def test_each_wrong_option_of_captions_has_its_sentence(
    top_k: Any, min_score: Any, forbidden: Any, sentence: str
) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        arguments.caption_options(top_k, min_score, forbidden)


@pytest.mark.parametrize("value", [0.99, 3.01, float("nan"), True, "2", [2]])
def test_a_number_beyond_its_range_is_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^n=.* is not valid; give a number from 1 to 3$"):
        arguments.check_number("n", value, 1, 3)


@pytest.mark.parametrize("value", [0, 1.0, 2.5, True, "2"])
def test_a_count_is_a_whole_number(value: Any) -> None:
    arguments.check_count("n", 1, 1)
    arguments.check_count("n", None, 1)
    with pytest.raises(ArgumentError, match=r"^n=.* is not valid; give a whole number of at least 1$"):
        arguments.check_count("n", value, 1)


def test_a_choice_is_one_of_its_values() -> None:
    arguments.check_choice("engine", "ray", ("local", "ray"))
    with pytest.raises(ArgumentError, match=r"^engine='rya' is not valid; give 'local' or 'ray'$"):
        arguments.check_choice("engine", "rya", ("local", "ray"))
    with pytest.raises(ArgumentError, match=r"^engine=.* is not valid"):
        arguments.check_choice("engine", np.zeros(2), ("local", "ray"))


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ArgumentError) as why:
        arguments.check_choice("engine", "x\n" * 10_000, ("local", "ray"))
    assert len(str(why.value)) < 150 and str(why.value).isprintable()


def test_progress_is_a_bool_or_a_function() -> None:
    assert arguments.progress_opener(False) is NoProgress
    assert arguments.progress_opener(True) is TerminalProgress
    assert arguments.progress_opener(NoProgress) is NoProgress
    with pytest.raises(ArgumentError, match=r"^progress=3 is not valid"):
        arguments.progress_opener(3)  # type: ignore[arg-type]
