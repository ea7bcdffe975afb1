"""Makes the small copies of SAM's and HQ-SAM's goldens; run once:

    python tests/golden/make_sam.py FOLDER

FOLDER holds `golden_sam_tiny.safetensors` and `golden_hqsam_tiny.safetensors`, which segment-anything 1.0 and
segment-anything-hq 0.3 made, with random weights, of a drawn image and three boxes. The copies are `.npz`, so that
numpy reads them: weights in float16, in which they are exact; results in float32, low-resolution logits among them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open

HERE = Path(__file__).parent
KEPT = ("in.", "mid.", "out.image_embeddings", "out.interm_embeddings_0", "out.single", "out.multi")


def main(folder: Path) -> None:
    """Write both files."""
    for source, name in (("golden_sam_tiny", "sam_tiny"), ("golden_hqsam_tiny", "hq_sam_tiny")):
        arrays = {}
        with safe_open(folder / f"{source}.safetensors", "np") as golden:
            vision = json.loads(golden.metadata()["config"])
            for key in golden.keys():  # noqa: SIM118  # no dict
                values = golden.get_tensor(key)
                if key.startswith("weights."):
                    arrays[key] = values.astype(np.float16)
                    assert np.array_equal(arrays[key].astype(np.float32), values)
                elif key.startswith(KEPT) and "pixel_values" not in key and "multi_hqonly" not in key:
                    arrays[key] = values
        # Masks of the size of the image are 180 kB each: those of the single mask stand for the way there.
        del arrays["out.multi.mask_logits_original_size"]
        arrays.pop("out.single_hqonly.mask_logits_original_size", None)
        arrays["config"] = np.array(json.dumps(vision))
        np.savez_compressed(HERE / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
