"""Captions on a Ray cluster equal those of one machine, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import coco_dataset, tiny_ofa

pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]
OWN = ["--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos"]


def run(folder: Path, *words: str) -> str:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SYNTHGEN_", "RAY_"))}
    # Over how many threads a sum is parted decides the last bits of a score. Alone, PyTorch takes as many as there are
    # cores; Ray gives a worker as many as CPUs, one by default. With as many here as there the bytes are the same.
    own |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=own, check=True, text=True, capture_output=True, timeout=180
    ).stdout


@pytest.mark.slow
@pytest.mark.parametrize("captioner", ["attributes", "ofa"])
def test_a_cluster_writes_the_captions_of_one_machine(tmp_path: Path, captioner: str) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=24)
    own = [*OWN, "--captioner", captioner]
    if captioner == "ofa":
        tiny_ofa.checkpoint(tmp_path / "weights")
        own += ["--checkpoint", "weights", "--device", "cpu", "--max-length", "8", "-O", f"side={tiny_ofa.SIDE}"]
    run(tmp_path, "synthgen", "ingest", *OWN, "--shard-size", "4")
    layer, made = tmp_path / "shards/boxes/train/captions", []
    for words in (("synthgen", "captions", *own), ("pipelines.captions", *own, "--workers", "2")):
        shutil.rmtree(layer, ignore_errors=True)
        told = run(tmp_path, *words)
        assert "for 72 of 72 boxes on 24 images in 6 shards" in told
        made.append({path.name: path.read_bytes() for path in layer.glob("*.parquet")})
    here, there = made
    assert len(here) == 6
    assert here == there
