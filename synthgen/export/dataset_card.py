"""The dataset card of an export: `README.md` with the front matter that the Hugging Face Hub reads.

Names of categories, models, licences and files come from strangers. They are escaped, so that they are text in every
renderer of Markdown.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from synthgen.export.summary import ExportSummary, plain_split_name
from synthgen.records.sample import PROVENANCES

#: A card shows at most so many categories and licences, the most frequent ones.
MAX_ROWS = 500

_MAX_NAME = 200
_MAX_RECIPE = 20_000

#: Characters that begin something in Markdown, or a link in GitHub's ("www.", "http:", "name@host").
_SPECIAL = re.compile(r"[\\`*_{}\[\]()#+!|~:@.$^=]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

#: https://huggingface.co/docs/hub/datasets-cards
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

_ABOUT_MASKS = """\
> **Check before publishing.** A model drew these masks, unless the table of provenance says otherwise: they have errors
> that a person would not make, and scores of a model do not show all of them."""
_ABOUT_IMAGES = "> The licence of each image is that of its source. This export gives no right to the images."

#: Format -> how its own library reads the export.
_LOADING = {
    "hf": """\
```python
import datasets

dataset = datasets.load_dataset("path/to/this/folder")
```""",
    "webdataset": """\
```python
import webdataset

samples = webdataset.WebDataset("{shards}", shardshuffle=False).decode("pil")
```""",
}


def make_dataset_card(summary: ExportSummary) -> str:
    """The text of `README.md`.

    Args:
        summary: what the export holds.
    """
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(summary), sort_keys=False, allow_unicode=False, width=1_000)}---",
        f"# {escape_markdown(summary.layer)}",
        escape_markdown(summary.description, limit=2_000),
        "\n".join([*([_ABOUT_MASKS] if _is_by_model(summary) else []), _ABOUT_IMAGES]),
        "## Content",
        f"Format: {escape_markdown(summary.title)}.",
        _table(("split", "images", "annotations", "masks"), _split_rows(summary)),
        *_left_out(summary),
        *(f"- {escape_markdown(line, limit=1_000)}" for line in summary.notes),
        *_loading(summary),
        "## Provenance of the masks",
        _table(
            ("provenance", "masks", "meaning"),
            [(key, f"{summary.provenance.get(key, 0):,}", meaning) for key, meaning in PROVENANCES.items()],
        ),
        *_models(summary),
        "## Categories",
        *_categories(summary),
        "## Licences of the images",
        *_licenses(summary),
        "## How it was made",
        f"synthgen {escape_markdown(summary.version)} wrote this export.",
        *_options(summary),
        "Recipe of the layer:",
        _code_block(json.dumps(summary.recipe, ensure_ascii=True, indent=1, sort_keys=True)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape_markdown(text: str, limit: int = _MAX_NAME) -> str:
    """A text that Markdown and HTML show as it is, on one line. Characters that cannot be seen become U+FFFD.

    Args:
        text: untrusted.
        limit: a longer text is cut at so many characters.
    """
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(map(_escape_char, shown)).strip() or "(no name)"


def _escape_char(char: str) -> str:
    if char in _HTML:
        return _HTML[char]
    if char.isspace():
        return " "
    if not char.isprintable():
        return "\ufffd"
    return f"\\{char}" if _SPECIAL.match(char) else char


def _front_matter(summary: ExportSummary) -> dict[str, Any]:
    """What the Hub reads; for its own format also where the files of each split are."""
    num_images = sum(split.images for split in summary.splits)
    creators = [
        *(["machine-generated"] if _is_by_model(summary) else []),
        *(["expert-generated"] if summary.provenance.get("human", 0) or summary.provenance.get("reviewed", 0) else []),
    ]
    front: dict[str, Any] = {
        "pretty_name": _printable(summary.layer),
        "license": "other",
        "license_name": "licences-of-the-images",
        "task_categories": ["image-segmentation", "object-detection"],
        "tags": ["synthgen", "instance-segmentation"],
        **({"annotations_creators": creators} if creators else {}),
        "size_categories": [next((name for limit, name in _SIZES if num_images < limit), "n>1M")],
    }
    if summary.format == "hf":
        files = [{"split": plain_split_name(split), "path": path} for split, path in summary.data_files.items()]
        front["configs"] = [{"config_name": "default", "data_files": files}]
        images = {split.name: split.images for split in summary.splits}
        front["dataset_info"] = {
            "splits": [
                {
                    "name": plain_split_name(split),
                    "num_bytes": sum(one.bytes for one in summary.files if fnmatch.fnmatchcase(one.path, path)),
                    "num_examples": images.get(split, 0),
                }
                for split, path in summary.data_files.items()
            ]
        }
    return front


def _is_by_model(summary: ExportSummary) -> bool:
    return any(summary.provenance.get(key, 0) for key in ("machine", "reviewed"))


def _split_rows(summary: ExportSummary) -> list[tuple[str, ...]]:
    rows = [(one.name, f"{one.images:,}", f"{one.annotations:,}", f"{one.masks:,}") for one in summary.splits]
    sums = (sum(getattr(one, name) for one in summary.splits) for name in ("images", "annotations", "masks"))
    return [*rows, ("all", *(f"{number:,}" for number in sums))]


def _left_out(summary: ExportSummary) -> Iterable[str]:
    if summary.left_out:
        yield "Annotations of the layer that are not in this export:"
        yield _table(("reason", "annotations"), [(reason, f"{n:,}") for reason, n in summary.left_out.items()])


def _loading(summary: ExportSummary) -> Iterable[str]:
    """An example in Python; the shards of WebDataset are those of the first split."""
    text = _LOADING.get(summary.format)
    if text is None or not summary.data_files:
        return
    pattern = next(iter(summary.data_files.values()))
    numbers = [
        one.path[pattern.index("*") : one.path.rindex(".")]
        for one in summary.files
        if fnmatch.fnmatchcase(one.path, pattern)
    ]
    span = numbers[0] if len(numbers) == 1 else f"{{{numbers[0]}..{numbers[-1]}}}" if numbers else "000000"
    yield text.replace("{shards}", pattern.replace("*", span))


def _options(summary: ExportSummary) -> Iterable[str]:
    if summary.options:
        yield _table(("option", "value"), [(name, _show(value)) for name, value in summary.options.items()])


def _models(summary: ExportSummary) -> Iterable[str]:
    if summary.models:
        yield "What drew the masks that are not by a person alone:"
        yield _table(("model", "masks"), [(name, f"{count:,}") for name, count in summary.models.items()])


def _categories(summary: ExportSummary) -> Iterable[str]:
    shown = sorted(summary.categories, key=lambda one: (-one.annotations, one.id))[:MAX_ROWS]
    rows = [(str(one.id), one.name, f"{one.annotations:,}", f"{one.masks:,}") for one in shown]
    yield _table(("id", "name", "annotations", "masks"), rows)
    written = sum(one.annotations for one in summary.splits)
    if lost := sum(one.annotations for one in summary.categories) - written:
        yield f"{lost:,} of these annotations are not in this export, because the format cannot hold them."
    if rest := len(summary.categories) - len(shown):
        yield f"{rest:,} more categories are not shown here."


def _licenses(summary: ExportSummary) -> Iterable[str]:
    if all(one.id is None for one in summary.licenses):
        yield "The source states no licences of its images. Look them up there."
        return
    shown = summary.licenses[:MAX_ROWS]
    rows = [(one.name or _unnamed(one.id), one.url or "-", f"{one.images:,}") for one in shown]
    yield _table(("licence", "text", "images"), rows)
    if rest := len(summary.licenses) - len(shown):
        yield f"{rest:,} more licences are not shown here."


def _unnamed(number: int | None) -> str:
    return "not stated" if number is None else f"number {number}, which the source does not explain"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; all cells are escaped."""
    lines = [head, ["---"] * len(head), *([escape_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _show(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=True, default=str)


def _code_block(text: str) -> str:
    """A block of code whose fence is longer than each row of backticks in it."""
    shown = text if len(text) <= _MAX_RECIPE else text[:_MAX_RECIPE] + "\n..."
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", shown)), 0)
    return f"{fence}json\n{shown}\n{fence}"


def _printable(text: str) -> str:
    """One line for the front matter; YAML quotes the rest."""
    return "".join(char if char.isprintable() else " " for char in text[:_MAX_NAME])
