"""The directory of a run: manifest, versions, logs, checkpoints and results.

manifest.yaml        as given by the user     run.json     versions, commit, command, devices
checked.txt          the checked data sources seen.txt     the samples used
log.jsonl            a line per step          tensorboard/
step-00005000.pt     the last checkpoints     best.pt      the checkpoint with the best evaluation
results-00005000.json                         results of an evaluation
lock                                          held by the process that trains in this directory
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from synthgen import __version__
from synthgen.dataloading.manifest import OTHER_NETWORKS, Manifest
from synthgen.dataloading.renamed_keys import rename_manifest_keys
from synthgen.dataloading.source_config import TrainSource
from synthgen.errors import SynthgenError
from synthgen.storage.atomic import is_temporary_path, link_or_copy, remove_stale_files, write_text_atomic
from synthgen.storage.locks import file_lock

_CHECKPOINT = re.compile(r"step-(\d{8,})\.pt")

#: The first file of a run.
_RUN_FILE = "run.json"

#: Manifest keys that do not affect training results.
_NON_TRAINING_KEYS = {"dataloader", "store", "eval", "eval_size"}
_NON_TRAINING_SCHEDULE_KEYS = {
    "accumulation_steps",
    "activation_checkpointing",
    "compile",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluate_every",
    "steps",
}

#: Remedy in errors about a directory that is not writable.
REMEDY = "choose another --out"


@contextmanager
def lock_run_dir(folder: Path, *, lock_timeout: float) -> Iterator[None]:
    """Create and lock a run directory, so that no other process trains in it while the block runs.

    Args:
        folder: the run directory; created if it is missing.
        lock_timeout: seconds to wait for another process.

    Raises:
        SynthgenError: another process trains in it; it is not a run directory; or it is not writable.
    """
    lock = folder / "lock"
    begun = (folder / _RUN_FILE).exists() or not folder.is_dir()
    if not begun and any(path != lock and not is_temporary_path(path) for path in folder.iterdir()):
        raise SynthgenError(f"{folder} is no folder of a run, and not empty; choose another --out")
    otherwise = f"another process trains in {folder}; wait for it, or choose another --out"
    with file_lock(
        lock, lock_timeout=lock_timeout, timeout_message=f"{otherwise} (if there is none, delete {lock})", remedy=REMEDY
    ):
        yield


def init_run_dir(
    folder: Path, manifest_path: Path, manifest: Manifest, *, kind: str, world_size: int, device: str
) -> None:
    """Initialize the directory, or check that it belongs to the same run; `run.json` gets an entry for every start.

    A run without a checkpoint has no results, so any run may replace it.

    Args:
        folder: the run directory; it is locked.
        manifest_path: the file that is copied.
        manifest: its content.
        kind: `Checkpoint.kind` of the network.
        world_size: the number of training processes.
        device: name of the device, for the record.

    Raises:
        SynthgenError: it is not a run directory, or belongs to another run.
    """
    starts = load_starts(folder, manifest, kind=kind)
    remove_stale_files(folder)  # temporary files of checkpoints and logs left by a killed process
    starts.append(
        {
            "command": sys.argv,
            "synthgen": __version__,
            "commit": _git_commit(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "numpy")},
            "machine": platform.platform(),
            "device": device,
            "processes": world_size,
            "steps": manifest.schedule.steps,
        }
    )
    content = {"recipe": _recipe(manifest, kind), "starts": starts}
    write_text_atomic(folder / _RUN_FILE, json.dumps(content, indent=1) + "\n", remedy=REMEDY)
    write_text_atomic(folder / "manifest.yaml", manifest_path.read_text(encoding="utf-8"), remedy=REMEDY)


def load_starts(folder: Path, manifest: Manifest, *, kind: str) -> list[dict[str, Any]]:
    """The starts of the run of this manifest in a directory; empty = no run yet. Writes nothing.

    Args:
        folder: the run directory.
        manifest: must agree with that of the run in all keys that affect training.
        kind: `Checkpoint.kind` of the network.

    Raises:
        SynthgenError: it belongs to another manifest, or is damaged.
    """
    about, recipe = folder / _RUN_FILE, _recipe(manifest, kind)
    starts: list[dict[str, Any]] = []
    if about.exists():
        try:
            begun = json.loads(about.read_text(encoding="utf-8"))
            differs, starts = _changed_keys(rename_manifest_keys(begun["recipe"]), recipe), list(begun["starts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise SynthgenError(f"{about} is damaged; choose another --out") from None
        last = latest_checkpoint(folder)
        if differs and (last or (folder / "best.pt").exists()):
            raise SynthgenError(
                f"{folder} was trained with another {', '.join(differs)}; choose another --out, or take it back"
            )
        if last and (learned := _parse_step(last)) > manifest.schedule.steps:
            raise SynthgenError(
                f"{folder} has learned {learned:,} steps, and schedule.steps is {manifest.schedule.steps:,}; raise it, "
                "or choose another --out"
            )
    return starts


def checkpoint_path(folder: Path, step: int) -> Path:
    """The path of the checkpoint of a `step` in a run directory, `folder`."""
    return folder / f"step-{step:08}.pt"


def results_path(folder: Path, step: int) -> Path:
    """The path of the results of an evaluation after a `step` in a run directory, `folder`."""
    return folder / f"results-{step:08}.json"


def latest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a run directory, `folder`, if there is one."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def link_best_checkpoint(folder: Path, path: Path) -> None:
    """Link the checkpoint at `path` as `best.pt` of a run directory, `folder`."""
    link_or_copy(path, folder / "best.pt", remedy=REMEDY)


def delete_old_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the last `keep` checkpoints of a run directory, `folder`; `best.pt` is a separate link."""
    for path in _checkpoints(folder)[:-keep]:
        path.unlink(missing_ok=True)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*.pt") if _CHECKPOINT.fullmatch(path.name)), key=_parse_step)


