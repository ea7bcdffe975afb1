"""The choice of `auto`: by device and weights, that of a begun layer, the recipe of the named plugin, no network."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import tiny_florence2, tiny_ofa, tiny_sam

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate.auto_choice import AUTO, PluginChoice, choose_plugins
from synthgen.generate.dataset_spec import DatasetSpec
from synthgen.generate.job import Job
from synthgen.generate.job_builder import create_job
from synthgen.generate.segmenters import _hq_sam_weights, _sam_weights
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.weights import LocalWeights

torch = pytest.importorskip("torch")

SAM_SHA = {variant: file.sha256 for variant, file in _sam_weights.PUBLISHED_WEIGHTS.items()}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection fails the test."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of weights, empty."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(folder))
    set_cuda(monkeypatch, False)
    # `lite`, whose weights are part of synthgen, is always there; `add_lite` adds a stand-in.
    every, downloaded = plugins.list_weights_modules, {"sam", "hq_sam", "ofa", "florence2"}
    monkeypatch.setattr(
        plugins, "list_weights_modules", lambda package: {k: v for k, v in every(package).items() if k in downloaded}
    )
    return folder


def set_cuda(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)


def put(folder: Path, plugin: str, *variants: str) -> None:
    """Published weights by name and size; sparse files, so they take no space."""
    published = {"sam": _sam_weights, "hq_sam": _hq_sam_weights}[plugin].PUBLISHED_WEIGHTS
    for variant in variants:
        path = folder / published[variant].file_name
        path.touch()
        os.truncate(path, published[variant].size)


#: What a tiny OFA needs: its images are small.
SMALL = {"side": str(tiny_ofa.SIDE)}


def put_ofa(folder: Path) -> Path:
    tiny_ofa.checkpoint(folder)
    (folder / "config.json").write_text('{"model_type": "ofa"}')
    return folder


def make_spec(tmp_path: Path, split: str = "train") -> DatasetSpec:
    return DatasetSpec("coco_json", "own", split, tmp_path, None, tmp_path)


def choose(
    tmp_path: Path, options: Mapping[str, Any] | None = None, *, stage: str = "masks", **more: Any
) -> PluginChoice:
    given = {"specs": [make_spec(tmp_path)], "store": tmp_path / "store", "layer": stage, **more}
    return choose_plugins(AUTO, options or {}, stage=stage, **given)[0]


def job_of(choice: PluginChoice, tmp_path: Path, *, stage: str = "masks", split: str = "train") -> Job:
    return create_job(
        make_spec(tmp_path, split),
        tmp_path / "store",
        stage=stage,
        plugin=choice.plugin,
        options=choice.options,
        stage_options={} if stage == "captions" else None,
        input_layer="annotations",
        layer=stage,
        max_error_share=0.05,
        retry_failed=False,
    )


def begin(job: Job, **recipe: Any) -> None:
    """The layer of a job, with its recipe or parts of another, in one of two shards."""
    footer = {"fingerprint": "f", "categories": [], "counts": {}, "recipe": {**job.recipe(), **recipe}}
    sample = Sample(1, "own/1", "0001.png", 72, 96, ())
    ShardStore(job.store).commit(Shard("own", job.split, job.layer, 0, 2), [sample], footer)


class Lite:
    """A light file of a plugin that is quick on a CPU. The plugin itself is `box_fill`."""

    RANK = {"cpu": 30, "cuda": 20}  # noqa: RUF012  # as a module has it

    def __init__(self, *, there: bool = True) -> None:
        self.there = there

    def list_local_weights(self) -> list[LocalWeights]:
        return [LocalWeights({}, "its weights are part of synthgen")] if self.there else []

    def how_to_get(self, _: Mapping[str, Any]) -> str:
        return ""


def add_lite(monkeypatch: pytest.MonkeyPatch, **given: bool) -> None:
    known = plugins.list_weights_modules("generate.segmenters")
    monkeypatch.setattr(plugins, "list_weights_modules", lambda _: {**known, "box_fill": Lite(**given)})


@pytest.mark.parametrize(("stage", "default"), [("masks", "lite"), ("captions", "attributes")])
def test_without_weights_the_default_of_the_stage_is_chosen(tmp_path, weights, stage, default):
    found = choose(tmp_path, stage=stage)
    assert (found.plugin, found.options) == (default, {})
    kind = {"masks": "segmenter", "captions": "captioner"}[stage]
    assert found.sentence.startswith(f"{kind}: {default}, because {weights} has no weights of ")
    command = {
        "masks": "`--segmenter sam` downloads SAM's weights (2.6 GB; with `--variant vit_b` 0.4 GB)",
        "captions": f"`hf download florence-community/Florence-2-base --local-dir {weights}/florence-2-base`",
    }[stage]
    assert command in found.sentence


@pytest.mark.parametrize(
    ("sam", "hq_sam", "cuda", "plugin", "variant"),
    [
        (["vit_b", "vit_l", "vit_h"], [], True, "sam", "vit_h"),
        (["vit_b", "vit_l"], [], True, "sam", "vit_l"),
        (["vit_b"], ["vit_h"], True, "sam", "vit_b"),
        ([], ["vit_b", "vit_h"], True, "hq_sam", "vit_h"),
        (["vit_b", "vit_l", "vit_h"], [], False, "sam", "vit_b"),
        ([], ["vit_l", "vit_h"], False, "hq_sam", "vit_l"),
    ],
)
def test_weights_that_are_here_are_chosen(tmp_path, weights, monkeypatch, sam, hq_sam, cuda, plugin, variant):
    """The largest on CUDA, the fastest on a CPU; and the job is that of the named segmenter."""
    put(weights, "sam", *sam)
    put(weights, "hq_sam", *hq_sam)
    set_cuda(monkeypatch, cuda)
    found = choose(tmp_path)
    assert (found.plugin, found.options["variant"]) == (plugin, variant)
    assert f"segmenter: {plugin}, because sam_" in found.sentence and f"is in {weights}" in found.sentence
    named = PluginChoice(plugin, {"variant": variant})
    assert job_of(found, tmp_path) == job_of(named, tmp_path)
    assert job_of(found, tmp_path).fingerprint("0" * 16) == job_of(named, tmp_path).fingerprint("0" * 16)


@pytest.mark.parametrize(
    ("cuda", "with_sam", "plugin", "says"),
    [
        (
            False,
            True,
            "box_fill",
            "box_fill, because its weights are part of synthgen; --segmenter NAME chooses another",
        ),
        (
            False,
            False,
            "box_fill",
            "box_fill, because its weights are part of synthgen; --segmenter NAME chooses another",
        ),
        (True, True, "sam", "is in"),
        (True, False, "box_fill", "because its weights are part of synthgen; `--segmenter sam` downloads"),
    ],
)
def test_the_rank_depends_on_the_device(tmp_path, weights, monkeypatch, cuda, with_sam, plugin, says):
    """A plugin that is quick on a CPU is before SAM there, and after it on CUDA."""
    add_lite(monkeypatch)
    set_cuda(monkeypatch, cuda)
    put(weights, "sam", *(["vit_b"] if with_sam else []))
    found = choose(tmp_path)
    assert found.plugin == plugin and says in found.sentence


def test_a_plugin_whose_file_is_not_there_is_not_chosen(tmp_path, monkeypatch):
    add_lite(monkeypatch, there=False)
    found = choose(tmp_path)
    assert found.plugin == "lite" and "no weights of sam or hq_sam;" in found.sentence


@pytest.mark.parametrize(
    ("device", "variant"), [("cpu", "vit_b"), ("cuda", "vit_h"), ("cuda:1", "vit_h"), ("mps", "vit_b")]
)
def test_the_device_option_decides_before_the_machine(tmp_path, weights, monkeypatch, device, variant):
    put(weights, "sam", "vit_b", "vit_h")
    set_cuda(monkeypatch, device == "cpu")
    assert choose(tmp_path, {"device": device}).options == {"device": device, "variant": variant, "checkpoint": ""}


def test_a_file_of_another_size_is_not_chosen(tmp_path, weights):
    """An interrupted download of the user's own."""
    put(weights, "sam", "vit_h")
    os.truncate(weights / "sam_vit_h_4b8939.pth", 1000)
    (weights / "sam_vit_b_01ec64.pth").mkdir()
    assert choose(tmp_path).plugin == "lite"


