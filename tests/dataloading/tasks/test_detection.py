"""Detection targets: those of `instance` without masks."""

from __future__ import annotations

import random

import numpy as np
from fakes.ascii_samples import (
    ascii_sample,
)
from fakes.task_targets import PARK, make_target, park_sample

from synthgen.dataloading.tasks import detection, instance

CATEGORIES = ("person", "dog", "sky", "sky-other")


def test_detection_is_instance_without_masks():
    boxes, masks = make_target(detection, park_sample()), make_target(instance, park_sample())
    assert boxes.masks == (None, None)
    for field in ("texts", "ignore", "annotation_ids"):
        assert getattr(boxes, field) == getattr(masks, field)
    assert np.array_equal(boxes.labels, masks.labels) and np.array_equal(boxes.boxes_xyxy, masks.boxes_xyxy)
    assert detection.target(ascii_sample(PARK, []), CATEGORIES, random.Random(0)) is None
