"""Runs mutated inputs through a reader in forked processes, and judges each: accepted, refused, or a finding.

An input is the pair (seed, number) and reproducible. A finding is anything but an answer or one sentence: another
exception, a signal, more than `MAX_SECONDS` of CPU time, silence, more than `MAX_MEMORY` of further memory, a write
outside the folder, an executed payload, or an answer that the reader's own check contradicts. A process that dies or
hangs is replaced, and the next input is taken.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import pickle
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from fakes.fuzz_mutators import CANARY, Mutator, mutator_for
from synthgen.errors import MultipleErrors, SynthgenError

MAX_SECONDS = 10.0  # of CPU time, which other processes of the machine do not stretch
MAX_MEMORY = 2**30
MAX_MESSAGE = 2_000  # characters of a sentence

#: Without a word for so long, in seconds, a child hangs and is killed.
_MAX_SILENCE = 6 * MAX_SECONDS

#: One child does so many inputs, so that a leak cannot grow without end and a fork costs little.
BATCH = 500

#: More address space than `MAX_MEMORY`: what is only reserved does not count, but nobody needs terabytes.
_ADDRESS_SPACE = 8 * 2**30

#: Share of inputs that are not mutated: their answer must be that of the original.
_UNCHANGED = 0.01

_WRITING_EVENTS = frozenset(
    ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
)
_RUNNING_EVENTS = frozenset(
    ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "pty.spawn")
)

Files = Mapping[str, bytes]


class WrongAnswerError(Exception):
    """A reader accepted an input, and an independent check gives another result."""


@dataclass(frozen=True, slots=True)
class FuzzTarget:
    """A reader to be fuzzed.

    Attributes:
        make_seeds: valid inputs, each a mapping of file names to contents; it may use the given empty folder.
        read: reads the files in a folder, checks the result, and returns something comparable and picklable.
        refusals: exceptions that are documented refusals, beside `SynthgenError`.
        mutable: names of the files that are mutated; empty = all.
        mutators: by file name, mutators instead of that for the suffix.
        protected: checksums protect the files: an accepted input gives the answer of the valid one, whatever changed.
    """

    name: str
    make_seeds: Callable[[Path], list[dict[str, bytes]]]
    read: Callable[[Path], Any]
    refusals: tuple[type[Exception], ...] = ()
    mutable: tuple[str, ...] = ()
    mutators: Mapping[str, Mutator] = field(default_factory=dict)
    protected: bool = False


@dataclass(slots=True)
class Finding:
    """Inputs with one cause: how many, the numbers of the first ones, and the last lines of the first traceback."""

    cause: str
    detail: str
    numbers: list[int] = field(default_factory=list)
    count: int = 0


@dataclass(slots=True)
class FuzzReport:
    """What a run found; `slowest` is (seconds, number), `largest` (bytes of further memory, number)."""

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)
    seconds: float = 0.0
    refusals: dict[str, int] = field(default_factory=dict)

    def add(self, number: int, verdict: str, detail: str = "", seconds: float = 0.0, memory: int = 0) -> None:
        """Count one input. `verdict` is "accepted", "refused", or the cause of a finding."""
        self.inputs += 1
        self.slowest = max(self.slowest, (seconds, number))
        self.largest = max(self.largest, (memory, number))
        if verdict == "accepted":
            self.accepted += 1
        elif verdict == "refused":
            self.refused += 1
            self.refusals[detail] = self.refusals.get(detail, 0) + 1
        else:
            found = self.findings.setdefault(verdict, Finding(verdict, detail))
            found.count += 1
            found.numbers = [*found.numbers, number][:5]


def fuzz(
    target: FuzzTarget,
    *,
    inputs: int,
    start: int = 0,
    seed: int = 0,
    seconds: float = float("inf"),
    keep: Path | None = None,
) -> FuzzReport:
    """Judge the inputs `start` to `start + inputs` of a target, as far as the seconds reach.

    Args:
        keep: write the files of the first input there.

    Raises:
        RuntimeError: a valid input is not accepted, so nothing can be concluded.
    """
    began = time.monotonic()
    report = FuzzReport(target.name)
    at = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=at) as name:
        scratch = Path(name).resolve()
        seeds, answers = _in_child(lambda: _prepare(target, scratch))
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            _write(make_input(target, seeds, seed, start)[1], keep)
        number, end = start, start + inputs
        while number < end and time.monotonic() - began < seconds:
            number = _run_batch(target, seeds, answers, range(number, min(number + BATCH, end)), seed, scratch, report)
    report.seconds = time.monotonic() - began
    return report


def make_input(target: FuzzTarget, seeds: list[Files], seed: int, number: int) -> tuple[int, dict[str, bytes]]:
    """Which of the seeds an input is made from (-1 - i for an unchanged one), and its files."""
    rng = random.Random(f"{target.name}/{seed}/{number}")
    place = rng.randrange(len(seeds))
    files = dict(seeds[place])
    if number < len(seeds):
        return -1 - number, dict(seeds[number])
    if rng.random() < _UNCHANGED:
        return -1 - place, files
    names = [name for name in files if not target.mutable or name in target.mutable]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        name = rng.choice(names)
        if rng.random() < 0.01:
            files.pop(name, None)
        elif name in files:
            files[name] = target.mutators.get(name, mutator_for(name))(files[name], rng)
    return place, files


def _prepare(target: FuzzTarget, scratch: Path) -> tuple[list[Files], list[Any]]:
    """The seeds and the answers to them."""
    logging.disable(logging.CRITICAL)
    folder = scratch / "seeds"
    folder.mkdir()
    seeds: list[Files] = [dict(one) for one in target.make_seeds(folder)]
    answers = []
    for files in seeds:
        (scratch / "in").mkdir(exist_ok=True)
        _write(files, scratch / "in")
        answers.append(target.read(scratch / "in"))
    return seeds, answers


def _in_child(make: Callable[[], Any]) -> Any:
    """The result of a function that runs in a child: threads that it starts do not disturb later forks."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(pickle.dumps(make()))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError("a valid input was not accepted; see the traceback above")
    return pickle.loads(content)


