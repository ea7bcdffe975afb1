"""Fixtures that several test files of this folder use."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.image_files import save_image


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        save_image(tmp_path / f"{number}.png", np.full((12, 20, 3), number, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"bad")
    return tmp_path
