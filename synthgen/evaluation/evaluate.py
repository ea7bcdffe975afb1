"""A network on the layers that a manifest evaluates: image by image, by each task's own metric."""

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
from synthgen.checkpoints.build_network import is_names
from synthgen.checkpoints.checkpoint import NO_MASKS, load_network, sides
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.manifest import Manifest, load
from synthgen.dataloading.row_stream import Taken, take
from synthgen.dataloading.tasks import Target
from synthgen.distributed import Ranks, together
from synthgen.errors import SynthgenError
from synthgen.evaluation import captioner_evaluator, postprocess, results
from synthgen.evaluation.evaluator import measure, metric_of
from synthgen.evaluation.metrics import Asked, Compared, Metric
from synthgen.evaluation.results import Measured
from synthgen.models.mqformer.model import MQFormer
from synthgen.progress import NoProgress, OpenProgress
from synthgen.records.rle_ops import is_empty
from synthgen.records.sample import Sample
from synthgen.storage.atomic import try_to_write
from synthgen.storage.shard_store import ShardStore

log = logging.getLogger(__name__)

_ANNOTATION = "annotations.list.element"


def evaluate(
    network: MQFormer,
    manifest: Manifest,
    *,
    device: torch.device,
    workers: int = 0,
    batch_size: int = 1,
    short: int | None = None,
    long: int | None = None,
    rank: int = 0,
    world: int = 1,
    precision: str = "fp32",
    bar: OpenProgress = NoProgress,
) -> list[Measured]:
    """Measure a network on each layer of the manifest's `eval`.

    Args:
        short, long: sides of what the network sees; None = the manifest's `eval_size`, and if both are, what a layer
            says of itself by `size`. Predictions are measured in the frame of the image's file.
        rank, world: which process this is, of how many: each measures a part, and all of them return the whole.
        precision: fp32 or bf16, of activations.

    Raises:
        SynthgenError: a layer is not there, or empty, or nobody knows where its images are.
    """
    here, was_training = Ranks(rank, world, device), network.training
    said = None if short is None and long is None else sides(short, long, manifest.eval_size)
    sizes = [said or one.size or manifest.eval_size for one in manifest.eval]
    reading = {"batch_size": batch_size, "workers": workers}
    network.eval()
    try:
        return [
            _measured(
                network, manifest, i, here, {**reading, "short": size[0], "long": size[1]}, precision=precision, bar=bar
            )
            for i, size in enumerate(sizes)
        ]
    finally:
        network.train(was_training)


def run(
    checkpoint: Path,
    manifest: Path,
    *,
    out: Path | None = None,
    store: Path | None = None,
    text_encoder: str | None = None,
    device: str = "auto",
    bar: OpenProgress = NoProgress,
    **options: Any,
) -> tuple[list[Measured], Path | None]:
    """Measure a checkpoint, and write what came of it as JSON.

    Args:
        out: the file; None = beside the checkpoint, named after both.
        text_encoder: instead of the one that the checkpoint names.
        device: as `ranks.together` takes it.
        options: of `evaluate`; of a captioner's, `workers` and `precision`.

    Returns:
        What was measured, and the file; None in all processes but the first.

    Raises:
        SynthgenError: the manifest has mistakes or nothing to evaluate on, or the checkpoint is none of ours.
    """
    said = load(manifest, store=store)
    if not said.eval:
        raise SynthgenError(f"{manifest} names nothing to evaluate on; add eval: to it, as manifests/ show")
    if not checkpoint.is_file():
        raise SynthgenError(f"no file {checkpoint}; name a checkpoint of `synthgen train`")
    path = out or checkpoint.with_name(f"{checkpoint.stem}.{said.name}.json")
    with together(device) as here:
        here.by_the_first(lambda: try_to_write(path, remedy=results.REMEDY))
        if said.captioner is None:
            network, held = load_network(checkpoint, device=here.device, text_encoder=text_encoder)
            if here.rank == 0 and not held.masks and any(metric_of(one.task).TAKES != "boxes" for one in said.eval):
                log.warning(NO_MASKS)
            found = evaluate(network, said, device=here.device, rank=here.rank, world=here.world, bar=bar, **options)
        else:
            speaker, words, held = captioner.load(checkpoint, device=here.device)
            said = captioner.as_learned(said, held)
            own = {key: options[key] for key in ("workers", "precision") if key in options}
            found = captioner_evaluator.measure(speaker, words, said, here, bar=bar, **own)
    if here.rank:
        return found, None
    results.save(path, found, checkpoint=checkpoint.name, step=held.step, manifest=said.name)
    return found, path


