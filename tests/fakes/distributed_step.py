"""One step of a training by one of several processes; in a module that processes can import."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed

from synthgen.dataloading.manifest import load_manifest
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.distributed import join_process_group
from synthgen.models.mqformer import losses, matcher
from synthgen.training import trainer


def _fix_sampling_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are compared at the same points whoever draws them."""
    grid = torch.cartesian_prod(torch.linspace(0.1, 0.9, 4), torch.linspace(0.1, 0.9, 4))[None]
    real = torch.rand
    monkeypatch.setattr(matcher.torch, "rand", lambda *size, **k: grid if size[-1:] == (2,) else real(*size, **k))
    monkeypatch.setattr(losses, "sample_uncertain_points", lambda guess, *_, **__: grid.expand(len(guess), -1, -1))


def run_rank_step(rank: int, world_size: int, root: str, microbatches_by_rank: list[list[int]]) -> None:
    """Learn one step of some portions of a batch, as one of several processes; write the weights."""
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    manifest = load_manifest(Path(root, "m.yaml"))
    if manifest.box_segmenter is None:
        _fix_sampling_points(patch)
    if world_size > 1:
        meeting = f"file://{root}/meeting"  # a fixed port may be taken by a test in another process
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    with join_process_group("cpu") as here, TrainLoader(manifest, batch_size=1, num_workers=0) as loader:
        batches = [next(loader) for _ in range(4)]
        # No two have as many objects, so that means of means would show.
        for i, batch in enumerate(batches):
            target = batch.targets[0]
            for key in ("labels", "boxes", "has_mask", "mask_weights", "masks"):
                target[key] = target[key].repeat_interleave(i + 1, dim=0)
        # Parts by size differ in number between processes, so the schedule does not say how many there are.
        schedule = manifest.schedule.model_copy(update={"accumulation_steps": 1, "batch_size": 4})
        run = trainer.Trainer(
            manifest.model_copy(update={"schedule": schedule}), Path(root, "none"),
            trainer._build_learner(manifest, here), here, 0, trainer.NoProgress, None,
        )  # fmt: skip
        values = run._train_step(0, [batches[i] for i in microbatches_by_rank[rank]])
        torch.save(run._learner.module.state_dict(), Path(root, f"after-{world_size}-{rank}.pt"))
        torch.save(values, Path(root, f"values-{world_size}-{rank}.pt"))
        assert values["gradient"] > 0
    patch.undo()
