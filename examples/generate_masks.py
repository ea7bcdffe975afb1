"""Draw a mask for every box of a folder of photographs. Stop it at any moment: the same script continues."""

from pathlib import Path

import synthgen as sg
from synthgen.demo.photographs import write_demo_files

files = write_demo_files(Path("demo"))  # seven photographs and their boxes; name your own instead
result = sg.generate_masks(files.annotations, images=files.images, name="demo", store="demo/shards", progress=True)

print(f"{result.layer}: {result.masks} masks for {result.boxes} boxes on {result.images} images")
print(f"boxes without a mask: {dict(result.skipped)}")
