"""Errors: exit codes, and one sentence for a machine at its limits."""

from __future__ import annotations

import errno
import os
import pickle
import threading

import numpy as np
import pyarrow as pa
import pytest
import torch

from synthgen.errors import (
    ArgumentError,
    BrokenWorkerError,
    FailedRunError,
    MultipleErrors,
    SynthgenError,
    describe_exhaustion,
    explain_missing_extra,
    job_has_started,
    shorten_value,
)


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code), "boxes.json")


MEMORY, THREADS, FILES = "the memory is used up", "starts no more threads", "too many files are open"


@pytest.mark.parametrize(
    ("why", "sentence"),
    [
        (MemoryError(), MEMORY),
        (pa.ArrowMemoryError("malloc of size 64 failed"), MEMORY),
        (os_error(errno.ENOMEM), MEMORY),
        (ImportError("libtorch.so: failed to map segment from shared object"), MEMORY),
        (ImportError("libtorch.so: cannot allocate memory in static TLS block"), MEMORY),
        (RuntimeError("can't start new thread"), THREADS),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), THREADS),
        (os_error(errno.EMFILE), FILES),
        (os_error(errno.ENFILE), FILES),
        (RuntimeError("unable to open shared memory object: Too many open files (24)"), FILES),
    ],
)
def test_a_machine_at_its_limits_is_a_sentence(why: Exception, sentence: str) -> None:
    told = describe_exhaustion(why)
    assert told is not None and sentence in told and "; " in told and "run the same command again" in told


@pytest.mark.parametrize(
    "why",
    [
        os_error(errno.EACCES),
        OSError(errno.ENOENT, "no file", "Too many open files.json"),
        RuntimeError("shapes differ"),
        ValueError("can't start new thread"),
        ModuleNotFoundError("No module named 'yaml'"),
        SynthgenError("Too many open files"),
    ],
)
def test_other_errors_are_not(why: Exception) -> None:
    assert describe_exhaustion(why) is None


def test_the_libraries_say_what_is_expected() -> None:
    """What really comes of too little memory in numpy and torch."""
    for allocate in (lambda: np.empty(2**60, np.uint8), lambda: torch.empty(2**60, dtype=torch.uint8)):
        with pytest.raises((MemoryError, RuntimeError)) as why:
            allocate()
        assert describe_exhaustion(why.value) is not None


def test_a_thread_that_cannot_be_started(monkeypatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("can't start new thread")

    for name in ("_start_new_thread", "_start_joinable_thread"):  # until Python 3.12, and from 3.13 on
        if hasattr(threading, name):
            monkeypatch.setattr(threading, name, refuse)
    with pytest.raises(RuntimeError) as why:
        threading.Thread(target=print).start()
    assert THREADS in (describe_exhaustion(why.value) or "")


@pytest.mark.parametrize(
    ("why", "before"),
    [
        (SynthgenError("x"), 2),
        (MultipleErrors("two mistakes", ["a", "b"]), 2),
        (FailedRunError("x"), 1),
        (BrokenWorkerError("x"), 1),
    ],
)
def test_after_the_start_of_a_job_the_exit_code_is_1(why: SynthgenError, before: int) -> None:
    assert why.exit_code == before
    with pytest.raises(type(why)) as raised, job_has_started():
        raise why
    assert raised.value is why and why.exit_code == 1
    assert type(why)("y", ()).exit_code == before, "of this error alone"
    copy = pickle.loads(pickle.dumps(why))  # as it comes from a worker
    assert (type(copy), str(copy), copy.exit_code) == (type(why), str(why), 1)


def test_the_message_of_an_error_has_no_control_characters() -> None:
    for kind in (SynthgenError, FailedRunError):
        assert str(kind("two files have the name a\r\n\x1b[2J")) == r"two files have the name a\x0d\x0a\x1b[2J"
        assert str(pickle.loads(pickle.dumps(kind("a\n")))) == r"a\x0a"


def test_a_wrong_argument_is_a_value_error_too():
    why = pickle.loads(pickle.dumps(ArgumentError("limit=0 is not\x1b valid")))
    assert isinstance(why, SynthgenError) and isinstance(why, ValueError)
    assert str(why) == "limit=0 is not\\x1b valid" and why.exit_code == 2


def test_a_package_of_an_extra_is_named_and_no_other():
    with (
        pytest.raises(SynthgenError, match=r"^`synthgen train` needs the package scipy; install it: pip install '"),
        explain_missing_extra("`synthgen train`"),
    ):
        raise ModuleNotFoundError("No module named 'scipy.optimize'", name="scipy.optimize")
    with pytest.raises(ModuleNotFoundError), explain_missing_extra("`synthgen train`"):
        raise ModuleNotFoundError("No module named 'own'", name="own")


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), ("a\nb", "'a\\nb'"), ("x" * 200, f"'{'x' * 76}..."), (np.ones(2), "array([1., 1.])")]
)
def test_a_value_is_quoted_on_one_line_of_bounded_length(value, text):
    assert shorten_value(value) == text
