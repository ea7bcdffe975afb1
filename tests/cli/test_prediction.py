"""`synthgen predict` for folders: which arguments are images, exit codes, the same bytes as the Python API."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import eval_dataset

import synthgen as sg
from synthgen.cli.prediction import PredictTask, sort_arguments
from synthgen.errors import SynthgenError

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = ("--checkpoint", "best.pt", "--device", "cpu", "--short", "64", "--long", "96")

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def synthgen(synthgen: Command, tmp_path: Path) -> Command:
    eval_dataset.write_eval_dataset(tmp_path, images=2)
    eval_dataset.write_checkpoint(tmp_path / "best.pt")
    return synthgen


def test_arguments_are_sorted_by_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "cup"):
        Path(name).mkdir()
    for name in ("photos/1.png", "photos/2.JPG", "ball", "x.txt"):
        Path(name).write_text("x")
    places, prompts = sort_arguments(
        Path("photos/1.png"), ["left horse", "photos/2.JPG", " cup", " ball", "cup/", "\ud800", "cat/dog", " /m"]
    )
    assert places == [Path("photos/1.png"), Path("photos/2.JPG"), Path("cup")]
    assert prompts == ["left horse", " cup", " ball", "\ud800", "cat/dog", " /m"]
    for text, sentence in (
        ("cup", r"'cup' is a folder; write cup/ to predict in it, or begin it with a blank"),
        ("ball", r"'ball' is a file without the suffix of an image; begin it with a blank"),
        ("photos/9.png", r"no image file 'photos/9\.png'; check its name, or begin it with a blank"),
        ("tset/", r"no folder or image 'tset/'; check its name, or begin it with a blank, if it is a prompt"),
        ("/tset", r"no folder or image '/tset'"),
        ("./tset", r"no folder or image '\./tset'"),
        ("../tset", r"no folder or image '\.\./tset'"),
        ("~/tset", r"no folder or image '~/tset'"),
    ):
        with pytest.raises(SynthgenError, match=sentence):
            sort_arguments(Path("photos"), [text])


def test_a_folder_is_predicted_as_from_python(synthgen: Command) -> None:
    code, told = synthgen("predict", "photos", "ball", "a red ball", *OPTIONS, "--batch-size", "2", "--min-score", ".3")
    assert code == 0 and re.search(r"^2 images, \d+ objects$", told, re.M) and "objects found: " in told, told
    report = sg.predict_folder(
        "photos", "best.pt", ["ball", "a red ball"], batch_size=2, min_score=0.3, out="api", device="cpu", short=64,
        long=96,
    )  # fmt: skip
    for name in ("predictions.json", "predict_report.json"):
        assert (Path("predictions") / name).read_bytes() == (Path("api") / name).read_bytes()
    assert report.objects > 3 and f"2 images, {report.objects} objects" in told


def test_several_images_and_a_task_are_one_result(synthgen: Command) -> None:
    code, told = synthgen("predict", "photos/1.png", "photos/2.png", *OPTIONS, "--max-detections", "3")
    assert code == 0 and "2 images, 6 objects" in told
    code, told = synthgen("predict", "photos/1.png", *OPTIONS, "--task", "panoptic", "--pictures", "--color-by",
                          "query", "--stuff", "sky", "--stuff", "grass", "--out", "one")  # fmt: skip
    assert code == 0 and "1 image, " in told and "% by conditional queries" in told, told
    assert sorted(str(path.relative_to("one")) for path in Path("one").rglob("*.*")) == [
        "panoptic_predictions.json", "panoptic_predictions/1.png", "pictures/1.png.found.png", "predict_report.json",
    ]  # fmt: skip
    assert json.loads(Path("one/panoptic_predictions.json").read_text())["categories"][2]["isthing"] == 0


def test_an_unreadable_image_ends_with_1_and_wrong_input_with_2(synthgen: Command) -> None:
    Path("photos/bad.png").write_text("no image")
    Path("photos/notes.txt").write_text("mine")
    code, told = synthgen("predict", "photos", *OPTIONS)
    assert code == 1 and "1 image could not be read:" in told and "  bad.png: " in told and "notes.txt" in told, told
    Path("empty").mkdir()
    for words, sentence in (
        (("empty",), "no image files in empty"),
        (("photos", "--annotations", "none.json"), "no file none.json"),
        (("photos", "--task", "captioning"), "captioning"),
        (("none", "--task", "instance"), "no file or folder none"),
        (("photos", "--task", "panoptic", "--min-score", "0"), "the task panoptic takes no --min-score"),
        (("photos", "--task", "semantic", "--max-detections", "5"), "the task semantic takes no --max-detections"),
        (("photos/1.png", "photos/3.png"), "no image file 'photos/3.png'"),
    ):
        code, told = synthgen("predict", *words, *OPTIONS, "--out", "other")
        assert code == 2 and sentence in told and not Path("other").exists(), told


def test_without_any_image_that_can_be_read_the_command_ends_with_1(synthgen: Command) -> None:
    Path("photos/bad.png").write_text("no image")
    code, told = synthgen("predict", "photos/bad.png", "--task", "instance", *OPTIONS)
    assert code == 1 and not Path("predictions").exists(), told
    code, told = synthgen("predict", "photos/bad.png", *OPTIONS)
    assert code == 2, told
    _, told = synthgen("predict", "--help")
    assert "exit code is 1" in " ".join(told.split()) and "with one photograph it is 2" in " ".join(told.split()), told


def test_one_photograph_shows_the_shares_only_if_it_is_coloured_by_query(synthgen: Command) -> None:
    code, told = synthgen("predict", "photos/1.png", *OPTIONS)
    assert code == 0 and "conditional" not in told
    code, told = synthgen("predict", "photos/1.png", *OPTIONS, "--color-by", "query", "--threshold", "0.3")
    assert code == 0 and "objects found: " in told, told
    found = json.loads(Path("predictions/1.png.found.json").read_text())["found"]
    share = 100 * sum(one["query"] == "conditional" for one in found) / len(found)
    assert f"objects found: {share:.1f} % by conditional queries" in told and f", of {len(found)}" in told
    assert not Path("predictions/predictions.json").exists()


def test_the_help_has_the_tasks_of_the_api() -> None:
    from synthgen.api.prediction import TASKS

    assert [one.value for one in PredictTask] == list(TASKS)


_SLOW_NETWORK = """
import sys, time
from pathlib import Path
from synthgen.evaluation import network_predictor
real, calls = network_predictor.predict_images, []
def slow(*args, **options):
    calls.append(1)
    if len(calls) == 2:
        Path("ready").touch()
        time.sleep(60)
    return real(*args, **options)
network_predictor.predict_images = slow
from synthgen.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_no_files(tmp_path: Path, number: signal.Signals) -> None:
    eval_dataset.write_eval_dataset(tmp_path, images=3)
    eval_dataset.write_checkpoint(tmp_path / "best.pt")
    words = ("predict", "photos", *OPTIONS, "--task", "semantic", "--pictures")
    process = subprocess.Popen([sys.executable, "-c", _SLOW_NETWORK, *words], cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "ready").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert b"keeps nothing of an unfinished run" in told and b"committed" not in told
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "predictions").exists()
