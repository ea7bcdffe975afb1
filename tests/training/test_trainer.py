"""The training loop: it goes on bit for bit, several processes are as one, and it says what is wrong."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import distributed_step, train_layers
from fakes.lock_holder import lock_held_elsewhere
from torch import multiprocessing

from synthgen.checkpoints import build_network, checkpoint
from synthgen.cli.main import main
from synthgen.dataloading.config import ModelConfig, ScheduleConfig
from synthgen.dataloading.manifest import load_manifest
from synthgen.distributed import DistributedContext, join_process_group
from synthgen.errors import SynthgenError
from synthgen.evaluation.results import EvalResult
from synthgen.training import logger, run_dir, trainer
from synthgen.training.learner import SegmentationLearner
from synthgen.training.optimizer import ModelEma, lr_factor, parameter_groups
from synthgen.training.targets import build_mask_targets

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = """
name: toy
store: store
mixture:
  - {{shards: toy/train/human, task: {task}, images: photos}}
augment: {{size: 32, scale: [0.5, 1.5]}}
model: {{backbone: tiny, text_encoder: tiny, dim: 32, encoder_layers: 1, decoder_layers: 1, learnable_queries: 3,
  conditional_queries: 4{model}}}
schedule: {{batch_size: 4, mask_points: 16, lr: 1.0e-3, warmup_steps: 0, {schedule}}}
readers: {{workers: 0}}
"""


def written(
    root: Path, schedule: str = "steps: 6, checkpoint_every: 2", *, task: str = "instance", model: str = "",
    name: str = "m.yaml",
) -> Path:  # fmt: skip
    """A manifest beside its layer, of 12 rows."""
    train_layers.commit(root, 12, shards=2)
    path = root / name
    path.write_text(TEXT.format(schedule=schedule, task=task, model=model))
    return path


def measured_too(root: Path, schedule: str) -> Path:
    """The same, which is evaluated on a layer of one row."""
    path = written(root, schedule)
    train_layers.commit(root, [train_layers.row(100)], name="toy/val/human")
    shutil.copytree(root / "photos", root / "held", dirs_exist_ok=True)  # another photograph, by where it is
    path.write_text(
        path.read_text() + "eval: [{shards: toy/val/human, task: instance, images: held}]\neval_size: [32, 48]\n"
    )
    return path


def told(run: Path) -> list[dict[str, float]]:
    """The log without what clocks say."""
    clocks = ("images_per_s", "data_share", "memory_mib")
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


@pytest.mark.parametrize(
    ("more", "model"), [("", ""), (", ema: 0.9, accumulate: 2", ""), (", precision: bf16", ", denoising: 2")]
)
def test_a_resumed_run_is_an_undisturbed_one(tmp_path, monkeypatch, more, model):
    path = written(tmp_path, "steps: 6, checkpoint_every: 2" + more, model=model)
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
    assert told(tmp_path / "again") == told(tmp_path / "whole")
    assert again.sample_report == whole.sample_report
    nothing = trainer.train(path, out=tmp_path / "again", num_workers=1)
    assert (
        nothing.new_steps == 0
        and nothing.last_checkpoint == again.last_checkpoint
        and nothing.sample_report == again.sample_report
    )


def test_a_run_that_is_told_to_end_keeps_what_it_learned(tmp_path, monkeypatch, caplog):
    path = written(tmp_path, "steps: 6, checkpoint_every: 100")
    whole = trainer.train(path, out=tmp_path / "whole").last_checkpoint.read_bytes()
    write, before = logger.MetricsLogger.log_metrics, signal.getsignal(signal.SIGTERM)

    def told_to_end(self, step, values, **kwargs):
        write(self, step, values, **kwargs)
        if step == 2:  # it is heard with the next step, which all processes take together
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(logger.MetricsLogger, "log_metrics", told_to_end)
        with pytest.raises(SystemExit) as end:
            trainer.train(path, out=tmp_path / "run")
    assert end.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert "told to end (SIGTERM) after step 4, which is kept; the same command continues" in caplog.text
    assert [p.name for p in (tmp_path / "run").glob("*.pt")] == ["step-00000004.pt"]
    assert trainer.train(path, out=tmp_path / "run").last_checkpoint.read_bytes() == whole


@pytest.mark.slow
def test_a_job_that_is_told_to_end_keeps_what_it_learned(tmp_path):
    """Schedulers tell all of its processes, readers as well."""
    path, run = written(tmp_path, "steps: 5000, checkpoint_every: 5000"), tmp_path / "run"
    words = ("train", "--manifest", str(path), "--out", str(run), "--device", "cpu", "--readers", "2")
    with subprocess.Popen(
        [sys.executable, "-m", "synthgen", *words], start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as job:  # fmt: skip
        until = time.monotonic() + 120
        while not (run / "log.jsonl").exists() or not (run / "log.jsonl").read_text():
            assert job.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        os.killpg(job.pid, signal.SIGTERM)
        said = job.communicate(timeout=120)[0]
    assert job.returncode == 143 and "which is kept; the same command continues" in said, said
    assert len(list(run.glob("step-*.pt"))) == 1


def test_a_best_that_was_not_named_is_named(tmp_path, monkeypatch):
    path = measured_too(tmp_path, "steps: 1")

    def killed(run, checkpoint):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_dir, "link_best_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(path, out=tmp_path / "run")
    assert trainer.train(path, out=tmp_path / "run").best_checkpoint == tmp_path / "run" / "best.pt"


def test_while_it_is_measured_a_run_ends_at_once(tmp_path, monkeypatch, caplog):
    path = measured_too(tmp_path, "steps: 1")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.SegmentationLearner, "evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as end:
            trainer.train(path, out=tmp_path / "run")
    assert end.value.code == 143
    assert "told to end (SIGTERM) after step 1, which is kept; the same command continues" in caplog.text
    done = trainer.train(path, out=tmp_path / "run")
    assert done.new_steps == 0 and [one.source for one in done.eval_results] == ["toy/val/human"]


def test_another_seed_learns_otherwise(tmp_path):
    path = written(tmp_path, "steps: 1")
    first = trainer.train(path, out=tmp_path / "a").last_checkpoint.read_bytes()
    assert trainer.train(path, out=tmp_path / "b").last_checkpoint.read_bytes() == first
    path.write_text(path.read_text() + "seed: 1\n")
    assert trainer.train(path, out=tmp_path / "c").last_checkpoint.read_bytes() != first


def test_a_folder_is_of_one_run(tmp_path):
    path = written(tmp_path, "steps: 1")
    run = tmp_path / "run"
    trainer.train(path, out=run)
    text = path.read_text()
    path.write_text(text.replace("workers: 0", "workers: 1") + "eval: []\n")  # changes nothing that is learned
    trainer.train(path, out=run)
    assert len(json.loads((run / "run.json").read_text())["starts"]) == 2
    path.write_text(text.replace("lr: 1.0e-3", "lr: 2.0e-3").replace("size: 32", "size: 64"))
    with pytest.raises(SynthgenError, match=r"was trained with another augment\.size, schedule\.lr; choose another"):
        trainer.train(path, out=run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(SynthgenError, match="is no folder of a run, and not empty"):
        trainer.train(path, out=tmp_path / "other")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_nobody_else_trains_in_the_folder_of_a_run(tmp_path):
    path, run = written(tmp_path, "steps: 1"), tmp_path / "run"
    with lock_held_elsewhere(run / "lock"):
        with pytest.raises(
            SynthgenError, match=r"another process trains in .*run; wait for it, or choose another --out"
        ):
            trainer.train(path, out=run, lock_timeout=0.1)
        assert [p.name for p in run.iterdir()] == ["lock"]
    assert trainer.train(path, out=run).new_steps == 1, "what held it is gone, however it went"


@pytest.mark.parametrize("which", ["run.json", "manifest.yaml", "checked.txt"])
def test_a_start_that_was_broken_off_is_no_obstacle(tmp_path, monkeypatch, which):
    path, run = written(tmp_path, "steps: 1"), tmp_path / "run"
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
    path, run = written(tmp_path, "steps: 2, checkpoint_every: 1"), tmp_path / "run"
    trainer.train(path, out=run)
    asked = []
    monkeypatch.setattr(DistributedContext, "on_rank0", lambda self, do: asked.append(do()) or asked[-1])
    assert trainer.train(path, out=run).new_steps == 0
    assert run / "step-00000002.pt" in asked, "which goes to all"


def test_a_run_that_is_to_be_longer_goes_on(tmp_path):
    path, run = written(tmp_path, "steps: 2"), tmp_path / "run"
    trainer.train(path, out=run)
    text = path.read_text()
    path.write_text(text.replace("steps: 2", "steps: 3"))
    assert trainer.train(path, out=run).new_steps == 1
    assert [start["steps"] for start in json.loads((run / "run.json").read_text())["starts"]] == [2, 3]
    path.write_text(text)
    with pytest.raises(SynthgenError, match=r"has learned 3 steps, and schedule\.steps is 2; raise it"):
        trainer.train(path, out=run)


def test_a_run_of_before_a_key_was_there_is_the_same_run(tmp_path):
    path, run = written(tmp_path, "steps: 1"), tmp_path / "run"
    trainer.train(path, out=run)
    about = json.loads((run / "run.json").read_text())
    recipe = about["recipe"]
    for gone in (recipe["model"], "denoising"), (recipe["mixture"][0], "share"), (recipe, "captioner"):
        del gone[0][gone[1]]
    recipe["schedule"]["steps"] = 1
    (run / "run.json").write_text(json.dumps(about))
    assert trainer.train(path, out=run).new_steps == 0
    path.write_text(path.read_text().replace("model: {", "model: {denoising: 3, "))
    del about["recipe"]["augment"]["size"]  # which is not what it would be by default
    (run / "run.json").write_text(json.dumps(about))
    with pytest.raises(
        SynthgenError, match=r"was trained with another augment\.size, model\.denoising; choose another"
    ):
        trainer.train(path, out=run)


def test_a_run_explains_itself(tmp_path):
    path = written(tmp_path, "steps: 5, checkpoint_every: 1, keep: 2")
    run = trainer.train(path, out=tmp_path / "run").folder
    assert sorted(p.name for p in run.glob("*.pt")) == ["step-00000004.pt", "step-00000005.pt"]
    assert (run / "manifest.yaml").read_text() == path.read_text()
    about = json.loads((run / "run.json").read_text())
    assert torch.__version__.startswith(about["starts"][0]["torch"]) and about["recipe"]["model"]["dim"] == 32
    assert "toy/train/human instance" in (run / "seen.txt").read_text()
    assert "toy/train/human" in (run / "checked.txt").read_text()
    assert list((run / "tensorboard").glob("events.*"))
    first = told(run)[0]
    assert first["loss"] == pytest.approx(sum(first[name] for name in ("label", "box", "giou", "mask", "dice")))
    assert first["lr"] == pytest.approx(1e-3) and first["gradient"] > 0


def test_mistakes_are_found_before_the_first_step(tmp_path):
    path = written(tmp_path, "steps: 1")
    path.write_text(path.read_text().replace("toy/train/human", "toy/train/humans"))
    with pytest.raises(SynthgenError, match="humans"):
        trainer.train(path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    path = written(tmp_path, "steps: 1, accumulate: 3")
    with pytest.raises(SynthgenError, match=r"batch_size 4 is not divisible by 1 processes times accumulate 3"):
        trainer.train(path, out=tmp_path / "run")


def test_a_loss_that_is_no_number_stops_with_its_parts(tmp_path, monkeypatch):
    path = written(tmp_path, "steps: 9, checkpoint_every: 1")
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


def test_a_gradient_that_is_no_number_changes_nothing(tmp_path, monkeypatch, caplog):
    path, run = written(tmp_path, "steps: 4, checkpoint_every: 1, keep: 9"), tmp_path / "run"
    edgy(monkeypatch, range(1, 2))
    assert trainer.train(path, out=run).new_steps == 4
    assert [line["step"] for line in told(run) if "unsound" in line] == [1]
    assert [line["step"] for line in told(run) if "gradient" not in line] == [1]
    before, after = (checkpoint.load_checkpoint(run_dir.checkpoint_path(run, step)).weights for step in (1, 2))
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert [record.message for record in caplog.records if "gradient" in record.message] == [
        "step 1: the gradient is no number, though its losses are; it changes nothing"
    ]


def test_several_in_a_row_stop_however_often_it_is_killed(tmp_path, monkeypatch):
    path, run = written(tmp_path, "steps: 2"), tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer, "_MAX_NONFINITE_STEPS", 3)
    edgy(monkeypatch, range(1, 99))
    trainer.train(path, out=run)
    path.write_text(path.read_text().replace("steps: 2", "steps: 9"))
    with pytest.raises(
        SynthgenError,
        match=r"step 3 gave what is no number \(loss [\d.]+, .*gradient nan; images toy/.*\); begin another run, "
        r"with a lower schedule\.lr \(now 0\.001\) or schedule\.clip, in another --out, from this one's last sound "
        rf"checkpoint \(model\.weights: {re.escape(str(run))}/step-00000002\.pt\)$",
    ):
        trainer.train(path, out=Path("run"))  # a manifest's own paths are relative to where it lies


def test_a_run_of_which_no_step_was_sound_goes_on(tmp_path, monkeypatch):
    """Nothing has moved, so there is nothing that an optimiser remembers."""
    weights = []
    for first in (2, 4):
        path = written(tmp_path, f"steps: {first}")
        with monkeypatch.context() as patch:
            edgy(patch, range(2))
            done = trainer.train(path, out=tmp_path / f"{first}")
            path.write_text(path.read_text().replace("steps: 2", "steps: 4"))
            done = trainer.train(path, out=tmp_path / f"{first}")
        weights.append(checkpoint.load_checkpoint(done.last_checkpoint).weights)
    assert all(torch.equal(weights[0][name], weight) for name, weight in weights[1].items())


@pytest.mark.parametrize("fails", [False, True])
def test_who_fails_does_not_wait_for_the_others_to_take_leave(monkeypatch, fails):
    """NCCL takes leave of a group together: the sentence of the one that failed would not be said for hours."""
    left = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: left.append(1))
    with pytest.raises(SynthgenError) if fails else nullcontext(), join_process_group("cpu") as here:
        assert (here.rank, here.world_size) == (1, 2)
        if fails:
            raise SynthgenError("of this process alone")
    assert left == [1] * (not fails)


def test_rates_of_steps():
    schedule = ScheduleConfig(steps=100, warmup_steps=10, milestones=(0.9, 0.95))
    shares = [lr_factor(schedule, step) for step in (0, 4, 9, 50, 89, 90, 94, 95, 99)]
    assert shares == pytest.approx([0.1, 0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert lr_factor(ScheduleConfig(steps=100, warmup_steps=0, milestones=()), 0) == 1


def test_groups_of_parameters(tmp_path):
    manifest = load_manifest(written(tmp_path, "steps: 1, backbone_lr: 1.0e-5, weight_decay: 0.05"))
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


def test_words_that_no_image_names_do_not_fade():
    """Weight decay would take a table's rows to zero that have no gradient."""
    tables = torch.nn.ModuleDict({"words": torch.nn.Embedding(4, 2), "linear": torch.nn.Linear(2, 2)})
    groups = parameter_groups(tables, ScheduleConfig(weight_decay=0.1), {})
    assert {len(own["params"]): own["weight_decay"] for own in groups} == {1: 0.0, 2: 0.1}


