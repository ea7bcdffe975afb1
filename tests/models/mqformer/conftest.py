"""Fixtures that several test files of this folder use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.text_encoder_folders import write_clip, write_sentence_encoder
from torch import Tensor

from synthgen.models.mqformer.text_encoder import (
    build_tiny_text_encoder,
    load_text_encoder,
)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    found = np.load(Path(__file__).parents[2] / "golden/mqformer_parts.npz")
    return {name: torch.from_numpy(found[name]) for name in found.files}


@pytest.fixture(params=["tiny", "bert", "clip"])
def encoder(request, tmp_path):
    if request.param == "tiny":
        return build_tiny_text_encoder(32)
    return load_text_encoder((write_clip if request.param == "clip" else write_sentence_encoder)(tmp_path / "folder"))