def _measured(
    network: MQFormer,
    manifest: Manifest,
    index: int,
    here: Ranks,
    reading: dict[str, int],
    *,
    precision: str,
    bar: OpenProgress,
) -> Measured:
    source, store = manifest.eval[index], ShardStore(manifest.store)
    metric = metric_of(source.task)
    names, stuff = is_names(source.task), here.by_the_first(lambda: _stuff(store, take(store, source)))
    kinds: Counter[tuple[bool, bool]] = Counter()  # whether it is a thing, whether a conditional query found it

    def compare(batch: Batch) -> Iterator[tuple[Asked, Compared]]:
        asked = [_asked(target, metric, stuff) for target in batch.targets]
        for one, seen in zip(asked, _predicted(network, batch, asked, names, precision), strict=True):
            compared = metric.compare(one, getattr(postprocess, metric.TAKES)(seen))
            kinds.update((is_thing, query < seen.conditional) for is_thing, query in compared.right)
            yield one, compared

    found = measure(manifest, index, here, compare, doing=f"evaluating {source.task}", bar=bar, **reading)
    return replace(found, by_kind=_by_kind(sum(here.gathered(kinds), Counter())))


def _predicted(
    network: MQFormer, batch: Batch, asked: list[Asked], names: bool, precision: str
) -> list[postprocess.Prediction]:
    texts = [one.target.texts for one in asked]
    return postprocess.look(network, batch, texts, [names] * len(texts), precision=precision, stuff=asked[0].stuff)


def _asked(target: dict[str, Any], metric: Metric, stuff: frozenset[str]) -> Asked:
    original = target["original"]
    if metric.TAKES == "referring":
        original = _every_phrase(target["sample"], original)
    return Asked(target["sample"], original, stuff)


def _every_phrase(sample: Sample, target: Target) -> Target:
    """All phrases of all objects, as REFER measures, where training draws one for each object."""
    pairs = [
        (" ".join(caption.text.split()), annotation)
        for annotation in sorted(sample.annotations, key=lambda a: a.id)
        if not annotation.iscrowd and annotation.segmentation is not None and not is_empty(annotation.segmentation)
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
        prompts=(),
    )


def _stuff(store: ShardStore, taken: Taken) -> frozenset[str]:
    """The names of a layer that are never a thing's."""
    kinds: dict[bool, set[str]] = {True: set(), False: set()}
    for shard in taken.shards:
        column = f"{_ANNOTATION}.isthing"
        if store.summary(shard, [column])[1][column].least is False:
            for batch in store.columns(shard, [f"{_ANNOTATION}.category", column]):
                for row in batch.column("annotations").to_pylist():
                    for annotation in row:
                        kinds[annotation["isthing"]].add(annotation["category"])
    return frozenset(kinds[False] - kinds[True])


def _by_kind(kinds: Counter[tuple[bool, bool]]) -> dict[str, dict[str, float]]:
    found = {}
    for kind, is_thing in (("things", True), ("stuff", False)):
        conditional, learnable = kinds[is_thing, True], kinds[is_thing, False]
        if count := conditional + learnable:
            shares = {"conditional": 100 * conditional / count, "learnable": 100 * learnable / count}
            found[kind] = {**shares, "found": float(count)}
    return found
