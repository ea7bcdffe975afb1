"""`synthgen train` on a Ray cluster: python -m pipelines.train --manifest manifests/mqformer_full.yaml ..."""

from __future__ import annotations

from synthgen.cli import main
from synthgen.cluster.trainer import ray_trainer

if __name__ == "__main__":
    main(ray_trainer, command="train")
