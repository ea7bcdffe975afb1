"""`synthgen train` on a Ray cluster: python -m pipelines.train --manifest manifests/mqformer_full.yaml ..."""

from __future__ import annotations

from pipelines.ray_trainer import ray_trainer
from synthgen.cli import main

if __name__ == "__main__":
    main(ray_trainer, command="train")
