"""Fixtures that several test files of this folder use."""

from __future__ import annotations

import pytest
from fakes import tiny_sam

from synthgen import plugins

PLUGIN_PACKAGE = "generate.segmenters"
WITH_WEIGHTS = [
    name
    for name in plugins.list_plugins(PLUGIN_PACKAGE)
    if "checkpoint" in plugins.build_parameters(PLUGIN_PACKAGE, name)
]


@pytest.fixture(params=[name for name in plugins.list_plugins(PLUGIN_PACKAGE) if name not in WITH_WEIGHTS])
def name(request):
    return request.param


@pytest.fixture
def segmenter(name):
    """One that needs no weights, and so can be asked for sensible masks."""
    return plugins.build_plugin(PLUGIN_PACKAGE, name, {})


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    return {name: str(tiny_sam.checkpoint(folder, f"{name}_tiny")) for name in ("sam", "hq_sam")}
