"""`masks` and `captions` without a named plugin: the first line, the bytes, resumed runs, the note after the job."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import coco_dataset, tiny_sam
from fakes.command_result import CommandResult

from synthgen.generate.engine import run_in_process
from synthgen.generate.job import Job
from synthgen.generate.segmenters import _sam_weights
from synthgen.generate.worker import ShardReport
from synthgen.storage.shard_store import Shard
from synthgen.weights import PublishedFile

OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")
ROOT = Path(__file__).parents[2]

#: The tiny SAM's name of its size.
TINY = "vit 64x4"


@pytest.fixture
def synthgen(typed, tmp_path, monkeypatch):
    """A command without a network."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    coco_dataset.write_coco_dataset(tmp_path, images=4)
    return lambda *words: CommandResult(*typed(*words))


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """`publish()`: a tiny SAM as published weights in the folder of weights."""

    def do() -> Path:
        path = tiny_sam.checkpoint(tmp_path / "weights")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        published = PublishedFile(f"https://example.org/{path.name}", path.stat().st_size, digest)
        monkeypatch.setitem(_sam_weights.PUBLISHED_WEIGHTS, TINY, published)
        return path

    return do


def layer_bytes(folder: Path, layer: str = "masks") -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (folder / "boxes/train" / layer).glob("*.parquet")}
    assert found
    return found


@pytest.mark.parametrize("command", ["masks", "captions"])
def test_the_first_line_names_the_choice_and_how_to_change_it(synthgen, tmp_path, command):
    """A dry run says the same."""
    dry = synthgen(command, *OWN, "--dry-run").out.splitlines()
    done = synthgen(command, *OWN)
    assert done.code == 0, done.text
    first, *rest = done.out.splitlines()
    assert dry[0] == first
    begin, change = {
        "masks": ("segmenter: lite, because its weights come with synthgen", "; --segmenter NAME chooses another"),
        "captions": (f"captioner: attributes, because {tmp_path}/weights has no weights of ", "; `hf download "),
    }[command]
    assert first.startswith(begin) and change in first
    assert not any(line.startswith(begin) for line in rest)


def test_a_named_segmenter_is_not_announced(synthgen):
    done = synthgen("masks", *OWN, "--segmenter", "box_fill")
    assert done.code == 0 and "segmenter:" not in done.text


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (("masks", "--segmenter", "grabcut"), "note: grabcut's masks have a mean IoU of 0.68 with people's masks"),
        (("masks", "--segmenter", "box_fill"), "note: box_fill's masks are the boxes, with a mean IoU of 0.56"),
        (("captions",), "note: attributes says only category, colour, size and place; 30 % of 1,503 objects"),
    ],
)
def test_after_the_job_one_line_says_what_it_is_worth(synthgen, words, note):
    done = synthgen(*words, *OWN)
    lines = done.out.splitlines()
    assert (done.code, lines[-2][:5], lines[-1][:5]) == (0, "next:", "next:")
    assert lines[-3].startswith(note) and done.out.count("note: ") == 1
    assert "--segmenter sam" in lines[-3] or "--captioner florence2" in lines[-3]
    assert "note:" not in synthgen(*words, *OWN, "--layer", "other", "--dry-run").out


def test_the_bytes_are_those_of_the_default_that_is_named(synthgen, tmp_path):
    for store, words in (("one", ()), ("two", ("--segmenter", "lite"))):
        assert synthgen("masks", *OWN, *words, "--store", store).code == 0
    for store, words in (("one", ()), ("two", ("--captioner", "attributes"))):
        assert synthgen("captions", *OWN, *words, "--store", store).code == 0
    for layer in ("masks", "captions"):
        assert layer_bytes(tmp_path / "one", layer) == layer_bytes(tmp_path / "two", layer)


@pytest.mark.usefixtures("one_thread")
def test_weights_that_are_here_are_used_without_a_network(synthgen, publish, tmp_path):
    """The same bytes as with the segmenter and its variant named; what it writes says nothing of a choice."""
    path = publish()
    only_sam = ("--device", "cpu", "--multimask")  # `lite` has no such option, and is chosen on a CPU otherwise
    done = synthgen("masks", *OWN, *only_sam, "--store", "one")
    assert done.code == 0, done.text
    assert done.out.startswith(f"segmenter: sam, because {path.name} is in {path.parent}; --segmenter NAME chooses")
    named = ("--segmenter", "sam", "--variant", TINY, *only_sam, "--store", "two")
    assert synthgen("masks", *OWN, *named).code == 0
    assert layer_bytes(tmp_path / "one") == layer_bytes(tmp_path / "two")
    assert "note:" not in done.out


def test_auto_resumes_with_the_segmenter_of_the_layer(synthgen, publish, tmp_path):
    """Also where it would choose another one today."""
    for store in ("shards", "calm"):
        synthgen("ingest", *OWN, "--shard-size", "2", "--store", store)
    begun = ("--segmenter", "grabcut")
    assert synthgen("masks", *OWN, *begun, "--store", "calm").code == 0
    assert synthgen("masks", *OWN, *begun, "--limit", "1").code == 0
    publish()
    done = synthgen("masks", *OWN)
    assert done.code == 0, done.text
    assert done.out.startswith(
        "segmenter: grabcut, as in boxes/train/masks; another --segmenter needs another --layer\n"
    )
    assert "boxes/train/masks: 1 of 2 shards to do" in done.out
    assert layer_bytes(tmp_path / "shards") == layer_bytes(tmp_path / "calm")


def test_weights_that_are_gone_are_exit_code_2(synthgen, publish, tmp_path):
    path = publish()
    assert synthgen("masks", *OWN, "--device", "cpu", "--multimask").code == 0
    path.unlink()
    told = synthgen("masks", *OWN)
    assert (told.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert f"`--segmenter sam --variant {TINY}` downloads them" in told.err


def test_workers_of_a_cluster_get_the_plugin_that_was_chosen(synthgen, monkeypatch):
    """The engine gets a job as if the segmenter was named; nothing is left to choose."""
    ray_engine = pytest.importorskip("synthgen.cluster.ray_engine")
    jobs: list[Job] = []

    def run(job: Job, shards: Sequence[Shard], *, on_images: Any = None, **_: object) -> Iterator[ShardReport]:
        jobs.append(job)
        return run_in_process(job, shards, on_images=on_images)

    monkeypatch.setattr(ray_engine, "run_on_cluster", run)
    done = synthgen("masks", *OWN, "--engine", "ray")
    assert done.code == 0 and done.out.startswith("segmenter: lite, because "), done.text
    assert synthgen("captions", *OWN, "--engine", "ray").code == 0
    assert [job.plugin for job in jobs] == ["lite", "attributes"]
    assert "auto" not in str([job.recipe() for job in jobs])


@pytest.mark.parametrize("command", ["masks", "captions"])
def test_the_help_names_the_default_and_loads_no_weights_module(command, tmp_path):
    code = (
        "import sys; from synthgen.cli.main import main\n"
        f"sys.argv = ['synthgen', {command!r}, '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *[m for m in sys.modules if m.endswith('_weights') or m.split('.')[0] in "
        "('torch', 'numpy', 'cv2', 'transformers', 'pyarrow')])"
    )
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "LOADED"
    text = " ".join(" ".join(lines).split())
    flag = {"masks": "--segmenter", "captions": "--captioner"}[command]
    assert re.search(rf"{flag} <?\w+>? auto \(that of the layer if it is begun, else .*\[default: auto\]", text), text
