"""`synthgen captions` on a Ray cluster: python -m pipelines.captions --dataset objects365 ..."""

from __future__ import annotations

from pipelines.ray_engine import ray_engine
from synthgen.cli import main

if __name__ == "__main__":
    main(ray_engine, command="captions")
