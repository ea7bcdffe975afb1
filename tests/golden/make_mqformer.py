"""Makes mqformer_parts.npz from the reference's goldens: python tests/golden/make_mqformer.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

FILES = ("ms_deform_attn", "embeddings_proposals", "matcher_losses", "layers")


def main(folder: Path) -> None:
    """Put the small files of the reference into one, each tensor named FILE/NAME."""
    found = {
        f"{file}/{name}": array for file in FILES for name, array in load_file(folder / f"{file}.safetensors").items()
    }
    np.savez_compressed(Path(__file__).with_name("mqformer_parts.npz"), **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
