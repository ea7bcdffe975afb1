"""What every driver does with a Ray cluster: connect, show warnings, refuse temporary folders, name errors."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from synthgen import weights
from synthgen.errors import SynthgenError

#: Maximum bytes of Ray's temporary folder: the path of a socket has at most 107 bytes (103 on macOS). Ray needs 68 of
#: them, as in /ray/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store.
_MAX_FOLDER_BYTES = (107 if sys.platform == "linux" else 103) - 68

#: Environment variables of the driver that its workers get as well.
_FORWARDED_VARIABLES = ("PYTHONPATH", "SYNTHGEN_DATA", "SYNTHGEN_STORE", "OMP_WAIT_POLICY")

#: Seconds until a cluster must accept a connection. Ray itself would try for many minutes.
_CONNECT_SECONDS = 10

log = logging.getLogger(__name__)


def connect(*, log_to_driver: bool = True) -> None:
    """Connect to the cluster of `ray job submit`, of RAY_ADDRESS or of this machine, else start one on this machine.

    Args:
        log_to_driver: whether the driver shows what workers write to their standard output and error.

    Raises:
        SynthgenError: the cluster does not answer, refuses the connection, or cannot be started.
    """
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "include_dashboard": False}
    try:
        if address := os.environ.get("RAY_ADDRESS"):
            _check_reachable(address)
        elif _is_last_cluster_dead():
            options["address"] = "local"  # else Ray would try to join it
        with _sigterm_handler_kept():
            ray.init(log_to_driver=log_to_driver, **options)
    except (OSError, ValueError, RuntimeError, RayError) as why:
        raise SynthgenError(_describe_failure(first_message_line(why))) from why


def _check_reachable(address: str) -> None:
    """Raise OSError if the address is of the form HOST:PORT and nothing listens there."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


def _is_last_cluster_dead() -> bool:
    """Whether the file that `ray start` wrote names a cluster that was killed; `ray stop` removes the file."""
    try:
        address = (_temporary_folder() / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return False
    try:
        _check_reachable(address)
    except (OSError, ValueError) as why:
        with show_warnings():
            log.warning(
                "the Ray cluster %s of `ray start` is gone (%s): starting another on this machine; `ray stop` removes "
                "what is left of it",
                address,
                first_message_line(why),
            )
        return True
    return False


def _temporary_folder() -> Path:
    """The folder in which Ray makes its own."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def _describe_failure(reason: str) -> str:
    """The error message for a cluster that cannot be joined or started."""
    if address := os.environ.get("RAY_ADDRESS"):
        return (
            f"cannot join the Ray cluster {address} ({reason}); mend RAY_ADDRESS, or unset it to use this machine alone"
        )
    folder = _temporary_folder()
    if len(os.fsencode(folder)) > _MAX_FOLDER_BYTES:
        variable = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
        return (
            f"Ray cannot start, because the path of its sockets below {folder} ({variable}) is too long; set "
            f"RAY_TMPDIR to a folder of at most {_MAX_FOLDER_BYTES} characters, such as /tmp"
        )
    return (
        f"cannot start Ray on this machine ({reason}); check that {folder} and /dev/shm are writable and have space, "
        "and end an old cluster with `ray stop`"
    )


@contextlib.contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """Undo what `ray.init` does in the main thread: with its handler, SIGTERM ends the driver with exit code 15."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def show_warnings() -> Iterator[None]:
    """Show warnings of this package on the terminal while the block runs; the run's log has them in any case."""
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    package = logging.getLogger("synthgen.cluster")
    package.addHandler(terminal)
    try:
        yield
    finally:
        package.removeHandler(terminal)


def reject_temporary_dir(folder: Path, description: str, remedy: str) -> None:
    """Refuse results in the folder into which `ray job submit --working-dir` unpacks the code: Ray deletes it.

    Args:
        folder: absolute path.
        description: what the folder is, for the error.
        remedy: the option that names another folder.

    Raises:
        SynthgenError: `folder` lies in it.
    """
    if "runtime_resources" in folder.parts:
        raise SynthgenError(
            f"{description} {folder} lies in the job's working directory, which Ray deletes; give a folder that all "
            "nodes "
            f"share, by {remedy}"
        )


def worker_environment() -> dict[str, str]:
    """Return the environment variables that workers need."""
    own = {key: os.environ[key] for key in _FORWARDED_VARIABLES if key in os.environ}
    return own | {"SYNTHGEN_WEIGHTS": str(weights.weights_folder())}


def first_message_line(error: BaseException) -> str:
    """Return the first line of the message of `error`, shortened; its type's name where it has no message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