def test_a_moving_average():
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average = ModelEma(module, 0.75)
    with torch.no_grad():
        module.weight.fill_(3.0)
    average.update()
    assert average.weights["weight"].item() == pytest.approx(1.5)
    with average.swapped():
        assert module.weight.item() == pytest.approx(1.5)
    assert module.weight.item() == 3.0


@pytest.mark.parametrize("task", ["instance", pytest.param("detection", marks=pytest.mark.slow)])
def test_two_processes_are_one(tmp_path, task):
    written(tmp_path, "steps: 4, clip: 0.1", task=task)
    distributed_step.run_rank_step(0, 1, str(tmp_path), [[0, 1, 2, 3]])
    multiprocessing.spawn(distributed_step.run_rank_step, (2, str(tmp_path), [[0, 1], [2, 3]]), nprocs=2)
    alone = torch.load(tmp_path / "after-1-4-0.pt")
    both = [torch.load(tmp_path / f"after-2-2-{rank}.pt") for rank in range(2)]
    before = {k: v.clone() for k, v in both[0].items()}
    moved = 0
    start = trainer._build_learner(load_manifest(tmp_path / "m.yaml"), next(_alone())).module.state_dict()
    for name, value in alone.items():
        assert torch.equal(both[0][name], both[1][name]), name
        assert torch.allclose(before[name], value, atol=2e-5), name  # a step of AdamW is 5e-4 wherever it goes
        moved += not torch.equal(value, start[name])
    assert moved > 50
    first, *others = (torch.load(tmp_path / f"values-{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for told in others:  # a log is of all processes, whoever writes it
        assert told == pytest.approx(first, rel=1e-3)


def test_a_text_encoder_that_learns_puts_a_name_into_one_sentence_at_a_time(tmp_path, monkeypatch):
    real, options = build_network.text_encoder, list[dict]()
    monkeypatch.setattr(
        real, "load_text_encoder", lambda _, **said: options.append(said) or real.build_tiny_text_encoder()
    )
    for learns in (False, True):
        model = ModelConfig(backbone="tiny", dim=32, text_encoder=f"{tmp_path}/clip", train_text_encoder=learns)
        (tmp_path / "clip").mkdir(exist_ok=True)
        build_network.build_from_config(model)
    assert options == [{"trainable": learns, "sample_template": learns} for learns in (False, True)]


def _alone() -> Iterator:
    with join_process_group("cpu") as here:
        yield here


@pytest.mark.slow
def test_compiled_layers_learn_the_same(tmp_path):
    text = written(tmp_path, "steps: 2", model=", denoising: 1").read_text().replace("[0.5, 1.5]", "[2.0, 2.0]")
    losses = {}
    for compiled in ("false", "true"):
        path = tmp_path / f"{compiled}.yaml"
        path.write_text(text.replace("schedule: {", f"schedule: {{compile: {compiled}, "))
        run = trainer.train(path, out=tmp_path / compiled).folder
        losses[compiled] = [line["loss"] for line in told(run) if line["of"] == "train"]
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-4)
    named = checkpoint.load_checkpoint(run_dir.checkpoint_path(tmp_path / "true", 2)).weights.keys()
    assert named == checkpoint.load_checkpoint(run_dir.checkpoint_path(tmp_path / "false", 2)).weights.keys()


@pytest.mark.parametrize(
    ("device", "count", "shown", "found"),
    [
        ("auto", 4, None, "process 6 of this machine has no GPU, as it has 4; say --nproc-per-node 4"),
        ("cuda", 1, None, "process 6 of this machine has no GPU, as it has 1; say --nproc-per-node 1"),
        ("cuda:1", 8, None, "--device cuda:1 is one GPU, and several processes have one each; say cuda"),
        ("cuda", 8, None, "cuda:5"),
        ("auto", 1, "3", "cuda:0"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(monkeypatch, device, count, shown, found):
    """Two on one are slower than one, and NCCL ends them with a traceback."""
    taken = []

    def joined(*_, **__):
        raise InterruptedError

    monkeypatch.setattr("synthgen.distributed.resolve_device", lambda said: torch.device(said.replace("auto", "cuda")))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda own: taken.append(str(own)))
    monkeypatch.setattr(torch.distributed, "init_process_group", joined)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in {"WORLD_SIZE": "8", "LOCAL_RANK": "5", "CUDA_VISIBLE_DEVICES": shown}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises((SynthgenError, InterruptedError)) as why, join_process_group(device):
        pass
    assert taken == [found] if why.type is InterruptedError else str(why.value) == found


@pytest.mark.slow
def test_torchrun(tmp_path):
    path = written(tmp_path, "steps: 3, checkpoint_every: 1")
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29573"),
        *("-m", "synthgen", "train", "--manifest", str(path), "--out", str(tmp_path / "run"), "--device", "cpu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 steps learned") == 1
    seen = (tmp_path / "run" / "seen.txt").read_text()
    assert "100.00 %          12" in seen, seen
    path.write_text(path.read_text().replace("instance", "instances"))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode != 0
    assert done.stderr.count("no task named 'instances'") == 1


def test_a_checkpoint_is_a_network(tmp_path):
    path = written(tmp_path, "steps: 2, ema: 0.5", model=", denoising: 1")
    done = trainer.train(path, out=tmp_path / "run")
    loaded, found = checkpoint.load_network(done.last_checkpoint, device=torch.device("cpu"))
    assert found.step == 2 and found.category_names == train_layers.CATEGORIES and found.kind == "mqformer"
    assert not loaded.training
    learned = dict(found.weights)
    assert not any(name.startswith("text_encoder.") for name in learned)
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in learned.items())
    raw = found.training_state["weights"]
    assert any(not torch.equal(raw[name], learned[name]) for name in raw)
    image = torch.zeros(1, 3, 32, 32)
    out = loaded(image, torch.zeros(1, 32, 32, dtype=torch.bool), [["cat", "dog"]], [True])
    assert out.layers[-1].logits[0].shape == (7, 2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: replace(c, kind="captioner"), "is a checkpoint of a captioner, not of MQ-Former"),
        (
            lambda c: replace(c, model_config={**c.model_config, "dim": 4096}),
            "does not hold the network that it describes",
        ),
        (
            lambda c: replace(c, model_config={**c.model_config, "encoder_layers": 100}),
            "does not hold the network that it describes",
        ),
        (
            lambda c: replace(c, model_config={**c.model_config, "dim": 33}),
            "describes no network that this synthgen knows",
        ),
        (
            lambda c: replace(c, model_config={**c.model_config, "conditional_queries": 10**9}),
            "describes no network that",
        ),
        (
            lambda c: replace(c, model_config={**c.model_config, "text_encoder": "/nowhere/clip"}),
            "not there; say where it is: --text-encoder",
        ),
        (lambda c: replace(c, weights=dict(list(c.weights.items())[1:])), "differs"),
    ],
)
def test_checkpoints_that_lie_are_refused(tmp_path, change, sentence):
    done = trainer.train(written(tmp_path, "steps: 1"), out=tmp_path / "run")
    path = tmp_path / "other.pt"
    checkpoint.save_checkpoint(path, change(checkpoint.load_checkpoint(done.last_checkpoint)))
    with pytest.raises(SynthgenError, match=sentence):
        checkpoint.load_network(path, device=torch.device("cpu"))


