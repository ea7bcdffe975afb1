"""The OFA network: images once, their boxes in batches, captions token by token; its names are `OFA-Sys/ofa-*`'s.

In the order of use: `stem` and `places`, `encode`, `start`, `decode`. Wang et al., "OFA: Unifying Architectures, Tasks,
and Modalities Through a Simple Sequence-to-Sequence Learning Framework", ICML 2022; what is here was written from its
description and checked against the original's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from synthgen.models.ofa.position_bias import (
    LONGEST,
    SCALE_FACTOR,
    aligned,
    image_buckets,
    image_positions,
    looked_up,
    similarity,
    token_buckets,
)
from synthgen.models.ofa.resnet import CHANNELS, STRIDE, ResNet


@dataclass(frozen=True, kw_only=True)
class OfaNumbers:
    """The numbers that make an OFA; what the published five share is the default.

    Attributes:
        dim: channels of encoder and decoder.
        ffn: channels between the two layers of each feed-forward network.
        resnet: blocks of the visual stem's three stages.
        vocabulary: tokens of text, of image codes and of box corners.
        positions: tokens that a text may have.
        token_bucket, image_bucket: distances within a text, and along a side of an image, that are told apart; an
            image has at most `image_bucket` tokens along a side.
    """

    dim: int
    ffn: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    resnet: tuple[int, int, int]
    vocabulary: int = 59457
    positions: int = 1024
    token_bucket: int = 256
    image_bucket: int = 42


_50, _101, _152 = (3, 4, 6), (3, 4, 23), (3, 8, 36)
SIZES = {
    "tiny": OfaNumbers(dim=256, ffn=1024, heads=4, encoder_layers=4, decoder_layers=4, resnet=_50),
    "medium": OfaNumbers(dim=512, ffn=2048, heads=8, encoder_layers=4, decoder_layers=4, resnet=_101),
    "base": OfaNumbers(dim=768, ffn=3072, heads=12, encoder_layers=6, decoder_layers=6, resnet=_101),
    "large": OfaNumbers(dim=1024, ffn=4096, heads=16, encoder_layers=12, decoder_layers=12, resnet=_152),
    "huge": OfaNumbers(dim=1280, ffn=5120, heads=16, encoder_layers=24, decoder_layers=12, resnet=_152),
}


class ImageTokens(NamedTuple):
    """What is computed once for each of B images of one size.

    Attributes:
        tokens: [B, rows * columns, dim], in the network's dtype.
    """

    tokens: Tensor
    rows: int
    columns: int


class Places(NamedTuple):
    """What is computed once for each size of image and length of text.

    Attributes:
        embedding: float32 [L, dim], the places of the L tokens, image first; the decoder needs them too.
        bias: of each encoder layer [1, heads, L, L], added to the attention scores; in the network's dtype.
        of: rows and columns of the image, tokens of the text.
    """

    embedding: Tensor
    bias: list[Tensor]
    of: tuple[int, int, int]


class Encoded(NamedTuple):
    """What the encoder makes of n boxes.

    Attributes:
        states: [n, L, dim]; what stands at padding means nothing.
        places: float32 [L, dim].
        padding: bool [n, L], True where no token is; None if all are tokens.
    """

    states: Tensor
    places: Tensor
    padding: Tensor | None


@dataclass
class Cache:
    """What decoding n boxes with some beams each has computed so far, and need not compute again.

    Attributes:
        own: of each layer keys and values of the texts, [2, n * beams, heads, steps, head_dim]; filled up to `length`.
        cross: of each layer keys and values of the encoder's states, [n, heads, L, head_dim]; the beams share them.
        own_bias: of each layer [1, heads, steps, steps], -inf where a token would look ahead.
        cross_bias: [heads, steps, L].
        padding: 0, and -inf at padding, [n, 1, 1, L]; None if there is none.
    """

    own: list[Tensor]
    cross: list[tuple[Tensor, Tensor]]
    own_bias: list[Tensor]
    cross_bias: Tensor
    padding: Tensor | None
    beams: int = 1
    length: int = 0

    @property
    def steps(self) -> int:
        """Tokens that there is room for."""
        return self.own[0].shape[3]

    def reorder(self, parents: Tensor) -> None:
        """Go on with other beams: int64 [n, new beams], for each the beam of its box that it continues."""
        boxes, beams = parents.shape
        first = torch.arange(boxes, device=parents.device)[:, None] * self.beams
        rows = (first + parents).flatten()
        self.own = [own.index_select(1, rows) for own in self.own]
        self.beams = beams

    def keep(self, boxes: Tensor) -> None:
        """Go on with some boxes only: int64 [m], ascending."""
        apart = (own.view(2, -1, self.beams, *own.shape[2:]) for own in self.own)
        self.own = [own.index_select(1, boxes).flatten(1, 2) for own in apart]
        self.cross = [(k.index_select(0, boxes), v.index_select(0, boxes)) for k, v in self.cross]
        self.padding = None if self.padding is None else self.padding.index_select(0, boxes)


class Attention(nn.Module):
    """Multi-head attention with a bias, and a learned factor for each head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (SCALE_FACTOR * dim / heads) ** -0.5
        self.c_attn = nn.Parameter(torch.ones(heads))
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of [n, t, dim], each [n, heads, t, head_dim]."""
        return self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """[n, q, dim] attends to keys and values [n, heads, k, head_dim]; bias is 1 or n times [heads, q, k]."""
        found = scaled_dot_product_attention(
            self._split(self.q_proj(x)), keys, values, attn_mask=bias, scale=self.scale
        )
        out: Tensor = self.out_proj((found * self.c_attn.view(-1, 1, 1)).transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each normalised before, within and after."""

    def __init__(self, n: OfaNumbers) -> None:
        super().__init__()
        self.self_attn = Attention(n.dim, n.heads)
        self.self_attn_layer_norm = nn.LayerNorm(n.dim)
        self.self_attn_mid_layer_norm = nn.LayerNorm(n.dim)
        self.fc1 = nn.Linear(n.dim, n.ffn)
        self.fc2 = nn.Linear(n.ffn, n.dim)
        self.ffn_layer_norm = nn.LayerNorm(n.ffn)
        self.final_layer_norm = nn.LayerNorm(n.dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[n, L, dim] to the same."""
        normed = self.self_attn_layer_norm(x)
        x = x + self.self_attn_mid_layer_norm(self.self_attn(normed, *self.self_attn.keys_and_values(normed), bias))
        return x + self.feed_forward(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """What the second half of a layer adds to [..., dim]."""
        out: Tensor = self.fc2(self.ffn_layer_norm(gelu(self.fc1(self.final_layer_norm(x)))))
        return out


class DecoderLayer(EncoderLayer):
    """An encoder layer that also attends to the encoder's states."""

    def __init__(self, n: OfaNumbers) -> None:
        super().__init__(n)
        self.cross_attn = Attention(n.dim, n.heads)
        self.cross_attn_layer_norm = nn.LayerNorm(n.dim)
        self.cross_attn_mid_layer_norm = nn.LayerNorm(n.dim)

    def forward(  # type: ignore[override]
        self, x: Tensor, own: Tensor, new: slice, own_bias: Tensor, cross: tuple[Tensor, Tensor], cross_bias: Tensor
    ) -> Tensor:
        """Tokens at the places `new` of n boxes with some beams each, [n, beams, t, dim] to the same.

        Args:
            own: keys and values [2, n * beams, heads, steps, head_dim] of all tokens; those of the new are written.
            own_bias: [1, heads, t, new.stop].
            cross_bias: 1 or n times [heads, beams * t, L].
        """
        texts = x.flatten(0, 1)
        normed = self.self_attn_layer_norm(texts)
        own[0, :, :, new], own[1, :, :, new] = self.self_attn.keys_and_values(normed)
        found = self.self_attn(normed, own[0, :, :, : new.stop], own[1, :, :, : new.stop], own_bias)
        # A box's beams are so many queries of one attention: keys and values of its image are not repeated.
        boxes = (texts + self.self_attn_mid_layer_norm(found)).view_as(x).flatten(1, 2)
        found = self.cross_attn(self.cross_attn_layer_norm(boxes), *cross, cross_bias)
        boxes = boxes + self.cross_attn_mid_layer_norm(found)
        out: Tensor = (boxes + self.feed_forward(boxes)).view_as(x)
        return out


class Encoder(nn.Module):
    """Image and text to states."""

    def __init__(self, n: OfaNumbers) -> None:
        super().__init__()
        self.numbers = n
        self.checkpointing = False  # in training: layers are computed a second time, for the gradients
        self.embed_tokens = _embedding(n.vocabulary, n.dim)
        self.layernorm_embedding = nn.LayerNorm(n.dim)
        self.type_embedding = _embedding(2, n.dim)  # of text, of image
        self.embed_images = ResNet(n.resnet)
        self.image_proj = nn.Linear(CHANNELS, n.dim)
        self.patch_layernorm_embedding = nn.LayerNorm(n.dim)
        self.embed_positions = _embedding(n.positions + 2, n.dim)
        self.embed_image_positions = _embedding(n.image_bucket**2 + 1, n.dim)
        self.pos_ln = nn.LayerNorm(n.dim)
        self.image_pos_ln = nn.LayerNorm(n.dim)
        self.pos_q_linear = nn.Linear(n.dim, n.dim)
        self.pos_k_linear = nn.Linear(n.dim, n.dim)
        self.layers = nn.ModuleList(EncoderLayer(n) for _ in range(n.encoder_layers))
        self.layer_norm = nn.LayerNorm(n.dim)
        self.token_rel_pos_table_list = _tables(2 * n.token_bucket - 1, n.heads, n.encoder_layers)
        self.image_rel_pos_table_list = _tables((2 * n.image_bucket - 1) ** 2 + 3, n.heads, n.encoder_layers)

    def stem(self, images: Tensor) -> ImageTokens:
        """See `Ofa.stem`."""
        seen = self.embed_images(images.to(self.layer_norm.weight.dtype))
        tokens = self.image_proj(seen.flatten(2).transpose(1, 2)) + self.type_embedding.weight[1]
        return ImageTokens(self.patch_layernorm_embedding(tokens), *seen.shape[2:])

    def places(self, rows: int, columns: int, length: int) -> Places:
        """See `Ofa.places`."""
        n, device = self.numbers, self.layer_norm.weight.device
        image = self.embed_image_positions(image_positions(n.image_bucket, rows, columns, device))
        embedding = torch.cat([self.image_pos_ln(image), self.pos_ln(self.embed_positions.weight[:length])])
        alike = similarity(self.pos_q_linear(embedding), self.pos_k_linear(embedding), n.heads)
        within_image = image_buckets(n.image_bucket, rows, columns, device)
        within_text = token_buckets(n.token_bucket, length, device)
        pixels, biases = rows * columns, []
        for of_image, of_text in zip(self.image_rel_pos_table_list, self.token_rel_pos_table_list, strict=True):
            bias = alike.clone()
            bias[:, :pixels, :pixels] += looked_up(of_image, within_image)
            bias[:, pixels:, pixels:] += looked_up(of_text, within_text)
            biases.append(aligned(bias, self.layer_norm.weight.dtype))
        return Places(embedding, biases, (rows, columns, length))

    def forward(self, image: Tensor, text: Tensor, places: Places, padding: Tensor | None) -> Encoded:
        """Image tokens [n, rows * columns, dim] and text [n, t]; padding is bool [n, t]. See `Ofa.encode`."""
        words = self.layernorm_embedding(self.embed_tokens(text) + self.type_embedding.weight[0])
        x = torch.cat([image, words], dim=1)
        hidden: Tensor | None = None
        if padding is not None:
            padding = torch.cat([padding.new_zeros(image.shape[:2]), padding], dim=1)
            hidden = _minus_infinity(padding, x.dtype)
        for layer, bias in zip(self.layers, places.bias, strict=True):
            bias = bias if hidden is None else bias + hidden
            x = checkpoint(layer, x, bias, use_reentrant=False) if self.checkpointing else layer(x, bias)
        return Encoded(self.layer_norm(x), places.embedding, padding)


class Decoder(nn.Module):
    """States and the text so far to logits; `*image*` and `code_*` are for images that OFA draws, and unused here."""

    def __init__(self, n: OfaNumbers, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        self.numbers = n
        self.embed_tokens = embed_tokens
        self.layers = nn.ModuleList(DecoderLayer(n) for _ in range(n.decoder_layers))
        self.layernorm_embedding = nn.LayerNorm(n.dim)
        self.embed_positions = _embedding(n.positions + 2, n.dim)
        self.embed_image_positions = _embedding(n.image_bucket**2 + 1, n.dim)
        self.pos_ln = nn.LayerNorm(n.dim)
        self.image_pos_ln = nn.LayerNorm(n.dim)
        self.self_pos_q_linear = nn.Linear(n.dim, n.dim)
        self.self_pos_k_linear = nn.Linear(n.dim, n.dim)
        self.cross_pos_q_linear = nn.Linear(n.dim, n.dim)
        self.cross_pos_k_linear = nn.Linear(n.dim, n.dim)
        self.code_layernorm_embedding = nn.LayerNorm(n.dim)
        self.layer_norm = nn.LayerNorm(n.dim)
        self.output_projection = nn.Linear(n.dim, n.vocabulary, bias=False, device="meta")
        self.output_projection.weight = embed_tokens.weight
        self.token_rel_pos_table_list = _tables(2 * n.token_bucket - 1, n.heads, n.decoder_layers)
        self.image_rel_pos_table_list = _tables((2 * n.image_bucket - 1) ** 2 + 3, n.heads, n.decoder_layers)

    def start(self, encoded: Encoded, steps: int) -> Cache:
        """See `Ofa.start`."""
        n, states = self.numbers, encoded.states
        places = self.pos_ln(self.embed_positions.weight[:steps])
        alike = similarity(self.self_pos_q_linear(places), self.self_pos_k_linear(places), n.heads)
        ahead = torch.ones_like(alike[0], dtype=torch.bool).triu(1)
        buckets = token_buckets(n.token_bucket, steps, alike.device)
        crossed = similarity(self.cross_pos_q_linear(places), self.cross_pos_k_linear(encoded.places), n.heads)
        return Cache(
            own=[states.new_zeros(2, len(states), n.heads, steps, n.dim // n.heads) for _ in self.layers],
            cross=[cast(DecoderLayer, layer).cross_attn.keys_and_values(states) for layer in self.layers],
            own_bias=[
                aligned((alike + looked_up(table, buckets)).masked_fill(ahead, -torch.inf), states.dtype)
                for table in self.token_rel_pos_table_list
            ],
            cross_bias=crossed.to(states.dtype),
            padding=None if encoded.padding is None else _minus_infinity(encoded.padding, states.dtype),
        )

    def forward(self, tokens: Tensor, cache: Cache) -> Tensor:
        """See `Ofa.decode`."""
        return self.logits(self.states(tokens, cache))

    def logits(self, states: Tensor) -> Tensor:
        """Of `states` [..., dim], or some of them, those of each word: float32 [..., vocabulary]."""
        return _projected(self.layer_norm(states), self.output_projection.weight)

    def states(self, tokens: Tensor, cache: Cache) -> Tensor:
        """What the layers make of tokens [n, beams, t]: [n, beams, t, dim]."""
        beams, length = tokens.shape[1:]
        new = slice(cache.length, cache.length + length)
        x: Tensor = self.layernorm_embedding(self.embed_tokens(tokens))
        cross_bias = aligned(cache.cross_bias[:, new].repeat(1, beams, 1), x.dtype)
        if cache.padding is not None:
            cross_bias = cross_bias + cache.padding
        for layer, own, own_bias, cross in zip(self.layers, cache.own, cache.own_bias, cache.cross, strict=True):
            x = layer(x, own, new, own_bias[:, :, new, : new.stop], cross, cross_bias)
        cache.length = new.stop
        return x


class Ofa(nn.Module):
    """An OFA for inference; `weights.load_weights` gives it the published weights, `training.teach` what it learns."""

    def __init__(self, numbers: OfaNumbers) -> None:
        super().__init__()
        self.numbers = numbers
        self.encoder = Encoder(numbers)
        self.decoder = Decoder(numbers, self.encoder.embed_tokens)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.encoder.layer_norm.weight.device

    @torch.no_grad()
    def stem(self, images: Tensor) -> ImageTokens:
        """See each image once: float [B, 3, h, w], normalised as of `preprocess.to_pixels`.

        Raises:
            ValueError: a side is longer than the network tells places apart.
        """
        longest = STRIDE * self.numbers.image_bucket
        if images.dim() != 4 or not 0 < max(images.shape[2:]) <= longest:
            raise ValueError(f"images of {list(images.shape)} are not [B, 3, h, w] of at most {longest} pixels a side")
        tokens: ImageTokens = self.encoder.stem(images)
        return tokens

    @torch.no_grad()
    def places(self, image: ImageTokens, length: int) -> Places:
        """What the places of these images' tokens, and of as many of a text, add to attention.

        Keep it for as long as size and length are the same. Memory: layers * heads * L^2 numbers; for base at 512
        pixels 156 MB in bfloat16.

        Raises:
            ValueError: texts are not that long.
        """
        if not 0 < length <= min(self.numbers.positions, LONGEST):
            raise ValueError(f"a text of {length} tokens is not one of 1 to {min(self.numbers.positions, LONGEST)}")
        return self.encoder.places(image.rows, image.columns, length)

    @torch.no_grad()
    def encode(
        self, image: ImageTokens, owner: Sequence[int], text: Tensor, places: Places, padding: Tensor | None = None
    ) -> Encoded:
        """Encode n texts, each with its image.

        Args:
            image: of B images.
            owner: for each text, the index of its image.
            text: int64 [n, t], ids; `<s>` first, `</s>` last, and padding after it.
            places: of these images and t tokens.
            padding: bool [n, t], True where a text has ended; None, which is faster, if all are of one length.

        Raises:
            ValueError: these do not go together.
        """
        wanted = (image.rows, image.columns, text.shape[-1])
        if text.dim() != 2 or len(owner) != len(text) or places.of != wanted:
            raise ValueError(
                f"{len(owner)} owners, texts of {list(text.shape)}, images of {image.rows} by {image.columns} tokens "
                f"and places of {places.of} do not go together"
            )
        if owner and not 0 <= min(owner) <= max(owner) < len(image.tokens):
            raise ValueError(f"texts of images {min(owner)} to {max(owner)}, but there are {len(image.tokens)} images")
        index = torch.tensor(owner, dtype=torch.int64, device=image.tokens.device)
        encoded: Encoded = self.encoder(image.tokens[index], text, places, padding)
        return encoded

    @torch.no_grad()
    def start(self, encoded: Encoded, steps: int) -> Cache:
        """Make ready to decode n boxes, one beam each, up to so many tokens.

        Raises:
            ValueError: texts are not that long.
        """
        if not 0 < steps <= min(self.numbers.positions, LONGEST):
            raise ValueError(f"a text of {steps} tokens is not one of 1 to {min(self.numbers.positions, LONGEST)}")
        return self.decoder.start(encoded, steps)

    @torch.no_grad()
    def decode(self, tokens: Tensor, cache: Cache) -> Tensor:
        """The logits of what follows each of the next t tokens of n boxes' beams.

        Args:
            tokens: int64 [n, beams, t]; `<s>` is the first of all.
            cache: remembers them.

        Returns:
            float32 [n, beams, t, vocabulary].

        Raises:
            ValueError: other boxes or beams than the cache has, or more tokens than it has room for.
        """
        boxes, beams, length = tokens.shape
        if boxes * beams != cache.own[0].shape[1] or beams != cache.beams or cache.length + length > cache.steps:
            raise ValueError(
                f"tokens of {list(tokens.shape)} do not go on from {cache.length} of {cache.steps} steps of "
                f"{cache.own[0].shape[1]} texts in beams of {cache.beams}"
            )
        logits: Tensor = self.decoder(tokens, cache)
        return logits


def build_ofa(size: str | OfaNumbers) -> Ofa:
    """Make an OFA with random weights, for inference; under `torch.device("meta")` without any.

    Raises:
        ValueError: no such size.
    """
    if isinstance(size, str):
        if size not in SIZES:
            raise ValueError(f"no OFA of size {size!r}; there are {', '.join(SIZES)}")
        size = SIZES[size]
    return Ofa(size).eval().requires_grad_(False)


def set_precision(network: Ofa, dtype: torch.dtype) -> None:
    """Cast all but the places: their bias is computed in float32, and rounded once."""
    for half in (network.encoder, network.decoder):
        for name, part in half.named_children():
            if "pos" not in name:
                part.to(dtype)


def _embedding(rows: int, dim: int) -> nn.Embedding:
    """As OFA begins: the default would make a tied output far too sure of itself."""
    made = nn.Embedding(rows, dim)
    nn.init.normal_(made.weight, std=dim**-0.5)
    return made


def _tables(buckets: int, heads: int, layers: int) -> nn.ModuleList:
    return nn.ModuleList(_embedding(buckets, heads) for _ in range(layers))


def _projected(states: Tensor, words: Tensor) -> Tensor:
    """The logits of states [..., dim], always in float32: in bfloat16 the likeliest words would often be equal."""
    with torch.autocast(states.device.type, enabled=False):
        states = states.to(words.dtype)
        if states.is_cuda and states.dtype != torch.float32:
            rows: Tensor = torch.mm(states.flatten(0, -2), words.T, out_dtype=torch.float32)
            return rows.view(*states.shape[:-1], len(words))
        return (states @ words.T).float()


def _minus_infinity(padding: Tensor, dtype: torch.dtype) -> Tensor:
    """bool [n, L] to a bias [n, 1, 1, L]."""
    return torch.zeros_like(padding, dtype=dtype).masked_fill(padding, -torch.inf)[:, None, None]
