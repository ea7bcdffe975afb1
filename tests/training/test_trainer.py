"""The training loop: steps, evaluation, non-finite losses, several processes, compiled layers."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes.text_encoder_folders import write_clip
from fakes.training_runs import read_log, write_manifest, write_manifest_with_eval

from synthgen.checkpoints import checkpoint
from synthgen.errors import SynthgenError
from synthgen.evaluation.results import EvalResult
from synthgen.models.mqformer.text_encoder import load_text_encoder
from synthgen.storage.shard_store import ShardStore
from synthgen.training import run_dir, trainer
from synthgen.training.learner import SegmentationLearner

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_another_seed_learns_otherwise(tmp_path):
    path = write_manifest(tmp_path, "steps: 1")
    first = trainer.train(path, out=tmp_path / "a").last_checkpoint.read_bytes()
    assert trainer.train(path, out=tmp_path / "b").last_checkpoint.read_bytes() == first
    path.write_text(path.read_text() + "seed: 1\n")
    assert trainer.train(path, out=tmp_path / "c").last_checkpoint.read_bytes() != first


def test_a_stale_layer_is_warned_of(tmp_path, caplog):
    path = write_manifest(tmp_path, "steps: 1")
    trainer.train(path, out=tmp_path / "a")
    assert "stale" not in caplog.text
    store = ShardStore(tmp_path / "store")
    shard = store.list_shards("toy", "train", "human")[0]
    store.commit(shard.in_layer("below"), [], {})
    footer = {**(store.read_footer(shard) or {}), "parent": {"layer": "below", "content_sha256": "0" * 64}}
    store.commit(shard, list(store.read_samples(shard)), footer)
    trainer.train(path, out=tmp_path / "b")
    assert "some layers are stale, their inputs have changed: `synthgen check` names them" in caplog.text
    assert "1 of 2 shards of toy/train/human are stale" in (tmp_path / "b" / "checked.txt").read_text()


def test_mistakes_are_found_before_the_first_step(tmp_path):
    path = write_manifest(tmp_path, "steps: 1")
    path.write_text(path.read_text().replace("toy/train/human", "toy/train/humans"))
    with pytest.raises(SynthgenError, match="humans"):
        trainer.train(path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    path = write_manifest(tmp_path, "steps: 1, accumulation_steps: 3")
    with pytest.raises(SynthgenError, match=r"batch_size 4 is not divisible by 1 processes times accumulation_steps 3"):
        trainer.train(path, out=tmp_path / "run")


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_a_text_encoder_learns_at_its_own_rate_without_cached_embeddings(tmp_path, monkeypatch, rate):
    """A CLIP of a folder. In its first step AdamW moves a weight by the rate, whatever its gradient is."""
    folder = write_clip(tmp_path / "clip")
    before = load_text_encoder(folder).state_dict()
    real, cached = SegmentationLearner.compute_losses, []

    def noted(self, *args, **kwargs):
        found = real(self, *args, **kwargs)
        cached.append(len(self.module.text_encoder._cache))
        return found

    monkeypatch.setattr(SegmentationLearner, "compute_losses", noted)
    path = write_manifest(
        tmp_path, f"steps: 1, text_encoder_lr: {rate}, weight_decay: 0", model=", train_text_encoder: true"
    )
    path.write_text(path.read_text().replace("text_encoder: tiny", "text_encoder: ./clip"))
    after = checkpoint.load_checkpoint(trainer.train(path, out=tmp_path / "run").last_checkpoint).weights
    moved = max(float((after[f"text_encoder.{name}"] - weight).abs().max()) for name, weight in before.items())
    assert moved == pytest.approx(rate, rel=0.01, abs=1e-9)
    assert cached == [0]
    network, _ = checkpoint.load_network(tmp_path / "run" / "step-00000001.pt", device=torch.device("cpu"))
    with torch.no_grad():
        learned, frozen = (
            one(["cat"], is_category_name=True) for one in (network.text_encoder, load_text_encoder(folder))
        )
    assert torch.equal(learned, frozen) == (rate == 0)


def test_a_loss_that_is_no_number_stops_with_its_parts(tmp_path, monkeypatch):
    path = write_manifest(tmp_path, "steps: 9, checkpoint_every: 1")
    real, calls = SegmentationLearner.compute_losses, []

    def broken(self, batch, *, num_targets):
        found = real(self, batch, num_targets=num_targets)
        calls.append(1)
        return found if len(calls) < 3 else {**found, "dice": found["dice"] * math.nan}

    monkeypatch.setattr(SegmentationLearner, "compute_losses", broken)
    with pytest.raises(SynthgenError, match=r"step 2 gave what is no number \(loss nan, .*dice nan.*images toy/\d+"):
        trainer.train(path, out=tmp_path / "run")
    assert run_dir.latest_checkpoint(tmp_path / "run").name == "step-00000002.pt"


def edgy(monkeypatch, unsound: range) -> None:
    """Steps, counted over all runs, have losses that are numbers, and gradients that are none."""
    real, calls = SegmentationLearner.compute_losses, []

    def losses(self, batch, *, num_targets):
        found = real(self, batch, num_targets=num_targets)
        calls.append(1)
        weight = next(p for p in self.module.parameters() if p.requires_grad)
        edge = (weight.sum() * 0).sqrt()  # 0, and infinitely steep there
        return {**found, "dice": found["dice"] + edge} if len(calls) - 1 in unsound else found

    monkeypatch.setattr(SegmentationLearner, "compute_losses", losses)


@pytest.mark.slow
def test_a_gradient_that_is_no_number_changes_nothing(tmp_path, monkeypatch, caplog):
    path, run = write_manifest(tmp_path, "steps: 4, checkpoint_every: 1, keep_checkpoints: 9"), tmp_path / "run"
    edgy(monkeypatch, range(1, 2))
    assert trainer.train(path, out=run).new_steps == 4
    assert [line["step"] for line in read_log(run) if "unsound" in line] == [1]
    assert [line["step"] for line in read_log(run) if "gradient" not in line] == [1]
    before, after = (checkpoint.load_checkpoint(run_dir.checkpoint_path(run, step)).weights for step in (1, 2))
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert [record.message for record in caplog.records if "gradient" in record.message] == [
        "step 1: the gradient is no number, though its losses are; it changes nothing"
    ]


def test_several_in_a_row_stop_however_often_it_is_killed(tmp_path, monkeypatch):
    path, run = write_manifest(tmp_path, "steps: 2"), tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer, "_MAX_NONFINITE_STEPS", 3)
    edgy(monkeypatch, range(1, 99))
    trainer.train(path, out=run)
    path.write_text(path.read_text().replace("steps: 2", "steps: 9"))
    with pytest.raises(
        SynthgenError,
        match=r"step 3 gave what is no number \(loss [\d.]+, .*gradient nan; images toy/.*\); begin another run, "
        r"with a lower schedule\.lr \(now 0\.001\) or schedule\.max_grad_norm, in another --out, from this one's last "
        rf"sound checkpoint \(model\.weights: {re.escape(str(run))}/step-00000002\.pt\)$",
    ):
        trainer.train(path, out=Path("run"))  # a manifest's own paths are relative to where it lies


@pytest.mark.slow
def test_a_run_of_which_no_step_was_sound_goes_on(tmp_path, monkeypatch):
    """Nothing has moved, so there is nothing that an optimiser remembers."""
    weights = []
    for first in (2, 4):
        path = write_manifest(tmp_path, f"steps: {first}")
        with monkeypatch.context() as patch:
            edgy(patch, range(2))
            done = trainer.train(path, out=tmp_path / f"{first}")
            path.write_text(path.read_text().replace("steps: 2", "steps: 4"))
            done = trainer.train(path, out=tmp_path / f"{first}")
        weights.append(checkpoint.load_checkpoint(done.last_checkpoint).weights)
    assert all(torch.equal(weights[0][name], weight) for name, weight in weights[1].items())


@pytest.mark.slow
def test_compiled_layers_learn_the_same(tmp_path):
    text = (
        write_manifest(tmp_path, "steps: 2", model=", denoising_groups: 1")
        .read_text()
        .replace("[0.5, 1.5]", "[2.0, 2.0]")
    )
    losses = {}
    for compiled in ("false", "true"):
        path = tmp_path / f"{compiled}.yaml"
        path.write_text(text.replace("schedule: {", f"schedule: {{compile: {compiled}, "))
        run = trainer.train(path, out=tmp_path / compiled).folder
        losses[compiled] = [line["loss"] for line in read_log(run) if line["of"] == "train"]
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-4)
    named = checkpoint.load_checkpoint(run_dir.checkpoint_path(tmp_path / "true", 2)).weights.keys()
    assert named == checkpoint.load_checkpoint(run_dir.checkpoint_path(tmp_path / "false", 2)).weights.keys()


@pytest.mark.slow
def test_what_is_measured_may_fail_and_is_measured_again(tmp_path, monkeypatch):
    path = write_manifest_with_eval(tmp_path, "steps: 4, checkpoint_every: 3, evaluate_every: 2")
    whole = trainer.train(path, out=tmp_path / "whole")
    scores = {2: 5.0, 4: 7.0}
    real, calls = SegmentationLearner.evaluate, list[int]()

    def measured(self, *args, **kwargs):
        calls.append(1)
        if len(calls) in (1, 3):
            raise SynthgenError("no images")
        (found,) = real(self, *args, **kwargs)
        return [replace(found, values={found.metric: scores[2 if len(calls) == 2 else 4]})]

    monkeypatch.setattr(SegmentationLearner, "evaluate", measured)
    run = tmp_path / "run"
    steps = []
    for _ in range(2):
        with pytest.raises(SynthgenError, match="no images"):
            trainer.train(path, out=run)
        steps.append(run_dir.latest_checkpoint(run).name)
    assert steps == ["step-00000002.pt", "step-00000004.pt"]  # what was learned is not learned again
    assert checkpoint.load_checkpoint(run / "best.pt").step == 2
    done = trainer.train(path, out=run)
    assert (
        done.new_steps == 0
        and isinstance(done.eval_results[0], EvalResult)
        and done.eval_results[0].values == {"AP": 7.0}
    )
    assert checkpoint.load_checkpoint(run / "best.pt").step == 4 and run_dir.results_path(run, 4).exists()
    assert done.last_checkpoint.name == whole.last_checkpoint.name
    ours, theirs = (checkpoint.load_checkpoint(one).weights for one in (done.last_checkpoint, whole.last_checkpoint))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    trainer.train(path, out=run)
    assert len(calls) == 4  # and not once more
