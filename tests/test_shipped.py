"""Manifests and cluster files are found in a checkout and in a wheel, and copied for editing."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen import shipped
from synthgen.errors import SynthgenError

ROOT = Path(__file__).parents[1]


def test_a_checkout_uses_the_files_at_its_top() -> None:
    assert shipped.shipped_folder("manifests") == ROOT / "manifests"
    assert shipped.shipped_folder("pipelines") == ROOT / "pipelines"


def test_a_wheel_uses_the_files_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "synthgen"
    (package / "manifests").mkdir(parents=True)
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    assert shipped.shipped_folder("manifests") == package / "manifests"


def test_a_folder_of_another_project_in_site_packages_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "synthgen"
    package.mkdir(parents=True)
    (tmp_path / "site-packages" / "pipelines").mkdir()
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    with pytest.raises(SynthgenError, match="lacks its folder pipelines; install synthgen again"):
        shipped.shipped_folder("pipelines")


def test_list_prints_every_recipe(synthgen) -> None:
    code, said = synthgen("manifests", "list")
    assert code == 0
    expected = sorted(path.relative_to(ROOT / "manifests").as_posix() for path in (ROOT / "manifests").rglob("*.yaml"))
    assert said.splitlines() == expected


def test_copies_equal_the_shipped_files(synthgen, tmp_path: Path) -> None:
    code, said = synthgen("manifests", "copy", str(tmp_path / "own"))
    assert code == 0
    copied = {path.relative_to(tmp_path / "own").as_posix(): path for path in (tmp_path / "own").rglob("*.*")}
    assert "mqformer_full.yaml" in copied and "ablations/masks_human.yaml" in copied
    assert {"cluster/kuberay.yaml", "cluster/slurm.sh", "cluster/runtime_env.yaml"} <= set(copied)
    for name, path in copied.items():
        source = ROOT / ("pipelines/" + path.name if name.startswith("cluster/") else f"manifests/{name}")
        assert path.read_bytes() == source.read_bytes()
        assert str(path) in said
    assert (tmp_path / "own" / "exclude" / "README").is_file()


def test_an_edited_copy_is_never_overwritten(synthgen, tmp_path: Path) -> None:
    synthgen("manifests", "copy", str(tmp_path))
    (tmp_path / "toy.yaml").write_text("name: mine\n")
    (tmp_path / "seginw.yaml").unlink()
    code, said = synthgen("manifests", "copy", str(tmp_path))
    assert code == 2
    assert f"{tmp_path / 'toy.yaml'} exists and differs" in said
    assert (tmp_path / "toy.yaml").read_text() == "name: mine\n"
    assert not (tmp_path / "seginw.yaml").exists()


def test_a_second_copy_adds_only_what_is_missing(synthgen, tmp_path: Path) -> None:
    synthgen("manifests", "copy", str(tmp_path))
    (tmp_path / "seginw.yaml").unlink()
    code, said = synthgen("manifests", "copy", str(tmp_path))
    assert code == 0
    assert said.splitlines()[0] == str(tmp_path / "seginw.yaml")
    assert f"files written to {tmp_path}: 1" in said


def test_a_place_that_cannot_be_written_is_reported(synthgen, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = synthgen("manifests", "copy", str(tmp_path / "file"))
    assert code == 2
    assert "cannot write" in said and "choose another folder" in said
