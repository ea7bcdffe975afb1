"""Creation of jobs: options are resolved, fingerprints are those in users' stores, a wrong layer is refused."""

from __future__ import annotations

import pytest

from synthgen.errors import SynthgenError
from synthgen.generate.dataset_spec import DatasetSpec, resolve_dataset
from synthgen.generate.job_builder import create_job


def test_both_spellings_are_one_recipe(tmp_path):
    """Or a run could not be resumed with the other one."""
    (tmp_path / "boxes.json").touch()
    where = resolve_dataset("coco-json", "mine", None, tmp_path, tmp_path / "boxes.json", tmp_path)
    assert where == resolve_dataset("coco_json", "mine", None, tmp_path, tmp_path / "boxes.json", tmp_path)

    def recipe(segmenter: str) -> str:
        job = create_job(
            where,
            tmp_path / "store",
            stage="masks",
            plugin=segmenter,
            options={},
            input_layer="annotations",
            layer="masks",
            max_error_share=0.05,
            retry_failed=False,
        )
        return str(job.recipe())

    assert recipe("box-fill") == recipe("box_fill")


@pytest.mark.parametrize(
    ("stage", "plugin", "given", "stage_options", "fingerprint"),
    [
        ("masks", "grabcut", {"side": "40", "threads": "1"}, None, "d465e36e7d7d6ecb"),
        (
            "masks",
            "sam",
            {"variant": "vit_b", "zoom": True, "device": "cpu", "self_test": "no"},
            None,
            "62a6784eb1191b54",
        ),
        ("captions", "attributes", {}, {}, "171a4ade28ff098e"),
        ("captions", "attributes", {}, {"top_k": 3, "min_score": -1.5}, "326f2a56ab72e635"),
        ("captions", "attributes", {}, {"top_k": 5, "min_score": None, "forbidden": "it,that"}, "1d2c7b7931496b5c"),
    ],
)
def test_fingerprints_of_jobs_do_not_change(stage, plugin, given, stage_options, fingerprint, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "boxes.json").touch()
    spec = resolve_dataset("coco-json", "mine", None, tmp_path, tmp_path / "boxes.json", tmp_path)
    job = create_job(
        spec,
        tmp_path,
        stage=stage,
        plugin=plugin,
        options=given,
        stage_options=stage_options,
        input_layer="annotations",
        layer=stage,
        max_error_share=0.05,
        retry_failed=False,
    )
    assert job.fingerprint("0123456789abcdef") == fingerprint


@pytest.mark.parametrize(
    ("input_layer", "layer", "sentence"),
    [
        (
            "annotations",
            "annotations",
            r"'annotations' is what the job reads; choose another --layer .* such as masks$",
        ),
        ("masks", "masks", r"'masks' is what the job reads; choose another --layer to write, such as masks-2$"),
        ("annotations", "human", r"'human' is made from mine's own files; .* such as masks$"),
        ("annotations", "../up", r"'\.\./up' cannot name"),
        ("../up", "masks", r"'\.\./up' cannot name"),
    ],
)
def test_a_layer_that_cannot_be_written_is_refused(input_layer, layer, sentence, tmp_path):
    spec = DatasetSpec("coco_json", "mine", "train", tmp_path, None, tmp_path)
    with pytest.raises(SynthgenError, match=sentence):
        create_job(
            spec,
            tmp_path / "store",
            stage="masks",
            plugin="box_fill",
            options={},
            input_layer=input_layer,
            layer=layer,
            max_error_share=0.05,
            retry_failed=False,
        )
    assert not (tmp_path / "store").exists()
