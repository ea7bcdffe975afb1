"""The report of `synthgen check` on a manifest without errors, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from synthgen.dataloading.manifest_check import ManifestReport, SourceReport

_COUNTS = ("images", "objects", "masks", "captions")


def format_report(report: ManifestReport) -> Iterator[str]:
    """The manifest of `report` as tables, its warnings, and a last line that begins with "ok"."""
    manifest = report.manifest
    yield f"{manifest.name}, shards in {manifest.store}"
    learned = [row for row in report.sources if row.draw_probability is not None]
    measured = [row for row in report.sources if row.draw_probability is None]
    filtered = any(row.kept_shares for row in learned)
    if learned:
        yield ""
        yield from _format_table(
            ["learned from", "task", *_COUNTS, "ratio", "draws", "excluded", *(["kept"] if filtered else [])],
            [
                [*_source_cells(row), *_training_cells(row), *([_format_kept_shares(row)] if filtered else [])]
                for row in learned
            ],
        )
    if measured:
        yield ""
        yield from _format_table(["evaluated on", "task", *_COUNTS], [_source_cells(row) for row in measured])
    if report.padding is not None:
        yield ""
        yield _format_padding(report)
    if report.warnings:
        yield ""
        yield from (f"note: {warning}" for warning in report.warnings)
    yield ""
    what = (
        f"{_pluralize(len(learned), 'source')} of {_pluralize(report.num_unique_images, 'image')} to learn from"
        if learned
        else ""
    )
    yield f"ok: {', '.join(filter(None, [what, f'{len(measured):,} to evaluate on' if measured else '']))}"


def _format_padding(report: ManifestReport) -> str:
    fixed, by_size = report.padding or (1.0, 1.0)
    if report.manifest.schedule.group_by_size:
        return (
            f"padding: batches have ~{by_size:.2f} times the pixels of their views (~{fixed:.2f} without group_by_size)"
        )
    return f"padding: batches have ~{fixed:.2f} times the pixels of their views (~{by_size:.2f} with group_by_size)"


def _source_cells(row: SourceReport) -> list[str]:
    share = getattr(row.source, "share", 1.0)
    name = row.source.shards + (f" ({share:.0%})" if share < 1 else "")
    learned = row.learnable
    counts = (row.stats.count("images"), learned.objects, learned.masks, learned.captions)
    return [name, row.source.task, *(f"{count:,}" for count in counts)]


def _training_cells(row: SourceReport) -> list[str]:
    return [f"{getattr(row.source, 'ratio', 1):g}", f"{row.draw_probability or 0:.1%}", f"{row.num_excluded:,}"]


def _format_kept_shares(row: SourceReport) -> str:
    """The estimated shares that pass the filters."""
    return ", ".join(f"~{share:.0%} of {kind}s" for kind, share in row.kept_shares.items()) or "all"


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table with columns as wide as their widest cell; names left, numbers right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = (
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  " + "  ".join(cells).rstrip()


def _pluralize(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
