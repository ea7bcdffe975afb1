"""The ways of `loader.py` to batches for training: iterators over how many images each batch had."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import DataLoader, Dataset, IterableDataset

from synthgen import plugins
from synthgen.dataloading import row_stream
from synthgen.dataloading.augment import AugmentConfig
from synthgen.dataloading.collate import PackedBatch, collate, unpack_batch
from synthgen.dataloading.manifest import load_manifest
from synthgen.dataloading.mixture import StreamItem
from synthgen.dataloading.tasks import Target
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.dataloading.transforms import make_train_example
from synthgen.images.decode import load_rgb
from synthgen.records.boxes import clip_xyxy, xywh_to_xyxy
from synthgen.records.rle_ops import rle_difference, rle_from_box, rle_union
from synthgen.records.sample import Rle
from synthgen.storage.shard_store import ShardStore

#: Batches that each process makes ahead.
AHEAD = 2


@dataclass(frozen=True, slots=True)
class Content:
    """What all ways read, below `folder`: annotations.json, shards/, tars/.

    Attributes:
        images: the folder that its names lie below; photographs: files, each once.
        size, boxes, masks: how many; tars: how often each is listed.
        workers, batch_size, count: how to read it, and how many images are timed.
    """

    folder: str
    images: str
    photographs: list[str]
    size: int
    boxes: int
    masks: int
    tars: int
    workers: int
    batch_size: int
    count: int


def ours(content: Content, seed: int) -> Iterator[int]:
    """A manifest, read and looked up."""
    manifest = load_manifest(Path(content.folder, "manifest.yaml")).model_copy(update={"seed": seed})
    batches = TrainLoader(manifest, batch_size=content.batch_size, num_workers=content.workers, prefetch_factor=AHEAD)
    while True:
        yield len(next(batches).targets)  # no way keeps a batch while the next is made


class Coco(Dataset[StreamItem]):
    """All annotations in memory."""

    def __init__(self, content: Content) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco = COCO(str(Path(content.folder, "annotations.json")))
        self.images, self.ids, self.augment = content.images, sorted(self.coco.imgs), AugmentConfig()
        self.names = tuple(category["name"] for category in self.coco.cats.values())
        self.label = {category: i for i, category in enumerate(self.coco.cats)}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> StreamItem:
        info = self.coco.imgs[self.ids[index]]
        file = Path(self.images, info["file_name"].removeprefix("images/v1/"))
        return drawn(file, self.target(info), self.augment, random.Random(), str(info["id"]))

    def target(self, info: dict[str, Any]) -> Target:
        found = self.coco.loadAnns(self.coco.getAnnIds(info["id"]))
        masks = [self.coco.annToRLE(one) if "segmentation" in one else None for one in found]
        labels = [self.label[one["category_id"]] for one in found]
        return target_of(found, labels, masks, self.names, info["height"], info["width"])


def pycocotools(content: Content, seed: int) -> Iterator[int]:  # noqa: ARG001 - torch draws anew in each process
    """The Dataset, in an order drawn anew each epoch."""
    batches: DataLoader[Any] = DataLoader(
        Coco(content), content.batch_size, shuffle=True, num_workers=content.workers, collate_fn=collate,
        prefetch_factor=AHEAD if content.workers else None, persistent_workers=content.workers > 0,
    )  # fmt: skip
    yield from counted(itertools.chain.from_iterable(itertools.repeat(batches)))


def webdataset(content: Content, seed: int) -> Iterator[int]:
    """Tars drawn at random, and a buffer of a thousand samples to shuffle them in, as its documentation has it."""
    import webdataset as wds

    header = json.loads(Path(content.folder, "tars", "names.json").read_text())
    names, label, augment = tuple(header), {name: i for i, name in enumerate(header)}, AugmentConfig()

    def made(sample: dict[str, Any]) -> StreamItem:
        told = json.loads(sample["json"])
        found = told["annotations"]
        labels = [label[one["category"]] for one in found]
        masks = [one.get("segmentation") for one in found]
        target = target_of(found, labels, masks, names, told["height"], told["width"])
        return drawn(io.BytesIO(sample["jpg"]), target, augment, random.Random(), sample["__key__"])

    urls = sorted(map(str, Path(content.folder, "tars").glob("*.tar"))) * content.tars
    stream = wds.WebDataset(urls, resampled=True, shardshuffle=False, seed=seed).shuffle(1000).map(made)
    stream = stream.batched(content.batch_size, collation_fn=collate)
    ahead = AHEAD if content.workers else None
    batches = wds.WebLoader(
        stream, batch_size=None, num_workers=content.workers, prefetch_factor=ahead, collate_fn=same
    )
    yield from counted(iter(batches))


class Pixels(IterableDataset[int]):
    """Pixels of photographs, batch by batch; they go nowhere."""

    def __init__(self, content: Content) -> None:
        self.content = content

    def __iter__(self) -> Iterator[int]:
        draw = random.Random()
        while True:
            for path in draw.choices(self.content.photographs, k=self.content.batch_size):
                load_rgb(Path(path))
            yield self.content.batch_size


def decoding(content: Content, seed: int) -> Iterator[int]:  # noqa: ARG001
    """The limit."""
    yield from DataLoader(
        Pixels(content), batch_size=None, num_workers=content.workers, collate_fn=same,
        prefetch_factor=AHEAD if content.workers else None,
    )  # fmt: skip


WAYS = {"ours": ours, "pycocotools": pycocotools, "webdataset": webdataset, "decoding": decoding}


def target_of(
    found: Sequence[dict[str, Any]], labels: Sequence[int], masks: Sequence[dict[str, Any] | None],
    names: tuple[str, ...], height: int, width: int,
) -> Target:  # fmt: skip
    """COCO's annotations as a Target: crowds are ignored, all else is an object, all names are asked for."""
    boxes = clip_xyxy(xywh_to_xyxy([one["bbox"] for one in found] or np.zeros((0, 4))), height, width)
    rles = [rle and Rle((rle["size"][0], rle["size"][1]), bytes_of(rle["counts"])) for rle in masks]
    kept = [i for i, one in enumerate(found) if not one["iscrowd"]]
    crowds = [rles[i] or rle_from_box(tuple(boxes[i]), height, width) for i, one in enumerate(found) if one["iscrowd"]]
    return Target(
        texts=names,
        labels=np.array([labels[i] for i in kept], np.int64),
        boxes_xyxy=boxes[kept].astype(np.float32).reshape(-1, 4),
        masks=tuple(rles[i] for i in kept),
        mask_weights=np.ones(len(kept), np.float32),
        ignore=rle_difference(rle_union(crowds), [rles[i] for i in kept if rles[i] is not None]) if crowds else None,
        annotation_ids=tuple((found[i]["id"],) for i in kept),
    )


