"""SAM at full size with random weights, on photographs, compared with segment-anything."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor

from synthgen.cli.main import main
from synthgen.models.sam import build_sam
from synthgen.records.rle import decode_mask
from synthgen.storage.shard_store import ShardStore

pytestmark = pytest.mark.slow

MOST_BOXES = 5


def random_vit_b():
    """No parameter is left at zero, where segment-anything begins with positions."""
    torch.manual_seed(0)
    network = build_sam("vit_b")
    for name, parameter in network.image_encoder.named_parameters():
        if "pos" in name:
            parameter.normal_(std=0.02)
    return network


def test_the_pipelines_masks_are_the_predictors_pixel_for_pixel(shared, tmp_path, monkeypatch):
    data = shared("data/coco_tiny")
    coco = json.loads((data / "annotations/instances_val2017.json").read_text())
    boxes: dict[int, list] = {}
    for annotation in coco["annotations"]:
        if not annotation["iscrowd"] and len(boxes.setdefault(annotation["image_id"], [])) < MOST_BOXES:
            boxes[annotation["image_id"]].append(annotation)
    wide = next(i for i in coco["images"] if i["width"] > i["height"] and len(boxes.get(i["id"], [])) >= 3)
    high = next(i for i in coco["images"] if i["width"] < i["height"] and len(boxes.get(i["id"], [])) >= 2)
    chosen = {
        "images": [wide, high],
        "annotations": boxes[wide["id"]] + boxes[high["id"]],
        "categories": coco["categories"],
    }
    (tmp_path / "two.json").write_text(json.dumps(chosen))
    network = random_vit_b()
    torch.save(network.state_dict(), tmp_path / "random.pth")

    own = ["--dataset", "coco-json", "--annotations", "two.json", "--images", str(data / "val2017")]
    monkeypatch.chdir(tmp_path)
    words = ["masks", *own, "--segmenter", "sam", "--checkpoint", "random.pth", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["synthgen", *words, "-O", "self_test=false"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    (shard,) = ShardStore("shards").list_shards("two", "train", "masks")
    samples = list(ShardStore("shards").read_samples(shard))
    assert len(samples) == 2

    predictor = SamPredictor(network)
    telling = 0
    for sample in samples:
        predictor.set_image(np.asarray(Image.open(data / "val2017" / sample.file_name).convert("RGB")))
        assert sample.annotations
        for annotation in sample.annotations:
            x, y, w, h = annotation.bbox
            box = np.clip([x, y, x + w, y + h], 0, [sample.width, sample.height] * 2)
            logits, iou, _ = predictor.predict(box=box, multimask_output=False, return_logits=True)
            sure = np.abs(logits[0]) > 1e-4
            assert sure.mean() > 0.95, "most pixels are to be compared"
            mask = decode_mask(annotation.segmentation) if annotation.segmentation else np.zeros(sure.shape, bool)
            telling += 0.01 < mask.mean() < 0.99
            assert np.array_equal(mask & sure, (logits[0] > 0) & sure)
            if annotation.segmentation:
                assert annotation.predicted_iou == pytest.approx(float(np.clip(iou[0], 0, 1)), abs=2e-4)
    assert telling >= 3, "masks that are all or nothing prove little"
