"""What `check` says of a manifest without mistakes: what will be read, what is worth to know. Lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from synthgen.dataloading.manifest_check import Checked, Row

_COUNTS = ("images", "objects", "masks", "captions")


def checked(found: Checked) -> Iterator[str]:
    """The manifest as tables, its warnings, and a last line that begins with "ok"."""
    manifest = found.manifest
    yield f"{manifest.name}, shards in {manifest.store}"
    learned = [row for row in found.rows if row.chance is not None]
    measured = [row for row in found.rows if row.chance is None]
    filtered = any(row.kept for row in learned)
    if learned:
        yield ""
        yield from _table(
            ["learned from", "task", *_COUNTS, "ratio", "draws", "excluded", *(["kept"] if filtered else [])],
            [[*_head(row), *_tail(row), *([_kept(row)] if filtered else [])] for row in learned],
        )
    if measured:
        yield ""
        yield from _table(["evaluated on", "task", *_COUNTS], [_head(row) for row in measured])
    if found.warnings:
        yield ""
        yield from (f"note: {warning}" for warning in found.warnings)
    yield ""
    what = f"{_many(len(learned), 'source')} of {_many(found.photographs, 'image')} to learn from" if learned else ""
    yield f"ok: {', '.join(filter(None, [what, f'{len(measured):,} to evaluate on' if measured else '']))}"


def _head(row: Row) -> list[str]:
    share = getattr(row.source, "share", 1.0)
    name = row.source.shards + (f" ({share:.0%})" if share < 1 else "")
    return [name, row.source.task, *(f"{row.held.count(what):,}" for what in _COUNTS)]


def _tail(row: Row) -> list[str]:
    return [f"{getattr(row.source, 'ratio', 1):g}", f"{row.chance or 0:.1%}", f"{row.excluded:,}"]


def _kept(row: Row) -> str:
    """What passes the filters, about: a few images were looked at."""
    return ", ".join(f"~{share:.0%} of {kind}s" for kind, share in row.kept.items()) or "all"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their widest; names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = (
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  " + "  ".join(cells).rstrip()


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
