"""Runs an export: chooses images and splits, checks each annotation, places the images, and renames the folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from synthgen import __version__, plugins
from synthgen.errors import ArgumentError, SynthgenError, job_has_started
from synthgen.export.categories import CategoryTable
from synthgen.export.choice import ImageChoice, split_names
from synthgen.export.exporters import ExportContext, Exporter, ExportItem, ExportNotes, ImageMode
from synthgen.export.image_files import ImageNames, join_path, place_image
from synthgen.export.options import ExportOptions
from synthgen.export.prepare import AnnotationPreparer, PreparedSample
from synthgen.export.source import ExportSource, make_category_table, merge_licenses
from synthgen.export.summary import SummaryCounter, hash_files
from synthgen.images.decode import find_image
from synthgen.images.image_error import ImageError
from synthgen.images.packed import ImageSource
from synthgen.progress import OpenProgress
from synthgen.records.recipe import format_recipe
from synthgen.records.sample import Sample
from synthgen.storage.atomic import remove_stale_files, scratch_folder, write_text_atomic
from synthgen.storage.disk import create_folder, sync_folder

#: The plugin folder of exporters.
EXPORTERS = "export.exporters"

#: The file in each exported folder that says what it is.
MARKER = "synthgen_export.json"

_REMEDY = "choose another --out"

#: Images whose masks are checked together.
_CHUNK = 32


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        path: the folder, or the file of `Layer.to_coco`.
        format: the exporter's name.
        images: images of each split.
        annotations: annotations of each split.
        masks: masks by provenance: "machine", "reviewed", "human".
        models: `mask_source` of the masks that a model drew -> their number.
        categories: names of categories in the order of their ids.
        left_out: reason -> number of annotations that are not in the export.
        left_out_images: reason -> number of images that are not in the export.
        notes: sentences about what the format changed.
        figures: the same as numbers.
    """

    path: Path
    format: str
    images: Mapping[str, int]
    annotations: Mapping[str, int]
    masks: Mapping[str, int]
    models: Mapping[str, int]
    categories: tuple[str, ...]
    left_out: Mapping[str, int]
    left_out_images: Mapping[str, int]
    notes: tuple[str, ...]
    figures: Mapping[str, float]


def run_export(
    sources: Sequence[ExportSource],
    to: str,
    out: Path,
    options: ExportOptions,
    open_progress: OpenProgress,
    *,
    describe: bool = True,
) -> ExportReport:
    """Write layers in another format. The folder gets its name when everything is written.

    Memory: one image, a few bytes for each image, and what `Exporter` says.

    Args:
        sources: one layer, or the layers of several splits of one dataset.
        to: name of the exporter.
        out: the folder to write; it must not exist, or be empty, or an export that `options.overwrite` replaces.
        options: what the user asked for.
        open_progress: opens the progress bar.
        describe: write the dataset card and the Croissant file, which takes the digest of each file.

    Raises:
        ArgumentError: an option is not valid.
        SynthgenError: the folder is in use or cannot be written, images are not known, or the layer is damaged.
    """
    plugin = plugins.load_plugin(EXPORTERS, to)
    name = plugins.normalize_name(to)
    format_options = plugins.complete_options(EXPORTERS, name, dict(options.format_options))
    own_options = plugin.OPTIONS(**format_options)  # refuses wrong values before anything is written
    mode = choose_image_mode(name, plugin.IMAGES, options.image_mode, getattr(plugin, "IMAGE_MODES", ()))
    for source in sources:
        if mode != "none" and source.image_folder is None:
            raise SynthgenError(
                f"the folder of the images of {source.name} is not known; name it with --images, or add "
                "--image-mode none"
            )
    table = make_category_table(sources, options.category_map)
    licenses, license_ids = merge_licenses(sources)
    splits = split_names([source.name for source in sources], val=options.val, test=options.test)
    reads = [place for source in sources for place in (*source.reads, source.image_folder) if place is not None]
    _check_out(out, reads, overwrite=options.overwrite)
    create_folder(out.absolute().parent, remedy=_REMEDY)
    remove_stale_files(out.absolute().parent)
    with scratch_folder(out.absolute().parent, remedy=_REMEDY) as scratch, job_has_started():
        folder = scratch / "export"
        folder.mkdir()
        context = ExportContext(
            folder=folder,
            layer=" ".join(source.name for source in sources),
            recipe=sources[0].recipe,
            description=describe_layers(sources),
            categories=table.categories,
            licenses=licenses,
            splits=splits,
            images=mode,
            version=__version__,
        )
        run = _Run(sources, context, options, table, is_flat=plugin.FLAT_IMAGES)
        exporter: Exporter = plugin.build(context, own_options)
        total = sum(source.num_images for source in sources)
        with contextlib.closing(exporter), open_progress(f"{context.layer} to {name}", total, "images") as bar:
            for source, ids in zip(sources, license_ids, strict=True):
                stream = source.samples()
                while samples := list(islice(stream, _CHUNK)):
                    run.add(samples, source, ids, exporter)
                    bar.advance(len(samples))
            notes = exporter.finish()
        report = run.report(out, name, notes)
        write_text_atomic(folder / MARKER, describe_export(report, context, format_options, options) + "\n")
        if describe:
            _write_descriptions(
                run.counter,
                folder,
                report,
                title=plugin.TITLE,
                options={**sources[0].conditions, **_chosen_options(options, mode), **format_options},
                notes=notes,
                image_folders={exporter.image_folder(s) for s in splits} if mode in ("link", "copy") else (),
            )
        _check_out(out, reads, overwrite=options.overwrite)  # hours may have passed
        _rename(folder, out, scratch)
    return report


