"""OFA's captions two ways, in one process and one run: the loop a user would write, and this captioner.

    python benchmarks/captions.py --images PHOTOS [--size tiny] [--count 3] [--boxes 8] [--device auto]

(a) naive     per box the whole network, its visual stem and places as well, then a beam search without a cache: the
              decoder on the whole text again for each token, every beam with its own copy of the encoder's states
(b) captioner `OfaCaptioner.caption`: the stem once per image, boxes in chunks, keys and values kept

Both have the same random weights, images, boxes and beams, follow the same rules, and in float32 must say the same.
Goals: b/a at least 4 on a CPU at 8 boxes an image; at least 10 on a GPU in bfloat16. Each way runs once on one image to
warm up, then `--rounds` times by turns; the median counts.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers.pre_tokenizers import ByteLevel

from synthgen import plugins
from synthgen.images.decode import load_rgb
from synthgen.models.ofa.beam import BOS, EOS, PAD, Hypothesis
from synthgen.models.ofa.model import EncoderOutput, Ofa, build_ofa
from synthgen.models.ofa.preprocess import preprocess_images, quantize_boxes, resize_to_square
from synthgen.models.ofa.tokenizer import REGION_PROMPT, SPECIAL_TOKENS

#: Tokens of text in every published OFA.
TEXT = 50265


class Case(NamedTuple):
    """An image, uint8 [H, W, 3], and its boxes, float32 [N, 4] XYXY."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]


#: Of each image, of each of its boxes, the texts, best first.
Told = list[list[list[str]]]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path, required=True, help="a folder of photographs")
    options.add_argument("--count", type=int, default=3, help="how many of them")
    options.add_argument("--boxes", type=int, default=8, help="boxes an image")
    options.add_argument("--size", default="tiny", help="tiny, medium, base, large or huge")
    options.add_argument("--side", type=int, default=384, help="pixels of the square that images are resized to")
    options.add_argument("--beams", type=int, default=5)
    options.add_argument("--max-length", type=int, default=16)
    options.add_argument("--device", default="auto")
    options.add_argument("--precision", default="fp32")
    options.add_argument("--batch-size", default="auto")
    options.add_argument("--box-chunk", type=int, default=0)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--naive", type=int, default=0, help="images of (a), which is slow; 0 = all")
    args = options.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        Benchmark(args, Path(folder)).run()


