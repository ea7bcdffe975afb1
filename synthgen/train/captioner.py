"""The captioner learns: an OFA as a manifest describes it, the loss of its words, and how what it says is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthgen import weights
from synthgen.errors import SynthgenError
from synthgen.networks.ofa import folder
from synthgen.networks.ofa.beam import BeamSettings, describe
from synthgen.networks.ofa.model import SIZES, Ofa, build_ofa
from synthgen.networks.ofa.positions import LONGEST
from synthgen.networks.ofa.preprocess import box_bins
from synthgen.networks.ofa.resnet import STRIDE
from synthgen.networks.ofa.tokenizer import EOS, PAD, OfaTokenizer, clean, load_tokenizer
from synthgen.networks.ofa.training import prepare, smoothed_loss, teach
from synthgen.networks.ofa.weights import from_weights
from synthgen.reading.batch import PIXEL_MEAN, PIXEL_STD, Batch
from synthgen.reading.check import NewBar, NoBar
from synthgen.reading.manifest import Manifest
from synthgen.reading.settings import Captioner, Schedule
from synthgen.train import measuring
from synthgen.train.checkpoint import Checkpoint, read
from synthgen.train.measured import Measured
from synthgen.train.metrics import Asked, Compared, cider
from synthgen.train.optimiser import parameter_groups
from synthgen.train.ranks import Ranks

#: How OFA's own evaluation of captions searches.
SEARCH = BeamSettings(beams=5, max_length=16, no_repeat_ngram=3)

#: Images and boxes that are evaluated at a time.
_IMAGES, _BOXES = 8, 64

#: Phrases of which the tokens are kept.
_KEPT = 2**16


class Regions(NamedTuple):
    """The regions of a batch, n in all.

    Attributes:
        owner: for each the index of its image.
        prompts: int64 [n, t], what is asked of it.
        texts: int64 [n, s], what is to be said, `</s>` last, and padding after it.
    """

    owner: list[int]
    prompts: Tensor
    texts: Tensor


class Captioning:
    """An OFA as a manifest describes it; see `learner.Learner`.

    Attributes:
        tokenizer: its words. beside: their files, which are to lie beside its checkpoints.

    Raises:
        SynthgenError: weights or words are not where they should be, or are others; what measures is not installed.
    """

    kind = "captioner"
    masks = False

    def __init__(self, manifest: Manifest, device: torch.device) -> None:
        self._settings = manifest.captioner or Captioner()
        if manifest.eval:
            cider.need_package()
        network, self.tokenizer, words = build(self._settings)
        self.beside: tuple[Path, ...] = tuple(words / name for name in folder.WORDS)
        schedule = manifest.schedule
        prepare(network, words=self._settings.train_words, checkpointing=schedule.checkpointing)
        self.module = network.to(device)
        self._half = schedule.precision == "bf16"
        self._tokens = lru_cache(_KEPT)(self._encoded)

    def section(self) -> dict[str, Any]:
        """The manifest's `captioner`."""
        said = self._settings.model_dump(mode="json", exclude_unset=True)
        return {key: str(Path(one).absolute()) if "/" in str(one) else one for key, one in said.items()}

    def groups(self, schedule: Schedule) -> list[dict[str, Any]]:
        """The visual stem has the backbone's rate."""
        return parameter_groups(self.module, schedule, {"encoder.embed_images.": schedule.backbone_lr})

    def objects(self, batch: Batch) -> int:
        """Tokens that are to be said, ends among them."""
        return sum(len(tokens) for _, _, tokens in self._said(batch))

    def losses(self, batch: Batch, *, objects: float) -> dict[str, Tensor]:
        """Of each token, where those before it are given: "words"."""
        device = self.module.device
        regions = self.regions(batch)
        images, prompts, texts = (
            x.to(device, non_blocking=True) for x in (batch.images, regions.prompts, regions.texts)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=self._half):
            logits = teach(self.module, pixels(images), regions.owner, prompts, texts)
        return {"words": smoothed_loss(logits, texts[texts != PAD]) / objects}

    def pictures(self, batch: Batch) -> Iterator[NDArray[np.uint8]]:  # noqa: ARG002
        """None: what it says of an image is measured, not drawn."""
        return iter(())

    def measured(self, manifest: Manifest, here: Ranks, *, workers: int, bar: Any) -> list[Measured]:
        """See `measure`."""
        precision = manifest.schedule.precision
        return measure(self.module, self.tokenizer, manifest, here, workers=workers, precision=precision, bar=bar)

    def regions(self, batch: Batch) -> Regions:
        """What of a batch is learned: all regions whose phrase is more than marks.

        Where there is none, one of which nothing is to be said: all weights have a gradient then, of 0, for which other
        processes wait.
        """
        found = list(self._said(batch)) or [(0, [0] * 4, ())]
        longest = max(1, *(len(tokens) for _, _, tokens in found))
        texts = torch.tensor([[*tokens, *[PAD] * (longest - len(tokens))] for _, _, tokens in found])
        prompts = torch.tensor([self.tokenizer.region_prompt(corners) for _, corners, _ in found])
        return Regions([owner for owner, _, _ in found], prompts, texts)

    def _said(self, batch: Batch) -> Iterator[tuple[int, list[int], tuple[int, ...]]]:
        """Of each region its image, the bins of its corners, and the tokens of its phrase."""
        for i, target in enumerate(batch.targets):
            phrases = [target["texts"][label] for label in target["labels"].tolist()]
            for corners, phrase in zip(bins(target).tolist(), phrases, strict=True):
                if tokens := self._tokens(phrase):
                    yield i, corners, tokens

    def _encoded(self, phrase: str) -> tuple[int, ...]:
        text = clean(phrase, self._settings.max_words)
        most = min(self.module.numbers.positions, LONGEST) - 1
        return (*self.tokenizer.encode(f" {text}")[:most], EOS) if text else ()


