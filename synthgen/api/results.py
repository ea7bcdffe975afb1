"""What `generate_masks`, `generate_captions` and `evaluate` return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synthgen.errors import SynthgenError
from synthgen.records.sample import UNPROMPTED_FLAGS

if TYPE_CHECKING:
    from synthgen.evaluation.results import EvalResult
    from synthgen.generate.stage_run import LayerRun
    from synthgen.layers.layer import Layer

#: The flags of objects for which a stage made nothing.
SKIP_FLAGS = UNPROMPTED_FLAGS | {"empty_mask", "segmenter_failed", "no_imported_mask", "no_caption", "captioner_failed"}


@dataclass(frozen=True, slots=True)
class LayerResult:
    """The output layer of one split, as it is after the run. Shards of earlier runs count, too.

    Attributes:
        layer: its name, "dataset/split/layer".
        store: root of the shards.
        plugin: the segmenter or captioner.
        shards: number of committed shards; num_shards: of how many.
        new_shards: number of shards that this run committed.
        images, boxes, masks, captions: numbers in the committed shards.
        failed_images: number of images in the committed shards that have an error.
        failed_shards: a message for each shard that failed in this run. The same call tries it again.
        skipped: reason -> number of boxes for which the stage made nothing; the keys are of
            `synthgen.records.sample.ANNOTATION_FLAGS`.
        flags: all flags, in the same form.
    """

    layer: str
    store: Path
    plugin: str
    shards: int
    num_shards: int
    new_shards: int
    images: int
    boxes: int
    masks: int
    captions: int
    failed_images: int
    failed_shards: tuple[str, ...]
    skipped: Mapping[str, int]
    flags: Mapping[str, int]

    @property
    def is_complete(self) -> bool:
        """Whether every shard is committed."""
        return self.shards == self.num_shards

    def load(self) -> Layer:
        """Open the layer; see `synthgen.load_layer`."""
        from synthgen.layers.layer import load_layer

        return load_layer(self.store, self.layer)


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """The result of `generate_masks` or `generate_captions`. The numbers are sums over `layers`.

    Attributes:
        layers: one for each split of the dataset.
    """

    layers: tuple[LayerResult, ...]

    @property
    def layer(self) -> str:
        """The name of the only layer, "dataset/split/layer".

        Raises:
            SynthgenError: the dataset has several splits.
        """
        return self._only().layer

    def load(self) -> Layer:
        """Open the only layer; see `synthgen.load_layer`.

        Raises:
            SynthgenError: the dataset has several splits.
        """
        return self._only().load()

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(layer.images for layer in self.layers)

    @property
    def boxes(self) -> int:
        """Number of boxes."""
        return sum(layer.boxes for layer in self.layers)

    @property
    def masks(self) -> int:
        """Number of masks."""
        return sum(layer.masks for layer in self.layers)

    @property
    def captions(self) -> int:
        """Number of captions."""
        return sum(layer.captions for layer in self.layers)

    @property
    def failed_images(self) -> int:
        """Number of images that have an error."""
        return sum(layer.failed_images for layer in self.layers)

    @property
    def failed_shards(self) -> tuple[str, ...]:
        """A message for each shard that failed in this run."""
        return tuple(message for layer in self.layers for message in layer.failed_shards)

    @property
    def skipped(self) -> Mapping[str, int]:
        """Reason -> number of boxes for which the stage made nothing."""
        total = Counter[str]()
        for layer in self.layers:
            total.update(layer.skipped)
        return dict(sorted(total.items()))

    @property
    def is_complete(self) -> bool:
        """Whether every shard of every split is committed."""
        return all(layer.is_complete for layer in self.layers)

    def _only(self) -> LayerResult:
        if len(self.layers) != 1:
            names = ", ".join(layer.layer for layer in self.layers)
            raise SynthgenError(f"there are {len(self.layers)} layers ({names}); choose one of `layers`")
        return self.layers[0]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        layers: the results of each layer of the manifest's `eval`.
        path: the JSON file with the results; None in all processes of torchrun but rank 0.
    """

    layers: tuple[EvalResult, ...]
    path: Path | None


def summarize_run(run: LayerRun) -> LayerResult:
    """The output layer of a run, by the footers of its shards."""
    from synthgen.storage.shard_store import ShardStore

    job, store = run.job, ShardStore(run.job.store)
    shards = store.list_shards(job.dataset, job.split, job.layer)
    counts, flags = Counter[str](), Counter[str]()
    for shard in shards:
        own = (store.read_footer(shard) or {}).get("counts", {})
        counts.update(_only_numbers(own))
        flags.update(_only_numbers(own.get("flags")))
    inputs = store.list_shards(job.dataset, job.split, job.input_layer)
    return LayerResult(
        layer=f"{job.dataset}/{job.split}/{job.layer}",
        store=job.store,
        plugin=job.plugin,
        shards=len(shards),
        num_shards=inputs[0].num_shards if inputs else 0,
        new_shards=run.stats.committed if run.stats else 0,
        images=counts["images"],
        boxes=counts["annotations"],
        masks=counts["masks"],
        captions=counts["captions"],
        failed_images=counts["errors"],
        failed_shards=tuple(run.stats.errors) if run.stats else (),
        skipped={flag: count for flag, count in sorted(flags.items()) if flag in SKIP_FLAGS},
        flags=dict(sorted(flags.items())),
    )


def _only_numbers(counts: object) -> dict[str, int]:
    """The whole numbers of a member of a footer, which comes from a file and may hold anything."""
    found = counts if isinstance(counts, dict) else {}
    return {name: count for name, count in found.items() if isinstance(count, int)}
