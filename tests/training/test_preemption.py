"""SIGTERM: a run saves a checkpoint and ends, also in the middle of an evaluation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from fakes.training_runs import write_manifest, write_manifest_with_eval

from synthgen.dataloading import mixture, worker_processes
from synthgen.training import logger, preemption, trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_a_run_that_gets_sigterm_saves_a_checkpoint(tmp_path, monkeypatch, caplog):
    path = write_manifest(tmp_path, "steps: 6, checkpoint_every: 100")
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
def test_a_run_whose_readers_hang_saves_a_checkpoint_too(tmp_path, monkeypatch, caplog):
    """Their storage may be gone."""
    path = write_manifest(tmp_path, "steps: 6, checkpoint_every: 100")
    whole = trainer.train(path, out=tmp_path / "whole", num_workers=1).last_checkpoint.read_bytes()
    write, make, made = logger.MetricsLogger.log_metrics, mixture.make_train_example, []

    def told_to_end(self, step, values, **kwargs):
        write(self, step, values, **kwargs)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def hang(*args, **kwargs):
        made.append(None)
        if len(made) > 12:  # three batches
            time.sleep(600)
        return make(*args, **kwargs)

    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(logger.MetricsLogger, "log_metrics", told_to_end)
        patch.setattr(mixture, "make_train_example", hang)
        patch.setattr(worker_processes, "STOP_GRACE_SECONDS", 0.2)
        with pytest.raises(SystemExit) as end:
            trainer.train(path, out=tmp_path / "run", num_workers=1)
    assert end.value.code == 143 and time.monotonic() - began < 60
    assert "told to end (SIGTERM) while no batch came, after step 3; the same command continues" in caplog.text
    assert [p.name for p in (tmp_path / "run").glob("*.pt")] == ["step-00000003.pt"]
    assert trainer.train(path, out=tmp_path / "run", num_workers=1).last_checkpoint.read_bytes() == whole


@pytest.mark.slow
def test_a_job_that_gets_sigterm_saves_a_checkpoint(tmp_path):
    """Schedulers tell all of its processes, readers as well."""
    path, run = write_manifest(tmp_path, "steps: 5000, checkpoint_every: 5000"), tmp_path / "run"
    words = ("train", "--manifest", str(path), "--out", str(run), "--device", "cpu", "--loader-workers", "2")
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


@pytest.mark.slow
def test_a_training_that_loses_its_terminal_ends_with_its_readers(tmp_path):
    """SIGHUP reaches all of its processes, and the readers leave it to the training."""
    path, run = write_manifest(tmp_path, "steps: 5000, checkpoint_every: 5000"), tmp_path / "run"
    words = ("train", "--manifest", str(path), "--out", str(run), "--device", "cpu", "--loader-workers", "2")
    with subprocess.Popen(
        [sys.executable, "-m", "synthgen", *words], start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as job:  # fmt: skip
        until = time.monotonic() + 120
        while not (run / "log.jsonl").exists() or not (run / "log.jsonl").read_text():
            assert job.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        os.killpg(job.pid, signal.SIGHUP)
        said = job.communicate(timeout=120)[1]
    assert job.returncode == 129 and "stopped (SIGHUP); what is committed stays" in said, said
    assert "Traceback" not in said and "reader process" not in said
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(job.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process of the training lives on")


def test_a_second_sigterm_ends_a_training_at_once(monkeypatch):
    """But not within a few seconds: a scheduler and torchrun may both send the first one."""
    clock, ended = [100.0], []
    monkeypatch.setattr(preemption.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(preemption.os, "_exit", ended.append)
    with preemption.SigtermHandler() as handler:
        for seconds in (0.0, 0.1, preemption.REPEAT_SECONDS - 0.2):
            clock[0] += seconds
            os.kill(os.getpid(), signal.SIGTERM)
            assert handler.received and ended == []
        clock[0] += 1.0
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [143]


def test_while_it_is_measured_a_run_ends_at_once(tmp_path, monkeypatch, caplog):
    path = write_manifest_with_eval(tmp_path, "steps: 1")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.SegmentationLearner, "evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as end:
            trainer.train(path, out=tmp_path / "run")
    assert end.value.code == 143
    assert "told to end (SIGTERM) after step 1, which is kept; the same command continues" in caplog.text
    done = trainer.train(path, out=tmp_path / "run")
    assert done.new_steps == 0 and [one.source for one in done.eval_results] == ["toy/val/human"]
