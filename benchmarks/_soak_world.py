"""The dataset of soak.py, what an undisturbed run makes of it, and the comparison with that."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _soak_runs import Ended, Running, call_in_fork, count_changes

IMAGES, SHARD_SIZE = 40, 8
STAGES = ("ingest", "masks", "captions")
LAYER = {"ingest": "annotations", "masks": "masks", "captions": "captions"}
LAYERS = tuple(LAYER.values())

#: Images whose top left pixel is pure red: the misbehaving plugins of tests/fakes misbehave on them.
RED_IMAGES = (11, 29)

_PLUGIN = {
    "ingest": ("--shard-size", SHARD_SIZE),
    "masks": ("--segmenter", "box_fill"),
    "captions": ("--captioner", "attributes"),
}
_LOG_FILE = re.compile(r"(metrics|failures)\.jsonl|(status|source|images)\.json|run\.log")


@dataclass
class World:
    """A folder with photographs, their boxes, and an undisturbed run.

    Attributes:
        changes: by stage, how many changes an undisturbed run makes in its store; seconds: how long it takes.
    """

    folder: Path
    changes: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def calm(self) -> Path:
        """The store of the undisturbed run."""
        return self.folder / "calm"

    def words(self, stage: str, store: Path, photos: Path, plugin: tuple[object, ...] = ()) -> list[object]:
        """The command of a stage, without `synthgen`."""
        return [
            *(stage, "--dataset", "coco-json", "--name", "world", "--annotations", self.folder / "boxes.json"),
            *("--images", photos, "--store", store, *(plugin or _PLUGIN[stage])),
        ]


def make_world(folder: Path) -> World:
    """Draw the photographs, and run all stages undisturbed.

    Raises:
        SystemExit: the undisturbed run failed.
    """
    from fakes import coco_dataset
    from PIL import Image

    world = World(folder)
    coco_dataset.write_coco_dataset(folder, images=IMAGES, size=(48, 36))
    for number in RED_IMAGES:
        path = world.photos / f"{number:04d}.png"
        with Image.open(path) as picture:
            picture.putpixel((0, 0), (255, 0, 0))
            picture.save(path)
    (folder / "bomb.png").write_bytes(_bomb())
    output = folder / "output.txt"
    for stage in STAGES:
        began = time.monotonic()
        changes, ended = count_changes(world.words(stage, world.calm, world.photos), world.calm, output)
        if ended.code != 0:
            raise SystemExit(f"the undisturbed run of {stage} ended with {ended.code}:\n{ended.text}")
        world.changes[stage], world.seconds[stage] = changes, time.monotonic() - began
    for layer in LAYERS:
        counts = count_images(world.calm, layer)
        if counts != {number: [None] for number in range(1, IMAGES + 1)}:
            raise SystemExit(f"the undisturbed run has not each image once, or with an error, in {layer}: {counts}")
    return world


def _bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in 50 kB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(20_000 * 2_501), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def shard_path(store: Path, layer: str, index: int) -> Path:
    """The path of a shard of the world."""
    return store / f"world/train/{layer}/{index:05d}-of-{IMAGES // SHARD_SIZE:05d}.parquet"


def copy_layer(world: World, store: Path, layer: str) -> None:
    """Copy a layer of the undisturbed run, with its log."""
    shutil.copytree(world.calm / "world/train" / layer, store / "world/train" / layer)


def shard_differences(store: Path, reference: Path) -> list[str]:
    """Shards with other bytes than those of the reference, or that it does not have."""
    return [
        f"{path.relative_to(store)} is not what an undisturbed run writes"
        for path in sorted(store.rglob("*.parquet"))
        if not _same_bytes(path, reference / path.relative_to(store))
    ]


def store_differences(store: Path, reference: Path) -> list[str]:
    """All that makes a store another one than the reference: bytes of shards, missing shards, files left over."""
    found = shard_differences(store, reference)
    for path in sorted(reference.rglob("*.parquet")):
        if not (store / path.relative_to(reference)).exists():
            found.append(f"{path.relative_to(reference)} is missing")
    return found + left_over(store)


def left_over(store: Path) -> list[str]:
    """Files of a store that are neither shards nor logs: temporary files, scratch folders, anything unknown."""
    found = []
    for folder, folders, names in os.walk(store):
        found += [str(Path(folder, name)) for name in folders if name.startswith(".")]
        for name in names:
            known = _LOG_FILE.fullmatch(name) if folder.endswith("/_log") else re.fullmatch(r"[0-9].*\.parquet", name)
            found += [] if known else [str(Path(folder, name))]
    return [f"{Path(path).relative_to(store)} is left over" for path in sorted(found)]


def count_images(store: Path, layer: str) -> dict[int, list[str | None]]:
    """By image, the error of each of its rows in the committed shards of a layer; None = a row without error."""

    def read() -> list[tuple[int, str | None]]:
        from synthgen.storage.shard_store import ShardStore

        shards = ShardStore(store)
        return [
            (sample.image_id, sample.error or _plugin_error(sample.annotations))
            for shard in shards.list_shards("world", "train", layer)
            for sample in shards.read_samples(shard)
        ]

    found: dict[int, list[str | None]] = {}
    for number, error in call_in_fork(read):
        found.setdefault(number, []).append(error)
    return found


def _plugin_error(annotations: Any) -> str | None:
    flags = {flag for a in annotations for flag in a.flags if flag.endswith("_failed")}
    return ", ".join(sorted(flags)) or None


def changed_rows(store: Path, reference: Path, layer: str) -> list[int]:
    """Images whose rows in the committed shards of a layer are other ones than in the reference."""

    def read() -> list[int]:
        from synthgen.storage.shard_store import ShardStore

        rows = []
        for root in (store, reference):
            shards = ShardStore(root)
            there = shards.list_shards("world", "train", layer)
            rows.append({s.image_id: s for shard in there for s in shards.read_samples(shard)})
        return [number for number, sample in rows[0].items() if sample != rows[1].get(number)]

    return list(call_in_fork(read))


def failed_images(store: Path, layer: str) -> dict[str, str]:
    """By file name, why the stage could not process an image, as the footers say."""

    def read() -> dict[str, str]:
        from synthgen.storage.shard_store import ShardStore

        shards = ShardStore(store)
        footers = (shards.read_footer(shard) or {} for shard in shards.list_shards("world", "train", layer))
        return {entry["file_name"]: entry["error"] for footer in footers for entry in footer["failed"]}

    return dict(call_in_fork(read))


def failed_shards(store: Path, layer: str) -> set[int]:
    """The shards that the log of failures names."""
    log = store / f"world/train/{layer}/_log/failures.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return {int(json.loads(line)["shard"].rsplit("/", 1)[1].split("-")[0]) for line in lines}


def run_stages(world: World, store: Path, output: Path, plugins: dict[str, tuple[object, ...]]) -> dict[str, Ended]:
    """Run the stages of `plugins` undisturbed, in order; (): the usual plugin."""
    ended = {}
    for stage, plugin in plugins.items():
        ended[stage] = Running(world.words(stage, store, world.photos, plugin), output).wait()
    return ended


def _same_bytes(path: Path, other: Path) -> bool:
    return other.exists() and path.read_bytes() == other.read_bytes()
