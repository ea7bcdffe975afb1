"""A `Worker` in a Ray process of its own, on some node: what is asked of it, and what it says when it cannot begin."""

from __future__ import annotations

import logging
import os

import ray

from synthgen.errors import SynthgenError
from synthgen.generate.job import Job
from synthgen.generate.run import diary, logged_to
from synthgen.generate.worker import ShardReport, Worker
from synthgen.records.store import Shard

log = logging.getLogger(__name__)


class Actor:
    """A `Worker` in a process of its own, somewhere."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def node(self) -> str:
        """Where it is, by Ray's name."""
        return str(ray.get_runtime_context().get_node_id())

    def start(self) -> str | None:
        """Load the model; the sentence of a mistake that the user can mend, if there is one."""
        node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        for folder, flag in ((self.job.store, "--store"), (self.job.images, "--images")):
            if not folder.is_dir():
                return f"node {node} does not see {folder}; all nodes must reach the same {flag} by the same path"
        # A log of its own: processes of several nodes cannot share one, and a dead one's should still be there.
        self.log = diary(self.job) / f"run-{node}-{os.getpid()}.log"
        with logged_to(self.log):
            try:
                self.worker = Worker(self.job)
            except SynthgenError as why:
                return f"{why} (on node {node})"
            except Exception:  # where other nodes do better, it is told nowhere else
                log.exception("cannot begin")
                raise
        return None

    def run(self, shard: Shard) -> ShardReport:
        """Make a shard."""
        with logged_to(self.log):
            return self.worker.run(shard)
