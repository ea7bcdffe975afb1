"""Finds the files that the project ships beside its code: training recipes and cluster configurations.

In a checkout, an sdist and an editable install they are at the top of the repository. A wheel has them in the package.
"""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path
from typing import Literal

from synthgen.errors import SynthgenError

_PACKAGE = Path(__file__).parent

#: The cluster files of `pipelines/`; its Python files are entry points of a checkout.
CLUSTER_FILES = ("runtime_env.yaml", "kuberay.yaml", "slurm.sh")


def shipped_folder(name: Literal["manifests", "pipelines"]) -> Path:
    """The folder of shipped files.

    Args:
        name: which of the two.

    Raises:
        SynthgenError: the installation lacks it.
    """
    checkout = _PACKAGE.parent
    # site-packages may hold a folder of that name from another project.
    places = [_PACKAGE / name, *([checkout / name] if (checkout / "pyproject.toml").is_file() else [])]
    for place in places:
        if place.is_dir():
            return place
    raise SynthgenError(f"{_PACKAGE} lacks its folder {name}; install synthgen again")


def list_recipes() -> list[str]:
    """The training recipes, as paths relative to the folder of manifests."""
    root = shipped_folder("manifests")
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.yaml"))


def copy_shipped_files(target: Path) -> list[Path]:
    """Copy the training recipes to `target` and the cluster files to `target/cluster`, for people to edit.

    Existing files with the same content stay.

    Args:
        target: folder to write to; created if it is missing.

    Returns:
        The files that were written.

    Raises:
        SynthgenError: a file is there with another content (then nothing is written), or `target` is not writable.
    """
    recipes, cluster = shipped_folder("manifests"), shipped_folder("pipelines")
    sources = {target / path.relative_to(recipes): path for path in sorted(recipes.rglob("*")) if path.is_file()}
    sources |= {target / "cluster" / name: cluster / name for name in CLUSTER_FILES}
    try:
        wanted = {new: old for new, old in sources.items() if not (new.exists() and filecmp.cmp(old, new, False))}
        if edited := [new for new in wanted if new.exists()]:
            raise SynthgenError(
                f"{edited[0]} exists and differs from the shipped file; choose another folder, or move it away"
            )
        for new, old in wanted.items():
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old, new)
    except OSError as why:
        raise SynthgenError(f"cannot write {why.filename or target} ({why.strerror}); choose another folder") from None
    return list(wanted)