def bytes_of(counts: str | bytes) -> bytes:
    return counts.encode() if isinstance(counts, str) else counts


def drawn(file: Any, target: Target, augment: AugmentConfig, draw: random.Random, key: str) -> StreamItem:
    """One view of one image."""
    image = np.asarray(Image.open(file).convert("RGB"))
    return StreamItem(make_train_example(image, target, "jitter", augment, draw), 0, key)


def same(sent: Any) -> Any:
    return sent


def counted(batches: Iterator[PackedBatch]) -> Iterator[int]:
    while True:
        yield len(unpack_batch(next(batches)).targets)


def compare(content: Content) -> None:
    """Ours and pycocotools must teach the same of each photograph, or there is nothing to compare."""
    manifest = load_manifest(Path(content.folder, "manifest.yaml"))
    task = plugins.load_plugin("dataloading.tasks", manifest.mixture[0].task)
    coco, store = Coco(content), ShardStore(manifest.store)
    taken = row_stream.build_source_index(store, manifest.mixture[0])
    samples = row_stream.SequentialRows(store, taken)
    for row in range(len(content.photographs)):
        sample = samples[row]
        theirs = coco.target(coco.coco.imgs[sample.image_id])
        own = task.target(sample, taken.categories, random.Random())
        assert described(own) == described(theirs), f"other objects in {sample.file_name}"
        assert own.ignore == theirs.ignore, f"other crowds in {sample.file_name}"


def described(target: Target) -> list[tuple[str, list[float], bytes | None]]:
    objects = zip(target.labels, target.boxes_xyxy.tolist(), target.masks, strict=True)
    return sorted((target.texts[label], box, rle and rle.counts) for label, box, rle in objects)
