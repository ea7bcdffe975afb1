"""Checkpoints: what they hold, and damaged, foreign or incomplete files."""

from __future__ import annotations

import errno
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import train_layers
from fakes.training_runs import write_manifest

from synthgen.checkpoints import checkpoint
from synthgen.errors import SynthgenError
from synthgen.training import trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_checkpoint_is_a_network(tmp_path):
    path = write_manifest(tmp_path, "steps: 2, ema_decay: 0.5", model=", denoising_groups: 1")
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
            lambda c: replace(c, model_config={**c.model_config, "hidden_dim": 4096}),
            "does not hold the network that it describes",
        ),
        (
            lambda c: replace(c, model_config={**c.model_config, "encoder_layers": 100}),
            "does not hold the network that it describes",
        ),
        (
            lambda c: replace(c, model_config={**c.model_config, "hidden_dim": 33}),
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
    done = trainer.train(write_manifest(tmp_path, "steps: 1"), out=tmp_path / "run")
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


@pytest.mark.slow
def test_a_checkpoint_that_is_damaged_is_reported(tmp_path):
    path = write_manifest(tmp_path, "steps: 2, ema_decay: 0.5")
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
    done = trainer.train(write_manifest(tmp_path, "steps: 1"), out=tmp_path / "run")
    content = torch.load(done.last_checkpoint)
    for key, wrong in (("step", "Infinity"), ("eval_size", "[1, Infinity]")):
        about = {**json.loads(content["about"]), key: "HERE"}
        torch.save({**content, "about": json.dumps(about).replace('"HERE"', wrong)}, tmp_path / "x.pt")
        with pytest.raises(SynthgenError, match="cannot be used as a checkpoint: it is damaged"):
            checkpoint.load_checkpoint(tmp_path / "x.pt")
