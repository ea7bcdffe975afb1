"""Train a tiny network on masks for a few steps, and look for a cup with it. Needs the extra `train`."""

from pathlib import Path

import synthgen as sg
from synthgen.demo.photographs import write_demo_files

files = write_demo_files(Path("demo"))
sg.generate_masks(files.annotations, images=files.images, name="demo", store="demo/shards")

run = sg.train(Path(__file__).with_name("train.yaml"), store="demo/shards", out="demo/example-run")
print(f"{run.new_steps} steps, {run.last_checkpoint}")

predictor = sg.Predictor.from_checkpoint(run.last_checkpoint)
for found in predictor(files.images / "coffee.jpg", ["cup", "saucer"], threshold=0.0)[:3]:
    print(f"{found.score:.2f} {found.text} at {[round(edge) for edge in found.box_xyxy]}")
