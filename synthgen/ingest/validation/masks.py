"""Findings about the masks that a dataset's own file has: which cannot be read, and why. Nothing is drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from synthgen.formats.readers import AnnotationBatch, DatasetPart
from synthgen.ingest.validation.boxes import make_box_example
from synthgen.ingest.validation.diagnosis import FindingCollector
from synthgen.records.box_table import BoxColumns


def shorten_payloads(parts: Iterable[DatasetPart], shorten: Callable[[bytes], bytes]) -> Iterator[DatasetPart]:
    """The same stream with shorter payloads, as each is written to disk and sorted.

    Args:
        parts: what a reader yields.
        shorten: the `shorten_mask` of the reader.
    """
    for part in parts:
        if isinstance(part, AnnotationBatch) and part.payload is not None:
            yield replace(part, payload=[None if one is None else shorten(one) for one in part.payload])
        else:
            yield part


def inspect_masks(
    columns: BoxColumns,
    payloads: Sequence[bytes | None],
    find_problems: Callable[[bytes, int, int], dict[str, str]],
    findings: FindingCollector,
) -> None:
    """Add the findings about the masks of one shard.

    Args:
        columns: images and annotations of the shard.
        payloads: of the annotations of `columns`, as the reader's layer "human" has them; empty if it has none.
        find_problems: the reader's `mask_problems`.
        findings: gets one finding for each flag.
    """
    image = np.repeat(np.arange(len(columns.image_id)), np.diff(columns.offsets)).tolist()
    heights, widths = columns.height.tolist(), columns.width.tolist()
    rows: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for row, payload in enumerate(payloads):
        if payload is not None:
            for flag, reason in find_problems(payload, heights[image[row]], widths[image[row]]).items():
                rows[flag].append((row, reason))
    for flag, found in rows.items():
        examples = (make_box_example(columns, row, reason) for row, reason in found)
        findings.add(flag, "boxes", len(found), examples, images=len({image[row] for row, _ in found}))
