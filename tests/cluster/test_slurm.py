"""The Slurm script: a Ray cluster on the nodes of the job, for the time of the job."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import coco_dataset

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "pipelines/slurm.sh"

SCONTROL = 'printf "%s\\n" $NODES\n'
SRUN = """
echo "srun $*" >> calls
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
#: The programs that the script starts. `masks` waits for the nodes and ends with 3, so that the script must.
RAY = """
echo "ray $* $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" >> calls
[[ $1 == start ]] || exit 0
echo $$ >> pids
exec sleep 60
"""
PYTHON = """
echo "python $*" >> calls
case "$*" in
  *get_node_ip*) echo 10.0.0.7 ;;
  *secrets*) echo abcd ;;
  *) exit 5 ;;
esac
"""
SYNTHGEN = """
echo "synthgen $*" >> calls
for _ in {1..200}; do [[ $(wc -l < pids) == "$STARTS" ]] && exit 3; sleep 0.05; done
exit 4
"""


def submit(folder: Path, words: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """What sbatch does, for nodes that are all this machine; each program of `environment` stands for a real one."""
    programs = {"scontrol": SCONTROL, "srun": SRUN}
    programs |= {name: environment.pop(name) for name in ("ray", "python", "synthgen") if name in environment}
    binaries = folder / ".venv/bin"
    binaries.mkdir(parents=True)
    for name, code in programs.items():
        (binaries / name).write_text(f"#!/usr/bin/env bash\n{code}")
        (binaries / name).chmod(0o755)
    (binaries / "activate").write_text(f'PATH="{binaries}:{Path(sys.executable).parent}:$PATH"\n')
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SYNTHGEN_", "RAY_", "SLURM_"))}
    own |= {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "n[1-9]", "SLURM_JOB_ID": "70004"} | environment
    # Not into a pipe, whose end would wait for processes that outlive the script.
    with (folder / "told").open("w+") as told:
        done = subprocess.run(
            ["bash", SLURM, *words.split()], env=own, cwd="/", stdout=told, stderr=subprocess.STDOUT, timeout=300
        )
        told.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, told.read())


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


def test_slurm_script_is_sound_bash():
    subprocess.run(["bash", "-n", SLURM], check=True)
    assert os.access(SLURM, os.X_OK)


@pytest.mark.parametrize("nodes", ["a", "a b", "a b c"])
def test_slurm_starts_a_head_and_a_worker_on_each_other_node(tmp_path, nodes):
    first, *others = nodes.split()
    starts = "2" if others else "1"
    stubs = {"ray": RAY, "python": PYTHON, "synthgen": SYNTHGEN}
    done = submit(tmp_path, "--dataset coco --zoom", NODES=nodes, STARTS=starts, **stubs)
    assert done.returncode == 3, done.stdout
    head = f"--nodes=1 --ntasks=1 --nodelist={first}"
    wanted = {
        f"srun {head} ray start --head --node-ip-address=10.0.0.7 --port=20004 --include-dashboard=false --block",
        "ray start --head --node-ip-address=10.0.0.7 --port=20004 --include-dashboard=false --block token 4",
        "ray status --address 10.0.0.7:20004 token 4",
        "synthgen masks --engine ray --dataset coco --zoom",
    }
    if others:
        wanted |= {
            f"srun --nodes={len(others)} --ntasks-per-node=1 --nodelist={','.join(others)} "
            "ray start --address 10.0.0.7:20004 --block",
            "ray start --address 10.0.0.7:20004 --block token 4",
        }
    told = [line for line in (tmp_path / "calls").read_text().splitlines() if "python -c" not in line]
    assert set(told) == wanted
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert wait_for(lambda: all(map(gone, pids)), 10), "a node goes on after the job"


def test_slurm_says_which_node_has_no_head(tmp_path):
    never = 'echo "it cannot"\nexit 1\n'
    done = submit(tmp_path, NODES="a b", ray=never, python=PYTHON, synthgen=SYNTHGEN)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["it cannot", "no Ray head on a; what it said stands above"]
    assert "masks" not in (tmp_path / "calls").read_text()


def test_slurm_script_wants_to_be_submitted(tmp_path):
    done = subprocess.run(["bash", SLURM], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "start this with sbatch, from the folder of the project" in done.stderr


@pytest.mark.slow
def test_slurm_makes_the_masks_of_one_machine(tmp_path):
    """Two nodes of a real Ray cluster, both on this machine; nothing of it is left."""
    pytest.importorskip("ray")
    coco_dataset.write_coco_dataset(tmp_path, images=24)
    own = "--dataset coco-json --annotations boxes.json --images photos --segmenter fakes.slow_segmenter -O seconds=0.3"
    path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    alone = [sys.executable, "-m", "synthgen", "masks", *own.split(), "--store", "alone"]
    subprocess.run(alone, cwd=tmp_path, env=os.environ | path, check=True, capture_output=True)
    # Ray's sockets have short names only; a folder of its own keeps other clusters of this machine out of sight.
    temporary = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    try:
        own_code = f'exec {sys.executable} -m synthgen "$@"\n'  # this checkout, whatever is installed
        more = {"NODES": "a b", "SLURM_JOB_ID": str(free_port()), "RAY_TMPDIR": str(temporary), "synthgen": own_code}
        done = submit(tmp_path, own, **more, **path)
        assert done.returncode == 0, done.stdout
        assert "72 masks for 72 boxes on 24 images" in done.stdout
        assert wait_for(lambda: not processes_about(str(temporary)), 60), "Ray goes on after the job"
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    assert masks(tmp_path / "shards") == masks(tmp_path / "alone")


def masks(store: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (store / "boxes/train/masks").glob("*.parquet")}
    assert found
    return found


def processes_about(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # it ended meanwhile
            continue
    return found


def free_port() -> int:
    """One of those that the script chooses from, 20000 to 29999."""
    for port in range(20000, 30000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise AssertionError("no free port")