class Benchmark:
    """The same network, images and boxes for both."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        paths = sorted(p for p in args.images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[: args.count]
        if not paths:
            raise SystemExit(f"no photographs in {args.images}")
        rng = np.random.default_rng(0)
        # More than there are: again from the first, with other boxes.
        images = [load_rgb(path) for path in paths]
        self.cases = [self._case(images[i % len(images)], rng) for i in range(args.count)]

        torch.manual_seed(0)
        torch.save(build_ofa(args.size).state_dict(), folder / "pytorch_model.bin")
        vocabulary, merges = words_of_the_prompt()
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        (folder / "merges.txt").write_text("".join(f"{first} {second}\n" for first, second in merges))
        self.captioner = plugins.build_plugin(
            "generate.captioners",
            "ofa",
            {
                "checkpoint": str(folder), "device": args.device, "precision": args.precision, "side": args.side,
                "num_beams": args.beams, "max_length": args.max_length, "batch_size": args.batch_size,
                "box_chunk": args.box_chunk,
            },
        )  # fmt: skip
        self.device = self.captioner.network.device
        self.cuda = self.device.type == "cuda"

    def _case(self, image: NDArray[np.uint8], rng: np.random.Generator) -> Case:
        whole = np.array(image.shape[1::-1])
        low = rng.uniform(0, 0.8, (self.args.boxes, 2)) * whole
        high = np.minimum(low + rng.uniform(0.05, 0.5, low.shape) * whole, whole)
        return Case(image, np.concatenate([low, high], axis=1).astype(np.float32))

    def run(self) -> None:
        """Both by turns, and the table; (b) first, as the peak of a process never falls."""
        few = self.cases[: self.args.naive or None]
        ways: list[tuple[str, Callable[[Sequence[Case]], Told], Sequence[Case]]] = [
            ("b captioner", self.own, self.cases),
            ("a naive", self.naive, few),
        ]
        seconds: dict[str, list[float]] = {name: [] for name, _, _ in ways}
        peak: dict[str, float] = {}
        told: dict[str, Told] = {}
        for name, way, cases in ways:
            if self.cuda:
                torch.cuda.reset_peak_memory_stats()
            way(cases[: self.captioner.batch_size if name.startswith("b") else 1])
            peak[name] = self._peak()
        for _ in range(self.args.rounds):
            for name, way, cases in ways:
                began = time.perf_counter()
                told[name] = way(cases)
                if self.cuda:
                    torch.cuda.synchronize()
                seconds[name].append((time.perf_counter() - began) / sum(len(case.boxes) for case in cases))
        b, a = told.values()
        pairs = [(x, y) for own, others in zip(b, a, strict=False) for x, y in zip(own, others, strict=True)]
        same = sum(x == y for x, y in pairs) / len(pairs)
        self._tell({name: statistics.median(values) for name, values in seconds.items()}, peak, same)

    def _peak(self) -> float:
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def _tell(self, seconds: dict[str, float], peak: dict[str, float], same: float) -> None:
        chip = torch.cuda.get_device_name() if self.cuda else f"CPU, {torch.get_num_threads()} threads"
        print(
            f"OFA {self.args.size}, {self.args.side} pixels, {self.args.precision}, {chip}, torch {torch.__version__}; "
            f"{len(self.cases)} images, {self.args.boxes} boxes each, {self.args.beams} beams of at most "
            f"{self.args.max_length} tokens; {self.captioner.oom_batcher}"
        )
        for name in sorted(seconds):
            until = "" if self.cuda else " (of the process so far)"
            print(f"  {name:12} {1 / seconds[name]:9.2f} boxes/s   peak {peak[name]:.2f} GiB{until}")
        b, a = seconds.values()
        print(f"  b/a {a / b:.2f}   boxes of which both say the same, word for word: {same:.0%}")

    def own(self, cases: Sequence[Case]) -> Told:
        """Batches of images as a worker gives them."""
        size, found = self.captioner.batch_size, []
        for start in range(0, len(cases), size):
            batch = cases[start : start + size]
            images, boxes = [case.image for case in batch], [case.boxes for case in batch]
            names = [[""] * self.args.boxes for _ in batch]
            found += self.captioner.caption(images, boxes, names, [[] for _ in batch], self.args.beams)
        return [[[c.text for c in captions] for captions in of_image] for of_image in found]

    @torch.inference_mode()
    def naive(self, cases: Sequence[Case]) -> Told:
        """What one writes around a model that takes an image and a prompt."""
        network, tokenizer, found = self.captioner.network, self.captioner.tokenizer, []
        for case in cases:
            small = resize_to_square(case.image, self.args.side)
            told = []
            height, width = case.image.shape[:2]
            for bins in quantize_boxes(torch.tensor(case.boxes), height, width, self.args.side).tolist():
                prompt = torch.tensor([tokenizer.encode_region_prompt(bins)], device=self.device)
                image = network.extract_image_tokens(preprocess_images([small], self.device))
                encoded = network.encode(image, [0], prompt, network.compute_position_bias(image, prompt.shape[1]))
                texts = beam_search(network, encoded, self.args.beams, self.args.max_length)
                told.append([caption.text for caption in self.captioner._decode_captions(texts)])
            found.append(told)
        return found


def beam_search(network: Ofa, encoded: EncoderOutput, beams: int, most: int) -> list[Hypothesis]:
    """The texts of one box, best first: fairseq's rules, no three tokens twice, nothing kept from step to step."""
    tokens = torch.full((1, 1), BOS, device=network.device)
    total = torch.zeros(1, device=network.device)
    done: list[Hypothesis] = []
    for step in range(most + 1):
        copied = EncoderOutput(encoded.states.repeat(len(tokens), 1, 1), encoded.position_embedding, None)
        logits = network.decode(tokens[:, None], network.init_cache(copied, step + 1))[:, 0, -1]
        logp = logits.log_softmax(1)
        logp[:, PAD] = -math.inf
        if step == 0:
            logp[:, EOS] = -math.inf
        if step == most:
            logp[:, :EOS] = logp[:, EOS + 1 :] = -math.inf
        texts = tokens.tolist()
        for row, text in enumerate(texts):
            logp[row, [text[i + 2] for i in range(step - 1) if text[i : i + 2] == text[-2:]]] = -math.inf
        values, places = (total[:, None] + logp).flatten().topk(2 * beams)
        on: list[tuple[list[int], float]] = []
        for rank, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            row, token = divmod(place, logp.shape[1])
            if token != EOS:
                on.append(([*texts[row], token], value))
            elif rank < beams and value > -math.inf:
                mean = value / (step + 1)
                done.append(Hypothesis([*texts[row][1:], EOS], mean, mean))
        if len(done) >= beams:
            break
        tokens = torch.tensor([text for text, _ in on[:beams]], device=network.device)
        total = torch.tensor([value for _, value in on[:beams]], device=network.device)
    return sorted(done[:beams], key=lambda hypothesis: -hypothesis.score)


def words_of_the_prompt() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of OFA's size that makes as many tokens of the prompt as OFA's does; its other words are made up."""
    merges = []
    for word in REGION_PROMPT.replace("?", " ").replace(":", " ").split():
        left = "Ġ"
        for letter in word:
            merges.append((left, letter))
            left += letter
    merges = list(dict.fromkeys(merges))
    words = [*SPECIAL_TOKENS, *sorted(ByteLevel.alphabet()), *(first + second for first, second in merges)]
    words += [f"Ġw{number}" for number in range(TEXT - 1 - len(words))]
    return {word: number for number, word in enumerate([*words, "<mask>"])}, merges


if __name__ == "__main__":
    main()
