"""`train` and `evaluate`: the run of the commands, as data; wrong arguments; a missing extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import eval_dataset, training_runs

import synthgen as sg
from synthgen.errors import ArgumentError, SynthgenError
from synthgen.evaluation.results import load_results


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNTHGEN_STORE", raising=False)


def test_a_run_is_resumed_and_is_that_of_the_command(
    synthgen: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = training_runs.write_manifest(tmp_path, "steps: 3, checkpoint_every: 3")
    done = sg.train(manifest, out="called", device="cpu")
    assert capsys.readouterr().out == ""
    assert done.new_steps == 3 and done.is_rank0
    assert done.last_checkpoint == Path("called/step-00000003.pt") and done.last_checkpoint.is_file()
    assert sg.train(str(manifest), out=Path("called"), device="cpu").new_steps == 0
    assert synthgen("train", "--manifest", manifest.name, "--out", "typed", "--device", "cpu")[0] == 0
    assert training_runs.read_log(Path("called")) == training_runs.read_log(Path("typed"))
    assert done.last_checkpoint.read_bytes() == Path("typed/step-00000003.pt").read_bytes()


def test_an_evaluation_is_that_of_the_command(synthgen: Any, tmp_path: Path) -> None:
    layer = eval_dataset.write_eval_dataset(tmp_path, images=1)
    eval_dataset.write_checkpoint(tmp_path / "best.pt")
    Path("m.yaml").write_text(
        f"name: m\nstore: store\neval: [{{shards: {layer}, task: instance, images: photos}}]\neval_size: [64, 96]\n"
    )
    done = sg.evaluate("best.pt", "m.yaml", out="called.json", device="cpu", loader_workers=0)
    assert done.path == Path("called.json")
    assert load_results(done.path)[0] == list(done.layers)
    assert [(one.source, one.metric, one.images) for one in done.layers] == [(layer, "AP", 1)]
    flags = ("--checkpoint", "best.pt", "--manifest", "m.yaml", "--device", "cpu", "--loader-workers", "0")
    assert synthgen("evaluate", *flags, "--out", "typed.json")[0] == 0
    assert Path("typed.json").read_bytes() == done.path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"manifest": "none.yaml"}, SynthgenError, r"none\.yaml"),
        ({"manifest": None}, ArgumentError, r"manifest is None"),
        ({"engine": "torchrun"}, ArgumentError, r"engine='torchrun' is not valid; give 'local' or 'ray'"),
        ({"loader_workers": -1}, ArgumentError, r"loader_workers=-1 is not valid"),
        ({"workers": 2}, SynthgenError, r"--workers needs Ray"),
        ({"device": 3}, SynthgenError, r"--device 3 should be auto, cpu"),
        ({"progress": 1.5}, ArgumentError, r"progress=1\.5 is not valid"),
        ({"out": 3}, ArgumentError, r"out=3 is not a path"),
    ],
)
def test_each_wrong_argument_of_train_has_its_sentence(arguments: dict[str, Any], error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        sg.train(**{"manifest": "m.yaml", **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"precision": "fp16"}, SynthgenError, r"--precision fp16 should be fp32 or bf16"),
        ({"device": "tpu"}, SynthgenError, r"--device tpu should be auto, cpu"),
        ({"batch_size": 0}, ArgumentError, r"batch_size=0 is not valid"),
        ({"batch_size": "auto"}, ArgumentError, r"batch_size='auto' is not valid"),
        ({"loader_workers": None}, ArgumentError, r"loader_workers=None is not valid"),
        ({"text_encoder": 3}, ArgumentError, r"text_encoder=3 is not a path"),
        ({"short": 0}, ArgumentError, r"short=0 is not valid"),
        ({"checkpoint": 3}, ArgumentError, r"checkpoint=3 is not a path"),
    ],
)
def test_each_wrong_argument_of_evaluate_has_its_sentence(
    arguments: dict[str, Any], error: type, sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        sg.evaluate(**{"checkpoint": "best.pt", "manifest": "m.yaml", **arguments})


#: In a process of its own: modules that are imported anew would differ from those of other tests.
WITHOUT_PYDANTIC = """
import sys

class WithoutPydantic:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pydantic":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, WithoutPydantic())
import synthgen as sg
try:
    sg.train("m.yaml")
except sg.SynthgenError as why:
    print(why)
"""


def test_a_missing_extra_is_named_with_the_command() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PYDANTIC], capture_output=True, text=True)
    assert done.stdout.startswith("`synthgen train` needs the package pydantic; install it: pip install"), done.stderr
