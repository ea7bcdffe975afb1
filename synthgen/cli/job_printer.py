"""Prints what a run of `synthgen masks` or `synthgen captions` does, while it works."""

from __future__ import annotations

from collections.abc import Sequence

from synthgen.cli import messages
from synthgen.cli.terminal import open_progress, print_lines
from synthgen.generate.auto_choice import PluginChoice
from synthgen.generate.dataset_spec import DatasetSpec
from synthgen.generate.job import Job
from synthgen.generate.renewal import RenewalCounts
from synthgen.generate.run import RunStats
from synthgen.generate.stage_run import StageReporter, StageRequest
from synthgen.generate.worker import ShardReport
from synthgen.ingest.update import LayerChanges
from synthgen.progress import TerminalProgress
from synthgen.storage.shard_store import Shard


class JobPrinter(StageReporter):
    """A `StageReporter` that prints to standard output, with progress bars and failures on standard error."""

    def __init__(self, request: StageRequest) -> None:
        self._request = request
        self._bar: TerminalProgress | None = None
        self._num_failures = 0

    def open_progress(self, description: str, total: int, unit: str) -> TerminalProgress:
        """Open a progress bar. Failures of shards are printed above the last one."""
        self._bar = open_progress(description, total, unit)
        return self._bar

    def on_choice(self, choices: Sequence[PluginChoice]) -> None:
        """Print what `auto` chose."""
        print_lines(*dict.fromkeys(choice.sentence for choice in choices if choice.sentence))

    def on_missing_inputs(self, sentences: Sequence[str]) -> None:
        """Print what would be made or updated first."""
        print_lines(*sentences)

    def on_update(self, job: Job, changes: LayerChanges) -> None:
        """Print what an update changed."""
        print_lines(messages.format_update(f"{job.dataset}/{job.split}/{job.input_layer}", changes, is_done=True))

    def on_inputs(self, specs: Sequence[DatasetSpec], jobs: Sequence[Job]) -> None:
        """Print what was recognised at the path that the user named."""
        if (path := self._request.dataset.path) is not None:
            print_lines(messages.format_recognized(path, specs, *messages.count_inputs(jobs)))

    def on_plan(self, job: Job, shards: Sequence[Shard]) -> None:
        """Print the plan."""
        print_lines(*messages.format_plan(job, shards))
        self._num_failures = 0

    def on_renewal(self, counts: RenewalCounts) -> None:
        """Print how many images would be processed."""
        print_lines(f"  {counts}")

    def on_nothing_to_do(self, job: Job, *, has_output: bool) -> None:
        """Print why a complete layer is of no use."""
        if not has_output:
            print_lines(messages.describe_no_output(job))

    def on_shard(self, report: ShardReport) -> None:
        """Print the first failures above the bar."""
        if report.error is not None and self._bar is not None and self._num_failures < messages.MAX_LISTED_ERRORS:
            self._num_failures += 1
            self._bar.print_line(f"failed: {report.error}")

    def on_stats(self, job: Job, stats: RunStats) -> None:
        """Print the result."""
        print_lines(*messages.format_result(job, stats))
