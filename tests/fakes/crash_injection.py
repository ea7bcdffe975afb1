"""Runs a command of synthgen again and again, killed at its first change of a folder, at its second, and so forth.

`python fatal.py FOLDER REFERENCE COMMAND...`: the command writes below FOLDER, which is emptied before each round.
After each kill it runs undisturbed, and what lies there then must be what lies below REFERENCE: files of the same
names, shards of the same bytes. A line a round tells where it was killed; the exit code is 1 if one went wrong. If the
environment variable CRASH_INJECTION_START names a folder, each round begins with a copy of it.

Every round is a fork of a process that has imported the program, as starting it anew would take seconds. A change is
what Python's audit events tell of: a file opened to be written, a folder made, a name given or taken away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def run_in_fork(command: list[str]) -> int:
    """The command in a fork, silent; returns its exit code, negative for a signal."""
    return _forked(lambda: None, command)


def run_until_change(change: int, folder: Path, command: list[str], report_fd: int) -> int:
    """The same, killed just before its change number `change` below the folder; which one goes to the handle
    `report_fd`.
    """
    seen = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open":
            if not (isinstance(args[2], int) and args[2] & _WRITING):
                return
        elif event not in _CHANGES:
            return
        if not str(args[0]).startswith(f"{folder}/"):
            return
        seen += 1
        if seen == change:
            os.write(report_fd, f"{event} {args[0]}".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    return _forked(lambda: sys.addaudithook(hook), command)


def _forked(prepare: Callable[[], None], command: list[str]) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        prepare()
        sys.argv = ["synthgen", *command]
        from synthgen.cli.main import main

        main()
        code = 0
    except SystemExit as how:
        code = how.code if isinstance(how.code, int) else 1 if how.code else 0
    finally:
        os._exit(code)


def read_files(folder: Path) -> dict[str, bytes]:
    """All files by their names; of those that are not shards the names only: logs tell of times."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.suffix == ".parquet" else b""
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def main() -> int:
    folder, reference, command = Path(sys.argv[1]), read_files(Path(sys.argv[2])), sys.argv[3:]
    start = os.environ.get("CRASH_INJECTION_START")
    before = read_files(Path(start)) if start else {}

    for change in range(1, 10_000):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        if start:
            shutil.copytree(start, folder)
        reader, writer = os.pipe()
        code = run_until_change(change, folder, command, writer)
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as pipe:
            where = pipe.read()
        if not where:
            print(f"undisturbed with code {code} after {change - 1} kills")
            return code or int(read_files(folder) != reference)
        half = [
            name
            for name, value in read_files(folder).items()
            if value and value not in (reference.get(name), before.get(name))
        ]
        again = run_in_fork(command)
        found = read_files(folder)
        wrong = sorted({*half, *(name for name in {*found, *reference} if found.get(name) != reference.get(name))})
        print(
            f"{change}: {where.replace(str(folder), '')}: code {code}, then {again}; wrong: {', '.join(wrong) or '-'}"
        )
        if code != -signal.SIGKILL or again or wrong:
            return 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
