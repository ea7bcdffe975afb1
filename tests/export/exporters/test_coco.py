"""The exporter of COCO: what pycocotools reads, and the AP that it computes of an exported file."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import exports
from fakes.reader_output import ingest_layer
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from synthgen.dataloading.tasks import instance
from synthgen.errors import SynthgenError
from synthgen.evaluation.metrics import Detection, GroundTruth, ap
from synthgen.export.exporters import coco
from synthgen.export.options import ExportOptions
from synthgen.formats.readers import coco_json
from synthgen.layers.layer import load_layer
from synthgen.layers.layer_export import export_layers
from synthgen.records.boxes import xywh_to_xyxy
from synthgen.records.rle import decode_mask, encode_mask
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore


def write(folder: Path, count: int = 6, **options: Any) -> dict[str, Any]:
    exporter = coco.build(exports.make_context(folder), coco.OPTIONS(**options))
    for item in exports.make_items(count):
        assert len(exporter.write(item)) == len(item.sample.annotations)
    exporter.finish()
    files = sorted((folder / "annotations").iterdir())
    assert [file.name for file in files] == ["instances_train.json", "instances_val.json"], "no file beside them"
    return {file.stem: json.loads(file.read_text()) for file in files}


def test_each_split_has_its_images_and_all_categories(tmp_path: Path) -> None:
    found = write(tmp_path / "out")
    items = exports.make_items()
    for split in ("train", "val"):
        content = found[f"instances_{split}"]
        own = [item for item in items if item.split == split]
        assert [image["id"] for image in content["images"]] == [item.sample.image_id for item in own]
        assert [a["id"] for a in content["annotations"]] == [a.id for item in own for a in item.sample.annotations]
        assert [c["id"] for c in content["categories"]] == [3, 7, 9]
        assert content["licenses"] == [{"id": 1, "name": exports.LICENSES[0].name, "url": exports.LICENSES[0].url}]


def test_everything_can_be_numbered_anew(tmp_path: Path) -> None:
    for content in write(tmp_path / "out", renumber=True).values():
        for key in ("images", "annotations"):
            assert [record["id"] for record in content[key]] == list(range(1, len(content[key]) + 1))


def test_ids_that_two_images_share_are_refused(tmp_path: Path) -> None:
    exporter = coco.build(exports.make_context(tmp_path / "out"), coco.OPTIONS())
    [item] = exports.make_items(1)
    exporter.write(item)
    exporter.write(item)
    with contextlib.closing(exporter), pytest.raises(SynthgenError, match=r"two images have the id 1, .*renumber=true"):
        exporter.finish()


def degrade(annotation: Annotation) -> Annotation:
    """The mask as a poor model draws it: moved by some pixels, with a score that follows from the id."""
    rng = random.Random(annotation.id)
    assert annotation.segmentation is not None
    moved = np.roll(decode_mask(annotation.segmentation), (rng.randrange(9), rng.randrange(9)), (0, 1))
    return replace(
        annotation,
        segmentation=encode_mask(moved),
        mask_source="toy model",
        predicted_iou=rng.random(),
        area=None,
    )


def average_precision_inside(human: Sequence[Sample], drawn: Sequence[Sample], names: list[str]) -> dict[str, float]:
    results = []
    for truth, made in zip(human, drawn, strict=True):
        target = instance.target(truth, names, random.Random(0), max_texts=1000)
        if target is None:
            continue
        detections = []
        for number, a in enumerate(made.annotations):
            [box] = xywh_to_xyxy(np.array([a.bbox])).tolist()
            assert a.predicted_iou is not None
            label = target.texts.index(a.category)
            detections.append(Detection(label, a.predicted_iou, tuple(box), a.segmentation, number))
        results.append(ap.compare(GroundTruth(truth, target), detections))
    return dict(ap.scores(results).values)


def test_pycocotools_computes_the_ap_that_is_computed_inside(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """The exported masks of a model against the human file, by pycocotools and by `evaluation/`."""
    root = shared("data/coco_tiny")
    source = root / "annotations/instances_train2017.json"
    human = ingest_layer(tmp_path / "store", coco_json, coco_json.files(root / "train2017", "train", source), "human")
    store = ShardStore(tmp_path / "store")
    [place] = [path.relative_to(store.root).parts for path in store.root.glob("*/*/human")]
    footer = store.read_footer(store.list_shards(*place)[0]) or {}
    drawn = [
        replace(sample, annotations=tuple(degrade(a) for a in sample.annotations if not a.iscrowd)) for sample in human
    ]
    members = {key: value for key, value in footer.items() if key != "identity"}
    store.commit(Shard(place[0], place[1], "masks", 0, 1), drawn, members)
    layer = load_layer(store.root, f"{place[0]}/{place[1]}/masks", images=root / "train2017")
    export_layers([layer], "coco", tmp_path / "out", options=ExportOptions(image_mode="none"))
    [file] = (tmp_path / "out/annotations").iterdir()
    exported = json.loads(file.read_text())["annotations"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(source))
        results = [{**a, "score": a["predicted_iou"]} for a in exported]
        judge = COCOeval(truth, truth.loadRes(results), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    inside = average_precision_inside(human, drawn, list(layer.categories))
    theirs = dict(zip(("AP", "AP50", "AP75"), (100 * judge.stats[:3]).tolist(), strict=True))
    assert {name: inside[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)
    assert 5 < theirs["AP"] < 95
