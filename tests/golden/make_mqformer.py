"""Makes the small copies of Mask DINO's goldens; run once: python tests/golden/make_mqformer.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

FILES = ("ms_deform_attn", "embeddings_proposals", "matcher_losses", "layers", "denoising")


def main(folder: Path) -> None:
    """Put the small files of the reference into one, each tensor named FILE/NAME."""
    found = {
        f"{file}/{name}": array for file in FILES for name, array in load_file(folder / f"{file}.safetensors").items()
    }
    np.savez_compressed(Path(__file__).with_name("mqformer_parts.npz"), **found)
    # Of its three variants that with four levels, from fine to coarse: what is built here.
    whole = load_file(folder / "pixel_decoder.safetensors")
    own = {name.removeprefix("low2high_4lv."): array for name, array in whole.items() if "_3lv" not in name}
    kept = {name: array for name, array in own.items() if "_5lv" not in name}
    np.savez_compressed(Path(__file__).with_name("pixel_decoder.npz"), **kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
