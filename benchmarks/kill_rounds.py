"""Kill rounds: kills a command at random moments, types it again until it is done, and compares what it leaves.

    python benchmarks/kill_rounds.py [--command retry-failed|evaluate|ablate|train] [--rounds 50] [--seed 0]

Each kill is a SIGKILL, of the process alone or of its whole group. A round kills up to four processes. Then the result
must be that of a run that nothing disturbed, and no temporary file may be left:

retry-failed  `synthgen masks --retry-failed` over a layer with failed images: the bytes of all shards
evaluate      `synthgen evaluate`: the bytes of the results
ablate        `synthgen ablate`: the bytes of `ablation.json` and of all checkpoints, the results and logs without times
train         two `synthgen train` that compete for one folder, and a third when both are gone: the same of that folder

A round also fails if a command ends with another exit code than 0 where nobody killed it. So a lock that a killed
process keeps fails the round.

The moments follow from the seed, the command and the number of the round. A round with a difference stays in the
folder. The exit code is 1 if a round differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _fork_server import ROOT, ForkServer

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # for `fakes`

from fakes import coco_dataset, eval_dataset, mask_jobs, train_layers, training_runs  # noqa: E402
from resume_soak import contents as run_contents  # noqa: E402

from synthgen.storage.atomic import is_temporary_path  # noqa: E402

#: Kills of one round at most, where no two processes compete.
MAX_KILLS = 3
#: Seconds until a command counts as hanging.
COMMAND_SECONDS = 120

IMAGES = ["--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos"]
MASKS = ["masks", *IMAGES, "--segmenter", "fakes.failing_segmenter", "-O", "recovery_file=recovered", "-O",
         "batch_size=2", "--max-error-share", "0.5"]  # fmt: skip

EVALUATION = """
name: toy
store: store
eval: [{tasks}]
eval_size: [64, 96]
"""

ABLATION = """
name: toy
seed: 5
store: store
mixture:
  - {shards: toy/train/human, task: instance, ratio: 1, images: photos}
  - {shards: toy/train/masks, task: instance, ratio: 3, images: photos}
augment: {size: 32, scale: [0.5, 1.5]}
eval: [{shards: held/val/human, task: instance, images: held}]
eval_size: [32, 64]
model: {backbone: tiny, text_encoder: tiny, hidden_dim: 32, encoder_layers: 1, decoder_layers: 1, learnable_queries: 3,
  conditional_queries: 4}
