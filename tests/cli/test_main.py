"""The command line as a whole: exit codes, one error message per mistake with the remedy, the environment."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from fakes import coco_dataset
from fakes.command_result import CommandResult


@pytest.fixture
def synthgen(typed):
    return lambda *words: CommandResult(*typed(*words))


OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("masks", *OWN, "--name", LONG), r"'x+' cannot name a dataset, split or layer; use at most 200 letters"),
        (("masks", *OWN, "--layer", LONG), r"use at most 200 letters"),
        (("masks", *OWN, "--store", LONG), r"cannot use x+\S* \(File name too long\); choose a shorter name"),
        (("ingest", *OWN, "--store", LONG), r"x+\S* \(File name too long\)"),
        (("masks", "--dataset", "coco-json", "--annotations", LONG), r"cannot use x+ \(File name too long\)"),
        (("masks", *OWN[:4], "--images", LONG), r"cannot use x+ \(File name too long\)"),
        (("doctor", *OWN[:4], "--images", LONG), r"cannot use x+ \(File name too long\)"),
        (("status", "--store", LONG), r"cannot use x+ \(File name too long\)"),
        (("show", "boxes/train/masks", "--store", LONG), r"cannot use x+\S* \(File name too long\)"),
        (("show", f"boxes/train/{LONG}"), r"'x+' cannot name a dataset, split or layer"),
    ],
)
def test_names_too_long_for_any_file_system(synthgen, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    told = synthgen(*words)
    assert told.code == 2, (told.out, told.err)
    assert re.search(sentence, told.err), told.err
    assert len(told.err.strip().splitlines()) == 1, told.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("masks", "--dataset", "objcts365"), r"no dataset named 'objcts365'; did you mean 'objects365'\?"),
        (("masks", "--dataset", "coco-json"), r"coco-json needs --annotations"),
        (("masks", "--dataset", "coco-json", "--annotations", "nope.json"), r"no file nope.json"),
        (("masks", "--dataset", "coco", "--split", "train"), r"coco has no split 'train' \(have: train2017, val2017, "),
        (("masks", "--dataset", "coco"), r"no instances_train2017.json in data/coco"),
        (("masks", *OWN, "--segmenter", "grabcutt"), r"no segmenter named 'grabcutt'; did you mean 'grabcut'\?"),
        (("masks", *OWN, "--segmenter", "no.such.module"), r"no module 'no.such.module'"),
        (("masks", *OWN, "-O", "sharpness=3"), r"'lite' takes .*; got 'sharpness'"),
        (("masks", *OWN, "-O", "box_chunk=many"), r"option 'box_chunk' of 'lite' should be a whole number"),
        (("masks", *OWN, "--segmenter", "grabcut", "-O", "side=0"), r"option 'side' of 'grabcut' should be from 8"),
        (
            ("masks", *OWN, "--segmenter", "grabcut", "-O", "margin=nan"),
            r"option 'margin' of 'grabcut' should be from 0 to 100",
        ),
        (("masks", "--dataset", "os.path"), r"module 'os.path' has no SPLITS and is no dataset"),
        (("masks", *OWN, "-O", "batch_size"), r"-O batch_size should be KEY=VALUE"),
        (("masks", *OWN, "--part", "3/3"), r"--part 3/3 should be I/N"),
        (("masks", *OWN, "--part", "x"), r"--part x should be I/N"),
        (("masks", *OWN, "--workers", "2"), r"--workers 2 needs Ray"),
        (("masks", *OWN, "--layer", "../up"), r"'../up' cannot name a dataset, split or layer"),
        (("masks", *OWN, "--name", "a/b"), r"'a/b' cannot name"),
        (("masks", *OWN, "--layer", "annotations"), r"the layer 'annotations' is what the job reads"),
        (("masks", *OWN, "--layer", "human"), r"'human' is made from boxes's own files; .*, such as masks$"),
        (("masks", *OWN, "--reads", "masks"), r"'masks' is what the job reads; .*such as masks-2"),
        (("masks", *OWN, "--reads", "captions"), r"has no shards"),
        (("masks", *OWN[:4], "--images", "nowhere"), r"no folder nowhere .*--images"),
        (("ingest", *OWN, "--layer", "regions"), r"boxes has no layer 'regions' of its own"),
        (("show", "boxes/train/masks"), r"no layer 'boxes/train/masks' in shards"),
        (("show", "boxes"), r"name one as DATASET/SPLIT/LAYER"),
        (("doctor", *OWN, "--check-images", "some"), r"--check-images"),
    ],
)
def test_each_mistake_has_its_sentence(synthgen, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    told = synthgen(*words)
    assert told.code == 2, (told.out, told.err)
    assert re.search(sentence, told.err), told.err
    assert len(told.err.strip().splitlines()) == 1, told.err
    assert "Traceback" not in told.err
    assert not list(tmp_path.rglob("masks/*.parquet"))


def test_version_and_help(synthgen) -> None:
    assert re.fullmatch(r"synthgen \d+\.\d+\.\d+\n", synthgen("--version").out)
    for command in ("ingest", "doctor", "masks", "captions", "status", "show", "demo"):
        told = synthgen(command, "--help")
        assert told.code == 0
        assert len(told.out) > 200
        assert r"\b" not in told.out  # click's mark is the character, not its spelling


def test_names_from_a_file_do_not_steer_the_terminal(synthgen, tmp_path: Path) -> None:
    evil = "\x1b[31mred\x07.png"
    image = {"id": 1, "file_name": evil, "height": 72, "width": 96}
    records = {"images": [image], "annotations": [], "categories": []}
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    (tmp_path / "photos").mkdir()
    for words in (("masks", *OWN, "--max-error-share", "1"), ("masks", *OWN, "--layer", "b"), ("doctor", *OWN)):
        told = synthgen(*words)
        assert "\x1b" not in told.out + told.err
        assert "\x07" not in told.out + told.err
    told = synthgen("status", "--failures")
    assert "\\x1b[31mred\\x07.png" in told.out


@pytest.mark.parametrize(("said", "waits"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_wait_busily(synthgen, monkeypatch, said, waits) -> None:
    """Beside any other process a step takes twenty times as long where they do."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if said:
        monkeypatch.setenv("OMP_WAIT_POLICY", said)
    synthgen("--version")
    assert os.environ["OMP_WAIT_POLICY"] == waits