def test_files_that_are_no_checkpoints(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "weights.pt")
    with pytest.raises(SynthgenError, match=r"weights\.pt cannot be used as a checkpoint: it is no checkpoint of"):
        checkpoint.load_checkpoint(tmp_path / "weights.pt")
    torch.save({"about": '{"version": 99}', "model": {"a": torch.zeros(1)}}, tmp_path / "new.pt")
    with pytest.raises(SynthgenError, match="it is of version 99, this synthgen reads 1; install a newer one"):
        checkpoint.load_checkpoint(tmp_path / "new.pt")
    torch.save({"about": "[" * 100_000, "model": {"a": torch.zeros(1)}}, tmp_path / "deep.pt")
    with pytest.raises(SynthgenError, match="cannot be used as a checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "deep.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(SynthgenError, match="it is no PyTorch checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "text.pt")


def test_a_checkpoint_that_does_not_fit_is_told(tmp_path):
    path = written(tmp_path, "steps: 1")
    done = trainer.train(path, out=tmp_path / "run")
    path.write_text(path.read_text().replace("steps: 1", "steps: 3"))
    found = checkpoint.load_checkpoint(done.last_checkpoint)
    checkpoint.save_checkpoint(run_dir.checkpoint_path(tmp_path / "run", 2), replace(found, training_state={}, step=2))
    with pytest.raises(SynthgenError, match="does not fit its run; delete it, and the checkpoint before it is taken"):
        trainer.train(path, out=tmp_path / "run")


def test_a_training_by_other_rules_of_grouping_is_not_to_be_deleted(tmp_path):
    path = written(tmp_path, "steps: 1")
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


def test_the_truth_of_each_image_knows_which_part_of_the_canvas_it_is():
    def target(height: int, width: int) -> dict:
        empty = {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
        masks = {"masks": torch.zeros(0, 64, 128, dtype=torch.bool), "ignore": torch.zeros(64, 128, dtype=torch.bool)}
        kinds = {"has_mask": torch.zeros(0, dtype=torch.bool), "mask_weights": torch.zeros(0)}
        return {**empty, **masks, **kinds, "size": (height, width)}

    wide, tall = build_mask_targets([target(16, 128), target(64, 32)], torch.device("cpu"))
    assert wide["extent"].tolist() == [1.0, 0.25]  # of the width, of the height
    assert tall["extent"].tolist() == [0.25, 1.0]


def test_the_network_is_as_large_as_the_manifest_says():
    tiny = {"backbone": "tiny", "backbone_weights": "random", "text_encoder": "tiny", "dim": 32}
    built = build_network.build_from_config(
        ModelConfig(**tiny, levels=5, encoder_feedforward=96, encoder_layers=1, decoder_layers=1)
    )
    assert len(built.pixel_decoder.input_proj) == len(built.pixel_decoder.level_embed) == 5
    assert [layer.linear1.out_features for layer in built.pixel_decoder.layers] == [96]
    usual = build_network.build_from_config(ModelConfig(**tiny, encoder_layers=1, decoder_layers=1))
    assert len(usual.pixel_decoder.input_proj) == 4
    assert [layer.linear1.out_features for layer in usual.pixel_decoder.layers] == [128]


def moments(training: dict, **other) -> dict:
    """With other moments of the first parameter."""
    state = training["optimiser"]["state"]
    return {**training, "optimiser": {**training["optimiser"], "state": {**state, 0: {**state[0], **other}}}}


def at(training: dict, **other) -> dict:
    """At another place in the data."""
    return {**training, "place": json.dumps(json.loads(training["place"]) | other)}


DAMAGES = [
    lambda c: replace(c, step=3),
    lambda c: replace(c, kind="captioner"),
    lambda c: replace(c, training_state={**c.training_state, "best": math.nan}),
    lambda c: replace(c, training_state={**c.training_state, "place": "[]"}),
    lambda c: replace(
        c, training_state={**c.training_state, "weights": dict(list(c.training_state["weights"].items())[1:])}
    ),
    lambda c: replace(c, training_state=moments(c.training_state, exp_avg=torch.zeros(1))),
    lambda c: replace(c, training_state=moments(c.training_state, step=torch.zeros(2))),
    lambda c: replace(
        c, training_state={**c.training_state, "optimiser": {**c.training_state["optimiser"], "state": {}}}
    ),
    lambda c: replace(c, training_state={**c.training_state, "optimiser": {"state": {}, "param_groups": []}}),
    lambda c: replace(c, training_state=at(c.training_state, positions=[])),
    lambda c: replace(c, training_state=at(c.training_state, batches="2")),
    lambda c: replace(c, training_state=at(c.training_state, sources=3)),
    lambda c: replace(c, training_state=at(c.training_state, seen={"0": {"counts": []}})),
    lambda c: replace(c, training_state=at(c.training_state, positions={"0": {"draws": "8", "sources": [[0, 0, 0]]}})),
    lambda c: replace(c, training_state=at(c.training_state, positions={"0": {"draws": 8, "sources": [[0, 0]]}})),
]


def test_a_checkpoint_that_is_damaged_is_told(tmp_path):
    path = written(tmp_path, "steps: 2, ema: 0.5")
    done = trainer.train(path, out=tmp_path / "run")
    path.write_text(path.read_text().replace("steps: 2", "steps: 4"))
    whole = checkpoint.load_checkpoint(done.last_checkpoint)
    kept = done.last_checkpoint.read_bytes()
    for i, damage in enumerate(DAMAGES):
        checkpoint.save_checkpoint(done.last_checkpoint, damage(whole))
        with pytest.raises(SynthgenError) as why:
            trainer.train(path, out=tmp_path / "run")
        assert "does not fit its run; delete it" in str(why.value) or "place in the data is damaged" in str(
            why.value
        ), i
    done.last_checkpoint.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(SynthgenError, match=r"or a truncated one; if it cannot be mended, delete it"):
        trainer.train(path, out=tmp_path / "run")
    done.last_checkpoint.write_bytes(kept)
    assert trainer.train(path, out=tmp_path / "run").new_steps == 2


def test_the_command(tmp_path, monkeypatch, capsys):
    path = written(tmp_path, "steps: 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["synthgen", "train", "--manifest", str(path)])
    with pytest.raises(SystemExit) as end:
        main()
    out = capsys.readouterr().out
    assert not end.value.code
    assert "1 step learned; the network is runs/toy/step-00000001.pt" in out and "what the model saw" in out


def test_a_run_begins_with_the_weights_of_another(tmp_path):
    first = trainer.train(written(tmp_path, "steps: 2, ema: 0.5"), out=tmp_path / "first")
    path = written(tmp_path, "steps: 2, checkpoint_every: 1", model=", denoising: 1, weights: first/best.pt")
    path.write_text(path.read_text() + "seed: 5\n")
    with pytest.raises(SynthgenError, match=r"first/best\.pt cannot be used as a checkpoint: it cannot be read"):
        trainer.train(path, out=tmp_path / "second")
    assert not (tmp_path / "second").exists()
    weights = tmp_path / "first" / "best.pt"
    weights.write_bytes(first.last_checkpoint.read_bytes())
    learned = checkpoint.load_checkpoint(first.last_checkpoint).weights
    begun = trainer._build_learner(load_manifest(path), next(_alone())).module.state_dict()
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
        ("dim: 32", "dim: 64", r"another network than model: describes \(.* is \[.*32.*\] there and \[.*64.*\] here\)"),
        ("decoder_layers: 1", "decoder_layers: 2", r"\(decoder\.layers\.1\..* is not there and \["),
        (
            ", weights",
            ", exchange: false, weights",
            r"exchange\..* is \[.*\] there and not here\)",
        ),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, said, other, sentence):
    done = trainer.train(written(tmp_path, "steps: 1"), out=tmp_path / "run")
    path = written(tmp_path, "steps: 1", model=f", weights: {done.last_checkpoint}")
    path.write_text(path.read_text().replace(said, other))
    with pytest.raises(SynthgenError, match=sentence):
        trainer.train(path, out=tmp_path / "other")


def test_a_text_encoder_that_learned_goes_on_learning(tmp_path):
    done = trainer.train(written(tmp_path, "steps: 1", model=", train_text_encoder: true"), out=tmp_path / "run")
    path = written(tmp_path, "steps: 1", model=f", weights: {done.last_checkpoint}")
    with pytest.raises(SynthgenError, match=r"has learned with the rest; say model\.train_text_encoder: true"):
        trainer.train(path, out=tmp_path / "other")


def test_what_has_learned_nothing_begins_anew_and_what_saves_memory_changes(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(SynthgenError, match="is not divisible"):
        trainer.train(written(tmp_path, "steps: 2, accumulate: 3"), out=run)
    (run / f".step-00000001.pt.{os.uname().nodename}.999999999.deadbeef.tmp").write_bytes(b"half")
    trainer.train(written(tmp_path, "steps: 1, accumulate: 1"), out=run)
    assert not list(run.glob(".step*"))
    done = trainer.train(written(tmp_path, "steps: 1, accumulate: 2, checkpointing: true"), out=run)
    assert done.new_steps == 0
    with pytest.raises(SynthgenError, match=r"was trained with another schedule\.weight_decay"):
        trainer.train(written(tmp_path, "steps: 1, weight_decay: 0.5"), out=run)


def test_a_run_is_the_same_from_wherever_it_is_called(tmp_path, monkeypatch):
    path = written(tmp_path, "steps: 1")
    first = trainer.train(path, out=tmp_path / "first").last_checkpoint
    path = written(tmp_path, "steps: 1", model=f", weights: first/{first.name}")
    trainer.train(path, out=tmp_path / "run")
    monkeypatch.chdir(tmp_path / "photos")
    assert trainer.train(Path("..", path.name), out=tmp_path / "run").new_steps == 0


def test_files_of_a_run_that_are_damaged_are_told(tmp_path):
    path = written(tmp_path, "steps: 2, checkpoint_every: 1")
    run = tmp_path / "run"
    done = trainer.train(path, out=run)
    done.last_checkpoint.unlink()
    log = (run / "log.jsonl").read_bytes()
    for wrong in (b"\0\0\n", b"\xff{\n", b"[]\n", b'{"step": Infinity}\n'):
        (run / "log.jsonl").write_bytes(log.splitlines(keepends=True)[0] + wrong)
        with pytest.raises(SynthgenError, match=r"line 2 of .*log\.jsonl is damaged"):
            trainer.train(path, out=run)
    (run / "log.jsonl").write_bytes(log[:-9])  # a line that was never ended is no damage
    assert trainer.train(path, out=run).new_steps == 1
    for wrong in ("[]", '{"recipe": "", "starts": []}', "[" * 100_000, "\0"):
        (run / "run.json").write_text(wrong)
        with pytest.raises(SynthgenError, match=r"run\.json is damaged; choose another --out"):
            trainer.train(path, out=run)
    with pytest.raises(SynthgenError, match="choose another --out"):
        trainer.train(path, out=path / "run")  # below a file


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    class Full:
        left = 1000

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, data):
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return len(data)

        def flush(self):
            pass

    monkeypatch.setattr(Path, "open", lambda *_: Full())
    about = checkpoint.Checkpoint("mqformer", 1, {}, (), {"a": torch.zeros(100_000)})
    with pytest.raises(SynthgenError, match=r"no space left to write .*x\.pt; make room and run the same"):
        checkpoint.save_checkpoint(tmp_path / "x.pt", about)
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_none_make_no_checkpoint(tmp_path):
    done = trainer.train(written(tmp_path, "steps: 1"), out=tmp_path / "run")
    content = torch.load(done.last_checkpoint)
    for key, wrong in (("step", "Infinity"), ("eval_size", "[1, Infinity]")):
        about = {**json.loads(content["about"]), key: "HERE"}
        torch.save({**content, "about": json.dumps(about).replace('"HERE"', wrong)}, tmp_path / "x.pt")
        with pytest.raises(SynthgenError, match="cannot be used as a checkpoint: it is damaged"):
            checkpoint.load_checkpoint(tmp_path / "x.pt")


def test_what_is_measured_may_fail_and_is_measured_again(tmp_path, monkeypatch):
    path = measured_too(tmp_path, "steps: 4, checkpoint_every: 3, evaluate_every: 2")
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


def test_what_does_not_learn_has_no_gradients(tmp_path):
    manifest = load_manifest(written(tmp_path, "steps: 1, backbone_lr: 0"))
    learner = SegmentationLearner(manifest, torch.device("cpu"))
    learner.param_groups(manifest.schedule)
    learns = {name.split(".")[0] for name, p in learner.module.named_parameters() if p.requires_grad}
    assert learns == {"pixel_decoder", "decoder"}
    done = trainer.train(tmp_path / "m.yaml", out=tmp_path / "run")
    assert "backbone.body.swin.embeddings.norm.weight" in checkpoint.load_checkpoint(done.last_checkpoint).weights


def test_want_of_memory_is_a_sentence(tmp_path, monkeypatch, capsys):
    def train(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr(sys, "argv", ["synthgen", "train", "--manifest", str(tmp_path / "m.yaml")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "is too small (CUDA out of memory. Tried to allocate 9 GiB.); raise schedule.accumulate" in told