@pytest.mark.parametrize(
    ("options", "plugin", "says"),
    [
        ({"variant": "vit_l"}, "sam", "sam_vit_l"),
        ({"zoom": True, "precision": "bf16"}, "sam", "sam_vit_b"),
        ({"hq_token_only": "yes"}, "hq_sam", "sam_hq_vit_b"),
        (
            {"side": "40"},
            "lite",
            "the options given do not fit sam or hq_sam, whose weights are here; --segmenter NAME",
        ),
        ({"variant": "vit_h"}, "lite", "do not fit"),
        ({"checkpoint": "own.pth"}, "lite", "do not fit"),
    ],
)
def test_options_choose_among_the_plugins_that_take_them(tmp_path, weights, options, plugin, says):
    put(weights, "sam", "vit_b", "vit_l")
    put(weights, "hq_sam", "vit_b")
    found = choose(tmp_path, options)
    assert found.plugin == plugin and says in found.sentence
    assert options.items() <= found.options.items()


def test_options_of_weights_that_are_not_here_get_the_hint(tmp_path):
    options = {"variant": "vit_h"}
    with pytest.raises(SynthgenError, match=r"got 'variant'; it is an option of sam and hq_sam: add --segmenter sam$"):
        job_of(choose(tmp_path, options), tmp_path)


