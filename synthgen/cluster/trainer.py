"""`synthgen train` on a cluster: the same loop, in processes that Ray Train places and joins.

Where one of them dies, all are started again and go on from the run's last checkpoint, as the same command would.
Ray's own `FailureConfig` would repeat a user's mistake as well, and count the deaths of a whole month together.
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

from synthgen.cluster import connection as cluster
from synthgen.cluster import progress_channel as letters
from synthgen.cluster.worker_pool import room_on_nodes
from synthgen.errors import SynthgenError
from synthgen.reading.check import NewBar, NoBar
from synthgen.reading.manifest import Manifest, load
from synthgen.train import folder, loop
from synthgen.train.ranks import PATIENCE
from synthgen.train.telling import Trained

#: One of the house's loggers.
log = logging.getLogger(__name__)

#: Seconds that the run's folder is waited for: a file system may hold it for a node that died (NFS: 90 s).
_PATIENCE = 180.0

#: A training is given up once so many of its starts in a row came to no new checkpoint.
MOST_DEATHS = 3


def ray_trainer(
    path: Path,
    *,
    out: Path | None = None,
    store: Path | None = None,
    device: str = "auto",
    readers: int | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    bar: NewBar = NoBar,
) -> Trained:
    """Train what a manifest describes with processes all over the cluster; see `loop.train`.

    Args:
        readers: processes that read images, of each worker.
        workers: processes that train; None = as many as there is room for and a step's images can be dealt to.
        gpus_per_worker: 0 or 1; None = 1 where the cluster has GPUs.

    Raises:
        SynthgenError: no cluster; what `loop.train` raises; a node does not see a folder; workers die again and again.
    """
    manifest = load(path, store=store)
    run = (out or Path("runs") / manifest.name).absolute()
    # Paths from here, before a cluster is joined: Ray may unpack the working directory anew, and this one is gone then.
    config: dict[str, Any] = {
        "path": path.absolute(), "out": run, "store": manifest.store.absolute(), "readers": readers,
        "environment": cluster.environment(),
    }  # fmt: skip
    cluster.refuse_passing(run, "the run's folder", "--out")
    if device not in ("auto", "cpu", "cuda"):
        raise SynthgenError(f"--device {device} is for Ray to choose on a cluster; say cuda, cpu or auto")
    if gpus_per_worker not in (None, 0, 1):
        raise SynthgenError(f"--gpus-per-worker {gpus_per_worker:g} should be 0 or 1: a process trains on one GPU")
    cluster.join(log_to_driver=False)  # it tells by letters
    gpus = gpus_per_worker
    if gpus is None:
        there_are = ray.cluster_resources().get("GPU", 0) >= 1  # type: ignore[no-untyped-call]
        gpus = float(there_are and device != "cpu")
    if bool(gpus) != (device == "cuda") and device != "auto":
        raise SynthgenError(f"--device {device} and --gpus-per-worker {gpus:g} contradict each other; take one out")
    need = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}
    config["gpus"] = gpus
    before, deaths = folder.newest(run), 0
    with cluster.warnings_told():
        while True:
            try:
                return _start(config, _how_many(workers, need, manifest), need, bar)
            except (TrainingFailedError, RayError) as why:
                reached = folder.newest(run)
                deaths = deaths + 1 if reached == before else 1
                before = reached
                if deaths == MOST_DEATHS:
                    raise _hopeless(why, run) from why
                where = f"goes on from {reached}" if reached else "begins anew, as there is no checkpoint yet"
                log.warning("a worker died (%s); the training %s", _told(why), where)


def _how_many(workers: int | None, need: dict[str, float], manifest: Manifest) -> int:
    """So many processes train; says so where they must wait for nodes."""
    room = sum(room_on_nodes(need).values())
    if workers is None:
        schedule = manifest.schedule
        portions = schedule.batch_size // schedule.accumulate
        return next((n for n in range(min(room, portions), 1, -1) if portions % n == 0), 1)
    if room < workers:
        log.warning(
            "%d workers need %s each of a node, and there is room for %d; waiting for nodes", workers, need, room
        )
    return workers


def _start(config: Mapping[str, Any], workers: int, need: dict[str, float], bar: NewBar) -> Trained:
    """Start all workers, and pass on what they tell until they have ended.

    Raises:
        SynthgenError: as one of them was refused.
        TrainingFailedError, RayError: one of them died.
    """
    run: Path = config["out"]
    run.parent.mkdir(parents=True, exist_ok=True)
    # Ray's own results go here, of which there are none: what matters is whether every node sees it.
    with tempfile.TemporaryDirectory(prefix=f".{run.name}-", dir=run.parent) as shared, letters.Box(bar) as box:
        options: dict[str, Any] = {"worker_runtime_env": {"env_vars": config["environment"]}}
        trainer = TorchTrainer(
            _work,
            train_loop_config={**config, "shared": shared, "address": box.address},
            torch_config=TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu="GPU" in need, resources_per_worker=need),
            run_config=RunConfig(storage_path=shared, failure_config=FailureConfig(max_failures=0), **options),
        )
        ended: list[BaseException | None] = []

        def fit() -> None:
            try:
                trainer.fit()
                ended.append(None)
            except BaseException as why:  # it is raised where others wait for it
                ended.append(why)

        # In a thread of its own Ray leaves Ctrl-C to us.
        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(1.0)
            box.open()
        box.open()
        if box.refused is not None:
            raise box.refused
        if ended[0] is not None:
            raise ended[0]
        if box.done is None:
            raise RuntimeError("the workers ended, and the first of them did not tell what came of it")
        return box.done


def _work(config: dict[str, Any]) -> None:
    """What each worker does, once Ray Train has joined them."""
    context = ray.train.get_context()
    out: Path = config["out"]
    with letters.written(config["address"], speaks=context.get_world_rank() == 0) as writer:
        node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        for there, what, flag in (
            (Path(config["shared"]).is_dir(), out, "--out"),
            (config["store"].is_dir(), config["store"], "--store"),
            (config["path"].is_file(), config["path"], "--manifest"),
        ):
            if not there:
                raise SynthgenError(
                    f"node {node} does not see {what}; all nodes must reach the same {flag} by the same path"
                )
        writer.done(
            loop.train(
                config["path"], out=out, store=config["store"], device=_device(config["gpus"]),
                workers=config["readers"], patience=_PATIENCE, bar=writer.bar,
            )
        )  # fmt: skip


def _device(gpus: float) -> str:
    if not gpus:
        return "cpu"
    own = ray.train.torch.get_device()
    return str(own) if own.type == "cuda" else "cuda"  # a node whose CUDA is broken must say so, not use its CPU


def _causes(why: BaseException) -> list[BaseException]:
    """What happened in each worker that failed, those that died first: the others may only have lost them."""
    causes = list(getattr(why, "worker_failures", {}).values()) or [why]
    causes = [getattr(cause, "health_check_failure", cause) for cause in causes]
    return sorted(causes, key=lambda cause: not isinstance(cause, RayError))


def _told(why: BaseException) -> str:
    first = _causes(why)[0]
    return f"{type(first).__name__}: {cluster.line_of(first)}"


def _hopeless(why: BaseException, run: Path) -> BaseException:
    """What to raise where workers die again and again."""
    first = _causes(why)[0]
    # The device's, by name: torch is not ours to know.
    if not isinstance(first, RayError | MemoryError) and type(first).__name__ != "OutOfMemoryError":
        return why  # our mistake, with the tracebacks of the workers
    return SynthgenError(
        f"{MOST_DEATHS} times in a row a worker died before the next checkpoint ({_told(why)}); if the memory is too "
        "small, raise schedule.accumulate or say schedule.checkpointing: true, else lower schedule.checkpoint_every; "
        f"the same command goes on with {run}"
    )