def _run_batch(
    target: FuzzTarget,
    seeds: list[Files],
    answers: list[Any],
    numbers: range,
    seed: int,
    scratch: Path,
    report: FuzzReport,
) -> int:
    """Run some inputs in a child; returns the number of the next input to be run."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(target, seeds, answers, numbers, seed, scratch, writer)
    os.close(writer)
    running, pending, killed = numbers.start - 1, b"", False
    while True:
        ready, _, _ = select.select([reader], [], [], _MAX_SILENCE)
        if not ready:
            killed = True
            os.kill(child, signal.SIGKILL)
            break
        fresh = os.read(reader, 2**16)
        if not fresh:
            break
        *lines, pending = (pending + fresh).split(b"\n")
        for line in lines:
            message = json.loads(line)
            running = message["number"]
            if "verdict" in message:
                report.add(**message)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    if killed:
        report.add(running, "hang", f"no answer for {_MAX_SILENCE:.0f} s", _MAX_SILENCE)
    elif status:
        told = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        report.add(running, f"process died: {told}", told)
    else:
        return numbers.stop
    return running + 1


def _child(
    target: FuzzTarget,
    seeds: list[Files],
    answers: list[Any],
    numbers: range,
    seed: int,
    scratch: Path,
    writer: int,
) -> NoReturn:
    code = 1
    try:
        work, inside = scratch / "work", scratch / "in"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        inside.mkdir(exist_ok=True)
        os.chdir(work)
        tempfile.tempdir = str(scratch)
        warnings.simplefilter("ignore")
        _silence_logs()
        limit = _status("VmSize") + _ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        clear_refs = os.open("/proc/self/clear_refs", os.O_WRONLY)
        trespasses = _watch(scratch)
        for number in numbers:
            _send(writer, {"number": number})
            try:
                place, files = make_input(target, seeds, seed, number)
                _write(files, inside)
            except Exception as why:
                _send(writer, {"number": number, "verdict": "the fuzzer failed", "detail": _cause(why)[1]})
                continue
            trespasses.clear()
            os.write(clear_refs, b"5")  # VmHWM, the peak, begins again at VmRSS
            before = _status("VmRSS")
            began = time.process_time()
            original = answers[-1 - place if place < 0 else place]
            verdict, detail = _judge(target, inside, original, changed=place >= 0)
            seconds, memory = time.process_time() - began, max(0, _status("VmHWM") - before)
            executed = [path for path in (work / CANARY, inside / CANARY) if os.path.exists(path)]  # noqa: PTH110
            if executed:
                verdict, detail = "a payload was executed", f"{CANARY} was made"
                for path in executed:
                    path.unlink()
            elif trespasses:
                verdict, detail = f"trespass: {trespasses[0]}", trespasses[0]
            elif verdict in ("accepted", "refused") and memory > MAX_MEMORY:
                verdict, detail = "memory", f"{memory / 2**20:,.0f} MiB"
            elif verdict in ("accepted", "refused") and seconds > MAX_SECONDS:
                verdict, detail = "slow", f"{seconds:.1f} s"
            told = {"number": number, "verdict": verdict, "detail": detail, "seconds": seconds, "memory": memory}
            _send(writer, told)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _judge(target: FuzzTarget, folder: Path, original: Any, *, changed: bool) -> tuple[str, str]:
    """(verdict, detail) of the files in a folder; `original` is the answer to the files before they were changed."""
    try:
        answer = target.read(folder)
    except (SynthgenError, *target.refusals) as why:
        if not isinstance(why, SynthgenError) and not _is_own(why, target):
            return _cause(why)
        told = str(why)
        sentences = told.splitlines() if isinstance(why, MultipleErrors) else [told]
        if not told.strip() or max(map(len, sentences)) > MAX_MESSAGE or any("\n" in one for one in sentences):
            return f"not one sentence: {_place(why)}", f"{len(told):,} characters: {told[:300]!r}"
        if not changed:
            return f"refuses a valid input: {_place(why)}", told[:300]
        return "refused", _place(why)
    except WrongAnswerError as why:
        return f"wrong answer: {str(why)[:60]}", str(why)[:2_000]
    except BaseException as why:
        return _cause(why)
    if (target.protected or not changed) and answer != original:
        what = "a damaged file" if changed else "a valid file"
        return f"another answer to {what}", _difference(str(answer), str(original))
    return "accepted", ""


def _difference(one: str, other: str) -> str:
    """Two texts around the first letter in which they differ."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"...{one[max(0, at - 150) : at + 150]}... instead of ...{other[max(0, at - 150) : at + 150]}..."


