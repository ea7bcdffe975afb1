"""OFA checkpoints on disk: a weights file and, in the same folder, the tokenizer files."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from synthgen.models.checkpoint_reader import NonTensorContentError, read_weights, safe_load
from synthgen.models.ofa.tokenizer import OfaTokenizer, load_tokenizer
from synthgen.models.ofa.weights import infer_config

#: File names of the weights, in order of preference, and of the tokenizer, which all published OFA models share.
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pt")
TOKENIZER_FILES = ("vocab.json", "merges.txt")

#: Downloads the tokenizer files; --local-dir gives the folder.
FETCH_TOKENIZER_COMMAND = "hf download OFA-Sys/ofa-base vocab.json merges.txt"


def find_weights_file(folder: Path) -> Path | None:
    """The first weights file of a folder, if there is one."""
    return next((folder / name for name in WEIGHTS_FILES if (folder / name).is_file()), None)


def missing_tokenizer_files(folder: Path) -> list[str]:
    """The files of `TOKENIZER_FILES` that a folder lacks."""
    return [name for name in TOKENIZER_FILES if not (folder / name).is_file()]


def read_checkpoint(weights_path: Path, tokenizer_dir: Path) -> tuple[dict[str, Tensor], OfaTokenizer]:
    """Read weights and tokenizer.

    Args:
        weights_path: a file; see `read_weights`.
        tokenizer_dir: the folder of `TOKENIZER_FILES`.

    Raises:
        NonTensorContentError: the weights file also contains settings; one sentence with the remedy.
        ValueError: files are missing, not OFA's, or do not match; one sentence that names which.
    """
    blamed = weights_path
    try:
        found = read_weights(weights_path)
        size = infer_config(found).vocab_size
        blamed = tokenizer_dir
        tokenizer = load_tokenizer(tokenizer_dir)
        if tokenizer.vocab_size != size:
            raise ValueError(
                f"its vocabulary has {tokenizer.vocab_size} words, its network {size}; the files are of two models, "
                "fetch "
                "the whole folder of one"
            )
    except ValueError as why:
        kind = NonTensorContentError if isinstance(why, NonTensorContentError) else ValueError
        raise kind(f"{blamed}: {why}") from None
    return found, tokenizer


def read_image_size(weights_path: Path) -> int | None:
    """The image side, in pixels, that a checkpoint of `synthgen train` was trained with; None for other files.

    Box corners are quantized to bins that depend on it.

    Args:
        weights_path: the file of the weights; only checkpoints are opened, not `.safetensors`.
    """
    if weights_path.suffix == ".safetensors":
        return None
    try:
        content = safe_load(weights_path)
        side = json.loads(content["about"])["model"]["image_size"] if isinstance(content, dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return side if type(side) is int else None
