"""Builds the wheel, and installs it with locked packages into a virtual environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def entries(lock: Path) -> list[tuple[Requirement, list[str]]]:
    """Each requirement of a lock file with its hashes."""
    found = []
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *hashes = line.split("--hash=")
            found.append((Requirement(requirement.strip()), [one.strip() for one in hashes]))
    return found


def pins(*names: str) -> dict[str, list[Requirement]]:
    """Package name -> its pins in the named lock files; several where they depend on the Python version."""
    found: dict[str, list[Requirement]] = {}
    for name in names:
        for requirement, _ in entries(ROOT / "requirements" / f"{name}.txt"):
            found.setdefault(requirement.name, []).append(requirement)
    return found


def build_wheel(out: Path) -> Path:
    """The wheel of this checkout, in a folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def environment(folder: Path, wheel: Path, *locks: str) -> Path:
    """A virtual environment with the wheel and the locked packages of this environment, as links; its Python."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name, found in pins(*locks).items():
        if not any(one.marker is None or one.marker.evaluate() for one in found):
            continue
        for top in {Path(file).parts[0] for file in distribution(name).files or ()} - {"..", "__pycache__"}:
            source = Path(str(distribution(name).locate_file(top)))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return folder / "bin" / "python"


def run(python: Path, *words: str, folder: Path) -> tuple[int, str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(python), *words], cwd=folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout
