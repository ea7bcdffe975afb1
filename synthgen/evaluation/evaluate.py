"""Evaluate a network on the `eval` layers of a manifest, with the metric of each task."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthgen.checkpoints import captioner
from synthgen.checkpoints.box_segmenter import load_box_segmenter
from synthgen.checkpoints.build_network import has_category_names
from synthgen.checkpoints.checkpoint import NO_MASKS_WARNING, load_checkpoint, load_network, resolve_sides
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.row_stream import SourceIndex, build_source_index
from synthgen.dataloading.tasks import Target
from synthgen.distributed import DistributedContext, join_process_group
from synthgen.errors import SynthgenError, job_has_started
from synthgen.evaluation import captioner_evaluator, postprocess, results
from synthgen.evaluation.box_segmenter_evaluator import evaluate_box_segmenter
from synthgen.evaluation.evaluator import evaluate_layer, load_metric
from synthgen.evaluation.metrics import GroundTruth, ImageResult, Metric
from synthgen.evaluation.query_shares import compute_shares, query_kind
from synthgen.evaluation.results import EvalResult
from synthgen.models.mqformer.model import MQFormer
from synthgen.progress import NoProgress, OpenProgress
from synthgen.records.rle_ops import is_empty_rle
from synthgen.records.sample import Sample
from synthgen.storage.atomic import check_writable, remove_stale_files
from synthgen.storage.disk import without_empty_folders
from synthgen.storage.shard_store import ShardStore

log = logging.getLogger(__name__)

_ANNOTATION_COLUMN = "annotations.list.element"


def evaluate_network(
    network: MQFormer,
    manifest: Manifest,
    *,
    device: torch.device,
    num_workers: int = 0,
    batch_size: int = 1,
    short: int | None = None,
    long: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    precision: str = "fp32",
    progress: OpenProgress = NoProgress,
) -> list[EvalResult]:
    """Evaluate a network on each layer of the manifest's `eval`.

    Args:
        network: on `device`; its mode is kept.
        manifest: names the layers.
        device: where the network is.
        num_workers: data loader workers of each process.
        batch_size: images per batch.
        short: shorter side of the network's input, in pixels; None = the manifest's `eval_size`. If both sides are
            None, the `size` of a layer takes precedence. Predictions are evaluated in the coordinates of the image
            file.
        long: maximum of the longer side, in pixels; None = as for `short`.
        rank: of this process. Each process evaluates a part of the images, and all return the full result.
        world_size: the number of processes.
        precision: fp32 or bf16, of activations.
        progress: opens a progress bar.

    Raises:
        SynthgenError: a layer is missing or empty, or its image folder is unknown.
    """
    context, was_training = DistributedContext(rank, world_size, device), network.training
    override = None if short is None and long is None else resolve_sides(short, long, manifest.eval_size)
    sizes = [override or one.size or manifest.eval_size for one in manifest.eval]
    reading = {"batch_size": batch_size, "num_workers": num_workers}
    network.eval()
    try:
        return [
            _evaluate_layer(
                network,
                manifest,
                i,
                context,
                {**reading, "short_side": size[0], "long_side": size[1]},
                precision=precision,
                progress=progress,
            )
            for i, size in enumerate(sizes)
        ]
    finally:
        network.train(was_training)


@without_empty_folders()
def evaluate_checkpoint(
    checkpoint_path: Path,
    manifest_path: Path,
    *,
    out: Path | None = None,
    store: Path | None = None,
    text_encoder: str | None = None,
    device: str = "auto",
    progress: OpenProgress = NoProgress,
    **options: Any,
) -> tuple[list[EvalResult], Path | None]:
    """Evaluate a checkpoint, and write the results as JSON.

    Args:
        checkpoint_path: a file of `synthgen train`.
        manifest_path: a YAML file with `eval`.
        out: the file; None = next to the checkpoint, named after checkpoint and manifest.
        store: root of the shards, instead of the manifest's.
        text_encoder: replaces the path in the checkpoint.
        device: see `join_process_group`.
        progress: opens a progress bar.
        **options: of `evaluate_network`; for a captioner only `num_workers` and `precision`, for a box segmenter only
            `num_workers`.

    Returns:
        The results and the file; None in all processes but rank 0.

    Raises:
        SynthgenError: the manifest is invalid or has no `eval`, or the file is not a checkpoint of synthgen.
    """
    manifest = load_manifest(manifest_path, store=store)
    if not manifest.eval:
        raise SynthgenError(f"{manifest_path} names nothing to evaluate on; add eval: to it, as manifests/ show")
    if not checkpoint_path.is_file():
        raise SynthgenError(f"no file {checkpoint_path}; name a checkpoint of `synthgen train`")
    path = out or checkpoint_path.with_name(f"{checkpoint_path.stem}.{manifest.name}.json")
    with join_process_group(device) as context:

        def prepare() -> None:
            check_writable(path, remedy=results.REMEDY)
            remove_stale_files(path.parent)

        context.on_rank0(prepare)
        if manifest.network_section == "model":
            network, held = load_network(checkpoint_path, device=context.device, text_encoder=text_encoder)
            if (
                context.rank == 0
                and not held.has_learned_masks
                and any(load_metric(one.task).TAKES != "boxes" for one in manifest.eval)
            ):
                log.warning(NO_MASKS_WARNING)
            found = evaluate_network(
                network,
                manifest,
                device=context.device,
                rank=context.rank,
                world_size=context.world_size,
                progress=progress,
                **options,
            )
        elif manifest.box_segmenter is not None:
            held = load_checkpoint(checkpoint_path)
            segmenter = load_box_segmenter(checkpoint_path, device=context.device)
            workers = options.get("num_workers", 0)
            found = evaluate_box_segmenter(segmenter, manifest, context, num_workers=workers, progress=progress)
        else:
            model, words, held = captioner.load_captioner(checkpoint_path, device=context.device)
            manifest = captioner.with_learned_image_size(manifest, held)
            own = {key: options[key] for key in ("num_workers", "precision") if key in options}
            found = captioner_evaluator.evaluate_captioner(model, words, manifest, context, progress=progress, **own)
    if context.rank:
        return found, None
    with job_has_started():
        results.save_results(path, found, checkpoint=checkpoint_path.name, step=held.step, manifest=manifest.name)
    return found, path


def _evaluate_layer(
    network: MQFormer,
    manifest: Manifest,
    eval_index: int,
    context: DistributedContext,
    loader_options: dict[str, int],
    *,
    precision: str,
    progress: OpenProgress,
) -> EvalResult:
    source, store = manifest.eval[eval_index], ShardStore(manifest.store)
    metric = load_metric(source.task)
    names, stuff = (
        has_category_names(source.task),
        context.on_rank0(lambda: _load_stuff_names(store, build_source_index(store, source))),
    )
    kinds: Counter[tuple[str, str]] = Counter()  # (kind of object, kind of query)

    def compare(batch: Batch) -> Iterator[tuple[GroundTruth, ImageResult]]:
        asked = [_build_ground_truth(target, metric, stuff) for target in batch.targets]
        for one, seen in zip(asked, _predict(network, batch, asked, names, precision), strict=True):
            compared = metric.compare(one, getattr(postprocess, metric.TAKES)(seen))
            kinds.update(
                ("things" if is_thing else "stuff", query_kind(query, seen.num_conditional))
                for is_thing, query in compared.true_positives
            )
            yield one, compared

    found = evaluate_layer(
        manifest,
        eval_index,
        context,
        compare,
        description=f"evaluating {source.task}",
        progress=progress,
        **loader_options,
    )
    return replace(found, by_kind=compute_shares(sum(context.all_gather(kinds), Counter())))


def _predict(
    network: MQFormer, batch: Batch, ground_truths: list[GroundTruth], is_category_name: bool, precision: str
) -> list[postprocess.RawPrediction]:
    texts = [one.target.texts for one in ground_truths]
    return postprocess.predict_batch(
        network,
        batch,
        texts,
        [is_category_name] * len(texts),
        precision=precision,
        stuff_names=ground_truths[0].stuff_names,
    )


def _build_ground_truth(target: dict[str, Any], metric: Metric, stuff_names: frozenset[str]) -> GroundTruth:
    original = target["original"]
    if metric.TAKES == "referring":
        original = _with_all_phrases(target["sample"], original)
    return GroundTruth(target["sample"], original, stuff_names)


def _with_all_phrases(sample: Sample, target: Target) -> Target:
    """All phrases of all objects, as REFER evaluates; training draws one per object."""
    pairs = [
        (" ".join(caption.text.split()), annotation)
        for annotation in sorted(sample.annotations, key=lambda a: a.id)
        if not annotation.iscrowd and annotation.segmentation is not None and not is_empty_rle(annotation.segmentation)
        for caption in annotation.captions
        if caption.text.strip()
    ]
    if not pairs:
        return target
    texts = tuple(dict.fromkeys(text for text, _ in pairs))
    return replace(
        target,
        texts=texts,
        labels=np.array([texts.index(text) for text, _ in pairs], np.int64),
        boxes_xyxy=np.zeros((len(pairs), 4), np.float32),
        masks=tuple(annotation.segmentation for _, annotation in pairs),
        mask_weights=np.ones(len(pairs), np.float32),
        annotation_ids=tuple((annotation.id,) for _, annotation in pairs),
        box_prompted=(),
    )


def _load_stuff_names(store: ShardStore, source_index: SourceIndex) -> frozenset[str]:
    """The names of a layer that are stuff and never things."""
    kinds: dict[bool, set[str]] = {True: set(), False: set()}
    for shard in source_index.shards:
        column = f"{_ANNOTATION_COLUMN}.isthing"
        if store.read_column_stats(shard, [column])[1][column].minimum is False:
            for batch in store.read_columns(shard, [f"{_ANNOTATION_COLUMN}.category", column]):
                for row in batch.column("annotations").to_pylist():
                    for annotation in row:
                        kinds[annotation["isthing"]].add(annotation["category"])
    return frozenset(kinds[False] - kinds[True])
