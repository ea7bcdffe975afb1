"""Read a layer as a sequence, filter it by score, and draw its first image."""

from pathlib import Path

import synthgen as sg
from synthgen.demo.photographs import write_demo_files

files = write_demo_files(Path("demo"))
sg.generate_masks(files.annotations, images=files.images, name="demo", store="demo/shards")

layer = sg.load_layer("demo/shards", "demo/train/masks")
good = layer.filter(min_stability_score=0.7, min_area=1000)
for sample in good:
    names = ", ".join(annotation.category for annotation in sample.annotations)
    print(f"{sample.file_name}: {names or 'nothing'}")
good[0].plot().save("demo/first.png")