def test_a_checkpoint_of_another_segmenter_gets_the_hint(tmp_path):
    (tmp_path / "sam.pth").write_bytes(b"other weights")
    options = {"checkpoint": str(tmp_path / "sam.pth")}
    with pytest.raises(SynthgenError, match=r"or the segmenter of this file with --segmenter$"):
        job_of(choose(tmp_path, options), tmp_path)


def test_a_named_plugin_stays_as_it_is(tmp_path, weights):
    put(weights, "sam", "vit_b")
    begin(job_of(PluginChoice("grabcut", {}), tmp_path))
    specs = [make_spec(tmp_path), make_spec(tmp_path, "val")]
    found = choose_plugins(
        "box-fill",
        {"batch_size": "3"},
        stage="masks",
        specs=specs,
        store=tmp_path / "store",
        layer="masks",
        part=(0, 2),
    )
    assert found == [PluginChoice("box-fill", {"batch_size": "3"})] * 2


# --- layers that are begun ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"side": "40", "threads": "1"}])
def test_a_begun_layer_keeps_its_segmenter_when_weights_appear(tmp_path, weights, options):
    before = job_of(PluginChoice("grabcut", options), tmp_path)
    begin(before)
    put(weights, "sam", "vit_b", "vit_h")
    for again in (options, {}):  # the options of the recipe hold, too
        found = choose(tmp_path, again)
        assert found.sentence == "segmenter: grabcut, as in own/train/masks; another --segmenter needs another --layer"
        assert job_of(found, tmp_path).recipe() == before.recipe()
    assert choose(tmp_path, layer="other").plugin == "sam"


@pytest.mark.parametrize("cuda", [True, False])
def test_a_begun_layer_keeps_its_variant_on_another_device(tmp_path, weights, monkeypatch, cuda):
    put(weights, "sam", "vit_l")
    before = job_of(choose(tmp_path, {"zoom": True}), tmp_path)
    begin(before)
    put(weights, "sam", "vit_b", "vit_h")
    put(weights, "hq_sam", "vit_l")
    set_cuda(monkeypatch, cuda)
    assert job_of(choose(tmp_path), tmp_path).recipe() == before.recipe()
    assert job_of(choose(tmp_path, {"zoom": True, "batch_size": "2"}), tmp_path).recipe() == before.recipe()


