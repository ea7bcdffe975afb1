"""Makes the small copy of OFA's golden; run once:

    python tests/golden/make_ofa.py FOLDER

FOLDER holds `golden_tiny.safetensors` and `golden_tiny.json`, which the original programs made with random weights, and
`golden_box_bins.json` and `golden_preprocess.safetensors`. The copy begins behind the visual stem, whose weights alone
are 7 MB: torchvision proves those. It is an `.npz`, so that numpy reads it: weights in float16, in which they are
exact; results in float32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open

HERE = Path(__file__).parent


def main(folder: Path) -> None:
    """Write the three files."""
    arrays = {}
    with safe_open(folder / "golden_tiny.safetensors", "np") as golden:
        for key in golden.keys():  # noqa: SIM118  # no dict
            values = golden.get_tensor(key)
            if key.startswith("weights.encoder.embed_images.") or key == "in.patch_images":
                continue
            if key.startswith("weights."):
                arrays[key] = values.astype(np.float16)
                assert np.array_equal(arrays[key].astype(np.float32), values)
            else:
                arrays[key] = values
    searched = json.loads((folder / "golden_tiny.json").read_text())
    kept = {key: searched[key] for key in ("config", "beam", "beam_settings")}
    arrays["json"] = np.array(json.dumps(kept))
    np.savez_compressed(HERE / "ofa_tiny.npz", **arrays)
    with safe_open(folder / "golden_preprocess.safetensors", "np") as golden:
        shown = {key: golden.get_tensor(key) for key in golden.keys()}  # noqa: SIM118
    np.savez_compressed(HERE / "ofa_preprocess.npz", **shown)
    bins = json.loads((folder / "golden_box_bins.json").read_text())
    (HERE / "ofa_box_bins.json").write_text(json.dumps(bins["cases"]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
