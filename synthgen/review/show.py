"""Draws images of a layer: `synthgen show LAYER`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from synthgen.errors import SynthgenError
from synthgen.images.decode import ImageError, find_image, load_rgb
from synthgen.records.sample import Sample
from synthgen.storage.image_folder import find_image_folder
from synthgen.storage.run_log import log_folder
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.visualize.contact_sheet import make_contact_sheet, make_thumbnail
from synthgen.visualize.drawing import save_png
from synthgen.visualize.sample_view import draw_sample


def draw_layer(
    layer: str,
    store: Path,
    *,
    images: Path | None = None,
    out: Path | None = None,
    num_images: int = 16,
    seed: int = 0,
    only_images: Sequence[str] = (),
    on_images: Callable[[int], None] = lambda _: None,
) -> tuple[Path, list[Path]]:
    """Draw `num_images` images of a layer, chosen by `seed`, or those whose file name or image id is in `only_images`.

    Args:
        layer: DATASET/SPLIT/LAYER.
        store: root folder of the shards.
        images: image folder; None = the one that the layer was made from.
        out: folder of the pictures; None = `show` in the layer's log folder.
        num_images: how many images to draw.
        seed: chooses the images.
        only_images: file names or image ids; if there are any, only these images are drawn.
        on_images: called with 1 after each image.

    Returns:
        The contact sheet's path and the single pictures' paths.

    Raises:
        SynthgenError: no such layer, no such image, or an unknown image folder.
    """
    shard_store = ShardStore(store)
    shards = resolve_shards(layer, store)
    place = shards[0].dataset, shards[0].split, shards[0].layer
    folder = images or find_image_folder(shard_store, *place)
    if folder is None:
        raise SynthgenError(f"where are the images of {place[0]}/{place[1]}? Say it with --images FOLDER")
    out = out or log_folder(shard_store, *place) / "show"
    chosen = list(
        _select_named(shard_store, shards, only_images)
        if only_images
        else _sample_randomly(shard_store, shards, num_images, seed)
    )
    pictures, paths = [], []
    for sample in chosen:
        try:
            pixels = load_rgb(find_image(folder, sample.file_name), sample.height, sample.width)
        except ImageError as why:
            pixels, sample = None, replace(sample, error=sample.error or str(why))
        drawn = draw_sample(sample, pixels)
        pictures.append(make_thumbnail(drawn, num_pictures=len(chosen)))
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(sample.file_name).stem)[-80:]
        paths.append(out / f"{sample.image_id}-{stem}.png")
        save_png(paths[-1], drawn)
        on_images(1)
    save_png(out / "sheet.png", make_contact_sheet(pictures))
    return out / "sheet.png", paths


def resolve_shards(layer: str, store: Path) -> list[Shard]:
    """The shards of a layer named DATASET/SPLIT/LAYER.

    Args:
        layer: DATASET/SPLIT/LAYER.
        store: root folder of the shards.

    Raises:
        SynthgenError: the name is not valid, or there is no such layer.
    """
    parts = layer.strip("/").split("/")
    shard_store = ShardStore(store)
    shards = shard_store.list_shards(*parts) if len(parts) == 3 else []
    if not shards:
        names = ["/".join(found) for found in shard_store.list_layers()]
        of_dataset = [name for name in names if name.startswith(f"{parts[0]}/")]
        have = ", ".join(of_dataset or names) or "none"
        raise SynthgenError(
            f"no layer '{layer}' in {store}; name one as DATASET/SPLIT/LAYER (have: {have}), or a manifest as FILE.yaml"
        )
    return shards


def _sample_randomly(shard_store: ShardStore, shards: Sequence[Shard], num_images: int, seed: int) -> Iterator[Sample]:
    """`num_images` samples from shards and rows drawn by `seed`, in order of the layer; images with boxes first."""
    rng = random.Random(seed)  # noqa: S311 - which pictures to look at is no secret
    some = sorted(rng.sample(shards, min(len(shards), num_images)))
    found: list[Sample] = []
    for place, shard in enumerate(some):
        rows = list(shard_store.read_samples(shard))
        wanted = (num_images - len(found)) // (len(some) - place)
        rows.sort(key=lambda s: (not s.annotations, rng.random()))
        found += sorted(rows[:wanted], key=lambda s: s.image_id)
    return iter(found)


def _select_named(shard_store: ShardStore, shards: Sequence[Shard], only_images: Sequence[str]) -> Iterator[Sample]:
    left = set(only_images)
    for shard in shards:
        for batch in shard_store.read_columns(shard, ["image_id", "file_name"]):
            names = [*map(str, batch.column("image_id").to_pylist()), *batch.column("file_name").to_pylist()]
            if left.intersection(names):
                break
        else:
            continue
        for sample in shard_store.read_samples(shard):
            hit = left & {str(sample.image_id), sample.file_name}
            if hit:
                left -= hit
                yield sample
    if left:
        raise SynthgenError(f"no image {', '.join(sorted(left))} in {shards[0].dataset}/{shards[0].split}")
