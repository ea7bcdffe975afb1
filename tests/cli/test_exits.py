"""How the program ends where a plugin hangs: at once, with the code of the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import coco_dataset
from PIL import Image

from synthgen.cli import exits

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parents[1]))),
}


@pytest.fixture
def ended(monkeypatch):
    """The codes of `os._exit`, which a test cannot survive."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        (None, 0, ""),
        (SystemExit(), 0, ""),
        (SystemExit(0), 0, ""),
        (SystemExit(1), 1, ""),
        (SystemExit(130), 130, ""),
        (SystemExit(143), 143, ""),
        (SystemExit("no"), 1, "no\n"),
        (ValueError("x"), 1, "ValueError: x\n"),
    ],
)
def test_beside_a_running_batch_the_process_ends_at_once_with_its_code(monkeypatch, ended, capsys, end, code, told):
    def program() -> None:
        if end is not None:
            raise end

    monkeypatch.setattr(exits, "_is_batch_running", lambda: True)
    exits.end_despite_running_batches(program)()
    assert ended == [code]
    assert capsys.readouterr().err.endswith(told)


def test_else_it_ends_as_ever(ended):
    def program(number: int, *, end: BaseException | None = None) -> None:
        seen.append(number)
        if end:
            raise end

    seen: list[int] = []
    run = exits.end_despite_running_batches(program)
    run(1)
    for end in (SystemExit(3), KeyboardInterrupt(), ValueError()):
        with pytest.raises(type(end)):
            run(2, end=end)
    assert (seen, ended) == ([1, 2, 2, 2], [])


def start(folder: Path, wrong: str, *words: str, command: str = "masks", images: int = 16) -> subprocess.Popen[str]:
    """A run in batches of 4 and shards of 16, whose plugin misbehaves on image 6."""
    coco_dataset.write_coco_dataset(folder, images=images)
    path = folder / "photos/0006.png"
    picture = Image.open(path)
    picture.putpixel((0, 0), (255, 0, 0))
    picture.save(path)
    plugin = {"masks": "--segmenter=fakes.misbehaving_segmenter", "captions": "--captioner=fakes.misbehaving_captioner"}
    own = ["--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos", plugin[command]]
    return subprocess.Popen(
        [sys.executable, "-m", "synthgen", command, *own, "-O", f"wrong={wrong}", "-O", "checkpoint=cured", *words],
        cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # Whoever runs in the background passes on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip


def shards(folder: Path, layer: str = "masks") -> list[str]:
    return sorted(path.name for path in (folder / "shards/boxes/train" / layer).glob("*.parquet"))


@pytest.mark.parametrize("wrong", ["hang", "hang_in_pool"])
def test_ctrl_c_during_a_hang_ends_the_program(tmp_path, wrong):
    process = start(tmp_path, wrong)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "cured.hangs").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.5)  # until the program waits for the batch
        assert process.poll() is None, process.communicate()[0]
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=30)[0]
        assert time.monotonic() - began < 2
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert told.splitlines()[-1] == "stopped; what is committed stays, and the same command continues"
    assert "Traceback" not in told
    assert shards(tmp_path) == []


def test_a_hang_beyond_the_timeout_fails_its_shard(tmp_path):
    process = start(tmp_path, "hang_in_pool", "--timeout", "1")
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 1, told
    assert (
        "failed: boxes/train/masks/00000-of-00001: fakes.misbehaving_segmenter did not answer within 1 s for 0005.png "
        "and 3 more; nothing of it was committed"
    ) in told
    assert "Traceback" not in told
    assert shards(tmp_path) == []
    (tmp_path / "cured").touch()
    again = subprocess.run([*process.args, "--timeout", "60"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True)
    assert again.returncode == 0, again.stderr
    assert shards(tmp_path) == ["00000-of-00001.parquet"]


@pytest.mark.slow
def test_a_hang_that_keeps_pythons_lock_ends_with_the_timeout(tmp_path):
    process = start(tmp_path, "hang_with_lock", "--timeout", "0.5")
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 1, told
    assert "misbehaving_segmenter.py" in told  # where it hangs
    assert shards(tmp_path) == []


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "1000001"])
def test_a_timeout_that_is_none_is_refused(tmp_path, timeout):
    process = start(tmp_path, "hang", "--timeout", timeout)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 2, told
    assert f"--timeout {float(timeout):g} should be above 0 and at most 1,000,000 seconds" in told


@pytest.mark.parametrize(
    ("command", "wrong", "reason"),
    [
        ("masks", "system_exit", "it raised SystemExit"),
        ("masks", "high", "predicted_iou of annotation 16 is 7.5, not a finite number from 0 to 1"),
        ("captions", "system_exit", "it raised SystemExit: 0"),
        ("captions", "positive", "the score of a caption of annotation 16 is 1.0, not a finite number of at most 0"),
    ],
)
def test_a_run_with_an_unusable_result_is_no_success(tmp_path, command, wrong, reason):
    """One of 16 images is more than `--max-error-share` allows: its shard is not committed, the other one is."""
    process = start(tmp_path, wrong, command=command, images=32)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 1, told
    plugin = f"fakes.misbehaving_{'segmenter' if command == 'masks' else 'captioner'}"
    assert (
        f"failed: boxes/train/{command}/00000-of-00002: 1 of 16 images failed, more than 5%, e.g. 0006.png "
        f"({plugin} failed ({reason})); nothing was committed"
    ) in told
    assert f"{command} for 48 " in told
    assert "on 16 images in 1 shard," in told
    assert "Traceback" not in told
    assert shards(tmp_path, command) == ["00001-of-00002.parquet"]
