"""What all tests share: where the real data lies, and how hard hypothesis tries."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it; before anything imports torch

SHARED = Path(__file__).parents[2] / "shared"

# Examples are made anew at a developer's desk, where a find can be kept, and are the same each time in CI.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("data/coco_tiny")`: a folder of real data beside the checkout; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"no real data: {name} is not in the folder 'shared' beside the checkout")
        return path

    return find
