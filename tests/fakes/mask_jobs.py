"""Masks jobs over drawn photographs, and what they have written."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from fakes import coco_dataset
from synthgen import plugins
from synthgen.generate.engine import run_in_process
from synthgen.generate.job import Job
from synthgen.generate.run import run_job, select_shards
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore

SIZE = (72, 96)


def make_job(folder: Path, *, images: int = 12, shards: int = 3, plugin: str = "box_fill", **given: object) -> Job:
    """An ingested world of `images` images in `shards` shards, and the job that fills its masks."""
    if not (folder / "boxes.json").exists():
        coco_dataset.write_coco_dataset(folder, images=images)
        store = ShardStore(folder / "store")
        each = images // shards
        for index in range(shards):
            samples = [sample(number) for number in range(index * each + 1, (index + 1) * each + 1)]
            footer = {"fingerprint": "parent", "categories": ["ball"], "counts": {"images": each}, "recipe": {}}
            store.commit(Shard("world", "train", "annotations", index, shards), samples, footer)
    options = plugins.complete_options("generate.segmenters", plugin, given)
    return Job(
        stage="masks",
        dataset="world",
        split="train",
        input_layer="annotations",
        layer="masks",
        plugin=plugin,
        options=options,
        store=folder / "store",
        image_folder=folder / "photos",
    )


def sample(number: int) -> Sample:
    boxes = (
        Annotation(number * 10, (5.0, 6.0, 20.0, 30.0), "ball"),
        Annotation(number * 10 + 1, (50.0, 40.0, 60.0, 20.0), "ball", flags=("clipped",)),
        Annotation(number * 10 + 2, (0.0, 0.0, 90.0, 70.0), "coin", iscrowd=True, flags=("crowd",)),
        Annotation(number * 10 + 3, (9.0, 9.0, 0.0, 5.0), "coin", flags=("degenerate",)),
    )
    lists = ((), ("cat", "dog"), None)[number % 3], ("coin",) * (number % 2)
    return Sample(number, f"world/{number}", f"{number:04d}.png", *SIZE, boxes, None, *lists)


def do(job: Job, **more: object) -> object:
    return run_job(job, select_shards(job), run_in_process, **more)  # type: ignore[arg-type]


def layer_bytes(job: Job) -> dict[str, bytes]:
    folder = ShardStore(job.store).layer_folder(job.dataset, job.split, job.layer)
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def rows(job: Job) -> list[Sample]:
    store = ShardStore(job.store)
    return [s for shard in store.list_shards(job.dataset, job.split, job.layer) for s in store.read_samples(shard)]


def redden(folder: Path, number: int) -> None:
    path = folder / "photos" / f"{number:04d}.png"
    picture = Image.open(path).convert("RGB")
    picture.putpixel((0, 0), (255, 0, 0))
    picture.save(path)
