"""Box-prompted SAM three ways, in one process and one run: the loop a user would write, this pipeline, the bare model.

    python benchmarks/masks.py --images PHOTOS [--variant vit_b] [--count 4] [--boxes 15] [--device auto]

(a) naive     per image `SamPredictor.set_image`, per box `predict`, `mask.encode` one at a time, a JSON file an image
(b) pipeline  `Worker.run` on a shard: decode, resize, encoder, decoder, runs, Parquet; what `synthgen masks` does
(c) bare      encoder and decoder of (b) on tensors that are already there, and nothing else: the limit of (b)

All three have the same random weights, images and boxes; of `--segmenter hq_sam` there is no (a), as segment-anything
has no such network. Goals: b/a >= 1.5 and b/c >= 0.95 on a CPU; b/a >= 4 and b/c >= 0.90 on a GPU in bfloat16. Each way
runs once to warm up (on a GPU), then `--rounds` times by turns; the median counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask
from segment_anything import SamPredictor

from synthgen import plugins
from synthgen.generate.job import Job
from synthgen.generate.worker import Worker
from synthgen.images.decode import load_rgb, read_image_header
from synthgen.models.hq_sam import build_hq_sam
from synthgen.models.sam import build_sam, load_weights
from synthgen.models.sam_forward import decode_masks, encode_images, preprocess_images, resize_longest_side, scale_boxes
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path, required=True, help="a folder of photographs")
    options.add_argument("--count", type=int, default=4, help="how many of them")
    options.add_argument("--boxes", type=int, default=15, help="boxes an image")
    options.add_argument("--variant", default="vit_b")
    options.add_argument("--segmenter", default="sam", choices=["sam", "hq_sam"])
    options.add_argument("--device", default="auto")
    options.add_argument("--precision", default="fp32")
    options.add_argument("--batch-size", default="auto")
    options.add_argument("--compile", action="store_true")
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--naive", type=int, default=0, help="images of (a), which is slow; 0 = all")
    args = options.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        Benchmark(args, Path(folder)).run()


class Benchmark:
    """The same weights, images and boxes for all three."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        paths = sorted(p for p in args.images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[: args.count]
        if not paths:
            raise SystemExit(f"no photographs in {args.images}")
        # More than there are: again from the first. Each is decoded anew, as if it were another.
        paths = [paths[i % len(paths)] for i in range(args.count)]
        rng = np.random.default_rng(0)
        self.samples = [self._sample(i, path, rng) for i, path in enumerate(paths)]
        self.shard = Shard("bench", "train", "masks", 0, 1)
        ShardStore(folder / "shards").commit(self.shard.in_layer("annotations"), self.samples, {"fingerprint": "bench"})

        torch.manual_seed(0)
        build = build_hq_sam if args.segmenter == "hq_sam" else build_sam
        self.weights = build(args.variant).state_dict()
        torch.save(self.weights, folder / "random.pth")
        given = {
            "checkpoint": str(folder / "random.pth"), "device": args.device, "precision": args.precision,
            "batch_size": args.batch_size, "compile": args.compile,
            "self_test": False,  # random weights draw noise, of which bfloat16 keeps less than of objects
        }  # fmt: skip
        full = plugins.complete_options("generate.segmenters", args.segmenter, given)
        job = Job(
            "masks", "bench", "train", "annotations", "masks", args.segmenter, folder / "shards", args.images, full
        )
        started = time.perf_counter()
        self.worker = Worker(job)
        self.started = time.perf_counter() - started
        self.segmenter = self.worker.stage.segmenter
        self.device = self.segmenter.network.device
        self.cuda = self.device.type == "cuda"

    def _sample(self, number: int, path: Path, rng: np.random.Generator) -> Sample:
        height, width, _ = read_image_header(path)
        low = rng.uniform(0, 0.8, (self.args.boxes, 2)) * [width, height]
        size = rng.uniform(0.05, 0.5, (self.args.boxes, 2)) * [width, height]
        high = np.minimum(low + size, [width, height])
        annotations = tuple(
            Annotation(i, (*map(float, a), *map(float, b - a)), "thing")
            for i, (a, b) in enumerate(zip(low, high, strict=True))
        )
        name = path.relative_to(self.args.images).as_posix()
        return Sample(number, f"bench/{number}", name, height, width, annotations)

    def run(self) -> None:
        """All of them by turns, and the table."""
        ways: list[tuple[str, Callable[[Sequence[Sample]], None], Sequence[Sample]]] = [
            ("b pipeline", self.pipeline, self.samples),
            ("c bare", self.bare(), self.samples),
        ]
        if self.args.segmenter == "sam":
            ways.insert(0, ("a naive", self.naive(), self.samples[: self.args.naive or None]))
        seconds: dict[str, list[float]] = {name: [] for name, _, _ in ways}
        peak: dict[str, float] = {}
        for round_ in range(self.args.rounds + self.cuda):
            for name, way, samples in ways:
                if self.cuda:
                    torch.cuda.reset_peak_memory_stats()
                began = time.perf_counter()
                way(samples)
                if self.cuda:
                    torch.cuda.synchronize()
                if round_ or not self.cuda:
                    seconds[name].append((time.perf_counter() - began) / len(samples))
                peak[name] = self._peak()
        self._tell({name: statistics.median(values) for name, values in seconds.items()}, peak)

    def _peak(self) -> float:
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def _tell(self, seconds: dict[str, float], peak: dict[str, float]) -> None:
        b, c = seconds["b pipeline"], seconds["c bare"]
        chip = torch.cuda.get_device_name() if self.cuda else f"CPU, {torch.get_num_threads()} threads"
        how = f"{self.args.precision}{' compiled' if self.args.compile else ''}"
        print(
            f"{self.args.segmenter} {self.args.variant}, {how}, {chip}, torch {torch.__version__}; {len(self.samples)} "
            f"images, {self.args.boxes} boxes each; {self.segmenter.oom_batcher}"
        )
        for name, each in seconds.items():
            memory = f"{peak[name]:6.2f} GiB" if self.cuda else ""
            print(f"  {name:11} {1 / each:8.3f} images/s {self.args.boxes / each:9.2f} masks/s {memory}")
        if not self.cuda:
            print(f"  peak memory of the process, all models loaded: {max(peak.values()):.2f} GiB")
        naive = f"b/a {seconds['a naive'] / b:.2f}   " if "a naive" in seconds else ""
        print(f"  {naive}b/c {c / b:.3f}   outside the model {1 - c / b:.1%}   start {self.started:.1f} s")

    def naive(self) -> Callable[[Sequence[Sample]], None]:
        """What segment-anything's README leads to."""
        network = build_sam(self.args.variant)
        load_weights(network, self.weights)
        predictor = SamPredictor(network.to(self.device))

        def way(samples: Sequence[Sample]) -> None:
            for sample in samples:
                predictor.set_image(load_rgb(self.args.images / sample.file_name))
                found = []
                for annotation in sample.annotations:
                    x, y, w, h = annotation.bbox
                    masks, scores, _ = predictor.predict(box=np.array([x, y, x + w, y + h]), multimask_output=False)
                    rle = coco_mask.encode(np.asfortranarray(masks[0].astype(np.uint8)))
                    found.append({"size": rle["size"], "counts": rle["counts"].decode(), "score": float(scores[0])})
                (self.folder / f"{sample.image_id}.json").write_text(json.dumps(found))

        return way

    def pipeline(self, _: Sequence[Sample]) -> None:
        """A shard, as a job does it."""
        report = self.worker.run(self.shard)
        assert report.error is None, report.error
        assert report.annotations == len(self.samples) * self.args.boxes

    def bare(self) -> Callable[[Sequence[Sample]], None]:
        """The model of the pipeline, on tensors that lie on the device."""
        network, size = self.segmenter.network, self.segmenter.batch_size
        images = [load_rgb(self.args.images / sample.file_name) for sample in self.samples]
        small = [resize_longest_side(image, 1024) for image in images]
        boxes = [
            scale_boxes(
                torch.tensor([(x, y, x + w, y + h) for x, y, w, h in (a.bbox for a in sample.annotations)]),
                (sample.height, sample.width),
                (own.shape[0], own.shape[1]),
            ).to(self.device)
            for sample, own in zip(self.samples, small, strict=True)
        ]
        with torch.inference_mode():
            batches = [
                (preprocess_images(network, small[i : i + size]), boxes[i : i + size])
                for i in range(0, len(small), size)
            ]

        @torch.inference_mode()
        def way(_: Sequence[Sample]) -> None:
            for pixels, own in batches:
                for _chunk in decode_masks(
                    network, encode_images(network, pixels), own, chunk_size=self.segmenter.oom_batcher.max_boxes
                ):
                    pass

        return way


if __name__ == "__main__":
    main()
