"""The trainer on a GPU: what the fake GPU of `tests/test_fake_cuda.py` cannot show. `pytest -m gpu`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path
from statistics import fmean

import pytest
import torch
from fakes import caption_dataset, eval_dataset, tiny_ofa, train_layers
from fakes.training_step import load_batch, small_manifest, training_step

from synthgen.checkpoints import checkpoint
from synthgen.dataloading.config import CaptionerConfig, ScheduleConfig
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.source_config import EvalSource, TrainSource
from synthgen.errors import SynthgenError
from synthgen.evaluation import evaluate
from synthgen.oom import explain_out_of_memory
from synthgen.training import run_dir, trainer
from synthgen.training.captioner_learner import CaptionerLearner
from synthgen.training.learner import SegmentationLearner

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
TEXT = """
name: toy
store: store
mixture: [{{shards: toy/train/human, task: instance, images: photos}}]
augment: {{size: 64, scale: [1.0, 1.5]}}
model: {{backbone: tiny, text_encoder: tiny, hidden_dim: 32, encoder_layers: 1, decoder_layers: 2, learnable_queries: 5,
         conditional_queries: 10, denoising_groups: {denoising}}}
schedule: {{batch_size: 4, mask_points: 256, lr: 1.0e-3, warmup_steps: 0, max_grad_norm: 1.0, {schedule}}}
dataloader: {{num_workers: 1}}
"""


@pytest.fixture(autouse=True)
def exact():
    """Else convolutions are rounded to the 11 bits of TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def written(root: Path, schedule: str, *, denoising: int = 0) -> Path:
    train_layers.commit(root, 12, shards=2)
    path = root / "m.yaml"
    path.write_text(TEXT.format(schedule=schedule, denoising=denoising))
    return path


@pytest.mark.parametrize("queries", ["mixed", "learnable", "conditional"])
def test_a_network_says_there_what_it_says_here(tmp_path, queries):
    manifest, found = small_manifest(tmp_path, queries=queries), []
    for device in (CPU, GPU):
        torch.manual_seed(0)
        network, batch = SegmentationLearner(manifest, device).module.eval(), load_batch(manifest, device)
        texts = [target["texts"] for target in batch.targets]
        with torch.no_grad():
            said = network(batch.images.to(device), batch.padding_mask.to(device), texts, [True] * len(texts)).layers[
                -1
            ]
        masks = [said.select_mask_logits(i, slice(None), said.mask_features[i]) for i in range(len(texts))]
        found.append([x.float().cpu() for x in (said.boxes, *said.logits, *masks)])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("denoising", [0, 2])
def test_a_step_loses_there_what_it_loses_here(tmp_path, denoising):
    """Nearly: masks are compared at points that each device draws for itself."""
    manifest, found = small_manifest(tmp_path, denoising_groups=denoising), []
    manifest = manifest.model_copy(update={"schedule": manifest.schedule.model_copy(update={"mask_points": 4096})})
    for device in (CPU, GPU):
        torch.manual_seed(0)
        found.append(
            training_step(SegmentationLearner(manifest, device), load_batch(manifest, device), manifest.schedule)
        )
    own = [name for name in found[0] if not name.startswith("dn_") and name != "norm"]
    assert [found[1][name] for name in own] == pytest.approx([found[0][name] for name in own], rel=0.05)
    assert all(map(math.isfinite, found[1].values()))


@pytest.mark.parametrize(
    ("more", "denoising"),
    [("", 0), (", precision: bf16, accumulation_steps: 2, ema_decay: 0.9", 2),
     (", precision: bf16, activation_checkpointing: true", 0),
     (", precision: bf16, compile: true", 0)],
)  # fmt: skip
def test_it_learns_and_a_killed_run_goes_on(tmp_path, more, denoising):
    path, run = written(tmp_path, "steps: 60, checkpoint_every: 20" + more, denoising=denoising), tmp_path / "run"
    done = trainer.train(path, out=run, device="cuda")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines]
    assert len(losses) == 60 and fmean(losses[-5:]) < 0.85 * fmean(losses[:5]), losses
    assert not any("unsound" in line for line in lines)
    assert lines[-1]["memory_mib"] > 0
    done.last_checkpoint.unlink()
    again = trainer.train(path, out=run, device="cuda")
    assert again.new_steps == 20
    network, held = checkpoint.load_network(again.last_checkpoint, device=CPU)  # of a GPU, read where there may be none
    assert held.step == 60 and all(p.device == CPU and p.isfinite().all() for p in network.parameters())


