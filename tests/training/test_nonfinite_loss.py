"""The error message for a non-finite loss: parts, images, and what to change in the next run."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.training_runs import write_manifest

from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.training.nonfinite_loss import describe_nonfinite_step


def manifest_of(folder: Path, schedule: str) -> Manifest:
    return load_manifest(write_manifest(folder, schedule))


def test_it_names_the_parts_the_images_and_the_rate(tmp_path):
    manifest = manifest_of(tmp_path, "steps: 1")
    values = {"loss": float("nan"), "dice": 1.23456, "gradient": float("inf")}
    text = describe_nonfinite_step(7, values, [["a/1", "a/2"], ["b/1"]], manifest, tmp_path / "run")
    assert text.startswith("step 7 gave what is no number (loss nan, dice 1.235, gradient inf; images a/1, a/2, b/1); ")
    assert text.endswith(
        f"a lower schedule.lr (now {manifest.schedule.lr:g}) or schedule.max_grad_norm, in another --out"
    )


def test_of_many_images_eight_are_named(tmp_path):
    keys = [[f"a/{i}" for i in range(1_500)], [f"b/{i}" for i in range(8)]]
    text = describe_nonfinite_step(0, {}, keys, manifest_of(tmp_path, "steps: 1"), tmp_path)
    assert "images a/0, a/1, a/2, a/3, a/4, a/5, a/6, a/7 and 1,500 more); begin" in text


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_half_precision_may_be_the_cause(tmp_path, precision):
    manifest = manifest_of(tmp_path, f"steps: 1, precision: {precision}")
    text = describe_nonfinite_step(0, {}, [["a"]], manifest, tmp_path)
    assert ("or with precision: fp32" in text) == (precision == "bf16")


def test_the_last_checkpoint_is_where_another_run_may_begin(tmp_path, monkeypatch):
    manifest = manifest_of(tmp_path, "steps: 1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step-00000040.pt").touch()
    monkeypatch.chdir(tmp_path)
    text = describe_nonfinite_step(50, {}, [["a"]], manifest, Path("run"))
    assert text.endswith(f"from this one's last sound checkpoint (model.weights: {tmp_path}/run/step-00000040.pt)")
