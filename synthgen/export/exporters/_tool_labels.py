"""Labels of annotation tools: names that XML can hold, a colour for each, and what is known of a mask beside it."""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Iterable

from synthgen.export.exporters import ExportCategory
from synthgen.records.sample import MASK_SCORES, Annotation

#: Characters that XML 1.0 does not allow, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class ToolLabels:
    """The label of each category. Categories of one name share one; those of different names never do.

    Attributes:
        colors: label -> its colour, as "#rrggbb".
        changed: number of names that are not labels as they are.

    Args:
        categories: of the export.
        replacements: characters that the tool gives a meaning -> what stands for them.
    """

    def __init__(self, categories: Iterable[ExportCategory], replacements: dict[str, str] | None = None) -> None:
        table = str.maketrans(replacements or {})
        names = dict.fromkeys(category.name for category in categories)
        clean = {name: " ".join(xml_text(name).translate(table).split()) for name in names}
        taken = {name for name in names if clean[name] == name}
        self._labels: dict[str, str] = {}
        for name, label in clean.items():
            number = 1
            unique = label
            while not unique or (unique != name and unique in taken):
                number += 1
                unique = f"{label or 'category'} ({number})"
            taken.add(unique)
            self._labels[name] = unique
        self.colors = {label: _color(place) for place, label in enumerate(self._labels.values())}
        self.changed = sum(label != name for name, label in self._labels.items())

    def label(self, annotation: Annotation) -> str:
        """The label of the category of `annotation`."""
        return self._labels[annotation.category]

    def lines(self) -> tuple[str, ...]:
        """A sentence for the user if names were changed."""
        if not self.changed:
            return ()
        return (f"{self.changed:,} names of categories hold characters that the tool cannot, which were replaced",)


def xml_text(text: str) -> str:
    """A `text` from a stranger with the characters replaced that no XML file can hold. It is not escaped yet."""
    return _NOT_XML.sub("\ufffd", text)


def mask_scores(annotation: Annotation) -> dict[str, float]:
    """The finite scores of the mask of `annotation`, by name."""
    given = {name: getattr(annotation, name) for name in MASK_SCORES}
    return {name: score for name, score in given.items() if score is not None and math.isfinite(score)}


def _color(place: int) -> str:
    """Neighbours in the list get colours that are far apart."""
    red, green, blue = colorsys.hsv_to_rgb(place * _GOLDEN_RATIO % 1, 0.8 - 0.3 * (place % 2), 0.95)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
