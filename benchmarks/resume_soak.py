"""Soak test of resuming: kills tiny trainings at random moments, resumes them, and compares every byte they leave.

    python benchmarks/resume_soak.py [--rounds 600] [--minutes 30] [--seed 0] [--folder FOLDER]

A round is one training of a few steps on images that are made here. It is killed (SIGKILL, or SIGTERM in a third of
the cases) after a random time, and resumed until it is done; several kills hit one round. Then its checkpoints, its
log (without times), its results and `seen.txt` must have the bytes of a run that nothing disturbed. Trainings vary in
reader processes, EMA, accumulation, evaluations, task and text encoder.

Processes are forked from servers that have imported torch, so that a start costs milliseconds. Each server has another
hash seed of Python: the parts of one round run under different ones, as the parts of a real run do. Everything is
computed on one thread.

It stops after `--rounds`, or after `--minutes`. With `--folder` it goes on where it was stopped: finished rounds are
listed in `rounds.jsonl`. A round with a difference stays in the folder as a whole, beside the undisturbed run. The last
line says how many rounds differ. If none of n does, the rate is below 3/n with 95 % confidence. The exit code is 1 if a
round differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SERVERS = 3
STEPS = 6
#: Seconds until a part of a round counts as hanging.
PART_SECONDS = 300

MANIFEST = """
name: soak
store: store
seed: {seed}
mixture:
  - {{shards: toy/train/human, task: {task}, images: photos}}
augment: {{size: 32, scale: [0.5, 1.5]}}
model: {{backbone: tiny, text_encoder: {text_encoder}, hidden_dim: 32, encoder_layers: 1, decoder_layers: 1,
  learnable_queries: 3, conditional_queries: 4, denoising_groups: {denoising}}}
schedule: {{batch_size: 4, mask_points: 16, lr: 1.0e-3, warmup_steps: 2, steps: {steps}, checkpoint_every: 2,
  keep_checkpoints: 9,
  accumulation_steps: {accumulate}, evaluate_every: {evaluate_every}{ema}}}