def choose_image_mode(
    name: str, usual: ImageMode, asked: ImageMode | None, modes: Sequence[ImageMode] = ()
) -> ImageMode:
    """What happens with the images.

    Args:
        name: the exporter's name, for the error.
        usual: the exporter's `IMAGES`.
        asked: what the user said; None = nothing.
        modes: the exporter's `IMAGE_MODES`; empty = those that go with the usual one.

    Raises:
        ArgumentError: the format cannot hold images, or holds them in another way.
    """
    possible = modes or (("embed", "none") if usual == "embed" else ("link", "copy", "none"))
    if asked is None or asked in possible:
        return asked or usual
    raise ArgumentError(f"image_mode={asked} does not suit {name}; give {', '.join(possible[:-1])} or {possible[-1]}")


def describe_export(
    report: ExportReport, context: ExportContext, format_options: Mapping[str, Any], options: ExportOptions
) -> str:
    """The text of `MARKER`, JSON: what the folder is, and who drew the masks.

    Args:
        report: what was written.
        context: of the export.
        format_options: the format's own options.
        options: the other options.
    """
    # Not "images", "annotations" and "categories": readers of COCO would take the file for one of theirs.
    content = {
        "synthgen": context.version,
        "format": report.format,
        "layer": context.layer,
        "recipe": dict(context.recipe),
        "provenance": dict(report.masks),
        "models": sorted(report.models),
        # These are not COCO's keys, so that no reader takes the file for annotations.
        "num_images": dict(report.images),
        "num_annotations": dict(report.annotations),
        "category_names": list(report.categories),
        "left_out": dict(report.left_out),
        "left_out_images": dict(report.left_out_images),
        "options": _chosen_options(options, context.images),
        "format_options": dict(format_options),
    }
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True)


def _chosen_options(options: ExportOptions, mode: ImageMode) -> dict[str, Any]:
    """What the user asked for, and the defaults, without the options of the format."""
    left_out = ("overwrite", "format_options")
    chosen = {key: value for key, value in asdict(options).items() if key not in left_out}
    return {**chosen, "image_mode": mode}


class _Run:
    """The state of one export."""

    def __init__(
        self,
        sources: Sequence[ExportSource],
        context: ExportContext,
        options: ExportOptions,
        table: CategoryTable,
        *,
        is_flat: bool,
    ) -> None:
        self.context, self.options, self.table = context, options, table
        self.names = ImageNames(is_flat=is_flat)
        self.counter = SummaryCounter(context)
        self.left_out_images, self.preparer = Counter[str](), AnnotationPreparer(options, table)
        self.chosen = ImageChoice(options, lambda: chain.from_iterable(source.image_keys() for source in sources))

    def add(
        self, samples: Sequence[Sample], source: ExportSource, license_ids: Mapping[int, int], exporter: Exporter
    ) -> None:
        """Export some images, or count why not. `license_ids` has the ids of licences that change."""
        if license_ids:
            samples = [replace(s, license_id=license_ids.get(s.license_id or 0, s.license_id)) for s in samples]
        chosen = [sample for sample in samples if self.chosen.has(sample.image_key)]
        usable = [sample for sample in chosen if sample.error is None]
        self.left_out_images["not_chosen"] += len(samples) - len(chosen)
        self.left_out_images["error"] += len(chosen) - len(usable)
        for prepared in self.preparer.prepare(usable, source.accepts):
            self._export(prepared, source, exporter)

    def _export(self, prepared: PreparedSample, source: ExportSource, exporter: Exporter) -> None:
        """Export one image, or count why not."""
        sample, kept, areas, present = prepared
        if not kept and self.options.skip_empty:
            self.left_out_images["empty"] += 1
            return
        split = self.chosen.split(sample.image_key, source.name.split("/")[1])
        image: ImageSource | None = None
        file_name = sample.file_name
        if self.context.images != "none":
            try:
                image = find_image(source.image_folder or Path(), sample.file_name)
                folder = exporter.image_folder(split)
                file_name = self.names.choose(folder, split, sample.file_name, image)
                if self.context.images in ("link", "copy"):
                    place = join_path(folder, file_name)
                    place_image(image, self.context.folder / place, is_link=self.context.images == "link")
            except ImageError:
                self.left_out_images["missing_file"] += 1
                return
        item = ExportItem(split, replace(sample, annotations=kept), file_name, image, areas, present)
        try:
            written = exporter.write(item)
        except ImageError:
            self.left_out_images["unreadable_file"] += 1
            return
        self.counter.add(item, written)

    def report(self, out: Path, name: str, notes: ExportNotes) -> ExportReport:
        return ExportReport(
            path=out,
            format=name,
            images=dict(self.counter.images),
            annotations=dict(self.counter.annotations),
            masks=self.counter.masks.provenance,
            models=self.counter.masks.models,
            categories=tuple(category.name for category in self.table.categories),
            left_out=dict(sorted((self.preparer.left_out + Counter(notes.left_out)).items())),
            left_out_images=dict(sorted((+self.left_out_images).items())),
            notes=notes.lines,
            figures=dict(notes.figures),
        )


