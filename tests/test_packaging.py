"""Lock files pin every package with hashes, and the wheel runs with the core packages alone."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from fakes.installed_wheel import entries, pins, run
from packaging.requirements import Requirement
from packaging.version import Version

from synthgen.errors import DISTRIBUTION, EXTRAS

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = ("--dataset", "coco-json", "--annotations", "demo/boxes.json", "--images", "demo/images")
OWN_EXTRAS = PROJECT["optional-dependencies"]


def version(requirement: Requirement) -> Version:
    (pin,) = requirement.specifier
    assert pin.operator == "=="
    return Version(pin.version)


def needed(extra: str | None) -> list[Requirement]:
    """What pyproject.toml asks for with an extra, the extras inside it included."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    open_extras = [extra] if extra else []
    while open_extras:
        for line in OWN_EXTRAS[open_extras.pop()]:
            requirement = Requirement(line)
            if requirement.name == PROJECT["name"]:
                open_extras += requirement.extras
            else:
                found.append(requirement)
    return found


# --- lock files ------------------------------------------------------------------------------------------------------


def test_there_is_a_lock_for_each_installation() -> None:
    assert [lock.stem for lock in LOCKS] == ["build", "core", "dev", "no-deps", "torch", "train-ray"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_locked_package_has_a_version_and_hashes_and_no_index(lock: Path) -> None:
    assert len(entries(lock)) > 2
    for requirement, hashes in entries(lock):
        version(requirement)
        assert requirement.url is None
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in hashes), requirement.name
    assert "://" not in lock.read_text()
    assert not re.search(r"^-|--(extra-)?index|--find-links", lock.read_text().replace("    --hash", ""), re.M)


@pytest.mark.parametrize(
    ("extra", "locks"),
    [(None, ("torch", "core")), ("train", ("torch", "train-ray")), ("ray", ("torch", "train-ray"))]
    + [(extra, ("torch", "dev", "no-deps")) for extra in ("all", "dev", "eval", "demo")],
)
def test_a_lock_satisfies_what_pyproject_asks_for(extra: str | None, locks: tuple[str, ...]) -> None:
    locked = pins(*locks)
    for requirement in needed(extra):
        assert requirement.name in locked, f"{requirement.name} is not locked; run: make lock"
        for pin in locked[requirement.name]:
            assert requirement.specifier.contains(version(pin)), f"{pin} does not satisfy {requirement}; run: make lock"


def test_all_locks_agree_on_versions() -> None:
    for name, found in pins(*(lock.stem for lock in LOCKS)).items():
        by_marker: dict[str, set[Version]] = {}
        for requirement in found:
            by_marker.setdefault(str(requirement.marker), set()).add(version(requirement))
        assert all(len(versions) == 1 for versions in by_marker.values()), name


