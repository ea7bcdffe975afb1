"""Published weights of SAM and HQ-SAM: which of them are here, and how to get the others."""

from __future__ import annotations

import os

import pytest

from synthgen.generate.segmenters import _hq_sam_weights, _sam_weights, hq_sam, sam

MODULES = {"sam": _sam_weights, "hq_sam": _hq_sam_weights}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("plugin", MODULES)
def test_files_that_are_here_are_listed_with_the_largest_first(plugin, folder):
    module = MODULES[plugin]
    assert module.list_local_weights() == []
    for variant in ("vit_b", "vit_h"):
        file = module.PUBLISHED_WEIGHTS[variant]
        (folder / file.file_name).touch()
        os.truncate(folder / file.file_name, file.size)
    found = module.list_local_weights()
    assert [local.options for local in found] == [
        {"variant": "vit_h", "checkpoint": ""},
        {"variant": "vit_b", "checkpoint": ""},
    ]
    assert found[0].reason == f"{module.PUBLISHED_WEIGHTS['vit_h'].file_name} is in {folder}"


@pytest.mark.parametrize("plugin", MODULES)
def test_the_command_downloads_the_weights_of_the_recipe(plugin):
    module, owner = MODULES[plugin], {"sam": "SAM's", "hq_sam": "HQ-SAM's"}[plugin]
    assert module.how_to_get({}) == (
        f"`--segmenter {plugin}` downloads {owner} weights (2.6 GB; with `--variant vit_b` 0.4 GB)"
    )
    digest = module.PUBLISHED_WEIGHTS["vit_l"].sha256
    assert module.how_to_get({"variant": "vit_l", "weights": digest}) == (
        f"`--segmenter {plugin} --variant vit_l` downloads them ({1.2 if plugin == 'sam' else 1.3} GB)"
    )
    own = f"name their file with `--segmenter {plugin} --checkpoint FILE`"
    assert module.how_to_get({"variant": "vit_l", "weights": "0" * 64}) == own
    assert module.how_to_get({"variant": "vit 64x4", "weights": digest}) == own


def test_the_plugins_use_the_same_weights():
    assert sam.PUBLISHED_WEIGHTS is _sam_weights.PUBLISHED_WEIGHTS
    assert hq_sam.PUBLISHED_WEIGHTS is _hq_sam_weights.PUBLISHED_WEIGHTS
