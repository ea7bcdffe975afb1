"""Another process, which writes a temporary file and into a scratch folder until it is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAM = """
import os, pathlib, subprocess, sys
from synthgen.storage.atomic import atomic_write, scratch_folder
folder = pathlib.Path(sys.argv[1])
with atomic_write(folder / "file") as temporary, scratch_folder(folder) as scratch:
    temporary.write_bytes(b"half")
    (scratch / "part").write_bytes(b"half")
    # A child that inherits what it can, and outlives the writer.
    child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    sys.stdin.read()
    os._exit(1)  # as if it were killed
"""


@contextmanager
def writing_elsewhere(folder: Path, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A process that writes in `folder`; at the end it has been killed. `prefix`: a command that starts commands."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", PROGRAM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        child = writer.stdout.readline()
        assert child.strip().isdigit(), "the writer did not start"
        try:
            yield writer
        finally:
            writer.kill()
            if not prefix:
                subprocess.run(["kill", "-9", child.strip()], check=True)
