"""The folder of a run: one run per folder, one process at a time, damaged files, the best checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from fakes.lock_holder import lock_held_elsewhere
from fakes.training_runs import read_log, write_manifest, write_manifest_with_eval

from synthgen.errors import SynthgenError
from synthgen.training import run_dir, trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_best_that_was_not_named_is_named(tmp_path, monkeypatch):
    path = write_manifest_with_eval(tmp_path, "steps: 1")

    def killed(run, checkpoint):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_dir, "link_best_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(path, out=tmp_path / "run")
    assert trainer.train(path, out=tmp_path / "run").best_checkpoint == tmp_path / "run" / "best.pt"


def test_a_folder_is_of_one_run(tmp_path):
    path = write_manifest(tmp_path, "steps: 1")
    run = tmp_path / "run"
    trainer.train(path, out=run)
    text = path.read_text()
    path.write_text(text.replace("num_workers: 0", "num_workers: 1") + "eval: []\n")  # changes nothing that is learned
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
    path, run = write_manifest(tmp_path, "steps: 1"), tmp_path / "run"
    with lock_held_elsewhere(run / "lock"):
        with pytest.raises(
            SynthgenError, match=r"another process trains in .*run; wait for it, or choose another --out"
        ):
            trainer.train(path, out=run, lock_timeout=0.1)
        assert [p.name for p in run.iterdir()] == ["lock"]
    assert trainer.train(path, out=run).new_steps == 1, "what held it is gone, however it went"


@pytest.mark.slow
def test_a_run_explains_itself(tmp_path):
    path = write_manifest(tmp_path, "steps: 5, checkpoint_every: 1, keep_checkpoints: 2")
    run = trainer.train(path, out=tmp_path / "run").folder
    assert sorted(p.name for p in run.glob("*.pt")) == ["step-00000004.pt", "step-00000005.pt"]
    assert (run / "manifest.yaml").read_text() == path.read_text()
    about = json.loads((run / "run.json").read_text())
    assert torch.__version__.startswith(about["starts"][0]["torch"]) and about["recipe"]["model"]["hidden_dim"] == 32
    assert "toy/train/human instance" in (run / "seen.txt").read_text()
    assert "toy/train/human" in (run / "checked.txt").read_text()
    assert list((run / "tensorboard").glob("events.*"))
    first = read_log(run)[0]
    assert first["loss"] == pytest.approx(sum(first[name] for name in ("label", "box", "giou", "mask", "dice")))
    assert first["lr"] == pytest.approx(1e-3) and first["gradient"] > 0


@pytest.mark.slow
def test_files_of_a_run_that_are_damaged_are_reported(tmp_path):
    path = write_manifest(tmp_path, "steps: 2, checkpoint_every: 1")
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