dataloader: {{num_workers: 0, cache_mib: 1}}
eval: [{{shards: toy/val/human, task: {task}, images: held}}]
eval_size: [32, 48]
"""


@dataclass(frozen=True)
class Kind:
    """What varies between trainings."""

    task: str
    text_encoder: str
    ema: float
    accumulate: int
    evaluate_every: int
    denoising: int
    workers: int

    @property
    def name(self) -> str:
        return "-".join(map(str, (self.task, self.text_encoder, self.ema, self.accumulate, self.evaluate_every,
                                  self.denoising, self.workers)))  # fmt: skip


def kinds() -> list[Kind]:
    from synthgen.models.mqformer.text_encoder import find_minilm

    encoders = ["tiny", "minilm"] if find_minilm() is not None else ["tiny"]
    return [
        Kind("instance", "tiny", 0, 1, 3, 0, 0),
        Kind("instance", "tiny", 0.9, 2, 2, 2, 2),
        Kind("referring", encoders[-1], 0.9, 1, 6, 0, 0),
        Kind("referring", encoders[-1], 0, 1, 3, 0, 2),
        Kind("instance", encoders[-1], 0, 2, 6, 2, 1),
    ]


def make_data(folder: Path) -> None:
    """A layer of 24 images of two objects with phrases to learn, and one of 2 to evaluate."""
    import numpy as np
    from PIL import Image

    from synthgen.records.rle import encode_mask
    from synthgen.records.sample import Annotation, Caption, Sample
    from synthgen.storage.shard_store import Shard, ShardStore

    store, draw = ShardStore(folder / "store"), np.random.default_rng(0)
    phrases = ["cat", "the red cat", "dog", "a dog on the left", "cup", "the small green cup behind the cat", "a cat"]
    for split, photos, first, count, shards in (("train", "photos", 0, 24, 2), ("val", "held", 100, 2, 1)):
        (folder / photos).mkdir(parents=True)
        samples = []
        for number in range(first, first + count):
            Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / photos / f"{number}.png")
            annotations = []
            for place, category in enumerate(draw.choice(["cat", "dog", "cup"], 2)):
                mask = np.zeros((24, 32), np.bool_)
                mask[4:16, 3 + 14 * place : 13 + 14 * place] = True
                spoken = (Caption(str(draw.choice(phrases)), "human"),)
                annotations.append(
                    Annotation(2 * number + place, (3.0 + 14 * place, 4.0, 10.0, 12.0), str(category),
                               segmentation=encode_mask(mask), mask_source="human", captions=spoken)
                )  # fmt: skip
            samples.append(Sample(number, f"toy/{number}", f"{number}.png", 24, 32, tuple(annotations)))
        for shard in range(shards):
            own = samples[shard * count // shards : (shard + 1) * count // shards]
            store.commit(Shard("toy", split, "human", shard, shards), own, {"categories": ["cat", "dog", "cup"]})


def serve() -> None:
    """The server: reads requests, one JSON a line; answers each with the pid of a fork, and later with its end."""
    import torch

    from synthgen.training import trainer

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        if request.pop("warm", False):  # here, so that forks need not import anything
            with Path(os.devnull).open("w") as nothing, contextlib.redirect_stderr(nothing):
                trainer.train(Path(request["manifest"]), out=Path(request["out"]), device="cpu", num_workers=0)
            print(0, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            os.setsid()  # a signal to its group reaches its readers, too, as from a scheduler
            output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            nowhere = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nowhere, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = 70
            try:
                trainer.train(
                    Path(request["manifest"]), out=Path(request["out"]), device="cpu", num_workers=request["workers"]
                )
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 70
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class Server:
    """A process that forks trainings, with its own hash seed."""

    def __init__(self, hash_seed: int) -> None:
        environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def request(self, manifest: Path, out: Path, workers: int, *, warm: bool = False) -> None:
        """Ask for a training; `warm`: in the server itself."""
        told = {"manifest": str(manifest), "out": str(out), "workers": workers, "output": f"{out}.output", "warm": warm}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()

    def start(self, manifest: Path, out: Path, workers: int) -> int:
        """Start a training; returns its pid."""
        self.request(manifest, out, workers)
        return self.wait()

    def wait(self) -> int:
        """The next number that the server says: the exit code of the training."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


