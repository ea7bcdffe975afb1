"""Another process, which holds a lock file until it is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = """
import pathlib, sys
from synthgen.storage.locks import file_lock
with file_lock(pathlib.Path(sys.argv[1]), lock_timeout=0, timeout_message="", remedy=""):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def lock_held_elsewhere(path: Path) -> Iterator[None]:
    """It is held in the block; behind it, the process has been killed."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        try:
            yield
        finally:
            other.kill()
