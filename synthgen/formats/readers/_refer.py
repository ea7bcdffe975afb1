"""RefCOCO, RefCOCO+ and RefCOCOg in the authors' format: COCO's objects, and human sentences for some of them.

A dataset is a folder with `instances.json`, COCO's annotations of its images, and one or more `refs(...).p`: pickled
lists of the described objects, each with its sentences and its split. Images keep all their objects. Only the objects
described in this split get captions, and only its sentences, as a Google file may have sentences of another split for
the same image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import (
    AnnotationBatch,
    Categories,
    DatasetFiles,
    DatasetPart,
    ImageBatch,
    Licenses,
    SourceFinding,
)
from synthgen.formats.readers import _instances as instances
from synthgen.formats.readers._coco_images import add_coco_folder, coco_image_key, find_coco_image_folder
from synthgen.formats.readers._coco_records import CocoImage
from synthgen.formats.readers._ids import parse_id
from synthgen.formats.readers._refer_pickle import load_plain_pickle
from synthgen.records.box_table import NO_ID
from synthgen.records.sample import Caption, Sample

#: In a real file, the number of sentences and their characters are below its bytes. A file that repeats its own parts
#: by reference has more than this many times as much.
_MAX_REPEATS = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refs:
    """The sentences of one split.

    Attributes:
        sentences: by (image id, annotation id), in the order of the file.
        category_ids: the category id of each in the refs file.
        without_sentence: refs without a readable sentence.
    """

    sentences: dict[tuple[int, int], list[str]]
    category_ids: dict[tuple[int, int], int]
    without_sentence: list[tuple[int, int]]


def find_refs(root: Path, split: str, annotations: Path | None, *, folder: str, split_by: str) -> DatasetFiles:
    """refs(<by>).p and instances.json in root, or in the release's folder beside or below root.

    Args:
        root: folder of the dataset.
        split: which refs to read; all splits lie in one file.
        annotations: another .p, such as refs(google).p, with instances.json beside it.
        folder: name of the release's folder, such as "refcoco+".
        split_by: who made the splits, a part of the file's name: "unc", "umd", "google".

    Raises:
        SynthgenError: they are missing.
    """
    name = f"refs({split_by}).p"
    if annotations is not None and not annotations.is_file():
        raise SynthgenError(f"no file {annotations}; --annotations should name a file of refs, such as '{name}'")
    places = (root, root.parent / folder, root / folder)
    refs = annotations or next((place / name for place in places if (place / name).is_file()), None)
    if refs is None:
        raise SynthgenError(
            f"no {name} in {root.parent / folder}; unpack {folder}.zip of the release there, or name it with "
            "--annotations"
        )
    source = refs.with_name("instances.json")
    if not source.is_file():
        raise SynthgenError(f"no instances.json beside {refs}, where the release has it; put it there")
    return DatasetFiles({"refs": refs, "instances": source}, find_coco_image_folder(root), split=split)


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The images of the split with all their objects; the payload of layer "human" is a mask and sentences.

    An object with sentences but without an annotation is kept without a box, and so is its image.

    Args:
        files: as `find_refs` returns them.
        layer: "annotations" or "human".

    Raises:
        SynthgenError: a file has another format or nothing of the split, or the two belong to different datasets.
    """
    path = files.sources["refs"]
    refs = read_refs(path, files.split)
    if files.on_bytes is not None:
        files.on_bytes(path.stat().st_size)
    wanted = np.unique(np.array([image_id for image_id, _ in refs.sentences], np.int64))
    waiting = dict(refs.sentences)
    for batch in instances.read_instances(files, layer, name_and_key=_name_and_key):
        if isinstance(batch, Categories | Licenses | SourceFinding):
            yield batch
            continue
        rows = np.flatnonzero(np.isin(batch.image_id, wanted))
        yield (
            _select_images(batch, rows) if isinstance(batch, ImageBatch) else _select_annotations(batch, rows, waiting)
        )
    if waiting:
        _report_unmatched(files, refs, waiting)
        yield _unmatched_annotations(refs, waiting, with_payload=layer != "annotations")


def complete(files: DatasetFiles, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]:
    """Layer "human": masks as in other COCO-style files, and sentences as captions."""
    with_masks = instances.complete(files, layer)

    def with_sentences(sample: Sample, payloads: list[bytes | None]) -> Sample:
        unpacked = [_unpack_payload(payload) for payload in payloads]
        captioned = (
            replace(a, captions=tuple(Caption(text, "human") for text in texts))
            for a, (texts, _) in zip(sample.annotations, unpacked, strict=True)
        )
        return with_masks(replace(sample, annotations=tuple(captioned)), [mask for _, mask in unpacked])

    return with_sentences


def read_refs(path: Path, split: str) -> Refs:
    """The sentences of one split: "sent" of each, the cleaned text that is common in training, else "raw".

    Args:
        path: pickle of the refs; untrusted.
        split: name of the split, as the refs spell it.

    Raises:
        SynthgenError: the file is not a list of refs, a ref lacks image, object or split, nothing is of the split, or
            the list contains itself.
    """
    content = load_plain_pickle(path)
    if not isinstance(content, list):
        raise SynthgenError(f"{path} holds a {type(content).__name__}, not a list of refs; is it the right file?")
    refs = Refs({}, {}, [])
    splits = set()
    left = _MAX_REPEATS * path.stat().st_size
    for number, ref in enumerate(content, start=1):
        *place, its_split = _ref_key(ref, f"{path}: ref {number:,}")
        splits.add(its_split)
        if its_split != split:
            continue
        image_id, annotation_id = place
        texts = refs.sentences.setdefault((image_id, annotation_id), [])
        before = len(texts)
        listed = ref.get("sentences")
        for sentence in listed if isinstance(listed, list) else ():
            text, letters = _sentence_text(sentence)
            left -= 1 + letters
            if left < 0:
                raise SynthgenError(
                    f"{path} holds the same sentences again and again, more than {_MAX_REPEATS} times its own bytes; "
                    "take the file from the dataset's release"
                )
            texts += [text] if text else []
        if len(texts) == before:
            refs.without_sentence.append((image_id, annotation_id))
        category = parse_id(ref.get("category_id"))
        refs.category_ids[image_id, annotation_id] = NO_ID if category is None else category
    if not refs.sentences:
        there = ", ".join(name[:40] for name in sorted(splits)[:9]) or "none"
        raise SynthgenError(f"{path} has no refs of split '{split}' (have: {there}); choose one of them with --split")
    if refs.without_sentence:
        image_id, annotation_id = refs.without_sentence[0]
        log.warning(
            "%s: %d refs of split %s have no sentence, e.g. that of annotation %d of image %d; their objects stay",
            path,
            len(refs.without_sentence),
            split,
            annotation_id,
            image_id,
        )
    return refs


