"""Write the masks of a layer as a COCO instances JSON, and read it with pycocotools."""

from pathlib import Path

from pycocotools.coco import COCO

import synthgen as sg
from synthgen.demo.photographs import write_demo_files

files = write_demo_files(Path("demo"))
result = sg.generate_masks(files.annotations, images=files.images, name="demo", store="demo/shards")
export = result.load().filter(min_stability_score=0.5).to_coco("demo/masks.json", masks_only=True)

coco = COCO(str(export.path))
areas = [int(coco.annToMask(annotation).sum()) for annotation in coco.anns.values()]
print(f"{export.annotations} masks on {export.images} images; the largest has {max(areas, default=0)} pixels")
