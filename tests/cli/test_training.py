"""`synthgen train` as a command: its output, torchrun, and too little memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from fakes.training_runs import write_manifest

from synthgen.cli.main import main
from synthgen.training import trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_torchrun(tmp_path):
    path = write_manifest(tmp_path, "steps: 3, checkpoint_every: 1")
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


def test_the_command(tmp_path, monkeypatch, capsys):
    path = write_manifest(tmp_path, "steps: 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["synthgen", "train", "--manifest", str(path)])
    with pytest.raises(SystemExit) as end:
        main()
    out = capsys.readouterr().out
    assert not end.value.code
    assert "1 step learned; the network is runs/toy/step-00000001.pt" in out and "what the model saw" in out


def test_want_of_memory_is_a_sentence(tmp_path, monkeypatch, capsys):
    def train(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr(sys, "argv", ["synthgen", "train", "--manifest", str(tmp_path / "m.yaml")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "is too small (CUDA out of memory. Tried to allocate 9 GiB.); raise schedule.accumulation_steps" in told
