"""Signals: each command ends cleanly with its exit code; ignored signals stay ignored; a second one ends at once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthgen.cli.signals import REPEAT_SECONDS, SignalExit, stop_on_signals

#: Runs a command whose work is replaced: it writes temporary files, says so, and sleeps. Some seconds pass in its
#: `finally`. Modules that import torch are replaced as a whole.
PROGRAM = """
import importlib, pathlib, sys, time, types
from synthgen.cli.main import main
from synthgen.storage.atomic import atomic_write, scratch_folder

module, function, cleanup = sys.argv[1], sys.argv[2], float(sys.argv[3])

def work(*args, **kwargs):
    here = pathlib.Path.cwd()
    with atomic_write(here / "file") as temporary, scratch_folder(here) as scratch:
        temporary.touch()
        (scratch / "part").touch()
        try:
            pathlib.Path("ready").touch()
            while True:
                time.sleep(0.01)
        finally:
            pathlib.Path("ends").touch()
            time.sleep(cleanup)

if module.startswith(("synthgen.training.", "synthgen.evaluation.")):
    sys.modules[module] = types.ModuleType(module)
    parent, _, name = module.rpartition(".")
    setattr(importlib.import_module(parent), name, sys.modules[module])
setattr(importlib.import_module(module), function, work)
sys.argv = ["synthgen", *sys.argv[4:]]
main()
"""

OWN = ("--dataset", "coco-json", "--annotations", "boxes.json")
TRAINED = ("--checkpoint", "best.pt", "--manifest", "m.yaml")

#: Command -> the module and function that do its work, and what is typed.
COMMANDS = {
    "ingest": ("synthgen.generate.input_layer", "ingest_spec", OWN),
    "doctor": ("synthgen.ingest.validation.validate", "validate_dataset", OWN),
    "masks": ("synthgen.generate.input_layer", "ensure_input_layer", (*OWN, "--images", ".")),
    "captions": ("synthgen.generate.input_layer", "ensure_input_layer", (*OWN, "--images", ".")),
    "status": ("synthgen.review.status", "format_status", ()),
    "verify": ("synthgen.review.verify", "verify_layer", ("a/b/c",)),
    "migrate": ("synthgen.review.show", "resolve_shards", ("a/b/c",)),
    "show": ("synthgen.review.show", "draw_layer", ("a/b/c",)),
    "check": ("synthgen.dataloading.manifest_check", "check_manifest", ("m.yaml",)),
    "evaluate": ("synthgen.evaluation.evaluate", "evaluate_checkpoint", TRAINED),
    "predict": ("synthgen.evaluation.predictor", "predict_file", ("photo.jpg", *TRAINED[:2])),
    "train": ("synthgen.training.trainer", "train", TRAINED[2:]),
    "ablate": ("synthgen.training.ablation", "ablate", TRAINED[2:]),
    "exclude": ("synthgen.dataloading.leakage.image_keys", "write_exclude_list", ("a/b/c", "--out", "list.txt")),
}
STOPPED = "stopped{}; what is committed stays, and the same command continues\n"
BEGINS_ANEW = "stopped{}; predict keeps nothing of an unfinished run, and the same command begins anew\n"


@contextlib.contextmanager
def working(folder: Path, command: str, *, cleanup: float = 0.0, **how: object) -> Iterator[subprocess.Popen[str]]:
    """A command in the middle of its work."""
    (folder / "boxes.json").write_text(json.dumps({"images": [], "annotations": []}))
    module, function, words = COMMANDS[command]
    process = subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, "-c", PROGRAM, module, function, str(cleanup), command, *words],
        **{"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, **how},
    )
    try:
        wait_for(folder / "ready", process)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f"no {path.name} after 60 s"
        time.sleep(0.01)


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".tmp") or path.name == "file")


@pytest.mark.parametrize(
    "command",
    [pytest.param(one, marks=pytest.mark.slow if one in ("train", "evaluate") else ()) for one in COMMANDS],
)
def test_sigterm_ends_each_command_cleanly(tmp_path: Path, command: str) -> None:
    with working(tmp_path, command) as process:
        assert len(left_over(tmp_path)) == 2
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    sentence = BEGINS_ANEW if command == "predict" else STOPPED
    assert (process.returncode, told) == (143, sentence.format(" (SIGTERM)"))
    assert left_over(tmp_path) == []


def test_an_exit_that_ray_makes_of_a_signal_has_the_signals_code(typed, monkeypatch) -> None:
    """Its `ray.wait` raises SystemExit(1) instead of the exception of the handler."""
    from synthgen.review import status

    def work(*args: object, **kwargs: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except SystemExit:
            raise SystemExit(1) from None

    monkeypatch.setattr(status, "format_status", work)
    assert typed("status") == (143, "", STOPPED.format(" (SIGTERM)"))


@pytest.mark.parametrize(("number", "code", "how"), [(signal.SIGINT, 130, ""), (signal.SIGHUP, 129, " (SIGHUP)")])
def test_each_signal_has_its_exit_code(tmp_path: Path, number: signal.Signals, code: int, how: str) -> None:
    with working(tmp_path, "doctor") as process:
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (code, STOPPED.format(how))
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_an_ignored_signal_stays_ignored(tmp_path: Path, ignored: signal.Signals) -> None:
    """SIGHUP under `nohup`, SIGINT in a shell's background."""
    other = signal.SIGTERM if ignored != signal.SIGTERM else signal.SIGHUP
    with working(tmp_path, "status", preexec_fn=lambda: signal.signal(ignored, signal.SIG_IGN)) as process:
        process.send_signal(ignored)
        time.sleep(0.3)
        assert process.poll() is None and not (tmp_path / "ends").exists()
        process.send_signal(other)
        process.communicate(timeout=30)
    assert process.returncode == 128 + other


