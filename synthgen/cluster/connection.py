"""What every driver does with a Ray cluster: join it, tell what is amiss, name folders that last."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.exceptions import RayError

from synthgen import weights
from synthgen.errors import SynthgenError

#: What the driver's environment says holds for its workers too.
_PASSED_ON = ("PYTHONPATH", "SYNTHGEN_DATA", "SYNTHGEN_STORE", "OMP_WAIT_POLICY")


def join(*, log_to_driver: bool = True) -> None:
    """Join the cluster that `ray job submit`, RAY_ADDRESS or this machine says, else start one of this machine alone.

    Args:
        log_to_driver: whether what workers write is shown here.

    Raises:
        SynthgenError: it is not there, or does not let us in.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or "of this machine"
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit() and "/" not in host:  # Ray itself would try for many minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(logging_level=logging.ERROR, include_dashboard=False, log_to_driver=log_to_driver)
    except (OSError, ValueError, RuntimeError, RayError) as why:
        raise SynthgenError(
            f"cannot join the Ray cluster {address} ({line_of(why)}); mend RAY_ADDRESS, or unset it to use this "
            "machine alone"
        ) from why


@contextlib.contextmanager
def warnings_told() -> Iterator[None]:
    """Show the porch's own warnings at once, beside what the run's log keeps."""
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    porch = logging.getLogger("synthgen.cluster")
    porch.addHandler(terminal)
    try:
        yield
    finally:
        porch.removeHandler(terminal)


def refuse_passing(folder: Path, what: str, remedy: str) -> None:
    """`ray job submit --working-dir` unpacks the code into a folder that Ray deletes: no place for results.

    Raises:
        SynthgenError: `folder` lies in it.
    """
    if "runtime_resources" in folder.parts:
        raise SynthgenError(
            f"{what} {folder} lies in the job's working directory, which Ray deletes; give a folder that all nodes "
            f"share, by {remedy}"
        )


def environment() -> dict[str, str]:
    """Variables that workers need."""
    own = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    return own | {"SYNTHGEN_WEIGHTS": str(weights.folder())}


def line_of(why: BaseException) -> str:
    """What it says first."""
    return next((line.strip() for line in str(why).splitlines() if line.strip()), type(why).__name__)[:200]
