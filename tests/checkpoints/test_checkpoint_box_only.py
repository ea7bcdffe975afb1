"""Networks trained on boxes alone: the flag in their checkpoint, and the warnings of `predict` and `evaluate`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import eval_dataset
from PIL import Image

from synthgen.checkpoints import checkpoint
from synthgen.errors import SynthgenError
from synthgen.evaluation import postprocess
from synthgen.training import trainer

pytestmark = pytest.mark.usefixtures("one_thread")

SENTENCE = "this network has never learned a mask, only boxes"
TEXT = """
name: {name}
store: store
mixture: [{{shards: gallery/val/human, task: {task}, images: photos}}]
augment: {{size: 64}}
model: {{backbone: tiny, text_encoder: tiny, hidden_dim: 32, encoder_layers: 1, decoder_layers: 1,
  conditional_queries: 10,
  learnable_queries: 6{model}}}
eval_size: [64, 96]
schedule: {{batch_size: 2, mask_points: 16, warmup_steps: 0, steps: {steps}, checkpoint_every: 1}}
dataloader: {{num_workers: 0}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    eval_dataset.write_eval_dataset(tmp_path, images=2)
    return tmp_path


def trained(root: Path, name: str, task: str, *, steps: int = 1, model: str = "") -> Path:
    path = root / f"{name}.yaml"
    path.write_text(TEXT.format(name=name, task=task, steps=steps, model=model))
    return trainer.train(path, out=root / "runs" / name, device="cpu").last_checkpoint


def knows_masks(path: Path) -> bool:
    return checkpoint.load_checkpoint(path).has_learned_masks


def without_the_key(path: Path) -> None:
    """As it was written before the key was there."""
    content = torch.load(path)
    about = json.loads(content["about"])
    del about["masks"]
    torch.save({**content, "about": json.dumps(about)}, path)


def test_a_checkpoint_knows_whether_a_mask_was_ever_learned(root):
    boxes, masks = trained(root, "boxes", "detection"), trained(root, "masks", "instance")
    assert not knows_masks(boxes) and knows_masks(masks)
    assert not knows_masks(trained(root, "boxes", "detection", steps=2)), "where it goes on"
    for weights, carried in ((boxes, False), (masks, True)):
        name, begins = f"after-{weights.parent.name}", f", weights: {weights}"
        assert knows_masks(trained(root, name, "detection", model=begins)) == carried
        weights.rename(weights.with_suffix(".away"))
        assert knows_masks(trained(root, name, "detection", model=begins, steps=2)) == carried, "where it goes on"
        weights.with_suffix(".away").rename(weights)
    assert knows_masks(trained(root, "at-last", "instance", model=f", weights: {boxes}"))


def test_one_of_before_the_key_was_there_counts_as_having_learned_masks(root):
    path = trained(root, "boxes", "detection")
    without_the_key(path)
    assert knows_masks(path) and checkpoint.load_network(path, device=torch.device("cpu"))[1].has_learned_masks
    assert knows_masks(trained(root, "boxes", "detection", steps=2))


@pytest.mark.parametrize("said", [0, "no", None, [], {"a": 1}], ids=str)
def test_one_that_says_neither_yes_nor_no_is_refused(root, said):
    path = eval_dataset.write_checkpoint(root / "best.pt")
    checkpoint.save_checkpoint(path, replace(checkpoint.load_checkpoint(path), has_learned_masks=said))
    with pytest.raises(SynthgenError, match=r"best\.pt cannot be used as a checkpoint: it is damaged"):
        checkpoint.load_checkpoint(path)


def test_of_boxes_alone_boxes_are_drawn_and_written(root, synthgen):
    """And where a mask of noise would be empty, its box counts all the same."""
    trained(root, "boxes", "detection")
    words = ("predict", "photos/1.png", "ball", "sky", "--checkpoint", "runs/boxes/step-00000001.pt", "--device", "cpu")
    code, told = synthgen(*words, "--threshold", "0")
    assert code == 0 and told.count(SENTENCE) == 1, told
    content = json.loads(Path("predictions/1.png.found.json").read_text())
    assert len(content["found"]) == 16 * 2 and not any("segmentation" in one for one in content["found"])
    assert not any(one["empty"] for one in content["asked"])
    network, _ = checkpoint.load_network(Path("runs/boxes/step-00000001.pt"), device=torch.device("cpu"))
    from synthgen.evaluation.network_predictor import predict_images

    pixels = np.asarray(Image.open("photos/1.png"))
    (seen,) = predict_images(
        network, [pixels], ("ball", "sky"), is_category_name=True, precision="fp32", sides=(64, 96)
    )
    likely = seen.logits.sigmoid()
    assert [one["score"] for one in content["found"]] == pytest.approx(sorted(likely.flatten().tolist(), reverse=True))
    assert [one["best"] for one in content["asked"]] == pytest.approx(likely.max(0).values.tolist())
    code, told = synthgen(*words, "--threshold", "1")
    assert code == 0 and "nothing reaches 1; the best is" in told and SENTENCE in told


def test_of_boxes_alone_a_photograph_is_not_tinted(root, synthgen, monkeypatch):
    trained(root, "boxes", "detection")
    drawn = []
    monkeypatch.setattr(
        "synthgen.evaluation.prediction_pictures.draw_overlay", lambda image, marks, *_: drawn.extend(marks) or image
    )
    monkeypatch.setattr(postprocess, "instances", lambda *_, **__: pytest.fail("no mask is asked for"))
    where = ("--checkpoint", "runs/boxes/step-00000001.pt", "--device", "cpu", "--threshold", "0")
    assert synthgen("predict", "photos/1.png", *where)[0] == 0
    assert drawn and all(mark.mask is None for mark in drawn)


@pytest.mark.parametrize(("task", "said"), [("instance", 1), ("detection", 0)])
def test_an_evaluation_by_masks_says_it_too(root, synthgen, caplog, task, said):
    trained(root, "boxes", "detection")
    Path("measure.yaml").write_text(
        f"name: m\nstore: store\neval: [{{shards: gallery/val/human, task: {task}, images: photos}}]\n"
        "eval_size: [64, 96]\n"
    )
    words = ("--checkpoint", "runs/boxes/step-00000001.pt", "--manifest", "measure.yaml", "--device", "cpu")
    code, told = synthgen("evaluate", *words, "--loader-workers", "0")
    assert code == 0 and caplog.text.count(SENTENCE) == said, told
