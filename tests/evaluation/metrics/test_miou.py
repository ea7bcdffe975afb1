"""Mean IoU equals that of detectron2."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.golden_eval import GOLDEN, asked, read

from synthgen.evaluation.metrics import (
    SemanticMap,
    miou,
)
from synthgen.images.decode import load_label_map
from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation


def test_mean_iou_is_that_of_detectron2():
    expected, names = read("semantic_expected.json"), list("abcde")
    compared = []
    for number in (1, 2):
        truth, said = (load_label_map(GOLDEN / folder / f"{number}.png") for folder in ("sem_gt", "sem_pred"))
        assert (truth == 255).any(), "nothing is ignored here"
        annotations = [
            Annotation(i + 1, (0.0, 0.0, *map(float, truth.shape[::-1])), name, isthing=False,
                       segmentation=encode_mask(truth == i))
            for i, name in enumerate(names) if (truth == i).any()
        ]  # fmt: skip
        one = asked("semantic", number, truth.shape, annotations, names, names)
        places = np.array([one.target.texts.index(name) for name in names], np.int32)
        compared.append(miou.compare(one, SemanticMap(places[said], {})))
    scores = miou.scores(compared)
    told = {"mIoU": "mIoU", "fwIoU": "fwIoU", "mAcc": "mACC", "pAcc": "pACC"}
    assert scores.values == pytest.approx({ours: expected[theirs] for ours, theirs in told.items()}, abs=1e-12)
    assert list(scores.by_name.values()) == pytest.approx([100 * iou for iou in expected["numpy_iou"]], abs=1e-12)
