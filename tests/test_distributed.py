"""Process groups: one GPU per process, errors in one process, and gradients equal to those of one process."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from fakes import distributed_step
from fakes.tiny_lite import write_discs
from fakes.training_runs import single_process, write_manifest
from torch import multiprocessing

from synthgen.dataloading.manifest import load_manifest
from synthgen.distributed import join_process_group
from synthgen.errors import SynthgenError
from synthgen.training import trainer

pytestmark = pytest.mark.usefixtures("one_thread")

#: A box segmenter without random draws in its crops.
BOX_SEGMENTER = """
name: discs
store: shards
mixture: [{shards: discs/train/human, task: box_prompt}]
box_segmenter: {backbone_weights: random, crop_size: 64, hidden_dim: 16, boxes_per_image: 1, box_jitter: 0.0,
  color_jitter: 0.0, train_margin: [0.25, 0.25]}
augment: {size: 96, whole_scale: [1.0, 1.0]}
schedule: {steps: 4, batch_size: 4, warmup_steps: 0, lr: 5.0e-4, backbone_lr: 5.0e-4, max_grad_norm: 0.1}
"""


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "parts"),
    [
        ("instance", [[0], [1, 2, 3]]),
        ("detection", [[0, 1], [2, 3]]),
        ("box_prompt", [[0, 1], [2, 3]]),
    ],
)
def test_two_processes_are_one(tmp_path, task, parts):
    if task == "box_prompt":
        write_discs(tmp_path)
        (tmp_path / "m.yaml").write_text(BOX_SEGMENTER)
    else:
        write_manifest(tmp_path, "steps: 4, max_grad_norm: 0.1", task=task)
    distributed_step.run_rank_step(0, 1, str(tmp_path), [[0, 1, 2, 3]])
    multiprocessing.spawn(distributed_step.run_rank_step, (2, str(tmp_path), parts), nprocs=2)
    alone = torch.load(tmp_path / "after-1-0.pt")
    both = [torch.load(tmp_path / f"after-2-{rank}.pt") for rank in range(2)]
    before = {k: v.clone() for k, v in both[0].items()}
    moved = 0
    start = trainer._build_learner(load_manifest(tmp_path / "m.yaml"), next(single_process())).module.state_dict()
    for name, value in alone.items():
        assert torch.equal(both[0][name], both[1][name]), name
        assert torch.allclose(before[name], value, atol=2e-5), name  # a step of AdamW is 5e-4 wherever it goes
        moved += not torch.equal(value, start[name])
    assert moved > 50
    first, *others = (torch.load(tmp_path / f"values-{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for told in others:  # a log is of all processes, whoever writes it
        assert told == pytest.approx(first, rel=1e-3)


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