def build(settings: Captioner) -> tuple[Ofa, OfaTokenizer, Path]:
    """The network, what it reads and writes in, and the folder of that.

    Raises:
        SynthgenError: weights or words are not where they should be, or are others.
    """
    words = Path(settings.words) if settings.words is not None else None
    path: Path | None = None
    if settings.weights != "random":
        path = _weights_of(settings)
        words = words or path.parent
    assert words is not None  # noqa: S101 - random weights say where theirs are
    if lacking := folder.lacking_words(words):
        raise SynthgenError(
            f"{words} lacks {' and '.join(lacking)}, which all OFAs have; "
            f"run: {folder.FETCH_WORDS} --local-dir {words}, or say captioner.words"
        )
    try:
        if path is None:
            tokenizer = load_tokenizer(words)
            network = build_ofa(replace(SIZES[settings.size], vocabulary=tokenizer.size))
        else:
            state, tokenizer = folder.read(path, words)
            network = from_weights(state)
    except ValueError as why:
        raise SynthgenError(f"{why}; see captioner.weights and captioner.words") from None
    if settings.image_size > (longest := STRIDE * network.numbers.image_bucket):
        raise SynthgenError(f"captioner.image_size {settings.image_size} is more than this OFA's {longest} pixels")
    return network, tokenizer, words


def load(path: Path, *, device: torch.device) -> tuple[Ofa, OfaTokenizer, Checkpoint]:
    """The captioner of a checkpoint, ready to describe; its words lie beside it.

    Raises:
        SynthgenError: it is none, or its words are not there.
    """
    found = read(path)
    if found.kind != Captioning.kind:
        raise SynthgenError(f"{path} is a checkpoint of a {found.kind[:40]}, not of a captioner; name another")
    try:
        state, tokenizer = folder.read(path, path.parent)
        return from_weights(state).to(device).eval(), tokenizer, found
    except ValueError as why:
        raise SynthgenError(f"{why}; training writes {' and '.join(folder.WORDS)} beside its checkpoints") from None


