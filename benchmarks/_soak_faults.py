"""The faults that soak.py tries: each disturbs a store, checks what is promised meanwhile, and says how it ended.

After a fault, soak.py runs the same commands undisturbed and compares the store with that of a run without the fault.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import _soak_runs as runs
import _soak_world as worlds
from _soak_round import DAMAGED, HARMLESS, IGNORED, NAMED, RECOVERED, REFUSED, FindingError, Round
from _soak_world import LAYER, LAYERS, STAGES

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def kill(r: Round) -> str:
    """SIGKILL at a random moment, or just before a random change of the store; up to four times."""
    stage = r.begin_stage()
    for _ in range(r.rng.randint(1, 4)):
        if r.rng.random() < 0.5:
            r.run(stage, codes=(-signal.SIGKILL, 0), prepare=[r.signal_at_change(stage, signal.SIGKILL)])
        else:
            running = r.start(stage)
            r.wait_a_while(stage)
            running.send(signal.SIGKILL)
            r.expect(stage, running.wait(), (-signal.SIGKILL, 0))
        r.tried += 1
        r.check(worlds.shard_differences(r.store, r.reference))
    return RECOVERED


def stop(r: Round) -> str:
    """SIGTERM, Ctrl-C or SIGHUP at a random moment or change. The command ends cleanly, with the code of the signal."""
    stage = r.begin_stage()
    for _ in range(r.rng.randint(1, 4)):
        number = r.rng.choice(_SIGNALS)
        # Negative: the command did not handle signals yet, or not any more.
        codes = (128 + number, -number, 0)
        if r.rng.random() < 0.5:
            ended = r.run(stage, codes=codes, prepare=[r.signal_at_change(stage, number)])
        else:
            running = r.start(stage)
            r.wait_a_while(stage)
            running.send(number)
            ended = r.expect(stage, running.wait(), codes)
        r.tried += 1
        if ended.code == 128 + number and number != signal.SIGINT:
            r.check_says(ended, "the same command continues")
        r.check(worlds.shard_differences(r.store, r.reference) + worlds.left_over(r.store))
    return RECOVERED


def fill_disk(r: Round) -> str:
    """A small file system runs full, or every change fails from a random one on."""
    stage = r.begin_stage()
    if r.rng.random() < 0.5 and (small := _mount(r.folder / "small")):
        with small:
            shutil.copytree(r.store, r.folder / "small/store")
            r.store = r.folder / "small/store"
            used = sum(path.stat().st_blocks * 512 for path in r.store.rglob("*"))
            remount = ["mount", "-o", f"remount,size={used + r.rng.randint(4, 120) * 1024}", str(r.folder / "small")]
            subprocess.run(remount, check=True)
            ended = r.run(stage, codes=(0, 1))
            r.tried += 1
            if ended.code:
                r.check_says(ended, "no space left")
            r.check(worlds.shard_differences(r.store, r.reference) + worlds.left_over(r.store))
            subprocess.run(["mount", "-o", "remount,size=64m", str(r.folder / "small")], check=True)
            shutil.copytree(r.store, r.folder / "store", dirs_exist_ok=True)
            r.store = r.folder / "store"
        return RECOVERED
    number = r.random_change(stage)
    ended = r.run(stage, codes=(0, 1), prepare=[runs.at_change(number, r.store, runs.no_space, and_later=True)])
    r.tried += 1
    if ended.code:
        r.check_says(ended, "no space left")
    r.check(worlds.shard_differences(r.store, r.reference) + worlds.left_over(r.store))
    return RECOVERED


def _mount(folder: Path) -> contextlib.AbstractContextManager[None] | None:
    """A small file system; None = this machine does not let this user mount one."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        return None

    @contextlib.contextmanager
    def unmounted() -> Iterator[None]:
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)

    return unmounted()