def _write_descriptions(
    counter: SummaryCounter,
    folder: Path,
    report: ExportReport,
    *,
    title: str,
    options: Mapping[str, Any],
    notes: ExportNotes,
    image_folders: Collection[str],
) -> None:
    """Write the dataset card and the Croissant file beside what the exporter wrote.

    Args:
        counter: has counted the images.
        folder: of the export.
        report: what was written.
        title: the format's usual name.
        options: of the export and of the format.
        notes: of the exporter.
        image_folders: folders below `folder` that hold the source's images.
    """
    from synthgen.export.croissant import make_croissant
    from synthgen.export.dataset_card import make_dataset_card

    summary = counter.summarize(
        format=report.format,
        title=title,
        options=options,
        notes=notes,
        left_out=report.left_out,
        files=hash_files(folder, image_folders),
    )
    write_text_atomic(folder / "README.md", make_dataset_card(summary), remedy=_REMEDY)
    write_text_atomic(folder / "croissant.json", make_croissant(summary), remedy=_REMEDY)


def describe_layers(sources: Sequence[ExportSource]) -> str:
    """One sentence about the layers of an export, `sources`, and what made them."""
    recipes = dict.fromkeys(format_recipe(dict(source.recipe)) for source in sources)
    return f"{', '.join(source.name for source in sources)}, made by synthgen with {', '.join(recipes)}"


def _check_out(out: Path, reads: Collection[Path], *, overwrite: bool) -> None:
    """Refuse to write over what is not an export of ours, or what the export reads.

    Args:
        out: the folder to write.
        reads: the stores and the folders of images.
        overwrite: whether an earlier export may be replaced.

    Raises:
        SynthgenError: the folder is not empty, and nothing says that it may be replaced.
    """
    previous = _previous(out)
    if not os.path.lexists(out) and (previous / MARKER).is_file():
        previous.rename(out)  # a run was killed after it had moved the export out of its way
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise SynthgenError(f"{out} is not a folder; {_REMEDY}")
    if not any(out.iterdir()):
        return
    if not (out / MARKER).is_file():
        raise SynthgenError(f"{out} is not empty and not an export of synthgen; {_REMEDY}")
    if not overwrite:
        raise SynthgenError(f"{out} holds an export already; add --overwrite, or {_REMEDY}")
    for place in reads:
        if place.resolve().is_relative_to(out.resolve()):
            raise SynthgenError(f"{out} holds {place}, which this export reads; {_REMEDY}")


def _previous(out: Path) -> Path:
    """Where an earlier export lies while the new one takes its place."""
    return out.with_name(f"{out.name}.replaced")


def _rename(folder: Path, out: Path, scratch: Path) -> None:
    """Give the finished folder its name. An earlier export is deleted after that."""
    if not os.path.lexists(out) or not any(out.iterdir()):
        if os.path.lexists(out):
            out.rmdir()
        folder.rename(out)
        sync_folder(out.absolute().parent)
        return
    previous = _previous(out)
    if (previous / MARKER).is_file():
        previous.rename(scratch / "older")  # a run was killed before it had deleted it
    out.rename(previous)
    try:
        folder.rename(out)
    except BaseException:
        previous.rename(out)
        raise
    sync_folder(out.absolute().parent)
    previous.rename(scratch / "replaced")  # the scratch folder is deleted
