"""The source of a layer: the files of a dataset, read into the shards of one layer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from synthgen import __version__
from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart, DatasetReader
from synthgen.ingest.image_table import StringColumn
from synthgen.ingest.name_matching import match_names as find_matches
from synthgen.ingest.origin_checks import HUMAN_LAYER, refuse_machine_masks
from synthgen.ingest.sharding import ShardSlice, split_into_shards, treat_crowds_as_objects
from synthgen.ingest.source_digests import SourceDigests, digest_sources, source_states
from synthgen.ingest.text_limits import check_captions
from synthgen.progress import ReportPhase
from synthgen.records.box_checks import flag_sample_boxes
from synthgen.records.box_table import BoxColumns, table_from_columns
from synthgen.records.parquet_schema import samples_from_batch
from synthgen.records.recipe import fingerprint
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import Shard, ShardStore

log = logging.getLogger(__name__)

#: Raise it when the same file would give other shards than before.
INGEST_VERSION = 1

#: With more category names than this, such as free-form names, a footer lists only those of its shard.
MAX_FOOTER_NAMES = 5_000

#: (sample with boxes, the payload of each annotation) -> the sample with the content of the payloads.
_Complete = Callable[[Sample, list[bytes | None]], Sample]


@dataclass(frozen=True, slots=True)
class ReadSlices:
    """The whole dataset, read and sorted.

    Attributes:
        slices: the shards in order.
        image_names: the digest of the matched file names; None = names are not matched.
        complete: adds the content of payloads to a sample; None = the layer has boxes only.
    """

    slices: Iterator[ShardSlice]
    image_names: str | None
    complete: _Complete | None

    def content(self, one: ShardSlice) -> BoxColumns | list[Sample]:
        """What `ShardStore.commit` takes for the slice `one`."""
        return one.columns if self.complete is None else _complete_samples(one, self.complete)


@dataclass(frozen=True, slots=True)
class LayerSource:
    """The files from which a layer is made.

    Attributes:
        store: where the layer lies; the store may lie in the dataset's folder.
        reader: the dataset's format.
        files: as `reader.files` returns them.
        name, split: the dataset and the split, as the store names them.
        layer: one of the reader's `LAYERS`.
        match_names: also take image files that are there under another form of their name; see `name_matching`.
        on_progress: called with the phase, the units done and the units in all.
    """

    store: ShardStore
    reader: DatasetReader
    files: DatasetFiles
    name: str
    split: str
    layer: str = "annotations"
    match_names: bool = False
    on_progress: ReportPhase = lambda *_: None

    @property
    def folder(self) -> Path:
        """The folder of the layer."""
        return self.store.layer_folder(self.name, self.split, self.layer)

    @property
    def log(self) -> Path:
        """The file that remembers the digests of the annotation files."""
        return self.folder / "_log" / "source.json"

    @property
    def where(self) -> str:
        """The annotation files, for messages."""
        return ", ".join(map(str, self.files.sources.values()))

    def __str__(self) -> str:
        return f"{self.name}/{self.split}/{self.layer}"

    def recipe(self, shard_size: int) -> dict[str, Any]:
        """The recipe of the layer's shards, without the digests of the files.

        Args:
            shard_size: images per shard; 0 = by the size of the dataset.
        """
        return {
            "stage": "ingest",
            "dataset": self.name,
            "reader": getattr(self.reader, "__name__", "").rsplit(".", 1)[-1],
            "split": self.split,
            "layer": self.layer,
            "shard_size": shard_size,
            "version": INGEST_VERSION,
            **({"match_names": True} if self.match_names else {}),
            **({"crowds_as_objects": True} if self.files.crowds_as_objects else {}),
        }

    def digest(self) -> SourceDigests:
        """The digests of the files; see `digest_sources`."""
        return digest_sources(self.files, self.log, self.store.root)

    def states(self) -> dict[str, tuple[int, int, int, int]]:
        """What stands for the content of the files; see `source_states`."""
        return source_states(self.files, self.store.root)

    def check_unchanged(self, before: dict[str, tuple[int, int, int, int]]) -> None:
        """Check that the files are those that were there before they were read.

        Args:
            before: what `states` returned then.

        Raises:
            SynthgenError: one was changed.
        """
        if self.states() != before:
            raise SynthgenError(f"a file of {self.name} changed while it was read; run the same command again")

    def present_shards(self) -> list[Shard]:
        """The committed shards, also of a layer that an update left unfinished."""
        return self.store.list_shards(self.name, self.split, self.layer, check_update=False)

    def read(self, scratch: Path, *, shard_size: int, first_ids: Sequence[int] | None = None) -> ReadSlices:
        """Read all files, then give the shards one by one.

        Args:
            scratch: an empty folder.
            shard_size: images per shard; 0 = by the size of the dataset.
            first_ids: see `split_into_shards`.

        Raises:
            SynthgenError: the files are not of this format, or two images have one id.
        """
        done, total = 0, self.files.total_bytes()

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            self.on_progress("reading", min(done, total), total)

        batches: Iterable[DatasetPart] = self.reader.read(replace(self.files, on_bytes=on_bytes), self.layer)
        first_file = next(iter(self.files.sources.values()), self.files.image_folder)
        batches = refuse_machine_masks(batches, self.layer, first_file)
        if self.files.crowds_as_objects:
            batches = treat_crowds_as_objects(batches)
        matched: list[str] = []  # the digest of the names, where they are matched
        resolve = partial(_resolve_names, self.name, self.files.image_folder, matched) if self.match_names else None
        slices = split_into_shards(
            batches,
            self.name,
            scratch,
            where=self.where,
            expected_bytes=total,
            shard_size=shard_size,
            first_ids=first_ids,
            resolve_names=resolve,
        )
        first = next(slices)  # arrives when everything is read
        complete = self.reader.complete(self.files, self.layer) if self.layer != self.reader.LAYERS[0] else None
        complete = complete and _with_checked_captions(complete, self.where)
        return ReadSlices(chain([first], slices), matched[0] if matched else None, complete)


def build_footer(one: ShardSlice, content: BoxColumns | list[Sample], recipe: dict[str, Any]) -> dict[str, Any]:
    """The footer of a shard; with more names than `MAX_FOOTER_NAMES`, only the names it uses.

    Args:
        one: the slice of the dataset.
        content: its rows; they may hold rows of an earlier version of the files, too.
        recipe: what makes the shard.
    """
    names = one.category_names
    flags: Mapping[str, int]
    if isinstance(content, BoxColumns):
        images, annotations, masks = len(content.image_id), len(content.id), 0
        errors = sum(error is not None for error in content.error)
        flags = {flag: int(there.sum()) for flag, there in content.flags.items()}
        used = {content.categories[code] for code in set(content.category.tolist())}
    else:
        flat = [annotation for sample in content for annotation in sample.annotations]
        images, annotations, masks = len(content), len(flat), sum(a.segmentation is not None for a in flat)
        errors = sum(sample.error is not None for sample in content)
        flags = Counter(flag for a in flat for flag in a.flags)
        used = {a.category for a in flat}
    names = sorted((used if len(names) > MAX_FOOTER_NAMES else used.union(names)) - {""})
    records = one.category_records
    if len(one.category_names) > MAX_FOOTER_NAMES:
        kept = set(names)
        records = [record for record in records if record["name"] in kept]
    return {
        "synthgen": __version__,
        "recipe": recipe,
        "fingerprint": fingerprint(recipe),
        "parent": None,
        "categories": names,
        **({"category_records": records} if records else {}),
        **({"licenses": one.licenses} if one.licenses else {}),
        # Not in the recipe: nobody can check it, and the same file gives the same fingerprint as in older releases.
        **({"provenance": {"source": "file"}} if recipe["layer"] == HUMAN_LAYER else {}),
        "counts": {
            "images": images,
            "annotations": annotations,
            "masks": masks,
            "errors": errors,
            "flags": {flag: count for flag, count in sorted(flags.items()) if count},
        },
    }


def _resolve_names(dataset: str, folder: Path, digests: list[str], names: StringColumn) -> StringColumn:
    """The names of all images, those of files under another form of their name replaced by their paths.

    Appends the digest of the result to `digests`.
    """
    found = find_matches(folder, names)
    digests.append(found.names.digest())
    if found.missing:
        log.info(
            "%s: %d of %d missing image files are there under another form of their name",
            dataset,
            found.matched,
            found.missing,
        )
    return found.names


def _with_checked_captions(complete: _Complete, where: str) -> _Complete:
    def complete_and_check(sample: Sample, payloads: list[bytes | None]) -> Sample:
        richer = complete(sample, payloads)
        check_captions(richer, where)
        return richer

    return complete_and_check


def _complete_samples(one: ShardSlice, complete: _Complete) -> list[Sample]:
    """The samples of a shard with the content of their payloads.

    A box computed from a mask is checked again, and so are the boxes of an image whose size became known.
    """
    rows = (sample for batch in table_from_columns(one.columns).to_batches() for sample in samples_from_batch(batch))
    payloads: list[bytes | None] = one.payloads or [None] * len(one.columns.id)
    ends = one.columns.offsets.tolist()
    done = []
    for sample, start, end in zip(rows, ends[:-1], ends[1:], strict=True):
        richer = complete(sample, payloads[start:end])
        is_new = (richer.height, richer.width) != (sample.height, sample.width)
        is_new = is_new or any("no_box" in a.flags for a in richer.annotations)
        done.append(flag_sample_boxes(richer) if is_new else richer)
    return done
