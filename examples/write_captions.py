"""Write captions for the boxes of a layer, and list those that agree with the box's category."""

from pathlib import Path

import synthgen as sg
from synthgen.demo.photographs import write_demo_files

files = write_demo_files(Path("demo"))
masks = sg.generate_masks(files.annotations, images=files.images, name="demo", store="demo/shards")
result = sg.generate_captions(masks.layer, store="demo/shards", top_k=3)

for sample in result.load()[:3]:
    for annotation in sample.annotations:
        texts = [caption.text for caption in annotation.captions if caption.category_match is not False]
        print(f"{sample.file_name}, {annotation.category}: {' | '.join(texts)}")