def contents(run: Path) -> dict[str, Any]:
    """What a run leaves that must not depend on kills: bytes, or parsed lines without times."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in run.glob("*.pt")}
    found |= {path.name: path.read_bytes() for path in [run / "seen.txt", run / "checked.txt"]}
    found |= {path.name: json.loads(path.read_text()) for path in run.glob("results-*.json")}
    clocks = ("images_per_s", "data_share", "memory_mib")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found["log.jsonl"] = [{key: value for key, value in line.items() if key not in clocks} for line in lines]
    return found


def differences(one: Path, other: Path) -> list[str]:
    """The files in which two runs differ; of a checkpoint also which tensors.

    SIGTERM saves a checkpoint of its own, which may push out an older one. So only checkpoints of steps that both runs
    have are compared, and the last step of both.
    """
    import torch

    ours, theirs = contents(one), contents(other)
    last = max(name for name in ours if name.startswith("step-"))
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name.startswith("step-") and name != last and not (name in ours and name in theirs):
            continue
        if ours.get(name) == theirs.get(name):
            continue
        found.append(name)
        if name.endswith(".pt") and name in ours and name in theirs:
            left, right = (flatten(torch.load(run / name, weights_only=True)) for run in (one, other))
            for key in sorted(left.keys() | right.keys()):
                a, b = left.get(key), right.get(key)
                same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
                if not same:
                    found.append(f"{name}: {key}")
    return found


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for k, inner in items for key, leaf in flatten(inner, f"{prefix}/{k}").items()}
    return {prefix: value}


def run_round(
    servers: list[Server], manifest: Path, out: Path, kind: Kind, rng: random.Random, typical: float
) -> tuple[int, str]:
    """Kill and resume one training until it is done; returns the number of kills, and what went wrong."""
    kills = 0
    while True:
        server = rng.choice(servers)
        pid = server.start(manifest, out, kind.workers)
        sent = None
        if kills < 3 and not (kills and rng.random() < 0.3):
            time.sleep(rng.random() * typical)
            sent = signal.SIGTERM if rng.random() < 1 / 3 else signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if rng.random() < 0.5 else os.kill)(pid, sent)
            kills += 1
        began = time.monotonic()
        watch = threading.Timer(PART_SECONDS, os.killpg, [pid, signal.SIGKILL])
        watch.start()
        code = server.wait()
        watch.cancel()
        if time.monotonic() - began > PART_SECONDS:
            return kills, f"no end after {PART_SECONDS} s"
        if code == 0:
            return kills, ""
        if sent is None or code not in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
            return kills, f"exit code {code} after {sent}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=600)
    options.add_argument("--minutes", type=float, default=float("inf"))
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, help="where to work, and where to go on; default: a new one")
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.serve:
        serve()
        return
    folder = (args.folder or Path(tempfile.mkdtemp(prefix="resume-soak-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "store").exists():
        make_data(folder)
    journal = folder / "rounds.jsonl"
    done = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    until = time.monotonic() + 60 * args.minutes
    servers = [Server(hash_seed) for hash_seed in range(SERVERS)]
    try:
        manifests = {}
        for place, kind in enumerate(kinds()):
            ema = f", ema_decay: {kind.ema}" if kind.ema else ""
            manifests[kind] = folder / f"{kind.name}.yaml"
            if not manifests[kind].exists():
                fields = {**asdict(kind), "ema": ema, "seed": place, "steps": STEPS}
                manifests[kind].write_text(MANIFEST.format(**fields))
        for place, server in enumerate(servers):
            shutil.rmtree(folder / f"warm-{place}", ignore_errors=True)
            server.request(next(iter(manifests.values())), folder / f"warm-{place}", 0, warm=True)
        for server in servers:
            server.wait()
        references = {}
        for kind, manifest in manifests.items():
            out = folder / f"undisturbed-{kind.name}"
            shutil.rmtree(out, ignore_errors=True)
            began = time.monotonic()
            servers[0].start(manifest, out, kind.workers)
            if servers[0].wait() != 0:
                sys.exit(f"the undisturbed run of {kind.name} failed; see {out}.output")
            references[kind] = (manifest, out, time.monotonic() - began)
            print(f"undisturbed: {kind.name}, {references[kind][2]:.1f} s", flush=True)
        for number in range(len(done), args.rounds):
            if time.monotonic() > until:
                break
            rng = random.Random(f"{args.seed}/{number}")
            kind = rng.choice(list(references))
            manifest, reference, typical = references[kind]
            out = folder / f"round-{number:05}"
            shutil.rmtree(out, ignore_errors=True)
            kills, wrong = run_round(servers, manifest, out, kind, rng, typical)
            differ = [wrong] if wrong else differences(reference, out)
            record = {"round": number, "kind": kind.name, "kills": kills, "differ": differ}
            with journal.open("a") as file:
                file.write(json.dumps(record) + "\n")
            done.append(record)
            if differ:
                print(f"round {number} ({kind.name}, {kills} kills) differs, kept in {out}: {differ[:5]}", flush=True)
            else:
                shutil.rmtree(out)
                Path(f"{out}.output").unlink(missing_ok=True)
            if len(done) % 20 == 0:
                bad = sum(bool(record["differ"]) for record in done)
                print(f"{len(done)} rounds, {sum(r['kills'] for r in done)} kills, {bad} differ", flush=True)
    finally:
        for server in servers:
            server.close()
    bad = sum(bool(record["differ"]) for record in done)
    kills = sum(record["kills"] for record in done)
    bound = f"; the rate is below {3 / len(done):.2%} with 95 % confidence" if done and not bad else ""
    print(f"{bad} differences in {len(done)} rounds with {kills} kills{bound}; {folder}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
