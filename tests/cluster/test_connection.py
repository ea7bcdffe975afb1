"""Jobs refused before a connection, the environment of workers, names of errors."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from synthgen.errors import SynthgenError
from synthgen.generate.job import Job

connection = pytest.importorskip("synthgen.cluster.connection", reason="no Ray here")
engine = pytest.importorskip("synthgen.cluster.ray_engine", reason="no Ray here")


def test_a_store_that_ray_would_delete_is_refused(tmp_path):
    store = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_0/shards"
    job = Job("masks", "d", "train", "annotations", "masks", "box_fill", store, tmp_path, {})
    with pytest.raises(SynthgenError, match="which Ray deletes; give a folder that all nodes share, by --store"):
        next(engine.run_on_cluster(job, []))


def test_workers_inherit_the_folders_of_the_driver(monkeypatch, tmp_path):
    monkeypatch.setenv("SYNTHGEN_STORE", "/mnt/shards")
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path))
    monkeypatch.delenv("SYNTHGEN_DATA", raising=False)
    monkeypatch.setenv("OTHER", "is not passed on")
    inherited = connection.worker_environment()
    assert inherited["SYNTHGEN_STORE"] == "/mnt/shards"
    assert Path(inherited["SYNTHGEN_WEIGHTS"]) == tmp_path
    assert not {"SYNTHGEN_DATA", "OTHER"} & set(inherited)


def test_a_connection_leaves_sigterm_to_the_command(monkeypatch):
    """Ray's own handler would end the driver with another exit code."""

    def init(**how: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connection.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(connection.ray, "init", init)
    connection.connect()
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_error_is_named_by_its_first_line():
    assert connection.first_message_line(ValueError("\n  out of memory \nTraceback ...")) == "out of memory"
    assert connection.first_message_line(ValueError()) == "ValueError"
    assert len(connection.first_message_line(ValueError("x" * 1000))) == 200


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_is_too_long_for_ray_is_named(tmp_path, variable):
    """Ray cannot make sockets in it; RAY_ADDRESS has nothing to do with it."""
    long = tmp_path / ("x" * 80)
    long.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-c", "from synthgen.cluster import connection; connection.connect()"],
        env={**environment, variable: str(long)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    told = done.stderr.splitlines()[-1]
    assert f"Ray cannot start, because the path of its sockets below {long} ({variable}) is too long" in told
    assert "set RAY_TMPDIR to a folder of at most" in told and "RAY_ADDRESS" not in told


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (None, r"cannot start Ray on this machine \(no space\); check that .* and /dev/shm are writable"),
        ("auto", r"cannot join the Ray cluster auto \(no space\); mend RAY_ADDRESS, or unset it"),
    ],
)
def test_what_is_blamed_depends_on_the_address(monkeypatch, tmp_path, address, told):
    def fail(**options):
        raise OSError("no space")

    monkeypatch.setattr(connection.ray, "init", fail)
    monkeypatch.setattr(connection.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SynthgenError, match=told):
        connection.connect()


def test_warnings_of_the_package_are_shown(capsys):
    with connection.show_warnings():
        logging.getLogger("synthgen.cluster.worker_pool").warning("a worker cannot begin")
        logging.getLogger("synthgen.cluster.worker_pool").info("a detail")
        logging.getLogger("synthgen.generate").warning("of another package")
    logging.getLogger("synthgen.cluster.worker_pool").warning("afterwards")
    assert capsys.readouterr().err == "a worker cannot begin\n"