def corrupt_images(r: Round) -> str:
    """Images truncated, empty, of noise, of 400 M pixels, missing, or no files; repaired later."""
    r.photos = r.folder / "photos"
    shutil.copytree(r.world.photos, r.photos)
    names = [path.name for path in r.rng.sample(sorted(r.photos.iterdir()), r.rng.randint(1, 4))]
    for name in names:
        _corrupt(r.photos / name, r.rng, r.world.folder / "bomb.png")
        r.tried += 1
    numbers = {int(name.split(".")[0]) for name in names}
    r.run("ingest", codes=[0])
    if lenient := r.rng.random() < 0.6:
        r.run("masks", "--max-error-share", "0.5", codes=[0, 1])
    else:
        r.run("masks", codes=[1])
    rows, refused = worlds.count_images(r.store, "masks"), worlds.failed_shards(r.store, "masks")
    for number in range(1, worlds.IMAGES + 1):
        index, errors = (number - 1) // worlds.SHARD_SIZE, rows.get(number, [])
        if len(errors) == 1 and (errors[0] is not None) == (number in numbers):
            continue
        if not errors and index in refused:
            continue
        raise FindingError(f"image {number} has the rows {errors}; {sorted(numbers)} are corrupt, {refused} refused")
    if set(worlds.failed_images(r.store, "masks")) - set(names):
        raise FindingError(f"{worlds.failed_images(r.store, 'masks')} failed, and {names} are corrupt")
    changed = worlds.changed_rows(r.store, r.reference, "masks")
    r.check([f"image {number} has another row" for number in changed if number not in numbers])
    listed = r.inspect("status", "--failures", codes=[0]).text
    r.check([f"status does not list {n}" for n in names if rows.get(int(n.split(".")[0])) and n not in listed])
    if not refused and r.rng.random() < 0.5:
        r.run("captions", codes=[0])
    for name in names:
        _remove(r.photos / name)
        shutil.copyfile(r.world.photos / name, r.photos / name)
    if lenient:
        r.run("masks", "--max-error-share", "0.5", "--retry-failed", codes=[0])
    return NAMED


def _corrupt(path: Path, rng: random.Random, bomb: Path) -> None:
    content = path.read_bytes()
    kind = rng.choice(["truncated", "empty", "zeros", "noise", "flipped", "bomb", "missing", "folder", "fifo"])
    if kind in ("missing", "folder", "fifo"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        return
    path.write_bytes(
        {
            "truncated": content[: rng.randrange(len(content) - 60)],  # behind that lies the end mark alone
            "empty": b"",
            "zeros": bytes(len(content)),
            "noise": rng.randbytes(len(content)),
            "flipped": content[:20] + bytes(byte ^ 0xFF for byte in content[20:40]) + content[40:],  # in the header
            "bomb": bomb.read_bytes(),
        }[kind]
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def jump_clock(r: Round) -> str:
    """The clock is years off and jumps, and so are the times of all files; half of the commands are killed too."""
    r.store.mkdir()
    for stage in STAGES:
        seed = r.rng.randrange(2**32)
        prepare = [runs.jump_clock(seed)]
        if r.rng.random() < 0.5:
            killed = [*prepare, r.signal_at_change(stage, signal.SIGKILL)]
            r.run(stage, codes=(-signal.SIGKILL, 0), prepare=killed)
        runs.change_times([r.store, r.photos, r.world.folder / "boxes.json"], r.rng)
        r.run(stage, codes=[0], prepare=prepare)
        r.tried += 1
        r.check(worlds.shard_differences(r.store, r.reference))
    return RECOVERED


def compete(r: Round) -> str:
    """Two runs of the same command at the same time. One may be killed, stopped, or have a wrong clock."""
    stage = r.begin_stage()
    for _ in range(r.rng.randint(1, 2)):
        clock = [runs.jump_clock(r.rng.randrange(2**32))] if r.rng.random() < 0.3 else []
        first = r.start(stage, name="first")
        time.sleep(r.rng.random() * 0.3 * r.world.seconds[stage])
        second = r.start(stage, prepare=clock, name="second")
        number = r.rng.choice([None, signal.SIGKILL, signal.SIGTERM])
        if number is not None:
            r.wait_a_while(stage)
            second.send(number)
        codes = (0,) if number is None else (0, -number, 128 + number)
        results = first.wait(), second.wait()
        r.tried += 1
        r.expect(f"{stage}, the first,", results[0], [0])
        r.expect(f"{stage}, the second,", results[1], codes)
        r.check(worlds.shard_differences(r.store, r.reference))
        for path in r.store.rglob("*.parquet"):
            if path.parent.name == LAYER[stage] and r.rng.random() < 0.5:
                path.unlink()
    return RECOVERED


def swap_shards(r: Round) -> str:
    """A shard under the name of another one, of another layer, or of none."""
    r.copy_layers(*LAYERS)
    layer = r.rng.choice(LAYERS)
    source, target = r.rng.sample(range(worlds.IMAGES // worlds.SHARD_SIZE), 2)
    other = r.rng.choice([one for one in LAYERS if one != layer])
    kind = r.rng.choice(["index", "layer", "extra"])
    origin = worlds.shard_path(r.store, other if kind == "layer" else layer, target if kind == "layer" else source)
    path = worlds.shard_path(r.store, layer, target + 90 if kind == "extra" else target)
    shutil.copyfile(origin, path)
    r.tried += 1
    r.check_says(r.inspect("verify", f"world/train/{layer}", codes=[1]), "foreign", path.name)
    r.check_says(r.inspect("status", codes=[0 if kind == "extra" else 1]), path.name)
    before = _contents(r.store)
    for stage in _users(layer):
        ended = r.run(stage, codes=[0] if kind == "extra" else [1, 2])
        if kind != "extra":
            r.check_says(ended, path.name)
    if _contents(r.store) != before:
        raise FindingError(f"a command changed shards although {path} is foreign")
    path.unlink()
    return IGNORED if kind == "extra" else REFUSED


def damage_shards(r: Round) -> str:
    """Bits flipped anywhere in a shard, blocks of zeros, truncation, bytes appended; later layers are made from it."""
    r.copy_layers(*LAYERS)
    layer = r.rng.choice(LAYERS)
    if is_base := r.rng.random() < 0.5:  # later stages read it
        for later in LAYERS[LAYERS.index(layer) + 1 :]:
            for each in (r.store / "world/train" / later).glob("*.parquet"):
                each.unlink()
    path = worlds.shard_path(r.store, layer, r.rng.randrange(worlds.IMAGES // worlds.SHARD_SIZE))
    _damage(path, r.rng)
    r.tried += 1
    damaged = path.read_bytes()
    verified = r.inspect("verify", f"world/train/{layer}", codes=[0, 1])
    if verified.code:
        r.check_says(verified, "damaged", path.name)
    elif worlds.changed_rows(r.store, r.reference, layer):
        raise FindingError(f"{path} has other rows, and verify finds nothing")
    r.inspect("status", "--failures", codes=[0, 1])
    for stage in _users(layer):
        r.run(stage, codes=[0, 1, 2])
    if path.read_bytes() == damaged:
        path.unlink()
    r.check(worlds.shard_differences(r.store, r.reference) if verified.code or not is_base else [])
    return DAMAGED if verified.code else HARMLESS


def _damage(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    kind, place = rng.choice(["bits", "bits", "bits", "zeros", "truncated", "appended"]), rng.randrange(len(content))
    if kind == "bits":
        start = len(content) // 2 if rng.random() < 0.5 else 0  # the footer is the larger half of a small shard
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(start, len(content))] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        content[place : place + 512] = bytes(len(content[place : place + 512]))
    elif kind == "truncated":
        del content[place:]
    else:
        content += rng.randbytes(rng.randint(1, 64))
    path.write_bytes(content)


def _users(layer: str) -> tuple[str, ...]:
    """The stages that read or write a layer."""
    return {"annotations": ("ingest", "masks"), "masks": ("masks", "captions"), "captions": ("captions",)}[layer]


def _contents(store: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in store.rglob("*.parquet")}


def misbehave(r: Round) -> str:
    """A segmenter or captioner gives wrong sizes, NaN, other types, ends the program, or hangs on two images."""
    from fakes import misbehaving_captioner, misbehaving_segmenter

    segmenter = [*misbehaving_segmenter.WRONG, *misbehaving_segmenter.RAISED, "hang", "hang_in_pool"]
    captioner = [*misbehaving_captioner.WRONG, "system_exit", "hang"]
    stage, kinds = r.rng.choice([("masks", segmenter), ("captions", captioner)])
    wrong = r.rng.choice(kinds)
    flag = {"masks": "--segmenter=fakes.misbehaving_segmenter", "captions": "--captioner=fakes.misbehaving_captioner"}
    plugin = (flag[stage], "-O", f"wrong={wrong}", "-O")
    r.reference = r.world.folder / f"{stage}-{wrong}"
    if not r.reference.exists():  # what this plugin makes when it does not misbehave
        worlds.copy_layer(r.world, r.reference, "annotations")
        cured = {stage: (*plugin, f"checkpoint={r.world.folder / 'boxes.json'}")}
        r.expect(stage, worlds.run_stages(r.world, r.reference, r.folder / "cured.txt", cured)[stage], [0])
    cure = r.folder / "cure"
    r.plugins = {stage: (*plugin, f"checkpoint={cure}")}
    r.copy_layers("annotations")
    layer, red = LAYER[stage], {(number - 1) // worlds.SHARD_SIZE for number in worlds.RED_IMAGES}
    r.tried += len(red)
    hangs = wrong.startswith("hang")
    if hangs:
        r.check_says(r.run(stage, "--timeout", "1", codes=[1]), "did not answer within 1 s")
    elif lenient := r.rng.random() < 0.5:
        r.run(stage, "--max-error-share", "0.5", codes=[0])
        errors = {n for n, found in worlds.count_images(r.store, layer).items() if found != [None]}
        if errors != set(worlds.RED_IMAGES) or len(worlds.failed_images(r.store, layer)) != len(red):
            raise FindingError(f"{sorted(errors)} have an error; only {worlds.RED_IMAGES} should")
        changed = worlds.changed_rows(r.store, r.reference, layer)
        r.check([f"image {number} has another row" for number in changed if number not in worlds.RED_IMAGES])
    else:
        r.run(stage, codes=[1])
    if hangs or not lenient:
        refused = worlds.failed_shards(r.store, layer)
        if not red <= refused or any(worlds.shard_path(r.store, layer, index).exists() for index in red):
            raise FindingError(f"shards {sorted(red)} should not be committed; named are {sorted(refused)}")
        r.check(worlds.shard_differences(r.store, r.reference))
    cure.touch()
    if not hangs and lenient:
        r.run(stage, "--max-error-share", "0.5", "--retry-failed", codes=[0])
    return NAMED


#: By their name in the table.
FAULTS: dict[str, Callable[[Round], str]] = {
    "SIGKILL at a random moment or change of the store": kill,
    "SIGTERM, Ctrl-C, SIGHUP at a random moment or change": stop,
    "full disk": fill_disk,
    "corrupt image: truncated, empty, noise, 400 M pixels, missing, no file": corrupt_images,
    "clock years off, jumping; all files with wrong times": jump_clock,
    "two runs of one job; one of them killed, stopped, with a wrong clock": compete,
    "shard under the name of another shard, layer or of none": swap_shards,
    "damaged shard: bits flipped, zeros, truncated, appended": damage_shards,
    "misbehaving plugin: wrong sizes, NaN, other types, SystemExit, hang": misbehave,
}


def describe_results(results: Counter[str]) -> str:
    """How the rounds of a fault ended, with numbers where they differ; most frequent first."""
    if len(results) == 1:
        return next(iter(results))
    return "; ".join(f"{result} ({count:,} rounds)" for result, count in results.most_common())
