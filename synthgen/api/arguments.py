"""Arguments that functions of the Python API share, checked and in the form that the packages below take."""

from __future__ import annotations

import math
import os
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from synthgen.errors import ArgumentError, shorten_value
from synthgen.generate.dataset_spec import DatasetRequest
from synthgen.progress import NoProgress, OpenProgress, TerminalProgress
from synthgen.storage.disk import check_path, default_store

# As the command line does, before anything imports torch: threads of one step that wait for each other busily take the
# cores that others need to come on.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_NumberT = TypeVar("_NumberT", float, float | None)
_CountT = TypeVar("_CountT", int, int | None)

#: A path of a file or folder on this machine.
PathLike = str | os.PathLike[str]

#: False: nothing is shown. True: progress bars on standard error. Or a function that opens a progress bar.
Progress = bool | OpenProgress


def dataset_request(
    path: PathLike | None,
    dataset: str | None,
    name: str | None,
    split: str | None,
    annotations: PathLike | None,
    images: PathLike | None,
    data: PathLike | None,
    *,
    match_names: bool,
    crowds_as_objects: bool,
) -> DatasetRequest:
    """What the arguments of a function say about a dataset.

    Args:
        path: the dataset's folder or annotation file; None = it is found below `data`.
        dataset: the name of a reader; None = the format is recognised.
        name: the dataset's name in the store; None = by its path or reader.
        split: one part of the dataset; None = all.
        annotations: the annotation file or folder of masks; None = at its usual place.
        images: the folder of the images; None = at its usual place.
        data: the folder of the datasets; None = the environment variable SYNTHGEN_DATA, or `data`.
        match_names: whether to take image files that are there under another form of their name.
        crowds_as_objects: whether to take annotations with `iscrowd` for single objects.

    Raises:
        ArgumentError: one is not a path, a name or a bool.
        SynthgenError: a path is a URL.
    """
    for argument, text in (("dataset", dataset), ("name", name), ("split", split)):
        if text is not None and (not isinstance(text, str) or not text):
            raise ArgumentError(f"{argument}={shorten_value(text)} is not a name; give one, or None")
    check_flag("match_names", match_names)
    check_flag("crowds_as_objects", crowds_as_objects)
    return DatasetRequest(
        path=check_path("path", path),
        dataset=dataset,
        name=name,
        split=split,
        data=check_path("data", data) or Path(os.environ.get("SYNTHGEN_DATA") or "data"),
        annotations=check_path("annotations", annotations),
        images=check_path("images", images),
        match_names=match_names,
        crowds_as_objects=crowds_as_objects,
    )


def resolve_store(store: PathLike | None) -> Path:
    """The root of the shards: `store`, or for None the environment variable SYNTHGEN_STORE, or else `shards`."""
    return check_path("store", store) or default_store()


def check_number(
    argument: str, value: _NumberT, minimum: float, maximum: float | None = None, *, optional: bool = True
) -> _NumberT:
    """A number in [minimum, maximum], in a type of Python: numbers of numpy do not go into JSON.

    Args:
        argument: the argument's name, for the message.
        value: what the user gave.
        minimum: the least number that is valid.
        maximum: the largest number that is valid; None = no limit.
        optional: whether None passes.

    Raises:
        ArgumentError: with the range.
    """
    checked: _NumberT = _check_range(argument, value, minimum, maximum, kind=Real, what="a number", optional=optional)
    return checked


def check_count(argument: str, value: _CountT, minimum: int, *, optional: bool = True) -> _CountT:
    """A whole number of at least `minimum`, as an int of Python.

    Args:
        argument: the argument's name, for the message.
        value: what the user gave.
        minimum: the least number that is valid.
        optional: whether None passes.

    Raises:
        ArgumentError: with the minimum.
    """
    checked: _CountT = _check_range(
        argument, value, minimum, None, kind=Integral, what="a whole number", optional=optional
    )
    return checked


def _check_range(
    argument: str, value: Any, minimum: float, maximum: float | None, *, kind: type, what: str, optional: bool
) -> Any:
    if value is None and optional:
        return None
    limit = math.inf if maximum is None else maximum
    if not _is_number(value, kind) or not minimum <= value <= limit:  # false for NaN
        wanted = f"of at least {minimum:g}" if maximum is None else f"from {minimum:g} to {maximum:g}"
        raise ArgumentError(f"{argument}={shorten_value(value)} is not valid; give {what} {wanted}")
    return int(value) if isinstance(value, Integral) else float(value)


def _is_number(value: object, kind: type) -> bool:
    """Whether a value is a number of `numbers.Real` or `numbers.Integral`, as those of numpy are; not a bool."""
    return isinstance(value, kind) and not isinstance(value, bool)


def check_flag(argument: str, value: object) -> None:
    """Refuse what is neither True nor False: the text "no" counts as true.

    Args:
        argument: the argument's name, for the message.
        value: what the user gave.

    Raises:
        ArgumentError: it is not a bool.
    """
    if not isinstance(value, bool):
        raise ArgumentError(f"{argument}={shorten_value(value)} is not valid; give True or False")


def caption_options(
    top_k: int | None, min_score: float | None, forbidden: str | os.PathLike[str]
) -> dict[str, int | float | str]:
    """The options that all captioners share, those that the user gives; in the types that the command line gives them.

    Args:
        top_k: as in `generate_captions`.
        min_score: as in `generate_captions`.
        forbidden: as in `generate_captions`.

    Raises:
        ArgumentError: one is not valid.
    """
    top_k = check_count("top_k", top_k, 1)
    if min_score is not None and not (_is_number(min_score, Real) and -math.inf < min_score <= 0):
        raise ArgumentError(
            f"min_score={shorten_value(min_score)} is not valid; give a number of at most 0, such as -1.5: scores are "
            "mean log-probabilities of tokens"
        )
    if not isinstance(forbidden, str | os.PathLike):
        raise ArgumentError(
            f"forbidden={shorten_value(forbidden)} is not valid; give words with commas between them, or a file"
        )
    score = None if min_score is None else float(min_score)
    given = {"top_k": top_k, "min_score": score, "forbidden": os.fspath(forbidden) or None}
    return {name: value for name, value in given.items() if value is not None}


def check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices.

    Args:
        argument: the argument's name, for the message.
        value: what the user gave.
        choices: the values that are valid.

    Raises:
        ArgumentError: with the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise ArgumentError(f"{argument}={shorten_value(value)} is not valid; give {' or '.join(map(repr, choices))}")


def progress_opener(progress: Progress) -> OpenProgress:
    """The `OpenProgress` of the argument `progress`.

    Args:
        progress: what the user gave.

    Raises:
        ArgumentError: it is neither a bool nor a function.
    """
    if isinstance(progress, bool):
        return TerminalProgress if progress else NoProgress
    if not callable(progress):
        raise ArgumentError(
            f"progress={shorten_value(progress)} is not valid; give True, False or a function that opens a bar"
        )
    return progress