def test_a_step_waits_for_the_gpu_where_it_matches_and_nowhere_else(tmp_path):
    manifest = small_manifest(tmp_path, denoising_groups=2, precision="bf16")
    learner, batch = SegmentationLearner(manifest, GPU), load_batch(manifest, GPU)
    learner.compute_losses(batch, num_targets=1.0)  # texts are known from now on
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            torch.stack(list(learner.compute_losses(batch, num_targets=1.0).values())).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [one for one in found if "synchroniz" in str(one.message)]
    assert waits and {Path(one.filename).name for one in waits} == {"matcher.py"}, [str(one) for one in waits]


def test_what_is_measured_there_is_what_is_measured_here(tmp_path):
    eval_dataset.write_eval_dataset(tmp_path, images=2)
    tasks = ("instance", "detection", "panoptic", "semantic", "referring", "foreground")
    sources = tuple(EvalSource(shards=eval_dataset.LAYER, task=task, images=tmp_path / "photos") for task in tasks)
    manifest = Manifest(name="toy", store=tmp_path / "store", eval=sources)
    here, there, rough = (
        evaluate.evaluate_network(
            eval_dataset.untrained_network().to(device), manifest, device=device, short=64, long=96, precision=precision
        )
        for device, precision in ((CPU, "fp32"), (GPU, "fp32"), (GPU, "bf16"))
    )
    for own, other, half in zip(here, there, rough, strict=True):
        assert other.images == half.images == own.images
        assert other.values == pytest.approx(own.values, abs=1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captioner_learns_there_what_it_learns_here(tmp_path, precision):
    world = caption_dataset.write_caption_dataset(tmp_path / "world", images=2)
    tiny_ofa.checkpoint(world / "learning", tiny_ofa.random_weights(tiny_ofa.SPEAKING_NUMBERS))
    source = TrainSource(shards=caption_dataset.LAYER, images=world / "photos", task="captioning")
    manifest = Manifest(
        name="toy", store=world / "shards", mixture=(source,), schedule=ScheduleConfig(batch_size=2,
        precision=precision),
        captioner=CaptionerConfig(
            weights=str(world / "learning"), train_embeddings=True, image_size=96, regions_per_image=4
        ),
    )  # fmt: skip
    here, there = (
        training_step(CaptionerLearner(manifest, device), load_batch(manifest, device), manifest.schedule)["words"]
        for device in (CPU, GPU)
    )
    assert there == pytest.approx(here, rel=1e-3 if precision == "fp32" else 5e-2)


def test_a_memory_that_is_too_small_is_a_sentence():
    with (
        pytest.raises(SynthgenError, match=r"the device's memory is too small \(.*\); take less"),
        explain_out_of_memory("take less"),
    ):
        torch.empty(2**50, dtype=torch.uint8, device=GPU)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs here")
def test_two_gpus_learn_together(tmp_path):
    path, run = written(tmp_path, "steps: 4, checkpoint_every: 2, precision: bf16", denoising=1), tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29641"]
    for steps in (4, 6):
        path.write_text(path.read_text().replace("steps: 4", f"steps: {steps}"))
        done = subprocess.run(
            [*command, "-m", "synthgen", "train", "--manifest", str(path), "--out", str(run)],
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        weights = checkpoint.load_checkpoint(run_dir.checkpoint_path(run, steps)).weights
        assert all(one.isfinite().all() for one in weights.values())