def as_learned(manifest: Manifest, held: Checkpoint) -> Manifest:
    """The manifest, by which images are as large as the captioner of a checkpoint learned from, if it says no other.

    Raises:
        SynthgenError: the checkpoint says what none can have learned from.
    """
    own = manifest.captioner or Captioner()
    if "image_size" in own.model_fields_set or "image_size" not in held.model:
        return manifest
    try:
        side = Captioner.model_validate({"image_size": held.model["image_size"]}).image_size
    except ValueError:
        raise SynthgenError("the checkpoint is damaged: its image_size is none; say captioner.image_size") from None
    return manifest.model_copy(update={"captioner": own.model_copy(update={"image_size": side})})


def measure(
    network: Ofa,
    tokenizer: OfaTokenizer,
    manifest: Manifest,
    here: Ranks,
    *,
    workers: int = 0,
    precision: str = "fp32",
    bar: NewBar = NoBar,
) -> list[Measured]:
    """What a captioner says of the objects of the manifest's `eval`, against what people said: CIDEr and token F1.

    Args:
        network: on the device of `here`; each process describes its part of the images, and all return the whole.
        precision: fp32 or bf16, of activations.

    Raises:
        SynthgenError: see `Once`; what counts CIDEr is not installed.
    """
    cider.need_package()

    def compare(batch: Batch) -> list[tuple[Asked, Compared]]:
        with torch.autocast(here.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return list(_compared(network, tokenizer, batch))

    return [
        measuring.measure(
            manifest, index, here, compare, doing="describing", bar=bar, batch_size=_IMAGES, workers=workers
        )
        for index in range(len(manifest.eval))
    ]


def _compared(network: Ofa, tokenizer: OfaTokenizer, batch: Batch) -> Iterator[tuple[Asked, Compared]]:
    """Of each image of a batch what is true of it, and what the network says of its regions, compared."""
    ids = [tokenizer.region_prompt(corners) for target in batch.targets for corners in bins(target).tolist()]
    owner = [i for i, target in enumerate(batch.targets) for _ in target["labels"]]
    image = network.stem(pixels(batch.images.to(network.device)))
    spoken = describe(network, image, owner, torch.tensor(ids, device=network.device), SEARCH, chunk=_BOXES)
    texts = (clean(tokenizer.decode(found[0].tokens)) if found else "" for found in spoken)
    for target in batch.targets:
        asked = Asked(target["sample"], target["original"])
        said = dict(zip(target["annotation_ids"], texts, strict=False))  # the next texts, as many as it has regions
        yield asked, cider.compare(asked, [said.get(region, "") for region in asked.target.annotation_ids])


def pixels(images: Tensor) -> Tensor:
    """Images of a batch, [B, 3, side, side], normalised as OFA's are."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (images * std + mean) / 127.5 - 1


def bins(target: Mapping[str, Any]) -> Tensor:
    """The bins of the corners of a target's boxes, int64 [n, 4]; as the generating wing counts them."""
    height, width = target["size"]
    middle, half = target["boxes"][:, :2].double(), target["boxes"][:, 2:].double() / 2
    corners = torch.cat([middle - half, middle + half], dim=1) * torch.tensor([width, height] * 2)
    return box_bins(corners, height, width, side=height)


def _weights_of(settings: Captioner) -> Path:
    """The file that `weights` means."""
    if settings.weights == "pretrained":
        place = weights.folder() / f"ofa-{settings.size}"
        remedy = f"run: hf download OFA-Sys/ofa-{settings.size} --local-dir {place}, or say captioner.weights"
    else:
        place, remedy = Path(settings.weights), "mend captioner.weights"
    path = place if place.is_file() else folder.weights_in(place)
    if path is None:
        raise SynthgenError(f"no weights of an OFA in {place}; {remedy}")
    return path
