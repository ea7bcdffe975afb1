"""`synthgen train` on a Ray cluster: the same training loop, in processes that Ray Train places and connects.

If a worker dies, the driver starts all workers again, and they continue from the run's last checkpoint. Ray's own
`FailureConfig` is not used: it would also retry after an error of the user, and it counts all deaths of a run together,
however many checkpoints lie between them.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from synthgen.cluster import connection
from synthgen.cluster.progress_channel import ProgressChannel, progress_writer
from synthgen.cluster.worker_pool import worker_slots_by_node
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.distributed import COLLECTIVE_TIMEOUT
from synthgen.errors import FailedRunError, SynthgenError
from synthgen.progress import NoProgress, OpenProgress
from synthgen.training import run_dir, trainer
from synthgen.training.report import TrainResult

log = logging.getLogger(__name__)

#: Seconds to wait for the lock of the run's folder: a file system may keep it for a node that died (NFS: 90 s).
_LOCK_TIMEOUT_SECONDS = 180.0

#: The training ends with an error after this many starts in a row without a new checkpoint.
MAX_DEATHS_PER_CHECKPOINT = 3


def train_on_cluster(
    manifest_path: Path,
    *,
    out: Path | None = None,
    store: Path | None = None,
    device: str = "auto",
    loader_workers: int | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    progress: OpenProgress = NoProgress,
) -> TrainResult:
    """Train a manifest with processes on all nodes of the cluster; see `synthgen.training.trainer.train`.

    Args:
        manifest_path: the manifest.
        out: run directory; None = runs/ and the manifest's name. All nodes must see it.
        store: root of the shards, instead of the manifest's.
        device: "auto", "cpu" or "cuda".
        loader_workers: data loader processes per worker.
        workers: number of training processes; None = as many as fit and divide the batch size evenly.
        gpus_per_worker: 0 or 1; None = 1 if the cluster has GPUs.
        progress: creates progress bars.

    Raises:
        SynthgenError: there is no cluster; `train` fails; a node does not see a folder; or workers died
            `MAX_DEATHS_PER_CHECKPOINT` times without a new checkpoint.
    """
    manifest = load_manifest(manifest_path, store=store)
    run = (out or Path("runs") / manifest.name).absolute()
    # Paths are made absolute before the driver connects: Ray may then move it to another working directory.
    config: dict[str, Any] = {
        "path": manifest_path.absolute(), "out": run, "store": manifest.store.absolute(),
        "loader_workers": loader_workers,
        "environment": connection.worker_environment(),
    }  # fmt: skip
    connection.reject_temporary_dir(run, "the run's folder", "--out")
    if device not in ("auto", "cpu", "cuda"):
        raise SynthgenError(f"--device {device} is for Ray to choose on a cluster; say cuda, cpu or auto")
    if gpus_per_worker not in (None, 0, 1):
        raise SynthgenError(f"--gpus-per-worker {gpus_per_worker:g} should be 0 or 1: a process trains on one GPU")
    connection.connect(log_to_driver=False)  # workers send progress messages
    gpus = gpus_per_worker
    if gpus is None:
        cluster_has_gpus = ray.cluster_resources().get("GPU", 0) >= 1  # type: ignore[no-untyped-call]
        gpus = float(cluster_has_gpus and device != "cpu")
    if bool(gpus) != (device == "cuda") and device != "auto":
        raise SynthgenError(f"--device {device} and --gpus-per-worker {gpus:g} contradict each other; take one out")
    resources = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}
    config["gpus"] = gpus
    before, deaths = run_dir.latest_checkpoint(run), 0
    with connection.show_warnings():
        while True:
            try:
                return _run_workers(config, _worker_count(workers, resources, manifest), resources, progress)
            except (TrainingFailedError, RayError) as why:
                checkpoint = run_dir.latest_checkpoint(run)
                deaths = deaths + 1 if checkpoint == before else 1
                before = checkpoint
                if deaths == MAX_DEATHS_PER_CHECKPOINT:
                    raise _final_error(why, run) from why
                where = f"goes on from {checkpoint}" if checkpoint else "begins anew, as there is no checkpoint yet"
                log.warning("a worker died (%s); the training %s", _describe(why), where)


def _worker_count(workers: int | None, resources: dict[str, float], manifest: Manifest) -> int:
    """Return how many processes train; warn where they must wait for nodes."""
    room = sum(worker_slots_by_node(resources).values())
    if workers is None:
        schedule = manifest.schedule
        portions = schedule.batch_size // schedule.accumulation_steps
        return next((n for n in range(min(room, portions), 1, -1) if portions % n == 0), 1)
    if room < workers:
        log.warning(
            "%d workers need %s each of a node, and there is room for %d; waiting for nodes", workers, resources, room
        )
    return workers


def _run_workers(
    config: Mapping[str, Any], workers: int, resources: dict[str, float], progress: OpenProgress
) -> TrainResult:
    """Start all workers, process their progress messages until they have ended, and return the result.

    Args:
        config: of `_train_on_worker`, without the entries "shared" and "mailbox".
        workers: number of training processes.
        resources: what Ray reserves for each of them.
        progress: creates progress bars.

    Raises:
        SynthgenError: the error that one of them reported.
        TrainingFailedError, RayError: one of them died.
    """
    run: Path = config["out"]
    run.parent.mkdir(parents=True, exist_ok=True)
    # Ray wants a folder for results of its own, and there are none; workers check that every node sees this folder.
    prefix = f".{run.name}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=run.parent) as shared, ProgressChannel(progress) as channel:
        options: dict[str, Any] = {"worker_runtime_env": {"env_vars": config["environment"]}}
        ray_trainer = TorchTrainer(
            _train_on_worker,
            train_loop_config={**config, "shared": shared, "mailbox": channel.mailbox},
            torch_config=TorchConfig(timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu="GPU" in resources, resources_per_worker=resources
            ),
            run_config=RunConfig(storage_path=shared, failure_config=FailureConfig(max_failures=0), **options),
        )
        ended: list[BaseException | None] = []

        def fit() -> None:
            try:
                ray_trainer.fit()
                ended.append(None)
            except BaseException as why:  # raised below, in the thread that waits
                ended.append(why)

        # In the main thread Ray would handle Ctrl-C itself.
        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(1.0)
            channel.receive()
        channel.receive()
        if channel.error is not None:
            raise channel.error
        if ended[0] is not None:
            raise ended[0]
        if channel.result is None:
            raise RuntimeError("the workers ended, and the first of them sent no result")
        return channel.result


def _train_on_worker(config: dict[str, Any]) -> None:
    """Run the training loop; Ray Train calls this in each worker, once it has connected them."""
    context = ray.train.get_context()
    out: Path = config["out"]
    with progress_writer(config["mailbox"], is_reporter=context.get_world_rank() == 0) as writer:
        node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        for exists, path, flag in (
            (Path(config["shared"]).is_dir(), out, "--out"),
            (config["store"].is_dir(), config["store"], "--store"),
            (config["path"].is_file(), config["path"], "--manifest"),
        ):
            if not exists:
                raise SynthgenError(
                    f"node {node} does not see {path}; all nodes must reach the same {flag} by the same path"
                )
        writer.send_result(
            trainer.train(
                config["path"], out=out, store=config["store"], device=_worker_device(config["gpus"]),
                num_workers=config["loader_workers"], lock_timeout=_LOCK_TIMEOUT_SECONDS, progress=writer.open_progress,
            )
        )  # fmt: skip


def _worker_device(gpus: float) -> str:
    if not gpus:
        return "cpu"
    own = ray.train.torch.get_device()
    return str(own) if own.type == "cuda" else "cuda"  # a node whose CUDA is broken must say so, not use its CPU


def _causes(why: BaseException) -> list[BaseException]:
    """Return the error of each worker that failed, deaths first: the others may have failed only because of them."""
    causes = list(getattr(why, "worker_failures", {}).values()) or [why]
    causes = [getattr(cause, "health_check_failure", cause) for cause in causes]
    return sorted(causes, key=lambda cause: not isinstance(cause, RayError))


def _describe(why: BaseException) -> str:
    first = _causes(why)[0]
    return f"{type(first).__name__}: {connection.first_message_line(first)}"


def _final_error(why: BaseException, run: Path) -> BaseException:
    """Return what to raise after `MAX_DEATHS_PER_CHECKPOINT` starts without a new checkpoint."""
    first = _causes(why)[0]
    # The device's error by its name: this package does not import torch.
    if not isinstance(first, RayError | MemoryError) and type(first).__name__ != "OutOfMemoryError":
        return why  # an error in the program: keep the tracebacks of the workers
    return FailedRunError(
        f"{MAX_DEATHS_PER_CHECKPOINT} times in a row a worker died before the next checkpoint ({_describe(why)}); if "
        "the memory is "
        "too small, raise schedule.accumulation_steps or say schedule.activation_checkpointing: true, else lower "
        f"schedule.checkpoint_every; the same command goes on with {run}"
    )
