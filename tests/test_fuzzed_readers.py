"""Every reader of files from strangers answers, or refuses in one sentence, whatever 500 mutations make of its files.

By hand, with 20,000: python benchmarks/fuzz.py
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import fuzz_runner
from fakes.fuzz_mutators import MAX_LENGTH, mutator_for
from fakes.fuzz_runner import FuzzTarget, WrongAnswerError, fuzz

from synthgen import plugins
from synthgen.errors import SynthgenError

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the fuzzer measures memory as Linux shows it"
)

ROOT = Path(__file__).parents[1]
INPUTS = 500

#: Names in the table of results; `test_no_reader_of_datasets_is_left_out` checks the first part.
READERS = (
    *("coco", "lvis", "objects365", "dataseg_objects365", "visual_genome", "refcoco", "refcoco_pickle"),
    *("coco_panoptic", "ade20k", "ade20k_full", "foreground", "semantic_folder", "doctor", "rle"),
    *("ade20k_instance", "ade20k_panoptic", "bdd100k_panoptic", "pascal_context_59", "pascal_context_459"),
    *("yolo", "openimages", "dota"),
    *("voc", "labelme", "cvat", "via", "via_csv", "label_studio"),
    *("webdataset", "hf", "hf_parquet", "hf_arrow", "tar_images", "parquet_images", "arrow_images"),
    *("image_png", "image_jpeg", "image_tiff", "image_webp", "image_bmp", "image_others"),
    *("weights_bin", "weights_pt", "weights_safetensors", "lite_weights", "checkpoint", "ofa_folder", "ofa_tokenizer"),
    *("text_encoder", "florence2", "shards", "manifest", "exclude_list", "run_json", "run_folder"),
)

#: Readers that share the code of another one.
COVERED = {"refcoco_plus": "refcoco", "refcocog": "refcoco", "coco_json": "coco"}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The reports by reader, from a process of its own: it forks, which a process with threads should not."""
    out = tmp_path_factory.mktemp("fuzz") / "reports.json"
    command = [sys.executable, "benchmarks/fuzz.py", "--inputs", str(INPUTS), "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert out.exists(), done.stderr[-2_000:]
    return {report["name"]: report for report in json.loads(out.read_text())}


@pytest.mark.slow
@pytest.mark.timeout(2_400)  # the first of them waits for all readers
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_answers_or_refuses_in_one_sentence(reports: dict[str, dict[str, Any]], reader: str) -> None:
    report = reports[reader]
    assert not report["findings"], json.dumps(report["findings"], indent=1)[:5_000]
    assert report["inputs"] == INPUTS == report["accepted"] + report["refused"]
    # Mutants that get through are the ones that go deep. Of files that checksums protect, only the valid ones do.
    assert report["accepted"] >= (5 if reader == "shards" else 15)
    # Where a bad file is an image with an error, nothing is refused.
    rows = (
        "foreground",
        *(name for name in READERS if name.startswith(("ade20k", "bdd100k", "pascal"))),
        "voc",
        "labelme",
    )
    assert report["refused"] >= 1 or reader in rows or reader.endswith("_images")


@pytest.mark.slow
def test_all_targets_are_checked(reports: dict[str, dict[str, Any]]) -> None:
    assert set(reports) == set(READERS)


def test_no_reader_of_datasets_is_left_out() -> None:
    known = {plugins.normalize_name(name) for name in plugins.list_plugins("formats.readers")}
    assert known - set(READERS) == set(COVERED)


# --- the fuzzer finds what it looks for ------------------------------------------------------------------------------


def target(read: Callable[[Path], Any]) -> FuzzTarget:
    return FuzzTarget("bad", lambda _: [{"x.json": b'{"a": 1, "b": [2, 3]}'}], read)


def only_valid(folder: Path) -> str:
    """Accepts the valid file, and refuses others."""
    text = (folder / "x.json").read_bytes() if (folder / "x.json").exists() else b""
    if text != b'{"a": 1, "b": [2, 3]}':
        raise SynthgenError("not the valid file; take that one")
    return "valid"


def misbehave(do: Callable[[Path], Any]) -> Callable[[Path], str]:
    """Accepts the valid file, and does something else with others."""

    def read(folder: Path) -> str:
        try:
            return only_valid(folder)
        except SynthgenError:
            do(folder)
        return "another"

    return read


def hold_memory(folder: Path) -> None:
    bytearray(b"x" * 2**21) * 600


def spin(folder: Path) -> None:
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass


def too_long(folder: Path) -> None:
    raise SynthgenError("a sentence " * 200)


def wrong(folder: Path) -> None:
    raise WrongAnswerError("7 is not 8")


@pytest.mark.parametrize(
    ("do", "cause"),
    [
        (lambda folder: {}["x"], "KeyError at test_fuzzed_readers.py"),
        (lambda folder: sys.exit(0), "SystemExit at"),
        (lambda folder: ctypes.string_at(1), "process died: SIGSEGV"),
        (lambda folder: os.abort(), "process died: SIGABRT"),
        (lambda folder: os._exit(7), "process died: exit 7"),
        pytest.param(lambda folder: time.sleep(90), "hang", marks=pytest.mark.slow),
        (spin, "slow"),
        (hold_memory, "memory"),
        (lambda folder: bytearray(2**45), "MemoryError at"),
        (lambda folder: Path("/tmp/fuzz-trespass").write_text("x"), "trespass: open /tmp/fuzz-trespass"),
        (lambda folder: Path("/tmp/fuzz-trespass").mkdir(exist_ok=True), "trespass: os.mkdir /tmp/fuzz-trespass"),
        (lambda folder: subprocess.run(["true"]), "trespass: subprocess.Popen"),
        (lambda folder: Path("canary").touch(), "a payload was executed"),
        (too_long, "not one sentence"),
        (wrong, "wrong answer: 7 is not 8"),
    ],
)  # fmt: skip
def test_a_bad_reader_is_found_and_the_next_inputs_are_run(
    monkeypatch: pytest.MonkeyPatch, do: Callable[[Path], Any], cause: str
) -> None:
    monkeypatch.setattr(fuzz_runner, "MAX_SECONDS", 0.2)
    monkeypatch.setattr(fuzz_runner, "_MAX_SILENCE", 5.0 if cause == "hang" else 60.0)
    report = fuzz(target(misbehave(do)), inputs=3)
    found = [finding for finding in report.findings.values() if finding.cause.startswith(cause)]
    assert len(found) == len(report.findings) == 1, report.findings
    assert (report.inputs, report.accepted, found[0].count) == (3, 1, 2)
    assert found[0].numbers == [1, 2]
    trespass = Path("/tmp/fuzz-trespass")
    if trespass.is_dir():
        trespass.rmdir()
    trespass.unlink(missing_ok=True)


def test_a_good_reader_has_no_findings() -> None:
    report = fuzz(target(only_valid), inputs=200)
    assert report.inputs == 200 == report.accepted + report.refused
    assert not report.findings and 1 <= report.accepted < 60


def test_an_undocumented_value_error_is_a_finding_and_a_documented_one_is_not() -> None:
    def read(folder: Path) -> str:
        try:
            return only_valid(folder)
        except SynthgenError:
            return str(json.loads(b"{"))

    lenient = FuzzTarget("bad", target(read).make_seeds, read, refusals=(ValueError,))
    assert [finding.count for finding in fuzz(lenient, inputs=3).findings.values()] == [2]


def test_an_accepted_change_of_a_protected_file_is_a_finding() -> None:
    read = misbehave(lambda folder: None)
    assert not fuzz(target(read), inputs=5).findings
    protected = FuzzTarget("bad", target(read).make_seeds, read, protected=True)
    (finding,) = fuzz(protected, inputs=5).findings.values()
    assert finding.cause == "another answer to a damaged file"


def test_a_valid_file_that_is_refused_stops_the_run() -> None:
    with pytest.raises(RuntimeError, match="a valid input was not accepted"):
        fuzz(target(too_long), inputs=3)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["x.json", "x.p", "x.bin", "x.safetensors", "x.png", "x.txt", "x.jpg"])
