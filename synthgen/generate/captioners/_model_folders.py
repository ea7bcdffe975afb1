"""Finds folders of Hugging Face models in the folder of weights, without heavy imports."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from synthgen.weights import LocalWeights, weights_folder

#: Maximum bytes of a config.json: several times those of published files.
_MAX_CONFIG_BYTES = 2**20

#: Maximum number of entries of the folder of weights that are looked at.
_MAX_ENTRIES = 1000

_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt")


def list_model_folders(model_type: str) -> list[LocalWeights]:
    """The folders in the folder of weights whose config.json says `model_type`, with the largest weights first.

    Whether a folder is complete is for the plugin to check.
    """
    root = weights_folder()
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir())[:_MAX_ENTRIES]
    except OSError:
        return []
    own = [folder for folder in folders if _read_model_type(folder / "config.json") == model_type]
    own.sort(key=lambda folder: (-_weights_bytes(folder), folder.name))
    return [LocalWeights({"checkpoint": str(folder)}, f"{folder.name} is in {root}") for folder in own]


def describe_download(repository: str, owner: str) -> str:
    """A clause with the command that downloads a repository of Hugging Face into the folder of weights.

    Args:
        repository: name on Hugging Face, "owner/name".
        owner: whose weights they are, in the genitive.
    """
    folder = weights_folder() / repository.rpartition("/")[2].lower()
    return f"`hf download {repository} --local-dir {shlex.quote(str(folder))}` fetches {owner} weights"


def _read_model_type(path: Path) -> Any:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_CONFIG_BYTES:
            return None
        says = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return says.get("model_type") if isinstance(says, dict) else None


def _weights_bytes(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _WEIGHTS_SUFFIXES)
    except OSError:
        return 0
