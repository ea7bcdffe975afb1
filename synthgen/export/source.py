"""A layer as an export reads it, and the categories of several layers together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthgen.export.categories import CategoryTable
from synthgen.export.exporters import ExportLicense
from synthgen.records.sample import Annotation, Sample


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A layer as an export reads it.

    Attributes:
        name: "dataset/split/layer".
        recipe: what made the layer.
        categories: names of categories.
        category_records: the source's records of them; may be empty.
        licenses: the source's records of licences; may be empty.
        num_images: number of images.
        has_unknown: whether annotations may have no name of a category.
        image_folder: the folder of the images; None = not known.
        samples: reads the images, one after the other.
        image_keys: reads only their keys, in any order.
        accepts: whether the user wants an annotation.
        reads: folders that the export reads beside that of the images, such as the store.
        conditions: the same as `accepts` in plain JSON, such as minimums of scores by name, for the dataset card.
    """

    name: str
    recipe: Mapping[str, Any]
    categories: Sequence[str]
    category_records: Sequence[Mapping[str, Any]]
    licenses: Sequence[Mapping[str, Any]]
    num_images: int
    has_unknown: bool
    image_folder: Path | None
    samples: Callable[[], Iterator[Sample]]
    image_keys: Callable[[], Iterable[str]]
    accepts: Callable[[Annotation], bool] = lambda _: True
    reads: tuple[Path, ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)


def make_category_table(sources: Sequence[ExportSource], mapping: Mapping[str, str | None] | None) -> CategoryTable:
    """The categories of an export of some layers.

    Ids are kept if the layers agree on them. If one id has two names, or one name two ids, all names get new ids.

    Args:
        sources: the layers.
        mapping: see `ExportOptions.category_map`.

    Raises:
        ArgumentError: the map has a name that the layers lack.
    """
    records = [record for source in sources for record in source.category_records]
    names_by_id: dict[Any, Any] = {}
    agree = all(
        names_by_id.setdefault(record.get("id"), record.get("name")) == record.get("name") for record in records
    )
    ids: dict[Any, set[Any]] = {}
    for source in sources:  # one file may have two ids of one name, but two files must have the same ones
        own: dict[Any, set[Any]] = {}
        for record in source.category_records:
            own.setdefault(record.get("name"), set()).add(record.get("id"))
        agree = agree and all(ids.setdefault(name, numbers) == numbers for name, numbers in own.items())
    return CategoryTable(
        [name for source in sources for name in source.categories],
        records if agree else (),
        mapping,
        has_unknown=any(source.has_unknown for source in sources),
    )


def merge_licenses(sources: Sequence[ExportSource]) -> tuple[tuple[ExportLicense, ...], list[dict[int, int]]]:
    """The licences of some layers. An id that an earlier layer gives to another licence becomes a free one.

    Args:
        sources: the layers.

    Returns:
        The licences, and for each layer the ids that change.
    """
    merged: dict[int, ExportLicense] = {}
    changes: list[dict[int, int]] = []
    for source in sources:
        changed: dict[int, int] = {}
        for record in source.licenses:
            number = record.get("id")
            if not isinstance(number, int):
                continue
            own = ExportLicense(number, str(record.get("name") or ""), str(record.get("url") or ""))
            if merged.setdefault(number, own) != own:
                same = (o.id for o in merged.values() if (o.name, o.url) == (own.name, own.url))
                changed[number] = next(same, max(merged) + 1)
                merged.setdefault(changed[number], replace(own, id=changed[number]))
        changes.append(changed)
    return tuple(merged.values()), changes
