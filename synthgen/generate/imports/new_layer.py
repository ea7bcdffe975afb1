"""Writes a layer of masks that were made elsewhere, on the boxes of another layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from synthgen import __version__
from synthgen.errors import SynthgenError, job_has_started
from synthgen.formats.mask_files import MaskOrigin
from synthgen.generate.imports.image_index import ImageIndex
from synthgen.generate.imports.mask_source import MaskSource, SortedMasks, UnusedMasks, check_unchanged, open_source
from synthgen.generate.imports.matching import MaskCandidate
from synthgen.generate.imports.request import (
    SOURCE_LAYERS,
    UNKNOWN_MODEL,
    ImportReport,
    ImportRequest,
    complete_shards,
    sum_unused,
)
from synthgen.generate.imports.shard_masks import MatchedSample, match_shard
from synthgen.generate.output_checks import SCORE_DECIMALS
from synthgen.generate.renewal import fill_image_size, replaced_member
from synthgen.progress import ReportPhase
from synthgen.records.recipe import fingerprint, format_recipe, source_members
from synthgen.records.sample import UNPROMPTED_FLAGS, Annotation, Sample, is_checked_by_person, resolve_provenance
from synthgen.storage.identity import content_digest_of, is_stale
from synthgen.storage.locks import file_lock, use_folder
from synthgen.storage.shard_store import Shard, ShardStore, check_name

#: Raise it when the same file would give other shards than before.
IMPORT_VERSION = 1

#: What an earlier stage said about a mask that it did not make.
MISSING_MASK_FLAGS = frozenset({"empty_mask", "segmenter_failed", "no_imported_mask"})


def import_layer(request: ImportRequest, tell: ReportPhase) -> ImportReport:
    """Write the layer of an import. Committed shards stay; a killed import is continued by the same request.

    A shard whose boxes changed is written again. Masks by people that replaced others of it stay with the same boxes.

    Args:
        request: what to import; without `replaces`.
        tell: called with the phase, the units done and the units in all.

    Raises:
        SynthgenError: the file or the layer is missing or wrong, no mask has an image of the dataset, or the layer was
            made in another way.
    """
    store, (dataset, split, base) = ShardStore(request.store), request.place
    if check_name(request.layer) == base or request.layer in SOURCE_LAYERS:
        raise SynthgenError(
            f"the layer '{request.layer}' is what the import reads, or is made from the dataset's own files; choose "
            "another --layer to write, such as imported"
        )
    inputs = complete_shards(store, request.place)
    source = open_source(request.source)
    recipe = _make_recipe(request, source)
    todo = _pending(store, inputs, request.layer, recipe)
    lost, dropped = UnusedMasks(), 0
    if todo:
        index = ImageIndex(store, inputs, stems=source.is_folder)
        store.remove_stale_files(dataset, split, base)  # a killed import leaves the sorted masks there
        with store.layer_scratch_folder(dataset, split, base) as scratch:
            masks = SortedMasks(source, index, scratch, tell)
            lost = masks.unused
            check_unchanged(source)
            if not masks.num_masks:
                raise SynthgenError(no_images_message(request, masks))
            store.create_layer(dataset, split, request.layer)
            below, folder = (store.layer_folder(dataset, split, layer) for layer in (base, request.layer))
            lock = file_lock(folder / "_log" / "update.lock", remedy="choose another --store")
            with use_folder(below), use_folder(folder), lock:
                store.remove_stale_files(dataset, split, request.layer)
                with job_has_started():
                    for shard in todo:
                        start = int(index.starts[shard.index])
                        dropped += _write_shard(store, shard, request, recipe, masks, start, lost)
                        tell("writing", int(index.starts[shard.index + 1]), len(index))
    return replace(_make_report(store, request, lost, len(todo)), dropped=dropped)


def no_images_message(request: ImportRequest, masks: SortedMasks) -> str:
    """The error about a file of which no mask has an image of the layer.

    Args:
        request: what to import.
        masks: of the file.
    """
    if masks.unused.counts and not masks.unused.counts["no_image"]:
        count = sum(masks.unused.counts.values())
        return f"none of the {count:,} annotations of {request.source} has a segmentation; name a file with masks"
    examples = masks.unused.examples.get("no_image") or masks.unused.examples.get("no_segmentation") or ["no mask"]
    count = sum(masks.unused.counts.values())
    return (
        f"none of the {count:,} masks of {request.source} has an image of {'/'.join(request.place)} ({examples[0]}); "
        "check --dataset, and that images have the same ids or file names"
    )


def place_mask(annotation: Annotation, candidate: MaskCandidate, box_iou: float, model: str) -> Annotation:
    """The annotation with a mask of the file.

    Args:
        annotation: of the layer.
        candidate: the mask; without pixels, the annotation gets the flag that says why.
        box_iou: of the mask's tight box with the annotation's box clipped to the image.
        model: who drew it, if the file does not say it.
    """
    mask = candidate.mask
    flags = tuple(sorted({*annotation.flags, *mask.problems} - (MISSING_MASK_FLAGS - mask.problems.keys())))
    if mask.rle is None:
        return replace(annotation, flags=flags)
    origin = mask.origin or MaskOrigin()
    source = origin.mask_source or model
    return replace(
        annotation,
        flags=flags,
        segmentation=mask.rle,
        mask_source=source,
        provenance=None if origin.provenance == resolve_provenance(None, source) else origin.provenance,
        predicted_iou=origin.predicted_iou,
        stability_score=origin.stability_score,
        box_iou=round(box_iou, SCORE_DECIMALS),
        sam_predicted_iou=origin.sam_predicted_iou,
        soft_iou=origin.soft_iou,
        captions=annotation.captions or origin.captions,
    )


def _make_recipe(request: ImportRequest, source: MaskSource) -> dict[str, Any]:
    rules = request.rules
    options: dict[str, Any] = {
        "match": rules.mode,
        "min_box_iou": rules.min_box_iou,
        **({"any_category": True} if rules.any_category else {}),
        **({"model": request.model} if request.model is not None else {}),
    }
    return {
        "stage": "import",
        "dataset": request.place[0],
        "split": request.place[1],
        "plugin": "import",
        "options": options,
        "sources": {"masks": source.sha256},
        "version": IMPORT_VERSION,
    }


def _pending(store: ShardStore, inputs: Sequence[Shard], layer: str, recipe: dict[str, Any]) -> list[Shard]:
    """The shards that are missing, or were made from other rows than those of their input now."""
    todo = []
    for source in inputs:
        shard, parent = source.in_layer(layer), store.read_footer(source) or {}
        store.check_place(shard)
        footer = store.read_footer(shard)
        if footer is None:
            todo.append(shard)
            continue
        if footer.get("fingerprint") != fingerprint({**recipe, "parent": parent.get("fingerprint", "")}):
            theirs = footer.get("recipe", {})
            if fingerprint(theirs) == fingerprint(recipe):  # its input was updated
                todo.append(shard)
                continue
            how = format_recipe(theirs)
            if theirs.get("sources") != recipe["sources"] and theirs.get("stage") == "import":
                how = f"{how} from another file"
            raise SynthgenError(
                f"{shard} was made with {how}; choose another --layer, or delete {store.layer_folder(*_place(shard))}"
            )
        if is_stale(footer, content_digest_of(parent)):
            todo.append(shard)
    present = store.list_shards(*_place(inputs[0].in_layer(layer)))
    if present and present[0].num_shards != inputs[0].num_shards:
        raise SynthgenError(
            f"{present[0]} was cut by another plan than its input (of {inputs[0].num_shards}); choose another --layer"
        )
    return todo


def _write_shard(
    store: ShardStore,
    shard: Shard,
    request: ImportRequest,
    recipe: dict[str, Any],
    masks: SortedMasks,
    start: int,
    lost: UnusedMasks,
) -> int:
    """Match the masks of one shard and commit it; returns how many reviewed masks that it had cannot stay.

    Args:
        store: where it is written.
        shard: of the new layer.
        request: what is imported.
        recipe: of the layer.
        masks: of the file.
        start: number of the shard's first image.
        lost: gets examples of the masks that find no box; the footer counts them.

    Raises:
        SynthgenError: the input shard is gone, or the shard cannot be written.
    """
    source = shard.in_layer(request.place[2])
    parent = store.read_footer(source)
    if parent is None:
        raise SynthgenError(f"input shard {source} is gone; run the stage before again")
    digest, unused = store.read_content_digest(source), UnusedMasks()
    model = request.model or (masks.head.models[0] if len(masks.head.models) == 1 else UNKNOWN_MODEL)
    matched = list(match_shard(list(store.read_samples(source)), masks, start, request.rules, unused))
    samples, dropped = _keep_reviewed(store, shard, [_add_masks(one, model) for one in matched])
    imported = sum(one.candidates[i].mask.rle is not None for one in matched for i in one.matches.masks.values())
    flat = [annotation for sample in samples for annotation in sample.annotations]
    footer = {
        "synthgen": __version__,
        "recipe": recipe,
        "fingerprint": fingerprint({**recipe, "parent": parent["fingerprint"]}),
        "parent": {"layer": source.layer, "fingerprint": parent["fingerprint"], "content_sha256": digest},
        **source_members(parent),
        "counts": count_rows(samples),
        "import": {"masks": imported, "unused": dict(sorted(unused.counts.items()))},
        **replaced_member(store, shard, flat),
        **({"top_k": parent["top_k"]} if "top_k" in parent and any(a.captions for a in flat) else {}),
    }
    store.commit(shard, samples, footer)
    for reason, examples in unused.examples.items():
        for example in examples:
            lost.add(reason, example, 0)
    return dropped


def _keep_reviewed(store: ShardStore, shard: Shard, samples: Sequence[Sample]) -> tuple[list[Sample], int]:
    """New rows of a shard, with the masks by people that replaced others of the shard since it was made.

    Args:
        store: where the shard lies.
        shard: it may be missing.
        samples: its new rows.

    Returns:
        The rows, and the number of masks that cannot stay: their annotation is gone, or has another box or category.
    """
    if "replaced" not in (store.read_footer(shard) or {}):
        return list(samples), 0
    sizes: dict[int, tuple[int, int]] = {}
    checked: dict[tuple[Any, ...], Annotation] = {}
    for old in store.read_samples(shard):
        for a in filter(is_checked_by_person, old.annotations):
            sizes[old.image_id] = old.height, old.width
            checked[old.image_id, old.height, old.width, a.id, a.category, a.bbox] = a
    rows = []
    for sample in samples:
        if sample.image_id in sizes:
            sample = fill_image_size(sample, *sizes[sample.image_id])
            place = sample.image_id, sample.height, sample.width
            own = tuple(checked.pop((*place, a.id, a.category, a.bbox), a) for a in sample.annotations)
            sample = replace(sample, annotations=own)
        rows.append(sample)
    return rows, len(checked)


def count_rows(samples: Sequence[Sample]) -> dict[str, Any]:
    """The counts of a footer.

    Args:
        samples: the rows of a shard.
    """
    flat = [annotation for sample in samples for annotation in sample.annotations]
    return {
        "images": len(samples),
        "annotations": len(flat),
        "masks": sum(a.segmentation is not None for a in flat),
        "captions": sum(len(a.captions) for a in flat),
        "captioned": sum(bool(a.captions) for a in flat),
        "errors": sum(sample.error is not None for sample in samples),
        "flags": dict(sorted(Counter(flag for a in flat for flag in a.flags).items())),
    }


def _add_masks(one: MatchedSample, model: str) -> Sample:
    annotations = []
    for place, annotation in enumerate(one.sample.annotations):
        candidate = one.mask_of(place)
        if candidate is not None:
            annotations.append(place_mask(annotation, candidate, one.matches.box_iou.get(place, 0.0), model))
        elif annotation.segmentation is None and UNPROMPTED_FLAGS.isdisjoint(annotation.flags):
            annotations.append(replace(annotation, flags=tuple(sorted({*annotation.flags, "no_imported_mask"}))))
        else:
            annotations.append(annotation)
    return replace(one.sample, annotations=tuple(annotations))


def _make_report(store: ShardStore, request: ImportRequest, lost: UnusedMasks, written: int) -> ImportReport:
    place = (*request.place[:2], request.layer)
    footers = [store.read_footer(shard) or {} for shard in store.list_shards(*place)]
    counts, flags, imported = Counter[str](), Counter[str](), 0
    for footer in footers:
        own = footer.get("counts", {})
        counts.update({key: n for key, n in own.items() if isinstance(n, int)})
        flags.update(own.get("flags", {}))
        imported += footer.get("import", {}).get("masks", 0)
    return ImportReport(
        layer="/".join(place),
        shards=len(footers),
        written=written,
        images=counts["images"],
        boxes=counts["annotations"],
        masks=counts["masks"],
        imported=imported,
        unchanged=0,
        without_mask=flags["no_imported_mask"],
        unused=sum_unused(lost.counts, footers),
        examples={reason: tuple(found) for reason, found in sorted(lost.examples.items())},
    )


def _place(shard: Shard) -> tuple[str, str, str]:
    return shard.dataset, shard.split, shard.layer
