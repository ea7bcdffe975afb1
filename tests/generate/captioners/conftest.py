"""Fixtures that several test files of this folder use."""

from __future__ import annotations

import pytest

from synthgen import plugins

PLUGIN_PACKAGE = "generate.captioners"


#: Those with weights are tried in tests of their own, with few and random ones.
WITHOUT_WEIGHTS = [
    name
    for name in plugins.list_plugins(PLUGIN_PACKAGE)
    if "checkpoint" not in plugins.build_parameters(PLUGIN_PACKAGE, name)
]


@pytest.fixture(params=WITHOUT_WEIGHTS)
def captioner(request):
    return plugins.build_plugin(PLUGIN_PACKAGE, request.param, {})
