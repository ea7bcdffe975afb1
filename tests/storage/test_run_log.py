"""The run log: its files, those of a part of a job, and records that cannot be written."""

from __future__ import annotations

import errno
import json
import logging
import os
import time

import pytest

from synthgen.storage.run_log import RunLog, log_folder, log_to_file
from synthgen.storage.shard_store import ShardStore


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_folder_lies_beside_the_shards(tmp_path):
    assert log_folder(ShardStore(tmp_path), "d", "s", "masks") == tmp_path / "d" / "s" / "masks" / "_log"


def test_lines_are_appended_with_their_time(tmp_path):
    before = time.time()
    (tmp_path / "_log").mkdir()
    log = RunLog(tmp_path / "_log")
    log.append_metrics({"shard": "d/s/l/0", "images": 3, "name": "é\udcff"})
    RunLog(tmp_path / "_log").append_metrics({"images": 4})  # the next run
    log.append_failure("d/s/l/1", "no space")
    first, second = read_lines(tmp_path / "_log/metrics.jsonl")
    assert before - 1 < first.pop("time") < time.time() + 1
    assert (first, second["images"]) == ({"shard": "d/s/l/0", "images": 3, "name": "é\udcff"}, 4)
    (failure,) = read_lines(tmp_path / "_log/failures.jsonl")
    assert (failure["shard"], failure["error"], set(failure)) == ("d/s/l/1", "no space", {"shard", "error", "time"})


def test_a_status_replaces_the_last_one(tmp_path):
    log = RunLog(tmp_path)
    log.write_status({"committed": 1})
    log.write_status({"committed": 2})
    status = json.loads((tmp_path / "status.json").read_text())
    assert status.pop("updated") == pytest.approx(time.time(), abs=60)
    assert status == {"committed": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_each_part_of_a_job_has_its_own_files(tmp_path):
    for index in range(2):
        log = RunLog(tmp_path, (index, 2))
        log.append_metrics({})
        log.append_failure("", "")
        log.write_status({})
        with log.capture_messages():
            logging.getLogger("synthgen.x").info("part %d", index)
    ends = ["-0-of-2", "-1-of-2"]
    names = [("failures", "jsonl"), ("metrics", "jsonl"), ("run", "log"), ("status", "json")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{n}{e}.{x}" for n, x in names for e in ends)
    assert "part 1" in (tmp_path / "run-1-of-2.log").read_text()
    assert "part 0" not in (tmp_path / "run-1-of-2.log").read_text()


def test_messages_are_captured_while_the_block_runs_only(tmp_path, monkeypatch):
    # pytest-xdist cannot send a captured message with an unpaired surrogate to its main process.
    monkeypatch.setattr(logging.getLogger("synthgen"), "propagate", False)
    path = tmp_path / "run.log"
    logger = logging.getLogger("synthgen.somewhere")
    with pytest.raises(KeyError), log_to_file(path):
        logger.info("inside \udcff")
        logging.getLogger("another").warning("not ours")
        raise KeyError
    logger.info("outside")
    assert [line.split(maxsplit=2)[2] for line in path.read_text().splitlines()] == [
        "INFO synthgen.somewhere: inside \\udcff"
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_record_that_cannot_be_written_is_dropped_in_silence(tmp_path, capsys):
    (tmp_path / "run.log").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught, log_to_file(tmp_path / "run.log"):
        logging.getLogger("synthgen.x").warning("lost")
        raise OSError(errno.EIO, "the job's own error")
    assert caught.value.errno == errno.EIO
    assert capsys.readouterr().err == ""
