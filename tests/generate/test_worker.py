"""The worker: memory, whatever the size of the images."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import pytest
from fakes import coco_dataset
from PIL import Image

from synthgen import plugins
from synthgen.generate import worker
from synthgen.generate.job import Job
from synthgen.generate.worker import Worker
from synthgen.images import prefetch
from synthgen.images.decode import MAX_IMAGE_PIXELS
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore

SHARD = Shard("world", "train", "masks", 0, 1)
TESTS = Path(__file__).parents[1]


def make_job(folder: Path, height: int, width: int, *, images: int, **options: object) -> Job:
    """A job over images `0001.png`, ... below `folder`, with one small box each."""
    samples = [
        Sample(i, f"world/{i}", f"{i:04d}.png", height, width, (Annotation(i, (2.0, 2.0, 9.0, 9.0), "ball"),))
        for i in range(1, images + 1)
    ]
    footer = {"fingerprint": "parent", "categories": ["ball"], "counts": {"images": images}, "recipe": {}}
    ShardStore(folder / "store").commit(SHARD.in_layer("annotations"), samples, footer)
    return Job(
        "masks", "world", "train", "annotations", "masks", "box_fill", folder / "store", folder / "photos",
        plugins.complete_options("generate.segmenters", "box_fill", options),
    )  # fmt: skip


def test_where_an_image_fills_the_limit_the_one_before_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    job = make_job(tmp_path, 72, 96, images=8)
    for module, limit in ((worker, "MAX_BATCH_BYTES"), (prefetch, "PREFETCH_BYTES")):
        monkeypatch.setattr(module, limit, 72 * 96 * 3 + 1)  # a little more than one image
    load, decoded, alive = prefetch.load_rgb, [], []

    def watched(*args: object) -> object:
        alive.append(sum(one() is not None for one in decoded))
        pixels = load(*args)
        decoded.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(prefetch, "load_rgb", watched)
    report = Worker(job).run(SHARD)
    assert report.error is None and report.masks == 8
    assert alive == [0] * 8


def test_ordinary_images_are_decoded_ahead_in_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=12)
    job = make_job(tmp_path, 72, 96, images=12, batch_size=4)
    one = Worker(job)
    sizes, process = [], one.stage.process

    def watched(samples: list[Sample], images: list[object]) -> object:
        sizes.append(len(images))
        return process(samples, images)

    monkeypatch.setattr(one.stage, "process", watched)
    assert one.run(SHARD).masks == 12
    assert sizes == [4, 4, 4]


MEMORY = """
    import resource, sys
    sys.path[:0] = [{tests!r}, {tests!r} + "/generate"]
    from pathlib import Path
    from test_worker import SHARD, Worker, make_job
    report = Worker(make_job(Path({root!r}), {side}, {side}, images=4)).run(SHARD)
    assert report.error is None and report.masks == 4, report
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak // (2**20 if sys.platform == "darwin" else 2**10))
"""


@pytest.mark.slow
def test_the_largest_images_take_the_memory_of_one(tmp_path: Path) -> None:
    """Files of 174 kB in all. It was 3.5 GiB; one image is 0.5 GiB of RGB, and Pillow's copy comes on top."""
    side = int(MAX_IMAGE_PIXELS**0.5)
    (tmp_path / "photos").mkdir()
    Image.new("L", (side, side), 7).save(tmp_path / "photos" / "0001.png")
    content = (tmp_path / "photos" / "0001.png").read_bytes()
    for number in range(2, 5):
        (tmp_path / "photos" / f"{number:04d}.png").write_bytes(content)
    program = textwrap.dedent(MEMORY.format(tests=str(TESTS), root=str(tmp_path), side=side))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.5 * 870, f"{done.stdout.strip()} MiB"
