"""A Ray cluster of two nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("ray", reason="Ray is not installed")

from ray import cluster_utils


@contextmanager
def two_node_cluster(cpus: int) -> Iterator[cluster_utils.Cluster]:
    """Each node has so many CPUs and no GPU; ports are free ones, as another cluster may run here."""
    ports = {"dashboard_port": 0, "dashboard_agent_listen_port": 0}
    made = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": cpus, "num_gpus": 0, "include_dashboard": True, **ports}
    )
    made.add_node(num_cpus=cpus, num_gpus=0)
    try:
        yield made
    finally:
        made.shutdown()
