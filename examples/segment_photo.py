"""Draw masks for two boxes of one photograph, without a dataset."""

from pathlib import Path

import synthgen as sg
from synthgen.demo.photographs import write_demo_files

photo = write_demo_files(Path("demo")).images / "coffee.jpg"
segmenter = sg.Segmenter("auto")  # or "sam", with variant="vit_h"
masks = segmenter.predict(photo, [[173, 17, 408, 307], [326, 67, 425, 326]])  # (x1, y1, x2, y2) in pixels

for mask in masks:
    print(f"{segmenter.name}: {mask.area} of {mask.mask.size} pixels, stability {mask.stability_score}")