def test_mutants_are_reproducible_bounded_and_mostly_other_files(name: str) -> None:
    seeds = fuzz_seeds()
    mutate, data = mutator_for(name), seeds[name]
    made = [mutate(data, random.Random(i)) for i in range(300)]
    assert made == [mutate(data, random.Random(i)) for i in range(300)]
    assert all(len(one) <= MAX_LENGTH for one in made)
    assert sum(one != data for one in made) > 250
    assert len(set(made)) > 150


def fuzz_seeds() -> dict[str, bytes]:
    """A small file for each kind of mutator."""
    import io
    import pickle
    import struct
    import zipfile

    from PIL import Image

    out, png = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": [1, 2]}))
        archive.writestr("archive/data/0", bytes(range(64)))
    Image.effect_noise((9, 7), 50).save(png, "PNG")
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    return {
        "x.json": b'{"images": [{"id": 1, "name": "a"}], "n": 2.5, "flags": [true, null]}',
        "x.p": pickle.dumps([{"a": 1, "b": ["x", 2.5]}] * 3),
        "x.bin": out.getvalue(),
        "x.safetensors": struct.pack("<Q", len(header)) + header + bytes(8),
        "x.png": png.getvalue(),
        "x.txt": b"name: x\nmixture:\n  - {shards: a/b/c, ratio: 1.5}\n",
        "x.jpg": bytes(range(256)),
    }
