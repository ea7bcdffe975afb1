"""Fixtures of all tests: paths of the real data, captured commands, Hypothesis profiles."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from synthgen.cli.main import main

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it; before anything imports torch

SHARED = Path(__file__).parents[2] / "shared"

# Examples are made anew at a developer's desk, where a find can be kept, and are the same each time in CI.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("data/coco_tiny")`: a folder of real data beside the checkout; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"no real data: {name} is not in the folder 'shared' beside the checkout")
        return path

    return find


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads of other tests on the same cores make tiny networks many times slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`typed("status")`: a command in a folder of its own -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNTHGEN_DATA", raising=False)
    monkeypatch.delenv("SYNTHGEN_STORE", raising=False)
    monkeypatch.delenv("SYNTHGEN_WEIGHTS", raising=False)  # `auto` chooses by the weights that are there

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["synthgen", *words])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def synthgen(typed: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str]]:
    """`synthgen("status")`: the same -> exit code, and all that was said."""

    def run(*words: str) -> tuple[int, str]:
        code, out, err = typed(*words)
        return code, out + err

    return run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    from fakes.installed_wheel import build_wheel

    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and the locked packages of the core."""
    from fakes.installed_wheel import environment

    return environment(tmp_path_factory.mktemp("core") / "env", wheel, "torch", "core")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute tests by module with `pytest -n 2`, so that each module makes its fixtures once.

    Tests that start a Ray cluster all run in one process: `ray.init` joins any cluster of the machine, also that of
    another test.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "ray" if "/cluster/" in path else path

    return ByModule(config, log)
