"""From an annotation file to training and evaluation batches."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import coco_dataset
from PIL import Image

from synthgen.cli.main import main
from synthgen.dataloading.collate import PIXEL_MEAN, PIXEL_STD
from synthgen.dataloading.eval_loader import EvalLoader
from synthgen.dataloading.manifest import load_manifest
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.storage.shard_store import ShardStore

IMAGES, OBJECTS = 8, 3

MANIFEST = """
name: walk
store: shards
mixture:
  - {shards: boxes/train/captions, task: instance, ratio: 2, min_box_iou: 0.9}
  - {shards: boxes/train/captions, task: referring, ratio: 2}
  - {shards: boxes/train/annotations, task: detection}
exclude: [unseen.txt]
eval:
  - {shards: unseen/val/human, task: instance}
augment: {size: 128, scale: [1.0, 1.0], whole_scale: [1.0, 1.0], flip: 0}
"""


@pytest.fixture
def walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Boxes in a file, ingested, masked and captioned as a person types it; and a manifest of what came of it."""
    coco_dataset.write_coco_dataset(tmp_path, images=IMAGES, objects=OBJECTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNTHGEN_STORE", raising=False)
    own = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")
    for words in (("masks", *own, "--segmenter", "box_fill"), ("captions", *own)):
        monkeypatch.setattr(sys, "argv", ["synthgen", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, capsys.readouterr()
    store = ShardStore(tmp_path / "shards")
    keys = [s.image_key for shard in store.list_shards("boxes", "train", "captions") for s in store.read_samples(shard)]
    (tmp_path / "unseen.txt").write_text(f"{keys[0]}\n")
    (tmp_path / "walk.yaml").write_text(MANIFEST)
    return tmp_path


def test_from_an_annotation_file_to_a_batch(walked: Path) -> None:
    manifest = load_manifest(walked / "walk.yaml")
    samples = {
        sample.image_key: sample
        for shard in ShardStore(manifest.store).list_shards("boxes", "train", "captions")
        for sample in ShardStore(manifest.store).read_samples(shard)
    }
    excluded = (walked / "unseen.txt").read_text().strip()
    learned = set()
    with TrainLoader(manifest, batch_size=4, num_workers=1) as loader:
        for _ in range(10):
            batch = next(loader)
            assert batch.images.shape == (4, 3, 128, 128) and torch.isfinite(batch.images).all()
            for image, padding, target, source in zip(*batch, strict=True):
                sample = samples[target["image_key"]]
                learned.add((source, sample.image_key))
                height, width = target["size"]
                assert (height, width) == (96, 128) and target["orig_size"] == (sample.height, sample.width)
                assert padding[height:].all() and not padding[:height].any()
                photo = Image.open(walked / "photos" / sample.file_name).resize(
                    (width, height), Image.Resampling.BILINEAR
                )
                pixels = (np.asarray(photo) - np.array(PIXEL_MEAN)) / np.array(PIXEL_STD)
                assert np.abs(image[:, :height].numpy().transpose(1, 2, 0) - pixels).max() < 0.1
                check_objects(sample, target, source)
        assert excluded not in {key for _, key in learned} and len({key for _, key in learned}) == IMAGES - 1
        seen = [count["images"] for count in loader.stats.counts]
    assert sum(seen) == 40 and seen[0] == pytest.approx(16, abs=3) and seen[1] == pytest.approx(16, abs=3)


def check_objects(sample, target, source: int) -> None:
    """Every object of the file is there: in its place, under its name or a phrase of its own, with its mask."""
    own = {a.id: a for a in sample.annotations}
    learned = [i for ids in target["annotation_ids"] for i in ids]
    assert len(learned) == len(set(learned)) > 0 and set(learned) <= own.keys()
    if source != 1:
        assert set(target["texts"]) == set(coco_dataset.CATEGORIES) and len(target["labels"]) == OBJECTS
    masks = iter(target["masks"])
    for ids, label, box, has_mask in zip(
        target["annotation_ids"], target["labels"], target["boxes"], target["has_mask"], strict=True
    ):
        annotation = own[ids[0]]
        x, y, w, h = np.array(annotation.bbox) / np.array([sample.width, sample.height] * 2)
        assert np.allclose(box, [x + w / 2, y + h / 2, w, h], atol=0.02)
        words = [caption.text for caption in annotation.captions] if source == 1 else [annotation.category]
        assert target["texts"][label] in words
        assert bool(has_mask) == (source != 2)
        if has_mask:  # the box as a mask
            down, across = np.nonzero(next(masks).numpy())
            height, width = target["size"]
            assert np.allclose([across.min() / width, down.min() / height], [x, y], atol=0.02)
            assert len(down) == pytest.approx(w * h * width * height, rel=0.15)


def test_from_an_annotation_file_to_an_evaluation(walked: Path) -> None:
    """The same images, once each, whole."""
    text = MANIFEST.replace("unseen/val/human", "boxes/train/masks")
    (walked / "walk.yaml").write_text(text)
    once = EvalLoader(load_manifest(walked / "walk.yaml"), 0, batch_size=3, short_side=96, long_side=256)
    assert [target["sample"].image_id for batch in once for target in batch.targets] == list(range(1, IMAGES + 1))
    assert once.stats.counts[0] == {"images": IMAGES, "objects": OBJECTS * IMAGES, "masks": OBJECTS * IMAGES}


def test_a_manifest_that_was_checked_is_one_that_can_be_read(walked: Path) -> None:
    (walked / "walk.yaml").write_text(MANIFEST.partition("eval:")[0])
    manifest = check_manifest(walked / "walk.yaml").manifest
    with TrainLoader(manifest, batch_size=2, num_workers=0) as loader:
        assert len(next(loader).targets) == 2
