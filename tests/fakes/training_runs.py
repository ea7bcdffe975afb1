"""Manifests of tiny training runs, and what such a run logged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from fakes import train_layers
from synthgen.distributed import join_process_group

MANIFEST = """
name: toy
store: store
mixture:
  - {{shards: toy/train/human, task: {task}, images: photos}}
augment: {{size: 32, scale: [0.5, 1.5]}}
model: {{backbone: tiny, text_encoder: tiny, hidden_dim: 32, encoder_layers: 1, decoder_layers: 1, learnable_queries: 3,
  conditional_queries: 4{model}}}
schedule: {{batch_size: 4, mask_points: 16, lr: 1.0e-3, warmup_steps: 0, {schedule}}}
dataloader: {{num_workers: 0}}
"""


def write_manifest(
    root: Path, schedule: str = "steps: 6, checkpoint_every: 2", *, task: str = "instance", model: str = "",
    name: str = "m.yaml",
) -> Path:  # fmt: skip
    """A manifest beside its layer, of 12 rows."""
    train_layers.commit(root, 12, shards=2)
    path = root / name
    path.write_text(MANIFEST.format(schedule=schedule, task=task, model=model))
    return path


def write_manifest_with_eval(root: Path, schedule: str) -> Path:
    """The same, which is evaluated on a layer of one row."""
    path = write_manifest(root, schedule)
    train_layers.commit(root, [train_layers.row(100)], name="toy/val/human")
    shutil.copytree(root / "photos", root / "held", dirs_exist_ok=True)  # another photograph, by where it is
    path.write_text(
        path.read_text() + "eval: [{shards: toy/val/human, task: instance, images: held}]\neval_size: [32, 48]\n"
    )
    return path


def read_log(run: Path) -> list[dict[str, float]]:
    """The log without what clocks say."""
    clocks = ("images_per_s", "data_share", "memory_mib")
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


def single_process() -> Iterator:
    with join_process_group("cpu") as here:
        yield here
