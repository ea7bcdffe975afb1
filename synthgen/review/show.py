"""Pictures of a layer for a person to look at."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from synthgen.errors import SynthgenError
from synthgen.images.decode import ImageError, find, load_rgb
from synthgen.records.sample import Sample
from synthgen.storage.run_log import images_folder
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.visualize.contact_sheet import sheet, shrunk
from synthgen.visualize.drawing import save
from synthgen.visualize.sample_view import draw


def show(
    layer: str,
    store: Path,
    *,
    images: Path | None = None,
    out: Path | None = None,
    n: int = 16,
    seed: int = 0,
    only: Sequence[str] = (),
    on_images: Callable[[int], None] = lambda _: None,
) -> tuple[Path, list[Path]]:
    """Draw `n` images of a layer, chosen by `seed`, or those whose file name or image id is in `only`.

    Returns:
        The contact sheet's path and the single pictures' paths.

    Raises:
        SynthgenError: no such layer, no such image, or the images' folder is not known.
    """
    house = ShardStore(store)
    shards = committed(layer, store)
    place = shards[0].dataset, shards[0].split, shards[0].layer
    folder = images or images_folder(house, *place)
    if folder is None:
        raise SynthgenError(f"where are the images of {place[0]}/{place[1]}? Say it with --images FOLDER")
    out = out or house.folder(*place) / "_log" / "show"
    chosen = list(_named(house, shards, only) if only else _drawn(house, shards, n, seed))
    pictures, paths = [], []
    for sample in chosen:
        try:
            pixels = load_rgb(find(folder, sample.file_name), sample.height, sample.width)
        except ImageError as why:
            pixels, sample = None, replace(sample, error=sample.error or str(why))
        drawn = draw(sample, pixels)
        pictures.append(shrunk(drawn, of=len(chosen)))
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(sample.file_name).stem)[-80:]
        paths.append(out / f"{sample.image_id}-{stem}.png")
        save(paths[-1], drawn)
        on_images(1)
    save(out / "sheet.png", sheet(pictures))
    return out / "sheet.png", paths


def committed(layer: str, store: Path) -> list[Shard]:
    """The shards of a layer named DATASET/SPLIT/LAYER.

    Raises:
        SynthgenError: the name is none, or there is no such layer.
    """
    parts = layer.strip("/").split("/")
    house = ShardStore(store)
    shards = house.layer(*parts) if len(parts) == 3 else []
    if not shards:
        have = ", ".join("/".join(found) for found in house.layers()) or "none"
        raise SynthgenError(
            f"no layer '{layer}' in {store}; name one as DATASET/SPLIT/LAYER (have: {have}), or a manifest as FILE.yaml"
        )
    return shards


def _drawn(house: ShardStore, shards: Sequence[Shard], n: int, seed: int) -> Iterator[Sample]:
    """`n` samples from shards and rows drawn by `seed`, in order of the layer; images with boxes first."""
    rng = random.Random(seed)  # noqa: S311 - which pictures to look at is no secret
    some = sorted(rng.sample(shards, min(len(shards), n)))
    found: list[Sample] = []
    for place, shard in enumerate(some):
        rows = list(house.read(shard))
        wanted = (n - len(found)) // (len(some) - place)
        rows.sort(key=lambda s: (not s.annotations, rng.random()))
        found += sorted(rows[:wanted], key=lambda s: s.image_id)
    return iter(found)


def _named(house: ShardStore, shards: Sequence[Shard], only: Sequence[str]) -> Iterator[Sample]:
    left = set(only)
    for shard in shards:
        for batch in house.columns(shard, ["image_id", "file_name"]):
            names = [*map(str, batch.column("image_id").to_pylist()), *batch.column("file_name").to_pylist()]
            if left.intersection(names):
                break
        else:
            continue
        for sample in house.read(shard):
            hit = left & {str(sample.image_id), sample.file_name}
            if hit:
                left -= hit
                yield sample
    if left:
        raise SynthgenError(f"no image {', '.join(sorted(left))} in {shards[0].dataset}/{shards[0].split}")
