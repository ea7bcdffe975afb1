"""The end of the process where a plugin still runs, or hangs, in a thread."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def end_despite_running_batches(command: Callable[P, None]) -> Callable[P, None]:
    """Decorate the program: where it ends beside a running batch, end the process at once, with the same exit code.

    Python would wait for the threads that a plugin has started itself, and cannot stop them.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        code = 0
        try:
            command(*args, **kwargs)
        except BaseException as end:
            if not _is_batch_running():
                raise
            code = _exit_code(end)
        if _is_batch_running():
            _flush()
            os._exit(code)

    return run


def _is_batch_running() -> bool:
    if threading.active_count() == 1:  # so that `--help` imports nothing more
        return False
    from synthgen.generate.batch_threads import is_batch_running

    return is_batch_running()


def _exit_code(end: BaseException) -> int:
    """The exit code that Python gives an exception; prints what Python prints."""
    if isinstance(end, SystemExit) and (end.code is None or isinstance(end.code, int)):
        return end.code or 0
    if isinstance(end, SystemExit):
        sys.stderr.write(f"{end.code}\n")
    else:
        traceback.print_exception(end)
    return 1


def _flush() -> None:
    """Write what is buffered, as Python does at its end."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
