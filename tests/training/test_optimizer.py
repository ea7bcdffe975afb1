"""Learning rates and parameter groups."""

from __future__ import annotations

import pytest
import torch
from fakes.training_runs import write_manifest

from synthgen.checkpoints import checkpoint
from synthgen.dataloading.config import ScheduleConfig
from synthgen.dataloading.manifest import load_manifest
from synthgen.training import trainer
from synthgen.training.learner import SegmentationLearner
from synthgen.training.optimizer import lr_factor, parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")


def test_rates_of_steps():
    schedule = ScheduleConfig(steps=100, warmup_steps=10, milestones=(0.9, 0.95))
    shares = [lr_factor(schedule, step) for step in (0, 4, 9, 50, 89, 90, 94, 95, 99)]
    assert shares == pytest.approx([0.1, 0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert lr_factor(ScheduleConfig(steps=100, warmup_steps=0, milestones=()), 0) == 1


def test_rates_of_a_cosine():
    schedule = ScheduleConfig(steps=100, warmup_steps=10, lr_decay="cosine")
    shares = [lr_factor(schedule, step) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert [shares[i] for i in (25, 50, 75, 100)] == pytest.approx([0.8535534, 0.5, 0.1464466, 0])
    assert all(later < earlier for earlier, later in zip(shares[9:], shares[10:], strict=False))


def test_groups_of_parameters(tmp_path):
    manifest = load_manifest(write_manifest(tmp_path, "steps: 1, backbone_lr: 1.0e-5, weight_decay: 0.05"))
    learner = SegmentationLearner(manifest, torch.device("cpu"))
    groups = learner.param_groups(manifest.schedule)
    place = {id(p): group for group in groups for p in group["params"]}
    names = dict(learner.module.named_parameters())
    assert len(place) == sum(p.requires_grad for p in names.values())
    for name, rate, decay in (
        ("backbone.body.swin.embeddings.patch_embeddings.projection.weight", 1e-5, 0.05),
        ("backbone.body.swin.embeddings.norm.weight", 1e-5, 0.0),
        ("decoder.class_embed", 1e-3, 0.05),
        ("decoder.query_feat", 1e-3, 0.0),
        ("decoder.layers.0.norm1.bias", 1e-3, 0.0),
        ("decoder.layers.0.linear1.bias", 1e-3, 0.05),
        ("decoder.logit_scale", 1e-3, 0.0),
        ("pixel_decoder.level_embed", 1e-3, 0.0),
    ):
        group = place[id(names[name])]
        assert (group["lr"], group["weight_decay"]) == (rate, decay), name
    table = next(name for name in names if name.endswith("relative_position_bias_table"))
    assert place[id(names[table])]["weight_decay"] == 0.0
    assert not parameter_groups(learner.module, manifest.schedule, {"": 0.0})


def test_a_backbone_of_timm_has_its_own_rate_and_no_decay_of_norms_and_scales(tmp_path):
    path = write_manifest(tmp_path, "steps: 1, backbone_lr: 1.0e-5, weight_decay: 0.05")
    path.write_text(
        path.read_text().replace("backbone: tiny", "backbone: timm/convnext_atto, backbone_weights: random")
    )
    learner = SegmentationLearner(load_manifest(path), torch.device("cpu"))
    place = {id(p): group for group in learner.param_groups(load_manifest(path).schedule) for p in group["params"]}
    found = {name: place[id(p)] for name, p in learner.module.named_parameters() if name.startswith("backbone.")}
    assert {group["lr"] for group in found.values()} == {1e-5}
    free = {name for name, group in found.items() if not group["weight_decay"]}
    norms = {
        f"{name}.{own}"
        for name, part in learner.module.backbone.named_modules(prefix="backbone")
        if isinstance(part, torch.nn.LayerNorm)
        for own, _ in part.named_parameters()
    }
    scales = {name for name in found if name.endswith(".gamma")}
    assert norms and scales and free == norms | scales


def test_words_that_no_image_names_do_not_fade():
    """Weight decay would take a table's rows to zero that have no gradient."""
    tables = torch.nn.ModuleDict({"words": torch.nn.Embedding(4, 2), "linear": torch.nn.Linear(2, 2)})
    groups = parameter_groups(tables, ScheduleConfig(weight_decay=0.1), {})
    assert {len(own["params"]): own["weight_decay"] for own in groups} == {1: 0.0, 2: 0.1}


def test_what_does_not_learn_has_no_gradients(tmp_path):
    manifest = load_manifest(write_manifest(tmp_path, "steps: 1, backbone_lr: 0"))
    learner = SegmentationLearner(manifest, torch.device("cpu"))
    learner.param_groups(manifest.schedule)
    learns = {name.split(".")[0] for name, p in learner.module.named_parameters() if p.requires_grad}
    assert learns == {"pixel_decoder", "decoder"}
    done = trainer.train(tmp_path / "m.yaml", out=tmp_path / "run")
    assert "backbone.body.swin.embeddings.norm.weight" in checkpoint.load_checkpoint(done.last_checkpoint).weights
