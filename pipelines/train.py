"""`synthgen train` on a Ray cluster: python -m pipelines.train --manifest manifests/mqformer_full.yaml ..."""

from __future__ import annotations

from synthgen.cli import main
from synthgen.cluster.trainer import train_on_cluster

if __name__ == "__main__":
    main(train_on_cluster, command="train")