def test_other_options_than_those_of_the_layer_stay_another_recipe(tmp_path, weights):
    """Another recipe is refused before any shard, as of a named segmenter."""
    put(weights, "sam", "vit_b", "vit_l")
    before = job_of(choose(tmp_path), tmp_path)
    begin(before)
    for options in ({"zoom": True}, {"variant": "vit_l"}):
        assert job_of(choose(tmp_path, options), tmp_path).recipe() != before.recipe()


def test_a_begun_layer_whose_weights_are_gone_is_a_sentence(tmp_path, weights):
    put(weights, "sam", "vit_l")
    begin(job_of(choose(tmp_path), tmp_path))
    (weights / "sam_vit_l_0b3195.pth").unlink()
    put(weights, "sam", "vit_h")
    with pytest.raises(SynthgenError) as caught:
        choose(tmp_path)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(
        "own/train/masks was made with sam multimask=False precision=fp32 variant=vit_l"
    )
    assert str(caught.value).endswith(
        f"its weights are not in {weights}; `--segmenter sam --variant vit_l` downloads them (1.2 GB), or choose "
        "another --layer"
    )


def test_a_layer_by_a_checkpoint_of_the_user_asks_for_it(tmp_path):
    """With the checkpoint, the choice is the segmenter of the layer."""
    path = str(tiny_sam.checkpoint(tmp_path))
    before = job_of(PluginChoice("sam", {"checkpoint": path}), tmp_path)
    begin(before)
    with pytest.raises(
        SynthgenError, match="name their file with `--segmenter sam --checkpoint FILE`, or choose another"
    ):
        choose(tmp_path)
    assert job_of(choose(tmp_path, {"checkpoint": path}), tmp_path).recipe() == before.recipe()


def test_all_splits_get_the_segmenter_of_the_begun_one(tmp_path, weights):
    specs = [make_spec(tmp_path, split) for split in ("train", "val", "test")]
    begin(job_of(PluginChoice("box_fill", {}), tmp_path, split="val"))
    put(weights, "sam", "vit_b")
    found = choose_plugins(AUTO, {}, stage="masks", specs=specs, store=tmp_path / "store", layer="masks")
    assert [one.plugin for one in found] == ["box_fill"] * 3
    assert {one.sentence.split(";")[0] for one in found} == {"segmenter: box_fill, as in own/val/masks"}
    begin(job_of(PluginChoice("grabcut", {}), tmp_path, split="test"))
    found = choose_plugins(AUTO, {}, stage="masks", specs=specs, store=tmp_path / "store", layer="masks")
    assert [one.plugin for one in found] == ["box_fill", "box_fill", "grabcut"]


def test_parts_of_a_new_layer_need_a_name(tmp_path, weights):
    """Each part is a command of its own, and another machine may have other weights."""
    put(weights, "sam", "vit_b")
    with pytest.raises(SynthgenError, match=r"^--part 1/4 of a new layer .*; add --segmenter sam --variant vit_b$"):
        choose(tmp_path, part=(1, 4))
    begin(job_of(PluginChoice("grabcut", {}), tmp_path))
    assert choose(tmp_path, part=(1, 4)).plugin == "grabcut"


