"""The peak memory of this process, for tests of a bound; Linux only.

`getrusage` is of no use: a process that `subprocess` starts inherits the peak of its parent (`ru_maxrss`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc/self/status")


def peak_mib() -> float:
    """Peak resident memory since the start of the program or the last `measure_rise`, in MiB."""
    return _status("VmHWM")


@contextmanager
def measure_rise() -> Iterator[SimpleNamespace]:
    """Yield an object whose `mib` is, after the block, how far the peak in the block was above the memory before it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at the present value
    before, found = _status("VmRSS"), SimpleNamespace(mib=0.0)
    yield found
    found.mib = max(0.0, _status("VmHWM") - before)


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024
