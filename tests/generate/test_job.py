"""Recipes and their fingerprints as literals: shards in users' stores carry them, so they must not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.mask_jobs import make_job

from synthgen import plugins
from synthgen.generate.job import Job
from synthgen.records.recipe import fingerprint

pytest.importorskip("torch")

SEGMENTERS, CAPTIONERS = "generate.segmenters", "generate.captioners"
WEIGHTS = "5a" * 32


def job_of(package: str, plugin: str, given: dict[str, Any], **stage_options: Any) -> Job:
    stage = "masks" if package == SEGMENTERS else "captions"
    options = plugins.complete_options(package, plugin, given)
    return Job(
        stage, "d", "train", "annotations", stage, plugin, Path("shards"), Path("images"), options, stage_options,
        runtime_options=plugins.runtime_options(package, plugin),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("package", "plugin", "given", "fingerprint"),
    [
        (SEGMENTERS, "box_fill", {}, "daa648a22a01c2ed"),
        (SEGMENTERS, "grabcut", {}, "735014fb2ea487c0"),
        (SEGMENTERS, "grabcut", {"side": "64", "margin": "0.5", "threads": "3", "batch_size": "2"}, "31526e6a0b44a87c"),
        (
            SEGMENTERS,
            "sam",
            {"checkpoint": "sam.pth", "weights": WEIGHTS, "variant": "vit_b", "device": "cuda"},
            "12c7fb14a6e5b3b6",
        ),
        (
            SEGMENTERS,
            "sam",
            {"weights": WEIGHTS, "multimask": True, "zoom": True, "precision": "bf16"},
            "af5b0d24c9bb8def",
        ),
        (
            SEGMENTERS,
            "hq_sam",
            {"weights": WEIGHTS, "hq_token_only": "yes", "compile": True, "box_chunk": "8"},
            "aaeda91f6035add8",
        ),
        (CAPTIONERS, "attributes", {"batch_size": "3"}, "ecda6cd98c12052a"),
        (CAPTIONERS, "ofa", {"checkpoint": "ofa", "weights": WEIGHTS}, "610d915ba11458f3"),
        (
            CAPTIONERS,
            "ofa",
            {"weights": WEIGHTS, "side": 512, "num_beams": 20, "groups": 4, "diversity": "0.7"},
            "30247deba170015e",
        ),
    ],
)
def test_fingerprints_of_recipes_do_not_change(package, plugin, given, fingerprint):
    assert job_of(package, plugin, given).fingerprint("0123456789abcdef") == fingerprint


def test_the_fingerprint_of_florence2_does_not_change():
    pytest.importorskip("transformers")
    job = job_of(CAPTIONERS, "florence2", {"weights": WEIGHTS, "max_length": "24", "device": "cpu"}, top_k=3)
    assert job.fingerprint("0123456789abcdef") == "3fd1c9392f3809c4"


def test_a_recipe_holds_no_place(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    text = str(job.recipe())
    assert str(tmp_path) not in text
    assert "batch_size" not in text
    assert job.fingerprint("x") == fingerprint({**job.recipe(), "parent": "x"})
    assert job.fingerprint("x") != job.fingerprint("y")
