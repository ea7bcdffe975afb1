"""Limits on the lengths of names and phrases: a name is stored once per box, so a long one would fill the memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from synthgen.errors import SynthgenError
from synthgen.formats.readers import Categories, ImageBatch
from synthgen.records.sample import Sample

#: Maximum length of a category name; the longest of the known releases has some 150 characters.
MAX_CATEGORY_CHARS = 1_000

#: Maximum length of a phrase of a person; those of the known releases have a few hundred characters.
MAX_CAPTION_CHARS = 10_000

#: Maximum bytes of a file name. Linux opens no longer path.
MAX_FILE_NAME_BYTES = 4_096


def check_category_names(categories: Categories, where: str) -> None:
    """Refuse a category name that is too long.

    Args:
        categories: a part of those of the dataset.
        where: the files, for the error.

    Raises:
        SynthgenError: a name has more than `MAX_CATEGORY_CHARS` characters.
    """
    for category_id, name in [*categories.names.items(), *categories.padded.items()]:
        if len(name) > MAX_CATEGORY_CHARS:
            raise SynthgenError(
                f"{where}: the name of category {category_id} has {len(name):,} characters ({_start_of(name)}), and at "
                f"most {MAX_CATEGORY_CHARS:,} are allowed; shorten it in the file"
            )


def check_captions(sample: Sample, where: str) -> None:
    """Refuse a phrase that is too long.

    Args:
        sample: with the captions of its annotations.
        where: names the files in the error.

    Raises:
        SynthgenError: a caption has more than `MAX_CAPTION_CHARS` characters.
    """
    for annotation in sample.annotations:
        for caption in annotation.captions:
            if len(caption.text) > MAX_CAPTION_CHARS:
                raise SynthgenError(
                    f"{where}: a phrase of annotation {annotation.id} has {len(caption.text):,} characters "
                    f"({_start_of(caption.text)}), and at most {MAX_CAPTION_CHARS:,} are allowed; shorten it in the "
                    "file"
                )


def shorten_file_names(batch: ImageBatch) -> ImageBatch:
    """The same batch; an image with a name that no file can have gets an error, and its start and digest as name."""
    longest = max(map(len, (*batch.file_name, *batch.image_key)), default=0)
    if longest * 4 <= MAX_FILE_NAME_BYTES:  # the usual case: nothing is encoded
        return batch
    lengths = [_num_bytes(name) for name in batch.file_name]
    errors = list(batch.error or [None] * len(lengths))
    for row, length in enumerate(lengths):
        if length > MAX_FILE_NAME_BYTES:
            errors[row] = errors[row] or f"its file name has {length:,} bytes, more than a path can have"
    return replace(batch, file_name=_shorten(batch.file_name), image_key=_shorten(batch.image_key), error=errors)


def _shorten(texts: Sequence[str]) -> list[str]:
    """Too long ones become their start and their SHA-256, so that different ones stay different."""
    return [
        f"{text[:100]}...{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"
        if _num_bytes(text) > MAX_FILE_NAME_BYTES
        else text
        for text in texts
    ]


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _start_of(text: str) -> str:
    return f"'{text[:40]}...'"
