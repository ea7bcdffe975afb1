"""All fuzz targets."""

from __future__ import annotations

from fakes.fuzz_datasets import dataset_targets
from fakes.fuzz_files import file_targets
from fakes.fuzz_packed import packed_targets
from fakes.fuzz_runner import FuzzTarget
from fakes.fuzz_tool_formats import tool_targets


def fuzz_targets() -> list[FuzzTarget]:
    """One target for each reader."""
    return [*dataset_targets(), *tool_targets(), *packed_targets(), *file_targets()]
