"""Arguments that functions of the Python API share, checked and in the form that the packages below take."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from synthgen.errors import ArgumentError, shorten_value
from synthgen.generate.dataset_spec import DatasetRequest
from synthgen.progress import NoProgress, OpenProgress, TerminalProgress
from synthgen.storage.disk import check_path

# As the command line does, before anything imports torch: threads of one step that wait for each other busily take the
# cores that others need to come on.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
        ArgumentError: one is not a path or not a text.
        SynthgenError: a path is a URL.
    """
    for argument, text in (("dataset", dataset), ("name", name), ("split", split)):
        if text is not None and not isinstance(text, str):
            raise ArgumentError(f"{argument}={shorten_value(text)} is not a text; give a name, or None")
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
    return check_path("store", store) or Path(os.environ.get("SYNTHGEN_STORE") or "shards")


def check_number(argument: str, value: object, minimum: float, maximum: float | None = None) -> None:
    """Refuse what is not a number in [minimum, maximum]; None passes.

    Args:
        argument: the argument's name, for the message.
        value: what the user gave.
        minimum: the least number that is valid.
        maximum: the largest number that is valid; None = no limit.

    Raises:
        ArgumentError: with the range.
    """
    _check_range(argument, value, minimum, maximum, kinds=(int, float), what="a number")


def check_count(argument: str, value: object, minimum: int) -> None:
    """Refuse what is not a whole number of at least `minimum`; None passes.

    Args:
        argument: the argument's name, for the message.
        value: what the user gave.
        minimum: the least number that is valid.

    Raises:
        ArgumentError: with the minimum.
    """
    _check_range(argument, value, minimum, None, kinds=(int,), what="a whole number")


def _check_range(
    argument: str, value: Any, minimum: float, maximum: float | None, *, kinds: tuple[type, ...], what: str
) -> None:
    if value is None:
        return
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or not minimum <= value <= (math.inf if maximum is None else maximum):  # false for NaN
        wanted = f"of at least {minimum:g}" if maximum is None else f"from {minimum:g} to {maximum:g}"
        raise ArgumentError(f"{argument}={shorten_value(value)} is not valid; give {what} {wanted}")


def check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices.

    Args:
        argument: the argument's name, for the message.
        value: what the user gave.
        choices: the values that are valid.

    Raises:
        ArgumentError: with the choices.
    """
    if value not in choices:
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
