"""Starts commands of synthgen in milliseconds: forks of a process that has imported torch and the program.

Each server has its own hash seed of Python, so that two commands of one round run under different ones, as real ones
do. Everything is computed on one thread. A server runs one command at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


class ForkServer:
    """A process that forks commands.

    Args:
        hash_seed: of Python.
        folder: where the server runs the command `warm` once itself, so that forks need not import anything.
    """

    def __init__(self, hash_seed: int, folder: Path, warm: Sequence[str]) -> None:
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
        folders = ("SYNTHGEN_DATA", "SYNTHGEN_STORE")
        environment = {key: value for key, value in os.environ.items() if key not in folders}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment | {"PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        )  # fmt: skip
        self._request(folder, warm, output=Path(os.devnull), warm=True)

    def start(self, folder: Path, words: Sequence[str], output: Path) -> int:
        """Start `synthgen WORDS` in a folder; returns its pid. What it says is appended to the file `output`."""
        return self._request(folder, words, output=output)

    def wait(self) -> int:
        """Wait for the command that was started; returns its exit code, negative for a signal."""
        return self._answer()

    def close(self) -> None:
        """End the server."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _request(self, folder: Path, words: Sequence[str], *, output: Path, warm: bool = False) -> int:
        request = {"folder": str(folder), "words": list(words), "output": str(output), "warm": warm}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def _serve() -> None:
    """The server: reads requests, one JSON a line; answers each with the pid of a fork, and later with its end."""
    import torch

    from synthgen.training.learner import SegmentationLearner

    torch.set_num_threads(1)
    # The pictures for TensorBoard take most of the time of a tiny training, and nothing compares them.
    SegmentationLearner.draw_predictions = lambda *_: []  # type: ignore[assignment, method-assign, return-value]
    for line in sys.stdin:
        request = json.loads(line)
        os.chdir(request["folder"])
        if request["warm"]:
            with contextlib.ExitStack() as silent:
                nothing = silent.enter_context(Path(os.devnull).open("w"))
                silent.enter_context(contextlib.redirect_stdout(nothing))
                silent.enter_context(contextlib.redirect_stderr(nothing))
                code = _run(request["words"])
            print(code, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            os.setsid()  # a signal to its group reaches its readers, too, as from a scheduler
            output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            nowhere = os.open(os.devnull, os.O_RDONLY)
            for ours, theirs in ((nowhere, 0), (output, 1), (output, 2)):
                os.dup2(ours, theirs)
            try:
                code = _run(request["words"])
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                traceback.print_exc()
                code = 70
            os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(words: Sequence[str]) -> int:
    from synthgen.cli.main import main

    sys.argv = ["synthgen", *words]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


if __name__ == "__main__":
    _serve()
