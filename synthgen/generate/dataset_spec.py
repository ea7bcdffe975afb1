"""Resolves the dataset that a command names, its files and its name in the store, and creates jobs for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetReader
from synthgen.generate.job import Job
from synthgen.ingest.ingest import IngestReport, describe_source_change, ingest
from synthgen.ingest.validation.diagnosis import ValidationReport
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.plugin_options import OptionValue
from synthgen.progress import OpenProgress, PhaseProgress
from synthgen.storage.shard_store import ShardStore, check_name

READERS_PACKAGE = "formats.readers"

#: Seconds; more than this is a slip of the pen, and too much for a lock.
MAX_TIMEOUT = 1_000_000


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A dataset as a command names it.

    Attributes:
        plugin: a plugin of `formats.readers`.
        name: its name in the store.
        split: part of the dataset.
        root: its folder; annotations: its annotation file, if the user names one.
        images: folder of its images, if the user names one.
    """

    plugin: str
    name: str
    split: str
    root: Path
    annotations: Path | None
    images: Path | None

    @property
    def default_name(self) -> str:
        """Its name in the store, unless the user gives one."""
        return _default_name(self.plugin, self.annotations)

    @property
    def reader(self) -> DatasetReader:
        """The plugin itself."""
        return cast(DatasetReader, plugins.load_plugin(READERS_PACKAGE, self.plugin))

    def locate_files(self) -> DatasetFiles:
        """The files of the dataset.

        Raises:
            SynthgenError: it does not lie there.
        """
        return self.reader.files(self.root, self.split, self.annotations).with_image_folder(self.images)

    def resolve_image_folder(self) -> Path:
        """The image folder. Looks for annotation files only if the user names no folder.

        Raises:
            SynthgenError: there is no such folder.
        """
        folder = self.images if self.images is not None else self.locate_files().image_folder
        if not folder.is_dir():
            raise SynthgenError(f"no folder {folder} with the images of {self.name}; name it with --images")
        return folder


def resolve_dataset(
    dataset: str,
    name: str | None,
    split: str | None,
    data: Path,
    annotations: Path | None,
    images: Path | None,
) -> DatasetSpec:
    """Resolve and check what the user named, before anything is read.

    Raises:
        SynthgenError: no such dataset, split or file; a name that cannot be a folder.
    """
    module: Any = plugins.load_plugin(READERS_PACKAGE, dataset)
    for part in ("SPLITS", "LAYERS", "files", "read"):
        if not hasattr(module, part):
            raise SynthgenError(f"module '{dataset}' has no {part} and is no dataset; see synthgen.{READERS_PACKAGE}")
    plugin = plugins.normalize_name(dataset)
    if split is None:
        split = module.SPLITS[0]
    elif split not in module.SPLITS and annotations is None and name is None:
        raise SynthgenError(f"{plugin} has no split '{split}' (have: {', '.join(module.SPLITS)})")
    if annotations is not None and not annotations.exists():
        raise SynthgenError(f"no file {annotations}; --annotations should name the annotation file")
    if name is None and plugin == "coco_json" and annotations is None:
        raise SynthgenError("--dataset coco-json needs --annotations FILE (or the --name of one ingested before)")
    name = name or _default_name(plugin, annotations)
    root = data / plugin
    if not root.is_dir() and "." not in plugin:  # the folder may be named as the option is spelt
        root = data / plugin.replace("_", "-")
    if plugin == "coco_json" and annotations is not None:
        root = annotations.parent
    return DatasetSpec(plugin, check_name(name), check_name(split), root, annotations, images)


def _default_name(plugin: str, annotations: Path | None) -> str:
    if plugin == "coco_json" and annotations is not None:
        return re.sub(r"[^A-Za-z0-9_-]+", "-", annotations.stem)[:200].strip("-_") or "dataset"
    return plugin.rsplit(".", 1)[-1]


def ingest_spec(
    spec: DatasetSpec, store: Path, layer: str, *, shard_size: int = 0, open_progress: OpenProgress
) -> IngestReport:
    """Ingest one layer of the dataset, with progress bars for reading and writing."""
    with PhaseProgress(open_progress, {"reading": "bytes", "writing": "images"}) as bars:
        return ingest(
            ShardStore(store),
            spec.reader,
            spec.locate_files(),
            name=spec.name,
            split=spec.split,
            layer=layer,
            shard_size=shard_size,
            on_progress=bars.report,
        )