def _parse_step(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _recipe(manifest: Manifest, kind: str) -> dict[str, Any]:
    settings: dict[str, Any] = manifest.model_dump(mode="json", exclude=_NON_TRAINING_KEYS)
    for source in settings["mixture"]:
        source.pop("images")
    settings["exclude"] = [Path(name).name for name in settings["exclude"]]
    for section in ("model", *OTHER_NETWORKS):  # does not depend on the working directory
        for key, one in (settings[section] or {}).items():
            if isinstance(one, str) and "/" in one:
                settings[section][key] = os.path.abspath(one)  # noqa: PTH100 - pathlib's keeps a ".."
    return {"kind": kind, **settings}


def _changed_keys(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The keys in which two manifests differ. A missing key counts as its default, because later versions add keys."""
    usual = Manifest.model_construct().model_dump(mode="json")
    found = []
    for key in sorted(then.keys() | now.keys()):
        one, other = (side.get(key, usual.get(key)) for side in (then, now))
        if isinstance(one, dict) and isinstance(other, dict):
            section = usual[key] or OTHER_NETWORKS[key].model_construct().model_dump(mode="json")
            free = _NON_TRAINING_SCHEDULE_KEYS if key == "schedule" else set()
            found += [f"{key}.{inner}" for inner in _differing_keys(one, other, section) if inner not in free]
        elif isinstance(one, list) and isinstance(other, list) and key == "mixture" and len(one) == len(other):
            source = TrainSource.model_construct().model_dump(mode="json")
            found += [key] * any(_differing_keys(*pair, source) for pair in zip(one, other, strict=True))
        elif one != other:
            found.append(key)
    return found


def _differing_keys(one: dict[str, Any], other: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    one, other = {**defaults, **one}, {**defaults, **other}
    return [key for key in sorted(one | other) if one.get(key) != other.get(key)]


def _git_commit() -> str | None:
    """The commit of synthgen's repository, if it runs from one; "+" = with uncommitted changes."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],  # noqa: S607
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
