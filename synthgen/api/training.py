"""Functions around a network: train, evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synthgen.api.arguments import (
    PathLike,
    Progress,
    check_choice,
    check_count,
    check_number,
    progress_opener,
)
from synthgen.api.results import Evaluation
from synthgen.errors import SynthgenError, explain_missing_extra
from synthgen.storage.disk import check_path, require_path

if TYPE_CHECKING:
    from synthgen.training.report import TrainResult


def train(
    manifest: PathLike,
    *,
    out: PathLike | None = None,
    store: PathLike | None = None,
    device: str = "auto",
    loader_workers: int | None = None,
    engine: str = "local",
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    progress: Progress = False,
) -> TrainResult:
    """Train what a manifest describes, and evaluate it, as `synthgen train` does.

    The manifest is checked first. Interrupt the call at any moment, by Ctrl-C too: the same call goes on from the last
    checkpoint, and learns what it would have learned undisturbed.

    Args:
        manifest: a YAML file; `synthgen manifests copy` writes examples.
        out: folder of the run. None = `runs/` and the manifest's name.
        store: root of the shards. None = the manifest's, the environment variable SYNTHGEN_STORE, or `shards`.
        device: "auto", "cpu", "cuda", "cuda:1", ... or "mps".
        loader_workers: processes that read images, of each training process. None = the manifest's.
        engine: "local", or "ray" for a Ray cluster.
        workers: number of training processes; for the engine "ray".
        gpus_per_worker: GPUs of each process; for the engine "ray".
        progress: whether, or how, progress is shown.

    Returns:
        The run's folder, its checkpoints, and the last evaluation.

    Raises:
        ArgumentError: an argument is not valid.
        SynthgenError: the manifest is not valid, a package of the extra `train` is missing, or the folder belongs to
            another run.
        FailedRunError: the loss is not finite, the memory of the device is too small, or the disk is full.
    """
    check_choice("engine", engine, ("local", "ray"))
    loader_workers = check_count("loader_workers", loader_workers, 0)
    workers = check_count("workers", workers, 1)
    gpus_per_worker = check_number("gpus_per_worker", gpus_per_worker, 0)
    path = require_path("manifest", manifest)
    own: dict[str, Any] = {
        "out": check_path("out", out),
        "store": check_path("store", store),
        "device": device,
        "progress": progress_opener(progress),
    }
    with explain_missing_extra("`synthgen train`"):
        from synthgen.devices import check_device_options

        check_device_options(device, "fp32", 1)
        if engine == "ray":
            from synthgen.cluster.trainer import train_on_cluster

            return train_on_cluster(
                path, loader_workers=loader_workers, workers=workers, gpus_per_worker=gpus_per_worker, **own
            )
        if workers is not None or gpus_per_worker is not None:
            flag = "--workers" if workers is not None else "--gpus-per-worker"
            raise SynthgenError(
                f"{flag} needs Ray; add `--engine ray`, or without it start as many processes as there are GPUs: "
                "`torchrun --nproc-per-node N -m synthgen train`"
            )
        from synthgen.oom import explain_out_of_memory
        from synthgen.training import trainer

        with explain_out_of_memory(
            "raise schedule.accumulation_steps, set schedule.activation_checkpointing: true, "
            "or lower augment.size (another --out)"
        ):
            return trainer.train(path, num_workers=loader_workers, **own)


def evaluate(
    checkpoint: PathLike,
    manifest: PathLike,
    *,
    out: PathLike | None = None,
    store: PathLike | None = None,
    text_encoder: PathLike | None = None,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 1,
    loader_workers: int = 2,
    short: int | None = None,
    long: int | None = None,
    progress: Progress = False,
) -> Evaluation:
    """Measure a checkpoint on the layers of a manifest's `eval`, as `synthgen evaluate` does.

    Args:
        checkpoint: a file that training wrote.
        manifest: a YAML file.
        out: the JSON file to write. None = beside the checkpoint.
        store: root of the shards. None = the manifest's, the environment variable SYNTHGEN_STORE, or `shards`.
        text_encoder: name or folder of the text encoder, if it is not where it was in training.
        device: "auto", "cpu", "cuda", "cuda:1", ... or "mps".
        precision: "fp32" or "bf16", of activations.
        batch_size: images at once.
        loader_workers: processes that read images.
        short: shorter side of the network's input, in pixels. None = the manifest's.
        long: maximum of the longer side, in pixels. None = the manifest's.
        progress: whether, or how, progress is shown.

    Returns:
        The results of each layer, in percent, and the JSON file.

    Raises:
        ArgumentError: an argument is not valid.
        SynthgenError: the manifest is not valid or has no `eval`, or the file is not a checkpoint.
    """
    batch_size = check_count("batch_size", batch_size, 1, optional=False)
    loader_workers = check_count("loader_workers", loader_workers, 0, optional=False)
    short = check_count("short", short, 1)
    long = check_count("long", long, 1)
    paths = require_path("checkpoint", checkpoint), require_path("manifest", manifest)
    with explain_missing_extra("`synthgen evaluate`"):
        from synthgen.devices import check_device_options
        from synthgen.evaluation.evaluate import evaluate_checkpoint
        from synthgen.evaluation.network_predictor import name_text_encoder

        check_device_options(device, precision, batch_size)
        found, path = evaluate_checkpoint(
            *paths,
            out=check_path("out", out),
            store=check_path("store", store),
            text_encoder=name_text_encoder(text_encoder),
            device=device,
            progress=progress_opener(progress),
            precision=precision,
            batch_size=batch_size,
            num_workers=loader_workers,
            short=short,
            long=long,
        )
    return Evaluation(tuple(found), path)