def create_job(
    spec: DatasetSpec,
    store: Path,
    *,
    stage: str,
    plugin: str,
    options: dict[str, Any],
    input_layer: str,
    layer: str,
    max_error_share: float,
    retry_failed: bool,
    timeout: float | None = None,
    stage_options: dict[str, Any] | None = None,
) -> Job:
    """The job of a stage over a dataset; nothing is read or written but what the options need.

    Raises:
        SynthgenError: no such plugin, option or image folder; a layer that cannot be written; no such timeout.
    """
    if timeout is not None and not 0 < timeout <= MAX_TIMEOUT:
        raise SynthgenError(f"--timeout {timeout:g} should be above 0 and at most {MAX_TIMEOUT:,} seconds")
    if check_name(layer) == check_name(input_layer) or layer in spec.reader.LAYERS:
        wrong = "is what the job reads" if layer == input_layer else f"is made from {spec.name}'s own files"
        another = stage if stage not in (input_layer, layer) else f"{stage}-2"
        raise SynthgenError(f"the layer '{layer}' {wrong}; choose another --layer to write, such as {another}")
    work: Any = plugins.load_plugin("generate.stages", stage)
    resolved = plugins.resolve_options(work.PLUGIN_PACKAGE, plugin, options)
    return Job(
        stage=stage,
        dataset=spec.name,
        split=spec.split,
        input_layer=input_layer,
        layer=layer,
        plugin=plugins.normalize_name(plugin),
        options=resolved,
        stage_options=work.resolve_options(resolved, **stage_options) if stage_options is not None else {},
        store=store,
        image_folder=spec.resolve_image_folder(),
        max_error_share=max_error_share,
        retry_failed=retry_failed,
        timeout=timeout,
        runtime_options=plugins.runtime_options(work.PLUGIN_PACKAGE, plugin),
    )


def default_input_layer(spec: DatasetSpec, store: Path, layer: str, *, preferred: str) -> str:
    """The default input of a layer: the input it was started from, else `preferred` if it exists."""
    house = ShardStore(store)
    for shard in house.list_shards(spec.name, spec.split, check_name(layer))[:1]:
        begun = (house.read_footer(shard) or {}).get("parent", {}).get("layer")
        if isinstance(begun, str):
            return begun
    return preferred if house.list_shards(spec.name, spec.split, preferred) else "annotations"


def ensure_input_layer(spec: DatasetSpec, job: Job, *, open_progress: OpenProgress) -> None:
    """Make the job's input layer if it is missing, and check that it belongs to the current annotation files.

    A missing layer is made from the dataset's files. If these are not on this machine and the layer is complete, it is
    used as it is.

    Raises:
        SynthgenError: the layer was made from other files, or cannot be made.
    """
    house = ShardStore(job.store)
    present = house.list_shards(job.dataset, job.split, job.input_layer)
    if job.input_layer not in spec.reader.LAYERS:
        return
    if not present or len(present) < present[0].num_shards:
        ingest_spec(spec, job.store, job.input_layer, open_progress=open_progress)
        return
    try:
        files = spec.locate_files()
    except SynthgenError:
        return
    changed = describe_source_change(house, files, name=spec.name, split=spec.split, layer=job.input_layer)
    if changed is not None:
        raise SynthgenError(changed)


def describe_missing_input(spec: DatasetSpec, job: Job) -> str | None:
    """A sentence about what `ensure_input_layer` would make; None if the job's input layer is complete."""
    present = ShardStore(job.store).list_shards(job.dataset, job.split, job.input_layer)
    if (present and len(present) == present[0].num_shards) or job.input_layer not in spec.reader.LAYERS:
        return None
    sources = spec.locate_files().for_layer(job.input_layer).sources.values()
    sizes = {path: f" ({path.stat().st_size / 1e6:,.1f} MB)" if path.is_file() else "" for path in sources}
    files = " and ".join(f"{path}{size}" for path, size in sizes.items())
    return (
        f"{job.dataset}/{job.split}/{job.input_layer} is not there yet and would be made first, from {files}; "
        "`synthgen ingest` makes it alone and counts it"
    )


def validate_spec(
    spec: DatasetSpec, *, all_splits: bool, check_images: str, open_progress: OpenProgress
) -> ValidationReport:
    """Validate the named split of the dataset, or all splits with existing files."""
    own = spec.plugin == "coco_json" or spec.annotations is not None
    with PhaseProgress(open_progress, {"reading": "bytes", "examining": "images"}) as bars:
        return validate_dataset(
            spec.plugin,
            spec.root,
            None if all_splits and not own else [spec.split],
            annotations=spec.annotations,
            images=spec.images,
            check_images=check_images,
            name=None if spec.name == spec.default_name else spec.name,
            on_progress=bars.report,
        )


def parse_plugin_options(assignments: Sequence[str], flags: Mapping[str, OptionValue]) -> dict[str, Any]:
    """["key=value", ...] as a dict, with the values of flags beside them.

    Raises:
        SynthgenError: one has no key or no value, or is said twice.
    """
    found: dict[str, Any] = dict(flags)
    for text in assignments:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise SynthgenError(f"-O {key} should be KEY=VALUE, such as -O batch_size=4")
        if key in found:
            raise SynthgenError(f"{key} is given twice, the second time as -O {text}; leave one out")
        found[key] = value
    return found


def parse_part(text: str) -> tuple[int, int]:
    """ "3/8" as (3, 8).

    Raises:
        SynthgenError: it is not I/N with 0 <= I < N.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise SynthgenError(f"--part {text} should be I/N with I from 0 to N-1, such as --part 0/8")
    return int(match[1]), int(match[2])