def test_the_build_backend_is_locked() -> None:
    (backend,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for lock in ("dev", "build"):
        assert Requirement(backend).specifier.contains(version(pins(lock)[Requirement(backend).name][0]))


def test_torch_is_never_older_than_the_fix_of_cve_2026_24747() -> None:
    (torch,) = (line for line in PROJECT["dependencies"] if Requirement(line).name == "torch")
    assert not Requirement(torch).specifier.contains("2.9.1")
    assert Requirement(torch).specifier.contains("2.10.0")


def test_the_image_for_cpus_pins_the_locked_torch() -> None:
    (pinned,) = re.findall(r'^ARG TORCH="(.*)"$', (ROOT / "Dockerfile").read_text(), re.M)
    locked = pins("torch")
    assert pinned.split() == [f"{name}=={version(locked[name][0])}+cpu" for name in ("torch", "torchvision")]


# --- extras ----------------------------------------------------------------------------------------------------------


def test_the_extra_all_has_the_packages_that_the_project_is_built_on() -> None:
    asked = {requirement.name for requirement in needed("all")}
    assert asked >= {
        *("segment-anything", "torch", "transformers", "ray", "pyarrow", "pycocotools", "pillow", "typer"),
    }


def test_each_extra_that_an_error_names_exists_and_installs_the_package() -> None:
    distributions = {"yaml": "pyyaml"}
    for package, extra in EXTRAS.items():
        assert distributions.get(package, package) in {requirement.name for requirement in needed(extra)}


def test_the_name_of_the_distribution_is_not_that_of_another_project() -> None:
    assert PROJECT["name"] == DISTRIBUTION != "synthgen"
    for path in [ROOT / "README.md", *(ROOT / "synthgen").rglob("*.py"), *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"pip install '?\"?synthgen(?!-masks)", path.read_text()), path


# --- the wheel -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_wheel_holds_one_package_with_its_types_recipes_and_photographs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"synthgen", "synthgen_masks"}
    shipped = [path for path in (ROOT / "manifests").rglob("*") if path.is_file()]
    expected = {f"synthgen/{path.relative_to(ROOT).as_posix()}" for path in shipped}
    expected |= {f"synthgen/pipelines/{name}" for name in ("runtime_env.yaml", "kuberay.yaml", "slurm.sh")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "synthgen/demo").rglob("*.*")}
    expected |= {f"synthgen/models/box_segmenter/{name}" for name in ("lite_coco.safetensors", "MODEL_CARD.md")}
    assert {name for name in expected if "__pycache__" not in name} | {"synthgen/py.typed"} <= set(names)
    assert not [name for name in names if name.endswith((".pyc", ".npz")) or "/tests/" in name]


@pytest.mark.slow
def test_the_core_runs_the_demo_without_the_training(core: Path, tmp_path: Path) -> None:
    code, said = run(core, "-m", "synthgen", "demo", folder=tmp_path)
    assert code == 0, said
    assert "demo/train/masks: 24 masks for 25 boxes" in said
    assert (tmp_path / "demo/pictures/sheet.png").is_file()
    assert f"pip install '{DISTRIBUTION}[train]'" in said
    assert "synthgen train" not in said and not (tmp_path / "demo/run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "package"),
    [
        (("train", "--manifest", "demo/learn.yaml"), "train"),
        (("ablate", "--manifest", "demo/learn.yaml"), "train"),
        (("masks", *OWN, "--engine", "ray"), "ray"),
    ],
    ids=["train", "ablate", "ray"],
)  # fmt: skip
def test_a_missing_extra_is_one_sentence_with_the_pip_line(
    core: Path, tmp_path: Path, command: tuple[str, ...], package: str
) -> None:
    shutil.copytree(ROOT / "synthgen/demo", tmp_path / "demo")
    code, said = run(core, "-m", "synthgen", *command, folder=tmp_path)
    assert code == 2, said
    assert len(said.strip().splitlines()) == 1
    assert said.strip().endswith(f"install it: pip install '{DISTRIBUTION}[{package}]'")


@pytest.mark.slow
def test_the_wheel_finds_its_recipes(core: Path, tmp_path: Path) -> None:
    code, said = run(core, "-m", "synthgen", "manifests", "copy", "own", folder=tmp_path)
    assert code == 0, said
    assert (tmp_path / "own/mqformer_full.yaml").read_bytes() == (ROOT / "manifests/mqformer_full.yaml").read_bytes()
    assert (tmp_path / "own/cluster/kuberay.yaml").is_file()


@pytest.mark.slow
def test_a_consumer_sees_the_types(core: Path, tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(
        "from synthgen.records.sample import Sample\n\n\ndef width(sample: Sample) -> str:\n    return sample.width\n"
    )
    command = ["-m", "mypy", "--strict", "--python-executable", str(core), "--cache-dir", str(tmp_path / "cache")]
    code, said = run(Path(sys.executable), *command, "consumer.py", folder=tmp_path)
    assert code == 1, said
    assert next(line for line in said.splitlines() if "error:" in line).startswith("consumer.py:5: error:")
    assert len(re.findall("error:", said)) == 1 and "[return-value]" in said
