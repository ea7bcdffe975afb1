"""The categories of an export: the source's own ids where it has them, or the names of the user's map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from synthgen.errors import ArgumentError, did_you_mean, shorten_value
from synthgen.export.exporters import ExportCategory
from synthgen.records.sample import Annotation, Sample

#: The name of annotations whose category the source's file does not name.
UNKNOWN = "unknown"

#: Why an annotation is left out.
_MAPPED_AWAY, _UNLISTED = "category_map", "unlisted_category"


class CategoryTable:
    """Says which category of the export an annotation has.

    Attributes:
        categories: all of the export, in the order of their ids.

    Args:
        names: names of the layer's categories.
        records: the source's records of them: `id`, `name`, and maybe `supercategory`; may be empty.
        mapping: see `ExportOptions.category_map`.
        has_unknown: whether the layer may have annotations without a name of a category.

    Raises:
        ArgumentError: the map has a name that the layer lacks.
    """

    def __init__(
        self,
        names: Sequence[str],
        records: Sequence[Mapping[str, Any]],
        mapping: Mapping[str, str | None] | None,
        *,
        has_unknown: bool,
    ) -> None:
        own = _source_categories(names, records)
        if has_unknown:
            taken = {category.name for category in own}
            own.append(ExportCategory(_next_id(own), UNKNOWN if UNKNOWN not in taken else f"{UNKNOWN} category"))
        unknown = own[-1] if has_unknown else None
        if mapping is not None:
            _check_map(mapping, [category.name for category in own])
            own_to_new = _apply_map(own, mapping)
        else:
            own_to_new = {category: category for category in own}
        self.categories = tuple(sorted(dict.fromkeys(filter(None, own_to_new.values())), key=lambda one: one.id))
        self._by_id = {category.id: (category.name, own_to_new[category]) for category in reversed(own)}
        self._by_name = {category.name: own_to_new[category] for category in reversed(own)}
        self._has_unknown, self._has_map = has_unknown, mapping is not None
        self._old_names: dict[str, set[str]] = {}
        for old, new in own_to_new.items():
            if new is not None:
                self._old_names.setdefault(new.name, set()).add(old.name)
        self._unknown = own_to_new[unknown] if unknown is not None else None

    def map_lists(self, sample: Sample) -> Sample:
        """The sample with its lists of absent and of incomplete categories under the names of the map.

        A new name is absent only if all names that became it are.

        Args:
            sample: of the layer.
        """
        if not self._has_map or not (sample.neg_categories or sample.not_exhaustive_categories):
            return sample
        absent = set(sample.neg_categories or ())
        negative = [new for new, old in self._old_names.items() if old <= absent]
        more = {one.name for name in sample.not_exhaustive_categories if (one := self._by_name.get(name)) is not None}
        return replace(
            sample,
            neg_categories=None if sample.neg_categories is None else tuple(sorted(negative)),
            not_exhaustive_categories=tuple(sorted(more)),
        )

    def find(self, annotation: Annotation) -> ExportCategory | str:
        """The category of an annotation; or a reason: "category_map" leaves it out, or it is an "unlisted_category".

        Args:
            annotation: of the layer.
        """
        if annotation.category_id is not None:
            name, found = self._by_id.get(annotation.category_id, ("", None))
            if name and name == annotation.category:
                return found or _MAPPED_AWAY
        if not annotation.category:
            return self._unknown or (_MAPPED_AWAY if self._has_unknown else _UNLISTED)
        if annotation.category not in self._by_name:
            return _UNLISTED
        return self._by_name[annotation.category] or _MAPPED_AWAY


def _source_categories(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[ExportCategory]:
    """The source's categories with its own ids; names that its records lack get the next ones."""
    own: dict[int, ExportCategory] = {}
    for record in records:
        number, name, parent = record.get("id"), record.get("name"), record.get("supercategory", "")
        if isinstance(number, int) and isinstance(name, str) and name and number not in own:
            own[number] = ExportCategory(number, name, parent if isinstance(parent, str) else "")
    found = list(own.values())
    known = {category.name for category in found}
    for name in dict.fromkeys(names):
        if name and name not in known:
            found.append(ExportCategory(_next_id(found), name))
    return found


def _next_id(categories: Iterable[ExportCategory]) -> int:
    return max((category.id for category in categories), default=0) + 1


def _check_map(mapping: Mapping[str, str | None], names: list[str]) -> None:
    for name in mapping:
        if name not in names:
            have = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            close = did_you_mean(name, names)
            raise ArgumentError(
                f"the map of categories names {shorten_value(name)}, which the layer lacks{close} (have: {have})"
            )


def _apply_map(
    own: Sequence[ExportCategory], mapping: Mapping[str, str | None]
) -> dict[ExportCategory, ExportCategory | None]:
    """Each category -> its new one, numbered from 1 in the order of the old ids; None = left out."""
    new: dict[str, ExportCategory] = {}
    found: dict[ExportCategory, ExportCategory | None] = {}
    for category in sorted(own, key=lambda one: one.id):
        name = mapping.get(category.name, category.name)
        if not name:
            found[category] = None
            continue
        if name not in new:
            parent = category.supercategory if name == category.name else ""
            new[name] = ExportCategory(len(new) + 1, name, parent)
        found[category] = new[name]
    return found