schedule: {batch_size: 2, mask_points: 16, lr: 1.0e-3, warmup_steps: 0, steps: 2, checkpoint_every: 1}
dataloader: {num_workers: 0}
"""


@dataclass(frozen=True)
class Command:
    """A command to kill.

    Attributes:
        prepare: writes its input into an empty folder.
        words: the command, of which one follows for each round.
        contents: what it leaves in the folder that must not depend on kills.
        setup: commands that run once in the folder of the input, without kills.
        recover: whether the cause of failures is removed after `setup`.
        competes: whether two processes of it compete.
    """

    prepare: Callable[[Path], object]
    words: tuple[list[str], ...]
    contents: Callable[[Path], dict[str, Any]]
    setup: tuple[list[str], ...] = ()
    recover: bool = False
    competes: bool = False


def prepare_failed_masks(folder: Path) -> None:
    coco_dataset.write_coco_dataset(folder, images=24)
    for number in (2, 3, 9, 14, 17, 24):
        mask_jobs.redden(folder, number)


def prepare_evaluation(folder: Path) -> None:
    eval_dataset.write_eval_dataset(folder)
    tasks = ("instance", "panoptic", "semantic", "referring")
    sources = (f"{{shards: {eval_dataset.LAYER}, task: {task}, images: photos}}" for task in tasks)
    (folder / "m.yaml").write_text(EVALUATION.format(tasks=", ".join(sources)))
    eval_dataset.write_checkpoint(folder / "network.pt")


def prepare_ablation(folder: Path) -> None:
    def masked(number: int, dataset: str) -> Any:
        own = train_layers.annotation(number, mask_source="sam vit_b", predicted_iou=0.9)
        return train_layers.row(number, own, dataset=dataset)

    train_layers.commit(folder, 6)
    train_layers.commit(folder, 6, name="toy/train/masks", made=masked)
    train_layers.commit(folder, 3, name="held/val/human")
    (folder / "photos").rename(folder / "held")
    train_layers.commit(folder, 6)
    (folder / "m.yaml").write_text(ABLATION)


def prepare_training(folder: Path) -> None:
    training_runs.write_manifest_with_eval(folder, "steps: 4, checkpoint_every: 2, evaluate_every: 3")


def shards(folder: Path) -> dict[str, Any]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "shards").rglob("*.parquet")}


def evaluation(folder: Path) -> dict[str, Any]:
    return {"results.json": (folder / "results.json").read_bytes()}


def ablation(folder: Path) -> dict[str, Any]:
    files = [folder / "out/ablation.json", *(folder / "out").glob("*.yaml")]
    found: dict[str, Any] = {path.name: path.read_bytes() for path in files}
    for run in (folder / "out").glob("*-seed-*/"):
        found |= {f"{run.name}/{name}": content for name, content in run_contents(run).items()}
    return found


def training(folder: Path) -> dict[str, Any]:
    return run_contents(folder / "run")


def readers(words: list[str]) -> tuple[list[str], list[str]]:
    """A command without reader processes, and with two."""
    return [*words, "--loader-workers", "0"], [*words, "--loader-workers", "2"]


COMMANDS = {
    "retry-failed": Command(
        prepare_failed_masks, ([*MASKS, "--retry-failed"],), shards,
        setup=(["ingest", *IMAGES, "--shard-size", "4"], MASKS), recover=True,
    ),
    "evaluate": Command(
        prepare_evaluation,
        readers("evaluate --checkpoint network.pt --manifest m.yaml --out results.json --device cpu".split()),
        evaluation,
    ),
    "ablate": Command(
        prepare_ablation,
        readers("ablate --manifest m.yaml --out out --seeds 1 --device cpu".split()),
        ablation,
    ),
    "train": Command(
        prepare_training, readers("train --manifest m.yaml --out run --device cpu".split()), training,
        competes=True,
    ),
}  # fmt: skip


@dataclass
class Round:
    """What happened in a round: kills that ended a process, the longest command in seconds, and what went wrong."""

    kills: int = 0
    longest: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Running:
    """A command that runs on a server, to be killed after some seconds (None = not)."""

    def __init__(
        self, server: ForkServer, folder: Path, words: list[str], kill_after: float | None, rng: random.Random
    ) -> None:
        self._server, self._began = server, time.monotonic()
        self._output = folder / f"{rng.getrandbits(32):08x}.output"
        self._kill = os.killpg if rng.random() < 0.5 else os.kill
        self.is_killed = kill_after is not None
        self.pid = server.start(folder, words, self._output)
        seconds = COMMAND_SECONDS if kill_after is None else kill_after
        self._timer = threading.Timer(seconds, self._end)
        self._timer.start()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._kill(self.pid, signal.SIGKILL)

    def finish(self, into: Round) -> int:
        """Wait for its end, and note what went wrong; returns the exit code."""
        code = self._server.wait()
        self._timer.cancel()
        self._timer.join()
        seconds = time.monotonic() - self._began
        into.longest = max(into.longest, seconds)
        if code == -signal.SIGKILL and self.is_killed:
            into.kills += 1
        elif code:
            said = self._output.read_text(errors="replace").strip().splitlines()
            into.wrong.append(f"exit code {code} after {seconds:.1f} s: {said[-1] if said else ''}")
        return code


def kill_and_repeat(
    servers: list[ForkServer], folder: Path, words: list[str], rng: random.Random, typical: float
) -> Round:
    """Start the command until it is done, and kill it up to `MAX_KILLS` times."""
    done, kills = Round(), rng.randint(1, MAX_KILLS)
    for number in range(kills + 1):
        after = rng.uniform(0, typical) if number < kills else None
        if Running(rng.choice(servers), folder, words, after, rng).finish(done) == 0 or done.wrong:
            break
    return done


def kill_competitors(
    servers: list[ForkServer], folder: Path, words: list[str], rng: random.Random, typical: float
) -> Round:
    """Start the command twice at a time, kill one or both; at the end, it runs alone."""
    done = Round()
    for _ in range(2):
        victims = rng.choice([(True, False), (False, True), (True, True)])
        pair = []
        for server, is_victim in zip(servers, victims, strict=True):
            pair.append(Running(server, folder, words, rng.uniform(0, 1.5 * typical) if is_victim else None, rng))
            time.sleep(rng.uniform(0, typical / 2) if len(pair) == 1 else 0)
        for one in pair:
            one.finish(done)
    Running(rng.choice(servers), folder, words, None, rng).finish(done)
    return done


def differences(reference: dict[str, Any], command: Command, folder: Path) -> list[str]:
    """The files that differ from the undisturbed run, and temporary files that are left."""
    try:
        found = command.contents(folder)
    except FileNotFoundError as why:
        return [f"no {why.filename}"]
    names = sorted(name for name in reference.keys() | found.keys() if reference.get(name) != found.get(name))
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if is_temporary_path(path))
    return [*names, *(f"left: {name}" for name in left)]


def run_rounds(name: str, rounds: int, seed: int, folder: Path) -> tuple[int, int, int, float]:
    """The rounds of a command: their number, kills, rounds with a difference, the longest command in seconds."""
    command, base = COMMANDS[name], folder / name
    place = folder / "work"  # of every round, as manifests of an ablation contain absolute paths
    base.mkdir(parents=True)
    command.prepare(base)
    done, kills, differ, longest = 0, 0, 0, 0.0
    servers: list[ForkServer] = []
    try:
        for hash_seed in range(2):
            shutil.copytree(base, place)
            servers.append(ForkServer(hash_seed, place, (command.setup or command.words)[0]))
            shutil.rmtree(place)
        for words in command.setup:
            servers[0].start(base, words, base / "setup.output")
            if servers[0].wait():
                sys.exit(f"`synthgen {' '.join(words)}` failed; see {base / 'setup.output'}")
        if command.recover:
            (base / "recovered").touch()
        reference: list[tuple[dict[str, Any], float]] = []
        for words in command.words:
            shutil.copytree(base, place)
            began = time.monotonic()
            servers[0].start(place, words, place / "run.output")
            if servers[0].wait():
                sys.exit(f"the undisturbed run failed; see {place / 'run.output'}")
            reference.append((command.contents(place), time.monotonic() - began))
            shutil.rmtree(place)
            print(f"{name}: undisturbed in {reference[-1][1]:.2f} s: {' '.join(words)}", flush=True)
        for number in range(rounds):
            rng = random.Random(f"{seed}/{name}/{number}")
            words, (expected, typical) = command.words[number % len(command.words)], reference[number % len(reference)]
            shutil.copytree(base, place)
            play = kill_competitors if command.competes else kill_and_repeat
            outcome = play(servers, place, words, rng, typical)
            wrong = outcome.wrong or differences(expected, command, place)
            done, kills, differ = done + 1, kills + outcome.kills, differ + bool(wrong)
            longest = max(longest, outcome.longest)
            if wrong:
                kept = place.rename(folder / f"{name}-{number:05}")
                print(f"round {seed}/{name}/{number} differs, kept in {kept}: {wrong[:5]}", flush=True)
            else:
                shutil.rmtree(place)
    finally:
        for server in servers:
            server.close()
    return done, kills, differ, longest


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--command", choices=COMMANDS, help="default: all, one after another")
    options.add_argument("--rounds", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, help="an empty folder to work in; default: a temporary one")
    args = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-rounds-", dir=args.folder)).absolute()
    names = [args.command] if args.command else list(COMMANDS)
    print(f"seed {args.seed}, in {folder}", flush=True)
    lines = ["| command | rounds | kills | differences | longest command |", "| --- | ---: | ---: | ---: | ---: |"]
    bad = 0
    for name in names:
        rounds, kills, differ, longest = run_rounds(name, args.rounds, args.seed, folder)
        lines.append(f"| {name} | {rounds} | {kills} | {differ} | {longest:.1f} s |")
        bad += differ
    print("\n".join(lines))
    if not bad:
        shutil.rmtree(folder)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