def _ref_key(ref: object, what: str) -> tuple[int, int, str]:
    """(image id, annotation id, split): required in each ref."""
    if not isinstance(ref, dict):
        raise SynthgenError(f"{what} is a {type(ref).__name__}, not a dict; take the file from the dataset's release")
    image_id, annotation_id, split = parse_id(ref.get("image_id")), parse_id(ref.get("ann_id")), ref.get("split")
    if image_id is None or annotation_id is None or not isinstance(split, str):
        lacks = "image_id" if image_id is None else "ann_id" if annotation_id is None else "split"
        raise SynthgenError(f"{what} has no '{lacks}' that can be read; mend it in the file")
    return image_id, annotation_id, split


def _sentence_text(sentence: object) -> tuple[str, int]:
    """The stripped sentence in valid UTF-8, "" if there is none; and the number of characters read."""
    forms = [sentence.get("sent"), sentence.get("raw")] if isinstance(sentence, dict) else []
    text, letters = "", 0
    for form in forms:
        if isinstance(form, str) and not text:
            letters += len(form)
            text = form.encode("utf-8", "replace").decode().strip()
    return text, letters


def _name_and_key(image: CocoImage) -> tuple[str, str]:
    return add_coco_folder(image.file_name), coco_image_key(image.id)


def _select_images(batch: ImageBatch, rows: NDArray[np.intp]) -> ImageBatch:
    """Some rows of a batch."""
    return ImageBatch(
        image_id=batch.image_id[rows],
        file_name=[batch.file_name[row] for row in rows],
        image_key=[batch.image_key[row] for row in rows],
        height=batch.height[rows],
        width=batch.width[rows],
        license_id=None if batch.license_id is None else batch.license_id[rows],
        id_text=batch.id_text and [batch.id_text[row] for row in rows],
    )


def _select_annotations(
    batch: AnnotationBatch, rows: NDArray[np.intp], waiting: dict[tuple[int, int], list[str]]
) -> AnnotationBatch:
    """Some rows of a batch, with the sentences that wait for them."""
    image_id, ids, payload = batch.image_id[rows], batch.id[rows], batch.payload
    sentences = [waiting.pop(place, []) for place in zip(image_id.tolist(), ids.tolist(), strict=True)]
    return AnnotationBatch(
        image_id=image_id,
        id=ids,
        bbox=batch.bbox[rows],
        category=batch.category[rows],
        iscrowd=batch.iscrowd[rows],
        flags={flag: there[rows] for flag, there in batch.flags.items()},
        area=None if batch.area is None else batch.area[rows],
        payload=payload
        and [_pack_payload(texts, payload[row]) for row, texts in zip(rows.tolist(), sentences, strict=True)],
    )


def _unmatched_annotations(
    refs: Refs, waiting: dict[tuple[int, int], list[str]], *, with_payload: bool
) -> AnnotationBatch:
    """Described objects without an annotation; their position is unknown."""
    count = len(waiting)
    return AnnotationBatch(
        image_id=np.array([image_id for image_id, _ in waiting], np.int64),
        id=np.array([annotation_id for _, annotation_id in waiting], np.int64),
        bbox=np.full((count, 4), np.nan),
        category=np.array([refs.category_ids[place] for place in waiting], np.int64),
        iscrowd=np.zeros(count, np.bool_),
        flags={"no_box": np.ones(count, np.bool_)},
        payload=[_pack_payload(texts, None) for texts in waiting.values()] if with_payload else None,
    )


def _report_unmatched(files: DatasetFiles, refs: Refs, waiting: dict[tuple[int, int], list[str]]) -> None:
    """Warn about described objects without an annotation; an error if they are more than half of all."""
    path, source = files.sources["refs"], files.sources["instances"]
    image_id, annotation_id = next(iter(waiting))
    example = f"e.g. annotation {annotation_id} of image {image_id}"
    if 2 * len(waiting) > len(refs.sentences):
        raise SynthgenError(
            f"{len(waiting):,} of the {len(refs.sentences):,} objects that {path} describes are not in {source}, "
            f"{example}; put the instances.json of the same dataset there"
        )
    log.warning("%d objects that %s describes are not in %s, %s: no box", len(waiting), path, source, example)


def _pack_payload(texts: list[str], segmentation: bytes | None) -> bytes | None:
    """One line of JSON with the sentences, then the JSON of the segmentation."""
    return msgspec.json.encode(texts) + b"\n" + (segmentation or b"") if texts or segmentation else None


def _unpack_payload(payload: bytes | None) -> tuple[list[str], bytes | None]:
    texts, _, segmentation = (payload or b"[]\n").partition(b"\n")
    return msgspec.json.decode(texts, type=list[str]), segmentation or None
