"""`synthgen captions` on a Ray cluster: python -m pipelines.captions --dataset objects365 ..."""

from __future__ import annotations

from synthgen.cli import main
from synthgen.cluster.engine import on_cluster

if __name__ == "__main__":
    main(on_cluster, command="captions")
