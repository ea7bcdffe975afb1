"""The last lines of a validation: whether a job can begin, what to fix first, and the next command."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from synthgen.formats.recognition import option_name
from synthgen.ingest.validation.box_conventions import REMEDIES
from synthgen.ingest.validation.diagnosis import Finding, SplitReport, format_count
from synthgen.ingest.validation.files import UNUSABLE_CODES
from synthgen.records.sample import UNPROMPTED_FLAGS

#: By default, a job refuses a shard with a larger share of failed images (`Job.max_error_share`).
MAX_UNUSABLE_SHARE = 0.05

#: With a smaller share of boxes that can be given to a segmenter, a user should look.
FEW_USABLE = 0.5

_CROWDS = (
    "not ready: no box can be used; {share} annotations are crowds (iscrowd 1). Exports of masks as RLE (CVAT) "
    "mark every object so; treat them as objects with --crowds-as-objects"
)

_FILE_REMEDIES = {
    "missing": "name the right folder with --images, or complete the download",
    "unreadable": "download the unreadable images again, or convert them to JPEG",
    "wrong_size": "these are not the images that were annotated; name the right folder with --images",
    "exchanged_size": "exchange the width and height of the images in the annotation file; if the photographs were "
    "turned, use the ones that were annotated",
    "size_off_by_one": "write the real sizes of the images into the annotation file",
}


#: Remedies for what readers find in the files themselves.
_READER_REMEDIES = {
    "same_image_id": "give each image an id of its own in the file",
    "pixel_rows": "divide x and width by the image's width, y and height by its height",
}


def name_dataset_options(
    dataset: str, root: Path, annotations: Path | None, images: Path | None, path: Path | None = None
) -> str:
    """The command-line words that name the dataset.

    Args:
        dataset: name of the reader.
        root: folder of the dataset.
        annotations: annotation file, if it is not at the dataset's default path.
        images: image folder, if it is not at the dataset's default path.
        path: the path that the user named; None = the dataset is named by its reader.
    """
    words = [str(path)] if path is not None else ["--dataset", option_name(dataset)]
    if path is None:
        words += ["--annotations", str(annotations)] if annotations else ["--data", str(root.parent)]
    words += ["--images", str(images)] if images else []
    return shlex.join(words)


def reach_verdict(splits: Sequence[SplitReport], given: str) -> tuple[str, str]:
    """One line, and the next command.

    Args:
        splits: results of all splits.
        given: the options that name the dataset.
    """
    found: Counter[str] = Counter()
    by_code: dict[str, Finding] = {}
    for split in splits:
        found.update({finding.code: finding.count for finding in split.findings})
        by_code |= {finding.code: finding for finding in split.findings if finding.code not in by_code}
    stops = list(dict.fromkeys(finding.code for split in splits for finding in split.findings if finding.stops))
    remedies = {**REMEDIES, **_READER_REMEDIES}
    if convention := next((code for code in stops if code in remedies), None):
        return f"not ready ({', '.join(stops)}): {remedies[convention]}", f"synthgen doctor {given}"
    if set(stops) <= {"all_crowds", "few_usable"}:
        return _verdict_without_stop(splits, found, given)
    worst = max(UNUSABLE_CODES, key=lambda code: found[code])
    share = f"a job takes shards with more than {100 * MAX_UNUSABLE_SHARE:g} % lost only with --max-error-share"
    if worst == "missing" and found["other_name"] > found["missing"] / 2:
        why = f"{by_code['other_name'].note}; --match-names accepts this"
        return f"not ready ({', '.join(stops)}): {why}", f"synthgen doctor {given} --match-names"
    note = by_code[worst].note if worst == "wrong_size" and worst in by_code else ""
    remedy = _FILE_REMEDIES[worst]
    if note:
        remedy = f"{note}; use those that were annotated, or scale the sizes and boxes of the annotation file"
    keeps_folder = worst in ("unreadable", "exchanged_size", "size_off_by_one")
    given = given if keeps_folder else _with_images_placeholder(given)
    named = [code for code in (worst, *stops) if found[code]]
    return f"not ready ({', '.join(dict.fromkeys(named))}): {remedy}; {share}", f"synthgen doctor {given}"


def _verdict_without_stop(splits: Sequence[SplitReport], found: Mapping[str, int], given: str) -> tuple[str, str]:
    """Where nothing stops but, perhaps, that no box can be given to a segmenter."""
    boxes, prompted = sum(split.boxes for split in splits), sum(split.prompted for split in splits)
    if not prompted:
        if any(split.masks for split in splits):
            why = "ready: no box can be given to a segmenter, but the source has masks of its own"
            return why, f"synthgen ingest {given} --layer human"
        if crowds := found.get("all_crowds", 0):
            share = f"all {boxes:,}" if crowds >= boxes else f"{crowds:,} of {boxes:,}"
            return _CROWDS.format(share=share), f"synthgen doctor {given} --crowds-as-objects"
        what = "what is wrong with them is named above" if boxes else "there is none"
        return f"not ready: no box can be used; {what}", f"synthgen doctor {given}"
    limits = [f"{code} is likely, look at it first" for code in REMEDIES if found.get(code)]
    limits += [
        f"no mask for {format_count(found[flag], 'boxes')} ({flag})" for flag in sorted(UNPROMPTED_FLAGS) if found[flag]
    ]
    lost = sum(found[code] for code in UNUSABLE_CODES)
    limits += [f"{format_count(lost, 'images')} lost"] if lost else []
    few = f", but only {prompted:,} of {boxes:,} boxes can get a mask" if prompted < FEW_USABLE * boxes else ""
    return f"ready{few}{': ' if limits else ''}{'; '.join(limits)}", f"synthgen masks {given}"


def _with_images_placeholder(given: str) -> str:
    """The same options with a placeholder for the image folder."""
    words = shlex.split(given)
    if "--images" in words:
        place = words.index("--images")
        del words[place : place + 2]
    return f"{shlex.join(words)} --images FOLDER"
