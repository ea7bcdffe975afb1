"""Counts the masks of an export by who drew them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from synthgen.records.sample import Annotation, resolve_provenance


class MaskCounter:
    """Counts masks by who drew them."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[str | None, str | None]]()

    def add(self, annotations: Iterable[Annotation]) -> None:
        """Count the masks of some `annotations`."""
        self._counts.update((a.provenance, a.mask_source) for a in annotations if a.segmentation is not None)

    @property
    def provenance(self) -> dict[str, int]:
        """Number of masks by `mask_provenance`."""
        found = Counter[str]()
        for (provenance, source), count in self._counts.items():
            found[resolve_provenance(provenance, source)] += count
        return dict(sorted(found.items()))

    @property
    def models(self) -> dict[str, int]:
        """`mask_source` of the masks that a model drew -> their number."""
        found = Counter[str]()
        for (provenance, source), count in self._counts.items():
            if resolve_provenance(provenance, source) != "human":
                found[source or "unknown"] += count
        return dict(sorted(found.items()))
