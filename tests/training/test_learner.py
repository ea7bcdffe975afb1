"""The learner of MQ-Former with a backbone of timm: training, checkpoints, resumption, evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes.training_runs import read_log, write_manifest_with_eval

from synthgen.checkpoints.checkpoint import load_checkpoint, load_network
from synthgen.evaluation.evaluate import evaluate_checkpoint
from synthgen.training import trainer

pytestmark = pytest.mark.usefixtures("one_thread")

TIMM = "backbone: timm/tf_efficientnet_lite0, backbone_weights: random"
CPU = torch.device("cpu")


def write_timm_manifest(root: Path, schedule: str) -> Path:
    path = write_manifest_with_eval(root, schedule)
    path.write_text(path.read_text().replace("backbone: tiny", TIMM))
    return path


@pytest.mark.slow
def test_a_backbone_of_timm_learns_and_its_checkpoint_resumes_and_is_evaluated(tmp_path: Path) -> None:
    schedule = "steps: {}, checkpoint_every: 1, backbone_lr: 1.0e-3"
    manifest = write_timm_manifest(tmp_path, schedule.format(2))
    whole = trainer.train(manifest, out=tmp_path / "whole", device="cpu")
    found = load_checkpoint(whole.last_checkpoint)
    assert found.model_config["backbone"] == "timm/tf_efficientnet_lite0"

    before = load_checkpoint(tmp_path / "whole" / "step-00000001.pt").weights
    learned = {name for name, value in found.weights.items() if not torch.equal(value, before[name])}
    norms = {name for name in found.weights if name.startswith("backbone.") and ".bn" in name}
    assert norms and not learned & norms
    assert {name for name in found.weights if name.startswith("backbone.body.blocks") and ".bn" not in name} <= learned
    assert not {name for name in learned if "pixel_" in name and name.startswith("backbone.")}

    tensors = sum(value.nbytes for value in found.weights.values())
    assert whole.last_checkpoint.stat().st_size < 3.2 * tensors, "weights and two moments of the optimizer"

    (tmp_path / "whole" / "step-00000002.pt").unlink()
    again = trainer.train(manifest, out=tmp_path / "whole", device="cpu")
    assert again.new_steps == 1
    resumed = load_checkpoint(again.last_checkpoint).weights
    assert all(torch.equal(value, resumed[name]) for name, value in found.weights.items())
    assert len(read_log(tmp_path / "whole")) >= 2

    (result,), _ = evaluate_checkpoint(again.last_checkpoint, manifest, device="cpu")
    assert result.images == 1 and result.values == again.eval_results[0].values

    network, _ = load_network(again.last_checkpoint, device=CPU)
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.items())
