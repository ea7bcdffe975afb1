"""The Ray actor that runs a `Worker` in a process of its own on some node, and reports why it cannot start."""

from __future__ import annotations

import logging
import os
import threading

import ray

from synthgen.errors import SynthgenError
from synthgen.generate.batch_threads import NONE_HUNG, BatchTimeoutError, HungRows
from synthgen.generate.job import Job
from synthgen.generate.worker import ShardReport, Worker
from synthgen.storage.run_log import log_folder, log_to_file
from synthgen.storage.shard_store import Shard, ShardStore

log = logging.getLogger(__name__)

#: Seconds after which a process with a hanging batch ends itself, if the driver has not ended it before.
SECONDS_TO_LIVE = 10.0


class WorkerActor:
    """A `Worker` in a process of its own.

    Args:
        job: what the worker does with each shard.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    def node(self) -> str:
        """Return Ray's id of the node that it runs on."""
        return str(ray.get_runtime_context().get_node_id())

    def start(self) -> str | None:
        """Load the model; return None, or the sentence of an error that the user can fix."""
        node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        for folder, flag in ((self.job.store, "--store"), (self.job.image_folder, "--images")):
            if not folder.is_dir():
                return f"node {node} does not see {folder}; all nodes must reach the same {flag} by the same path"
        # Each process has its own log: processes on several nodes cannot share one, and it outlives a dead process.
        job = self.job
        folder = log_folder(ShardStore(job.store), job.dataset, job.split, job.layer)
        self.log = folder / f"run-{node}-{os.getpid()}.log"
        with log_to_file(self.log):
            try:
                self.worker = Worker(self.job)
            except SynthgenError as why:
                return f"{why} (on node {node})"
            except Exception:  # where other nodes succeed, nothing else shows this traceback
                log.exception("cannot begin")
                raise
        return None

    def run(self, shard: Shard, hung: HungRows = NONE_HUNG) -> ShardReport | BatchTimeoutError:
        """Process one shard; return a `BatchTimeoutError` if the model hangs, and this process is of no more use.

        Args:
            shard: one of the job's output layer.
            hung: rows over which earlier workers hung.
        """
        with log_to_file(self.log):
            try:
                return self.worker.run(shard, hung=hung)
            except BatchTimeoutError as why:
                _end_process_later()
                return why


def _end_process_later() -> None:
    """End this process soon. Where it ends in the usual way, Python waits for threads that a plugin has started."""
    timer = threading.Timer(SECONDS_TO_LIVE, os._exit, [1])
    timer.daemon = True
    timer.start()
