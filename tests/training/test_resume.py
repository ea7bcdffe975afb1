"""Resumed training: bit-for-bit continuation, changed manifests, weights of another run."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes.training_runs import read_log, single_process, write_manifest, write_manifest_with_eval

from synthgen.checkpoints import checkpoint
from synthgen.dataloading import size_groups
from synthgen.dataloading.manifest import load_manifest
from synthgen.distributed import DistributedContext
from synthgen.errors import SynthgenError
from synthgen.training import logger, resume, run_dir, trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "model"),
    [("", ""), (", ema_decay: 0.9, accumulation_steps: 2", ""), (", precision: bf16", ", denoising_groups: 2")],
)
def test_a_resumed_run_is_an_undisturbed_one(tmp_path, monkeypatch, more, model):
    path = write_manifest(tmp_path, "steps: 6, checkpoint_every: 2" + more, model=model)
    # In bf16 torch's convolution of a single pixel has gradients on the CPU that are no numbers, now and then.
    path.write_text(path.read_text().replace("size: 32", "size: 64"))
    whole = trainer.train(path, out=tmp_path / "whole", num_workers=1)
    assert whole.new_steps == 6 and whole.last_checkpoint.name == "step-00000006.pt"
    write = logger.MetricsLogger.log_metrics

    def killed(self, step, values, **kwargs):
        write(self, step, values, **kwargs)
        if step == 3:  # after its line, before its checkpoint
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(logger.MetricsLogger, "log_metrics", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(path, out=tmp_path / "again", num_workers=1)
    assert run_dir.latest_checkpoint(tmp_path / "again").name == "step-00000002.pt"
    again = trainer.train(path, out=tmp_path / "again", num_workers=1)
    assert again.new_steps == 4
    assert again.last_checkpoint.read_bytes() == whole.last_checkpoint.read_bytes()
    assert read_log(tmp_path / "again") == read_log(tmp_path / "whole")
    assert again.sample_report == whole.sample_report
    nothing = trainer.train(path, out=tmp_path / "again", num_workers=1)
    assert (
        nothing.new_steps == 0
        and nothing.last_checkpoint == again.last_checkpoint
        and nothing.sample_report == again.sample_report
    )


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.slow
def test_a_run_that_was_killed_at_its_results_logs_them_once(tmp_path, monkeypatch, is_saved):
    path, run = write_manifest_with_eval(tmp_path, "steps: 1"), tmp_path / "run"
    trainer.train(path, out=tmp_path / "whole")
    save = trainer.results.save_results

    def killed(*args, **kwargs):
        if is_saved:
            save(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.results, "save_results", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(path, out=run)
    # Results mark a run as done, and an ablation does not start it again.
    assert (run / "seen.txt").read_text() == (tmp_path / "whole/seen.txt").read_text()
    trainer.train(path, out=run)
    assert read_log(run) == read_log(tmp_path / "whole")
    assert [line["of"] for line in read_log(run)] == ["train", "toy/val/human"]


@pytest.mark.parametrize("which", ["run.json", "manifest.yaml", "checked.txt"])
def test_a_start_that_was_broken_off_is_no_obstacle(tmp_path, monkeypatch, which):
    path, run = write_manifest(tmp_path, "steps: 1"), tmp_path / "run"
    replace_file, full = os.replace, []

    def broken(temporary, final):
        if Path(final).name == which:
            full.append(final)
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace_file(temporary, final)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", broken)
        with pytest.raises(SynthgenError, match="no space left"):
            trainer.train(path, out=run)
    assert full
    (run / f".{which}.elsewhere.4711.deadbeef.tmp").write_text("half")  # of a node that is gone
    assert trainer.train(path, out=run).new_steps == 1


def test_all_processes_go_on_from_what_the_first_one_sees(tmp_path, monkeypatch):
    """A node may see a folder as it was a while ago; weights are copied to all, places and moments are not."""
    path, run = write_manifest(tmp_path, "steps: 2, checkpoint_every: 1"), tmp_path / "run"
    trainer.train(path, out=run)
    asked = []
    monkeypatch.setattr(DistributedContext, "on_rank0", lambda self, do: asked.append(do()) or asked[-1])
    assert trainer.train(path, out=run).new_steps == 0
    assert run / "step-00000002.pt" in asked, "which goes to all"


def test_a_run_that_is_to_be_longer_goes_on(tmp_path):
    path, run = write_manifest(tmp_path, "steps: 2"), tmp_path / "run"
    trainer.train(path, out=run)
    text = path.read_text()
    path.write_text(text.replace("steps: 2", "steps: 3"))
    assert trainer.train(path, out=run).new_steps == 1
    assert [start["steps"] for start in json.loads((run / "run.json").read_text())["starts"]] == [2, 3]
    path.write_text(text)
    with pytest.raises(SynthgenError, match=r"has learned 3 steps, and schedule\.steps is 2; raise it"):
        trainer.train(path, out=run)


def test_a_run_of_before_a_key_was_there_is_the_same_run(tmp_path):
    path, run = write_manifest(tmp_path, "steps: 1"), tmp_path / "run"
    trainer.train(path, out=run)
    about = json.loads((run / "run.json").read_text())
    recipe = about["recipe"]
    for gone in (recipe["model"], "denoising_groups"), (recipe["mixture"][0], "share"), (recipe, "captioner"):
        del gone[0][gone[1]]
    recipe["schedule"]["steps"] = 1
    (run / "run.json").write_text(json.dumps(about))
    assert trainer.train(path, out=run).new_steps == 0
    path.write_text(path.read_text().replace("model: {", "model: {denoising_groups: 3, "))
    del about["recipe"]["augment"]["size"]  # which is not what it would be by default
    (run / "run.json").write_text(json.dumps(about))
    with pytest.raises(
        SynthgenError, match=r"was trained with another augment\.size, model\.denoising_groups; choose another"
    ):
        trainer.train(path, out=run)


def test_a_checkpoint_that_does_not_fit_is_reported(tmp_path):
    path = write_manifest(tmp_path, "steps: 1")
    done = trainer.train(path, out=tmp_path / "run")
    path.write_text(path.read_text().replace("steps: 1", "steps: 3"))
    found = checkpoint.load_checkpoint(done.last_checkpoint)
    checkpoint.save_checkpoint(run_dir.checkpoint_path(tmp_path / "run", 2), replace(found, training_state={}, step=2))
    with pytest.raises(SynthgenError, match="does not fit its run; delete it, and the checkpoint before it is taken"):
        trainer.train(path, out=tmp_path / "run")


class OneLayer:
    """As much of a learner as is resumed."""

    kind = "mqformer"
    has_learned_masks = False

    def __init__(self):
        self.module = torch.nn.Linear(3, 2)


@pytest.mark.parametrize("count", [3.0, 1.0, float("nan"), float("inf"), -1e30, 0.0, 4.0])
def test_a_count_of_steps_that_cannot_be_is_reported(tmp_path, count):
    """AdamW divides by a power of it: a damaged one would end the first step with an OverflowError, or all weights."""
    learner = OneLayer()
    optimizer = torch.optim.AdamW(learner.module.parameters())
    learner.module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for state in optimizer.state.values():
        state["step"].fill_(count)
    weights, kept = resume.collect_training_state(learner, optimizer, None, {"seen": {}}, 0.5, 0)
    path = run_dir.checkpoint_path(tmp_path, 3)
    checkpoint.save_checkpoint(path, checkpoint.Checkpoint("mqformer", 3, {}, (), weights, training_state=kept))
    again = torch.optim.AdamW(learner.module.parameters())
    if count in (1.0, 3.0):
        assert resume.restore_training_state(path, learner, again, None).step == 3
        return
    with pytest.raises(SynthgenError, match="does not fit its run; delete it"):
        resume.restore_training_state(path, learner, again, None)


def test_a_training_by_other_rules_of_grouping_is_not_to_be_deleted(tmp_path):
    path = write_manifest(tmp_path, "steps: 1")
    done = trainer.train(path, out=tmp_path / "run")
    path.write_text(path.read_text().replace("steps: 1", "steps: 3"))
    found = checkpoint.load_checkpoint(done.last_checkpoint)
    first, second, *others = found.training_state["optimiser"]["param_groups"]
    moved = [
        {**first, "params": first["params"][:-1]},
        {**second, "params": [*first["params"][-1:], *second["params"]]},
    ]
    kept = {**found.training_state["optimiser"], "param_groups": [*moved, *others]}
    checkpoint.save_checkpoint(
        done.last_checkpoint, replace(found, training_state={**found.training_state, "optimiser": kept})
    )
    with pytest.raises(
        SynthgenError, match=r"grouped parameters otherwise.*or begin another --out with its weights"
    ) as why:
        trainer.train(path, out=tmp_path / "run")
    assert "delete" not in str(why.value)


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_another(tmp_path):
    first = trainer.train(write_manifest(tmp_path, "steps: 2, ema_decay: 0.5"), out=tmp_path / "first")
    path = write_manifest(
        tmp_path, "steps: 2, checkpoint_every: 1", model=", denoising_groups: 1, weights: first/best.pt"
    )
    path.write_text(path.read_text() + "seed: 5\n")
    with pytest.raises(SynthgenError, match=r"first/best\.pt cannot be used as a checkpoint: it cannot be read"):
        trainer.train(path, out=tmp_path / "second")
    assert not (tmp_path / "second").exists()
    weights = tmp_path / "first" / "best.pt"
    weights.write_bytes(first.last_checkpoint.read_bytes())
    learned = checkpoint.load_checkpoint(first.last_checkpoint).weights
    begun = trainer._build_learner(load_manifest(path), next(single_process())).module.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in learned.items())
    assert "decoder.label_enc.weight" in begun and "decoder.label_enc.weight" not in learned
    second = trainer.train(path, out=tmp_path / "second")
    about = json.loads((tmp_path / "second" / "run.json").read_text())
    assert about["recipe"]["model"]["weights"] == str(weights)
    checkpoint.load_network(second.last_checkpoint, device=torch.device("cpu"))
    # Once there is a checkpoint, what it began with is no longer asked for.
    second.last_checkpoint.unlink()
    weights.unlink()
    again = trainer.train(path, out=tmp_path / "second")
    assert again.new_steps == 1


@pytest.mark.parametrize(
    ("said", "other", "sentence"),
    [
        (
            "hidden_dim: 32",
            "hidden_dim: 64",
            r"another network than model: describes \(.* is \[.*32.*\] there and \[.*64.*\] here\)",
        ),
        ("decoder_layers: 1", "decoder_layers: 2", r"\(decoder\.layers\.1\..* is not there and \["),
        (
            ", weights",
            ", exchange: false, weights",
            r"exchange\..* is \[.*\] there and not here\)",
        ),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, said, other, sentence):
    done = trainer.train(write_manifest(tmp_path, "steps: 1"), out=tmp_path / "run")
    path = write_manifest(tmp_path, "steps: 1", model=f", weights: {done.last_checkpoint}")
    path.write_text(path.read_text().replace(said, other))
    with pytest.raises(SynthgenError, match=sentence):
        trainer.train(path, out=tmp_path / "other")


def test_a_text_encoder_that_learned_goes_on_learning(tmp_path):
    done = trainer.train(write_manifest(tmp_path, "steps: 1", model=", train_text_encoder: true"), out=tmp_path / "run")
    path = write_manifest(tmp_path, "steps: 1", model=f", weights: {done.last_checkpoint}")
    with pytest.raises(SynthgenError, match=r"has learned with the rest; say model\.train_text_encoder: true"):
        trainer.train(path, out=tmp_path / "other")


def test_what_has_learned_nothing_begins_anew_and_what_saves_memory_changes(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(SynthgenError, match="is not divisible"):
        trainer.train(write_manifest(tmp_path, "steps: 2, accumulation_steps: 3"), out=run)
    (run / ".step-00000001.pt.0123456789abcdef.tmp").write_bytes(b"half")
    trainer.train(write_manifest(tmp_path, "steps: 1, accumulation_steps: 1"), out=run)
    assert not list(run.glob(".step*"))
    done = trainer.train(
        write_manifest(tmp_path, "steps: 1, accumulation_steps: 2, activation_checkpointing: true"), out=run
    )
    assert done.new_steps == 0
    with pytest.raises(SynthgenError, match=r"was trained with another schedule\.weight_decay"):
        trainer.train(write_manifest(tmp_path, "steps: 1, weight_decay: 0.5"), out=run)


def test_a_run_is_the_same_from_wherever_it_is_called(tmp_path, monkeypatch):
    path = write_manifest(tmp_path, "steps: 1")
    first = trainer.train(path, out=tmp_path / "first").last_checkpoint
    path = write_manifest(tmp_path, "steps: 1", model=f", weights: first/{first.name}")
    trainer.train(path, out=tmp_path / "run")
    monkeypatch.chdir(tmp_path / "photos")
    assert trainer.train(Path("..", path.name), out=tmp_path / "run").new_steps == 0


@pytest.mark.slow
def test_a_run_with_steps_by_size_resumes_and_keeps_its_key(tmp_path, monkeypatch):
    monkeypatch.setattr(size_groups, "BATCH_COST_PIXELS", 1)
    counts, real = [], trainer.Trainer._train_step

    def counted(self, step, micro_batches):
        counts.append([len(batch.targets) for batch in micro_batches])
        return real(self, step, micro_batches)

    monkeypatch.setattr(trainer.Trainer, "_train_step", counted)
    path = write_manifest(tmp_path, "steps: 3, checkpoint_every: 1, accumulation_steps: 2, group_by_size: true")
    path.write_text(path.read_text().replace("size: 32, scale: [0.5", "size: 96, scale: [0.2"))
    whole = trainer.train(path, out=tmp_path / "whole").last_checkpoint
    assert [sum(step) for step in counts] == [4, 4, 4] and max(map(max, counts)) <= 2
    assert max(map(len, counts)) > 2, "a step may have more parts"
    path.write_text(path.read_text().replace("steps: 3", "steps: 1"))
    trainer.train(path, out=tmp_path / "parts")
    path.write_text(path.read_text().replace("steps: 1", "steps: 3"))
    assert trainer.train(path, out=tmp_path / "parts").last_checkpoint.read_bytes() == whole.read_bytes()
    assert counts[:3] == counts[3:]
    path.write_text(path.read_text().replace("group_by_size: true", "group_by_size: false"))
    with pytest.raises(SynthgenError, match=r"was trained with another schedule\.group_by_size"):
        trainer.train(path, out=tmp_path / "parts")