def test_nohup_keeps_a_command_running(tmp_path: Path) -> None:
    module, function, words = COMMANDS["status"]
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c", PROGRAM, module, function, "0", "status", *words],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        wait_for(tmp_path / "ready", process)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 143
    finally:
        process.kill()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_ends_at_once(tmp_path: Path, second: signal.Signals) -> None:
    with working(tmp_path, "status", cleanup=60.0) as process:
        process.send_signal(signal.SIGTERM)
        wait_for(tmp_path / "ends", process)
        time.sleep(REPEAT_SECONDS + 0.2)
        began = time.monotonic()
        process.send_signal(second)
        process.wait(timeout=30)
        assert time.monotonic() - began < 10
    assert process.returncode == 128 + second
    assert len(left_over(tmp_path)) == 2, "nothing was removed: the next run does it"


def test_a_signal_that_is_sent_twice_is_one_request(tmp_path: Path) -> None:
    """`timeout` sends it to the process and to its group."""
    with working(tmp_path, "status", cleanup=1.0) as process:
        process.send_signal(signal.SIGTERM)
        wait_for(tmp_path / "ends", process)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (143, STOPPED.format(" (SIGTERM)"))
    assert left_over(tmp_path) == []


def test_a_terminal_that_closes(tmp_path: Path) -> None:
    """The kernel sends SIGHUP, and every write to the terminal fails from then on."""
    parent, child = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(child, termios.TIOCSCTTY, 0)

    with working(
        tmp_path, "status", cleanup=0.2, stdin=child, stdout=child, stderr=child, preexec_fn=take_terminal
    ) as process:
        os.close(child)
        os.close(parent)
        process.wait(timeout=30)
    assert process.returncode == 129
    assert left_over(tmp_path) == []


def test_handlers_are_those_of_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(SignalExit) as why, stop_on_signals() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert (why.value.code, request.received) == (143, signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_command_that_ends_before_it_hears_of_the_signal_is_done(typed, monkeypatch) -> None:
    """What swallows the exception has finished its work."""
    from synthgen.review import status

    def work(*args: object, **kwargs: object) -> list[str]:
        with contextlib.suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        return ["done"]

    monkeypatch.setattr(status, "format_status", work)
    assert typed("status") == (0, "done\n", "")


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGTERM, SignalExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_that_comes_where_an_object_is_deleted_is_not_lost(number, ends, capsys) -> None:
    """Python only reports an exception there. The command went on, and the signal was lost."""

    class Deleted:
        def __del__(self) -> None:
            signal.raise_signal(number)

    with pytest.raises(ends), stop_on_signals() as request:
        for _ in range(2):  # the second one is the same request
            Deleted()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            time.sleep(0.01)
    assert request.received == number
    assert "Exception ignored" not in capsys.readouterr().err


def test_other_exceptions_are_reported_where_an_object_is_deleted(monkeypatch) -> None:
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(lost.exc_type))
    before = sys.unraisablehook

    class Deleted:
        def __del__(self) -> None:
            raise ValueError

    with stop_on_signals():
        Deleted()
    assert reported == [ValueError]
    assert sys.unraisablehook is before
