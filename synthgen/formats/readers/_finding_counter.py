"""Counts what is unusual in a dataset's files while they are read, with the first examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from synthgen.formats.readers import SourceFinding
from synthgen.formats.readers._folder_listing import utf8_name

_MAX_EXAMPLES = 3


class FindingCounter:
    """Counts occurrences by code of `ingest.validation.finding_codes.FINDING_CODES`."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._units: dict[str, str] = {}
        self._stops: set[str] = set()
        self._examples: dict[str, list[tuple[str, str]]] = {}

    def add(self, code: str, unit: str, where: str, what: str, count: int = 1) -> None:
        """Count `count` more; `unit`, `where` and `what` as in `SourceFinding`."""
        self.add_many(code, unit, count, ((where, what),))

    def add_many(
        self, code: str, unit: str, count: int, examples: Iterable[tuple[str, str]] = (), *, stops: bool = False
    ) -> None:
        """Count `count` more; `stops` as in `SourceFinding`."""
        if not count:
            return
        self._units[code] = unit
        self._counts[code] = self._counts.get(code, 0) + count
        if stops:
            self._stops.add(code)
        kept = self._examples.setdefault(code, [])
        for example in examples:
            if len(kept) >= _MAX_EXAMPLES:
                break
            kept.append((utf8_name(example[0]), utf8_name(example[1])))

    def count(self, code: str) -> int:
        """The count so far."""
        return self._counts.get(code, 0)

    def stop(self, code: str) -> None:
        """Let a finding stop jobs, if it was counted."""
        self._stops.add(code)

    def parts(self) -> Iterator[SourceFinding]:
        """The findings, in the order of their codes."""
        for code, count in sorted(self._counts.items()):
            yield SourceFinding(code, self._units[code], count, tuple(self._examples[code]), code in self._stops)