def _is_own(why: BaseException, target: FuzzTarget) -> bool:
    """Whether a documented exception was raised by us: not a subclass, and not by a library or a built-in function."""
    last = traceback.extract_tb(why.__traceback__)[-1]
    return (
        type(why) in target.refusals and f"{os.sep}synthgen{os.sep}" in last.filename and "raise" in (last.line or "")
    )


def _cause(why: BaseException) -> tuple[str, str]:
    text = "".join(traceback.format_exception(why))
    return f"{type(why).__name__} at {_place(why)}", text[-2_000:]


def _place(why: BaseException) -> str:
    """The innermost line of synthgen in a traceback."""
    frames = traceback.extract_tb(why.__traceback__)
    own = [frame for frame in frames if f"{os.sep}synthgen{os.sep}" in frame.filename] or frames[-1:]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "nowhere"


def _watch(scratch: Path) -> list[str]:
    """A list that gets a line for each write outside the scratch folder and each program or connection started."""
    found: list[str] = []
    allowed = (str(scratch), os.devnull)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else "r" not in str(mode)
            if not writes or isinstance(path, int):
                return
            paths: Iterable[Any] = (path,)
        elif event in _WRITING_EVENTS:
            paths = [one for one in arguments if isinstance(one, str | bytes | os.PathLike)]
        elif event in _RUNNING_EVENTS:
            found.append(f"{event} {str(arguments)[:200]}")
            return
        else:
            return
        for one in paths:
            path = os.path.realpath(os.fsdecode(one))
            if not path.startswith(allowed):
                found.append(f"{event} {path}")

    sys.addaudithook(hook)
    return found


def _silence_logs() -> None:
    logging.disable(logging.CRITICAL)
    faulthandler.disable()  # a death is reported by the parent
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if not os.environ.get("FUZZ_STDERR"):  # native libraries write there; a dying process says why
        os.dup2(nowhere, 2)


def _write(files: Files, folder: Path) -> None:
    """Make a folder hold these files and no others."""
    names = {Path(place, name) for place, _, own in os.walk(folder) for name in own}
    wanted = {folder / name: content for name, content in files.items()}
    for path in names - wanted.keys():
        path.unlink()
        for place in path.parents:  # a folder that is empty now goes, too, as if it had never been there
            if place == folder or any(place.iterdir()):
                break
            place.rmdir()
    for path, content in wanted.items():
        if path not in names:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _send(writer: int, message: dict[str, Any]) -> None:
    os.write(writer, json.dumps(message).encode() + b"\n")


def _status(key: str) -> int:
    """A number of bytes in /proc/self/status."""
    with open("/proc/self/status", "rb", buffering=0) as file:  # noqa: PTH123
        return 1024 * int(file.read().partition(f"{key}:".encode())[2].split(maxsplit=1)[0])
