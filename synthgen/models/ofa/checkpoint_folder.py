"""An OFA as it lies on disk: a file of weights and, in the same folder, its words."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from synthgen.models.checkpoint_reader import MoreThanWeightsError, load, read_weights
from synthgen.models.ofa.tokenizer import OfaTokenizer, load_tokenizer
from synthgen.models.ofa.weights import numbers_of

#: What a folder may call its weights, the first that is there counts; and its words, which all published OFAs share.
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pt")
WORDS = ("vocab.json", "merges.txt")

#: Fetches the words; --local-dir says where to.
FETCH_WORDS = "hf download OFA-Sys/ofa-base vocab.json merges.txt"


def weights_in(folder: Path) -> Path | None:
    """The file of weights in a folder, if there is one."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def lacking_words(folder: Path) -> list[str]:
    """Which of `WORDS` are not in a folder."""
    return [name for name in WORDS if not (folder / name).is_file()]


def read(weights: Path, words: Path) -> tuple[dict[str, Tensor], OfaTokenizer]:
    """Weights and tokenizer that go together.

    Args:
        weights: a file; see `read_weights`.
        words: the folder of `WORDS`.

    Raises:
        MoreThanWeightsError, ValueError: they are missing, are no OFA's, or of two; one sentence that names which.
    """
    blamed = weights
    try:
        found = read_weights(weights)
        size = numbers_of(found).vocabulary
        blamed = words
        tokenizer = load_tokenizer(words)
        if tokenizer.size != size:
            raise ValueError(
                f"its vocabulary has {tokenizer.size} words, its network {size}; the files are of two models, fetch "
                "the whole folder of one"
            )
    except ValueError as why:
        kind = MoreThanWeightsError if isinstance(why, MoreThanWeightsError) else ValueError
        raise kind(f"{blamed}: {why}") from None
    return found, tokenizer


def side_of(weights: Path) -> int | None:
    """The side of the squares that a checkpoint of `synthgen train` has learned from, in pixels; None of other files.

    It matters: the corners of boxes are told in bins of it.
    """
    if weights.suffix == ".safetensors":
        return None
    try:
        content = load(weights)
        side = json.loads(content["about"])["model"]["image_size"] if isinstance(content, dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return side if type(side) is int else None