@pytest.mark.parametrize("plugin", ["their_module.segmenter", "_sam_load", "__init__", "../grabcut", "no_such", "auto"])
def test_a_file_does_not_decide_which_module_is_imported(tmp_path, monkeypatch, plugin):
    (tmp_path / "their_module").mkdir()
    (tmp_path / "their_module/segmenter.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    begin(job_of(PluginChoice("grabcut", {}), tmp_path), plugin=plugin)
    with pytest.raises(
        SynthgenError, match=r"is not part of synthgen; add --segmenter \S+ and the options .* to continue it, or"
    ):
        choose(tmp_path)
    assert not {name for name in sys.modules if name.startswith("their_module")}


@pytest.mark.parametrize(
    "options",
    [
        {"side": "80", "margin": [1], "checkpoint": "/etc/passwd"},
        {"side": True, "threads": 10**6, "margin": None},
        {"side": {"deep": 1}, "\x1b[31m": 1},
    ],
)
def test_options_in_a_file_are_taken_only_where_they_are_of_the_plugin(tmp_path, options):
    begin(job_of(PluginChoice("grabcut", {}), tmp_path), options=options)
    found = choose(tmp_path)
    assert (found.plugin, found.options) == ("grabcut", {})


@pytest.mark.parametrize(
    "recipe", [{"stage": "ingest"}, {"stage": "captions"}, {"plugin": None}, {"plugin": ["sam"]}, {"options": None}]
)
def test_a_layer_of_another_kind_decides_nothing(tmp_path, recipe):
    """The job is refused later: its recipe is another one than the layer's."""
    begin(job_of(PluginChoice("box_fill", {}), tmp_path), **recipe)
    assert choose(tmp_path).plugin == "lite"


# --- captioners -----------------------------------------------------------------------------------------------------


def test_a_folder_of_a_captioner_is_chosen(tmp_path, weights):
    folder = put_ofa(weights / "mine")
    found = choose(tmp_path, SMALL, stage="captions")
    assert found == PluginChoice(
        "ofa",
        {**SMALL, "checkpoint": str(folder)},
        f"captioner: ofa, because mine is in {weights}; `hf download florence-community/Florence-2-base --local-dir "
        f"{weights}/florence-2-base` fetches Florence-2's weights",
    )
    named = PluginChoice("ofa", {**SMALL, "checkpoint": str(folder)})
    assert job_of(found, tmp_path, stage="captions") == job_of(named, tmp_path, stage="captions")


def test_florence_2_is_before_ofa(tmp_path, weights):
    put_ofa(weights / "ofa")
    folder = tiny_florence2.write(weights / "florence")
    found = choose(tmp_path, stage="captions")
    assert (found.plugin, found.options) == ("florence2", {"checkpoint": str(folder)})
    assert choose(tmp_path, {**SMALL, "max_length": "9", "groups": "2"}, stage="captions").plugin == "ofa"


def test_an_incomplete_folder_is_not_chosen_and_is_named(tmp_path, weights):
    (put_ofa(weights / "broken") / "vocab.json").unlink()
    found = choose(tmp_path, stage="captions")
    assert found.plugin == "attributes"
    assert f"because {weights}/broken lacks vocab.json" in found.sentence
    put_ofa(weights / "whole")
    assert choose(tmp_path, SMALL, stage="captions").options == {**SMALL, "checkpoint": f"{weights}/whole"}


def test_a_mistake_in_the_options_is_reported_by_the_plugin_that_takes_them(tmp_path, weights):
    """And not taken for a defect of its weights."""
    put(weights, "sam", "vit_b")
    with pytest.raises(SynthgenError, match="--precision fp8 should be fp32 or bf16"):
        job_of(choose(tmp_path, {"precision": "fp8"}), tmp_path)


def test_a_begun_layer_finds_its_folder_under_another_name(tmp_path, weights):
    put_ofa(weights / "one")
    before = job_of(choose(tmp_path, SMALL, stage="captions"), tmp_path, stage="captions")
    begin(before)
    (weights / "one").rename(weights / "zero")
    other = {name: 2 * tensor for name, tensor in tiny_ofa.text_generating_weights().items()}
    tiny_ofa.checkpoint(put_ofa(weights / "another"), other)
    found = choose(tmp_path, stage="captions")  # its side of images is in the recipe
    assert found.options["checkpoint"] == f"{weights}/zero"
    assert job_of(found, tmp_path, stage="captions").recipe() == before.recipe()
    (weights / "zero/pytorch_model.bin").unlink()
    with pytest.raises(
        SynthgenError,
        match="name their folder with `--captioner ofa --checkpoint FOLDER`, together with -O side=96, or",
    ):
        choose(tmp_path, stage="captions")


def test_without_weights_pytorch_is_not_imported(tmp_path):
    code = (
        "import sys; from pathlib import Path; from synthgen.generate.auto_choice import choose_plugins\n"
        "choose_plugins('auto', {}, stage='captions', specs=[], store=Path('store'), layer='captions')\n"
        "print(*[name for name in ('torch', 'transformers', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == ""
