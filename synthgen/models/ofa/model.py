"""The OFA network: encodes images once, boxes in batches, and decodes captions token by token.

Call order: `extract_image_tokens` and `compute_position_bias`, `encode`, `init_cache`, `decode`. Parameter names are
those of `OFA-Sys/ofa-*`. Wang et al., "OFA: Unifying Architectures, Tasks, and Modalities Through a Simple
Sequence-to-Sequence Learning Framework", ICML 2022. Implemented from the paper and verified against outputs of the
original.
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
    MAX_TEXT_TOKENS,
    SCALE_FACTOR,
    align_bias,
    image_buckets,
    image_positions,
    lookup_bias,
    position_scores,
    token_buckets,
)
from synthgen.models.ofa.resnet import OUT_CHANNELS, STRIDE, ResNetStem


@dataclass(frozen=True, kw_only=True)
class OfaConfig:
    """Sizes of an OFA network; the defaults are common to the five published models.

    Attributes:
        dim: channels of encoder and decoder.
        ffn_dim: hidden channels of the feedforward networks.
        resnet_blocks: blocks of the three stages of the visual stem.
        vocab_size: text tokens, image codes and box bins.
        max_positions: maximum number of text tokens.
        token_bucket_size, image_bucket_size: relative distances distinguished within a text, and along a side of an
            image. An image has at most `image_bucket_size` tokens along a side.
    """

    dim: int
    ffn_dim: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    resnet_blocks: tuple[int, int, int]
    vocab_size: int = 59457
    max_positions: int = 1024
    token_bucket_size: int = 256
    image_bucket_size: int = 42


_RESNET50_BLOCKS, _RESNET101_BLOCKS, _RESNET152_BLOCKS = (3, 4, 6), (3, 4, 23), (3, 8, 36)
SIZES = {
    "tiny": OfaConfig(
        dim=256, ffn_dim=1024, heads=4, encoder_layers=4, decoder_layers=4, resnet_blocks=_RESNET50_BLOCKS
    ),
    "medium": OfaConfig(
        dim=512, ffn_dim=2048, heads=8, encoder_layers=4, decoder_layers=4, resnet_blocks=_RESNET101_BLOCKS
    ),
    "base": OfaConfig(
        dim=768, ffn_dim=3072, heads=12, encoder_layers=6, decoder_layers=6, resnet_blocks=_RESNET101_BLOCKS
    ),
    "large": OfaConfig(
        dim=1024, ffn_dim=4096, heads=16, encoder_layers=12, decoder_layers=12, resnet_blocks=_RESNET152_BLOCKS
    ),
    "huge": OfaConfig(
        dim=1280, ffn_dim=5120, heads=16, encoder_layers=24, decoder_layers=12, resnet_blocks=_RESNET152_BLOCKS
    ),
}


class ImageTokens(NamedTuple):
    """Image features, computed once for each of B images of one size.

    Attributes:
        tokens: [B, rows * columns, dim], in the network's float dtype.
        rows: tokens along the height of an image.
        columns: tokens along the width of an image.
    """

    tokens: Tensor
    rows: int
    columns: int


class PositionBias(NamedTuple):
    """Position embeddings and attention biases, computed once per image size and text length.

    Attributes:
        embedding: float32 [L, dim], positions of the L tokens, image first; also used by the decoder.
        layer_biases: for each encoder layer [1, heads, L, L], added to the attention scores; in the network's float
            dtype.
        shape: rows and columns of the image, tokens of the text.
    """

    embedding: Tensor
    layer_biases: list[Tensor]
    shape: tuple[int, int, int]


class EncoderOutput(NamedTuple):
    """Encoder output for n boxes.

    Attributes:
        states: float [n, L, dim]; undefined at padding.
        position_embedding: float32 [L, dim].
        padding_mask: bool [n, L], True on padding; None if there is no padding.
    """

    states: Tensor
    position_embedding: Tensor
    padding_mask: Tensor | None


@dataclass
class DecoderCache:
    """Keys, values and biases for incremental decoding of n boxes with several beams.

    Attributes:
        self_kv: for each layer keys and values of the texts, float [2, n * beams, heads, steps, head_dim]; filled up to
            `length`.
        cross_kv: for each layer keys and values of the encoder states, float [n, heads, L, head_dim] each; shared by
            the beams.
        self_bias: for each layer float [1, heads, steps, steps], with -inf as the causal mask.
        cross_bias: float [heads, steps, L].
        padding_bias: float [n, 1, 1, L], -inf at padding, else 0; None if there is no padding.
    """

    self_kv: list[Tensor]
    cross_kv: list[tuple[Tensor, Tensor]]
    self_bias: list[Tensor]
    cross_bias: Tensor
    padding_bias: Tensor | None
    num_beams: int = 1
    length: int = 0

    @property
    def capacity(self) -> int:
        """Maximum number of tokens."""
        return self.self_kv[0].shape[3]

    def reorder(self, parents: Tensor) -> None:
        """Continue with other beams: `parents`, int64 [n, new beams], the index of each parent beam within its box."""
        boxes, beams = parents.shape
        first = torch.arange(boxes, device=parents.device)[:, None] * self.num_beams
        rows = (first + parents).flatten()
        self.self_kv = [own.index_select(1, rows) for own in self.self_kv]
        self.num_beams = beams

    def select_boxes(self, boxes: Tensor) -> None:
        """Continue with a subset of the boxes: int64 [m], ascending indices relative to the boxes that the cache holds
        now.
        """
        apart = (own.view(2, -1, self.num_beams, *own.shape[2:]) for own in self.self_kv)
        self.self_kv = [own.index_select(1, boxes).flatten(1, 2) for own in apart]
        self.cross_kv = [(k.index_select(0, boxes), v.index_select(0, boxes)) for k, v in self.cross_kv]
        self.padding_bias = None if self.padding_bias is None else self.padding_bias.index_select(0, boxes)


class OfaAttention(nn.Module):
    """Multi-head attention with an additive bias and a learned scale for each head.

    Args:
        dim: channels of tokens.
        heads: attention heads; divides `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (SCALE_FACTOR * dim / heads) ** -0.5
        self.c_attn = nn.Parameter(torch.ones(heads))
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def project_kv(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens `x`, float [n, t, dim]: [n, heads, t, head_dim] each."""
        return self._split_heads(self.k_proj(x)), self._split_heads(self.v_proj(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attend from queries to keys: float [n, q, dim].

        Args:
            x: float [n, q, dim], queries before their projection.
            keys: float [n, heads, k, head_dim], from `project_kv`.
            values: float [n, heads, k, head_dim], from `project_kv`.
            bias: float [1 or n, heads, q, k], added to the attention scores.
        """
        found = scaled_dot_product_attention(
            self._split_heads(self.q_proj(x)), keys, values, attn_mask=bias, scale=self.scale
        )
        out: Tensor = self.out_proj((found * self.c_attn.view(-1, 1, 1)).transpose(1, 2).flatten(2))
        return out

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class OfaEncoderLayer(nn.Module):
    """Self-attention and a feedforward network, each with norms before, within and after.

    Args:
        config: the sizes of the network.
    """

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        self.self_attn = OfaAttention(config.dim, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.dim)
        self.self_attn_mid_layer_norm = nn.LayerNorm(config.dim)
        self.fc1 = nn.Linear(config.dim, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, config.dim)
        self.ffn_layer_norm = nn.LayerNorm(config.ffn_dim)
        self.final_layer_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Process the L tokens of n boxes: float [n, L, dim].

        Args:
            x: float [n, L, dim].
            bias: float [1 or n, heads, L, L], added to the attention scores.
        """
        normed = self.self_attn_layer_norm(x)
        x = x + self.self_attn_mid_layer_norm(self.self_attn(normed, *self.self_attn.project_kv(normed), bias))
        return x + self.feed_forward(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """The residual of the feedforward half of the layer, for `x`, float [..., dim]."""
        out: Tensor = self.fc2(self.ffn_layer_norm(gelu(self.fc1(self.final_layer_norm(x)))))
        return out


class OfaDecoderLayer(OfaEncoderLayer):
    """An encoder layer with cross-attention to the encoder states.

    Args:
        config: the sizes of the network.
    """

    def __init__(self, config: OfaConfig) -> None:
        super().__init__(config)
        self.cross_attn = OfaAttention(config.dim, config.heads)
        self.cross_attn_layer_norm = nn.LayerNorm(config.dim)
        self.cross_attn_mid_layer_norm = nn.LayerNorm(config.dim)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        self_kv: Tensor,
        new_steps: slice,
        self_bias: Tensor,
        cross_kv: tuple[Tensor, Tensor],
        cross_bias: Tensor,
    ) -> Tensor:
        """Process the next t tokens of n boxes with several beams: float [n, beams, t, dim].

        Args:
            x: float [n, beams, t, dim].
            self_kv: float [2, n * beams, heads, steps, head_dim], keys and values of all tokens; those of the new
                tokens are written.
            new_steps: positions of the t tokens in their texts.
            self_bias: float [1, heads, t, new_steps.stop].
            cross_kv: keys and values of the encoder states, float [n, heads, L, head_dim] each.
            cross_bias: float [1 or n, heads, beams * t, L].
        """
        texts = x.flatten(0, 1)
        normed = self.self_attn_layer_norm(texts)
        self_kv[0, :, :, new_steps], self_kv[1, :, :, new_steps] = self.self_attn.project_kv(normed)
        found = self.self_attn(
            normed, self_kv[0, :, :, : new_steps.stop], self_kv[1, :, :, : new_steps.stop], self_bias
        )
        # The beams of a box are treated as queries of one attention, so that keys and values are not repeated.
        boxes = (texts + self.self_attn_mid_layer_norm(found)).view_as(x).flatten(1, 2)
        found = self.cross_attn(self.cross_attn_layer_norm(boxes), *cross_kv, cross_bias)
        boxes = boxes + self.cross_attn_mid_layer_norm(found)
        out: Tensor = (boxes + self.feed_forward(boxes)).view_as(x)
        return out


class OfaEncoder(nn.Module):
    """Encoder of image and text tokens.

    Args:
        config: the sizes of the network.
    """

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False  # activation checkpointing of the layers in training
        self.embed_tokens = _make_embedding(config.vocab_size, config.dim)
        self.layernorm_embedding = nn.LayerNorm(config.dim)
        self.type_embedding = _make_embedding(2, config.dim)  # 0: text, 1: image
        self.embed_images = ResNetStem(config.resnet_blocks)
        self.image_proj = nn.Linear(OUT_CHANNELS, config.dim)
        self.patch_layernorm_embedding = nn.LayerNorm(config.dim)
        self.embed_positions = _make_embedding(config.max_positions + 2, config.dim)
        self.embed_image_positions = _make_embedding(config.image_bucket_size**2 + 1, config.dim)
        self.pos_ln = nn.LayerNorm(config.dim)
        self.image_pos_ln = nn.LayerNorm(config.dim)
        self.pos_q_linear = nn.Linear(config.dim, config.dim)
        self.pos_k_linear = nn.Linear(config.dim, config.dim)
        self.layers = nn.ModuleList(OfaEncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.dim)
        self.token_rel_pos_table_list = _make_bias_tables(
            2 * config.token_bucket_size - 1, config.heads, config.encoder_layers
        )
        self.image_rel_pos_table_list = _make_bias_tables(
            (2 * config.image_bucket_size - 1) ** 2 + 3, config.heads, config.encoder_layers
        )

    def extract_image_tokens(self, images: Tensor) -> ImageTokens:
        """See `Ofa.extract_image_tokens`."""
        seen = self.embed_images(images.to(self.layer_norm.weight.dtype))
        tokens = self.image_proj(seen.flatten(2).transpose(1, 2)) + self.type_embedding.weight[1]
        return ImageTokens(self.patch_layernorm_embedding(tokens), *seen.shape[2:])

    def compute_position_bias(self, rows: int, columns: int, text_length: int) -> PositionBias:
        """See `Ofa.compute_position_bias`."""
        n, device = self.config, self.layer_norm.weight.device
        image = self.embed_image_positions(image_positions(n.image_bucket_size, rows, columns, device))
        embedding = torch.cat([self.image_pos_ln(image), self.pos_ln(self.embed_positions.weight[:text_length])])
        alike = position_scores(self.pos_q_linear(embedding), self.pos_k_linear(embedding), n.heads)
        within_image = image_buckets(n.image_bucket_size, rows, columns, device)
        within_text = token_buckets(n.token_bucket_size, text_length, device)
        pixels, biases = rows * columns, []
        for of_image, of_text in zip(self.image_rel_pos_table_list, self.token_rel_pos_table_list, strict=True):
            bias = alike.clone()
            bias[:, :pixels, :pixels] += lookup_bias(of_image, within_image)
            bias[:, pixels:, pixels:] += lookup_bias(of_text, within_text)
            biases.append(align_bias(bias, self.layer_norm.weight.dtype))
        return PositionBias(embedding, biases, (rows, columns, text_length))

    def forward(
        self, image_tokens: Tensor, text: Tensor, position_bias: PositionBias, padding_mask: Tensor | None
    ) -> EncoderOutput:
        """Encode n texts, each with its image; see `Ofa.encode`.

        Args:
            image_tokens: float [n, rows * columns, dim], the image of each text.
            text: int64 [n, t], ids.
            position_bias: for these images and t tokens.
            padding_mask: bool [n, t], True on padding; None if there is no padding.
        """
        words = self.layernorm_embedding(self.embed_tokens(text) + self.type_embedding.weight[0])
        x = torch.cat([image_tokens, words], dim=1)
        hidden: Tensor | None = None
        if padding_mask is not None:
            padding_mask = torch.cat([padding_mask.new_zeros(image_tokens.shape[:2]), padding_mask], dim=1)
            hidden = _padding_bias(padding_mask, x.dtype)
        for layer, bias in zip(self.layers, position_bias.layer_biases, strict=True):
            bias = bias if hidden is None else bias + hidden
            x = checkpoint(layer, x, bias, use_reentrant=False) if self.checkpointing else layer(x, bias)
        return EncoderOutput(self.layer_norm(x), position_bias.embedding, padding_mask)


class OfaDecoder(nn.Module):
    """Decoder; `*image*` and `code_*` parameters serve image generation and are unused here.

    Args:
        config: the sizes of the network.
        embed_tokens: the encoder's token embeddings. The output projection shares their weight.
    """

    def __init__(self, config: OfaConfig, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = embed_tokens
        self.layers = nn.ModuleList(OfaDecoderLayer(config) for _ in range(config.decoder_layers))
        self.layernorm_embedding = nn.LayerNorm(config.dim)
        self.embed_positions = _make_embedding(config.max_positions + 2, config.dim)
        self.embed_image_positions = _make_embedding(config.image_bucket_size**2 + 1, config.dim)
        self.pos_ln = nn.LayerNorm(config.dim)
        self.image_pos_ln = nn.LayerNorm(config.dim)
        self.self_pos_q_linear = nn.Linear(config.dim, config.dim)
        self.self_pos_k_linear = nn.Linear(config.dim, config.dim)
        self.cross_pos_q_linear = nn.Linear(config.dim, config.dim)
        self.cross_pos_k_linear = nn.Linear(config.dim, config.dim)
        self.code_layernorm_embedding = nn.LayerNorm(config.dim)
        self.layer_norm = nn.LayerNorm(config.dim)
        self.output_projection = nn.Linear(config.dim, config.vocab_size, bias=False, device="meta")
        self.output_projection.weight = embed_tokens.weight
        self.token_rel_pos_table_list = _make_bias_tables(
            2 * config.token_bucket_size - 1, config.heads, config.decoder_layers
        )
        self.image_rel_pos_table_list = _make_bias_tables(
            (2 * config.image_bucket_size - 1) ** 2 + 3, config.heads, config.decoder_layers
        )

    def init_cache(self, encoder_output: EncoderOutput, capacity: int) -> DecoderCache:
        """See `Ofa.init_cache`."""
        n, states = self.config, encoder_output.states
        places = self.pos_ln(self.embed_positions.weight[:capacity])
        alike = position_scores(self.self_pos_q_linear(places), self.self_pos_k_linear(places), n.heads)
        ahead = torch.ones_like(alike[0], dtype=torch.bool).triu(1)
        buckets = token_buckets(n.token_bucket_size, capacity, alike.device)
        crossed = position_scores(
            self.cross_pos_q_linear(places), self.cross_pos_k_linear(encoder_output.position_embedding), n.heads
        )
        return DecoderCache(
            self_kv=[states.new_zeros(2, len(states), n.heads, capacity, n.dim // n.heads) for _ in self.layers],
            cross_kv=[cast(OfaDecoderLayer, layer).cross_attn.project_kv(states) for layer in self.layers],
            self_bias=[
                align_bias((alike + lookup_bias(table, buckets)).masked_fill(ahead, -torch.inf), states.dtype)
                for table in self.token_rel_pos_table_list
            ],
            cross_bias=crossed.to(states.dtype),
            padding_bias=None
            if encoder_output.padding_mask is None
            else _padding_bias(encoder_output.padding_mask, states.dtype),
        )

    def forward(self, tokens: Tensor, cache: DecoderCache) -> Tensor:
        """See `Ofa.decode`."""
        return self.project_logits(self.run_layers(tokens, cache))

    def project_logits(self, states: Tensor) -> Tensor:
        """Vocabulary logits of `states`, float [..., dim], which are outputs of `run_layers`: float32 [...,
        vocabulary].
        """
        return _vocab_logits(self.layer_norm(states), self.output_projection.weight)

    def run_layers(self, tokens: Tensor, cache: DecoderCache) -> Tensor:
        """Run the layers on the next t tokens: float [n, beams, t, dim].

        Args:
            tokens: int64 [n, beams, t], ids.
            cache: updated with these tokens.
        """
        beams, length = tokens.shape[1:]
        new = slice(cache.length, cache.length + length)
        x: Tensor = self.layernorm_embedding(self.embed_tokens(tokens))
        cross_bias = align_bias(cache.cross_bias[:, new].repeat(1, beams, 1), x.dtype)
        if cache.padding_bias is not None:
            cross_bias = cross_bias + cache.padding_bias
        for layer, own, own_bias, cross in zip(
            self.layers, cache.self_kv, cache.self_bias, cache.cross_kv, strict=True
        ):
            x = layer(x, own, new, own_bias[:, :, new, : new.stop], cross, cross_bias)
        cache.length = new.stop
        return x


class Ofa(nn.Module):
    """OFA for inference. `weights.load_weights` loads published weights; `training.teacher_forced_logits` trains it.

    Args:
        config: the sizes of the network.
    """

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = OfaEncoder(config)
        self.decoder = OfaDecoder(config, self.encoder.embed_tokens)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.encoder.layer_norm.weight.device

    @torch.no_grad()
    def extract_image_tokens(self, images: Tensor) -> ImageTokens:
        """Encode each image once.

        Args:
            images: float [B, 3, h, w], normalized by `preprocess.preprocess_images`.

        Raises:
            ValueError: the image has more tokens along a side than `image_bucket_size`.
        """
        longest = STRIDE * self.config.image_bucket_size
        if images.dim() != 4 or not 0 < max(images.shape[2:]) <= longest:
            raise ValueError(f"images of {list(images.shape)} are not [B, 3, h, w] of at most {longest} pixels a side")
        tokens: ImageTokens = self.encoder.extract_image_tokens(images)
        return tokens

    @torch.no_grad()
    def compute_position_bias(self, image_tokens: ImageTokens, text_length: int) -> PositionBias:
        """Compute the position bias for these images and texts of a given length.

        Reuse it while size and length are the same. Memory: layers * heads * L^2 numbers; 156 MB in bfloat16 for base
        at 512 pixels.

        Args:
            image_tokens: of any images of the same size; only rows and columns are read.
            text_length: tokens of each text, with `<s>`, `</s>` and padding.

        Raises:
            ValueError: unsupported text length.
        """
        if not 0 < text_length <= min(self.config.max_positions, MAX_TEXT_TOKENS):
            raise ValueError(
                f"a text of {text_length} tokens is not one of 1 to {min(self.config.max_positions, MAX_TEXT_TOKENS)}"
            )
        return self.encoder.compute_position_bias(image_tokens.rows, image_tokens.columns, text_length)

    @torch.no_grad()
    def encode(
        self,
        image_tokens: ImageTokens,
        image_indices: Sequence[int],
        text: Tensor,
        position_bias: PositionBias,
        padding_mask: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode n texts, each with its image.

        Args:
            image_tokens: of B images.
            image_indices: for each text, the index of its image.
            text: int64 [n, t], ids; `<s>` first, `</s>` last, followed by padding.
            position_bias: for these images and t tokens.
            padding_mask: bool [n, t], True on padding; None (faster) if all texts have the same length.

        Raises:
            ValueError: the arguments do not fit together.
        """
        wanted = (image_tokens.rows, image_tokens.columns, text.shape[-1])
        if text.dim() != 2 or len(image_indices) != len(text) or position_bias.shape != wanted:
            raise ValueError(
                f"{len(image_indices)} owners, texts of {list(text.shape)}, images of {image_tokens.rows} by "
                f"{image_tokens.columns} tokens "
                f"and places of {position_bias.shape} do not go together"
            )
        if image_indices and not 0 <= min(image_indices) <= max(image_indices) < len(image_tokens.tokens):
            raise ValueError(
                f"texts of images {min(image_indices)} to {max(image_indices)}, but there are "
                f"{len(image_tokens.tokens)} images"
            )
        index = torch.tensor(image_indices, dtype=torch.int64, device=image_tokens.tokens.device)
        encoded: EncoderOutput = self.encoder(image_tokens.tokens[index], text, position_bias, padding_mask)
        return encoded

    @torch.no_grad()
    def init_cache(self, encoder_output: EncoderOutput, capacity: int) -> DecoderCache:
        """Create the cache for decoding n boxes, with one beam each.

        Args:
            encoder_output: of n boxes, from `encode`.
            capacity: the maximum number of tokens of a text, with `<s>`.

        Raises:
            ValueError: unsupported text length.
        """
        if not 0 < capacity <= min(self.config.max_positions, MAX_TEXT_TOKENS):
            raise ValueError(
                f"a text of {capacity} tokens is not one of 1 to {min(self.config.max_positions, MAX_TEXT_TOKENS)}"
            )
        return self.decoder.init_cache(encoder_output, capacity)

    @torch.no_grad()
    def decode(self, tokens: Tensor, cache: DecoderCache) -> Tensor:
        """The logits of the token after each of the next t tokens, for the beams of n boxes.

        Args:
            tokens: int64 [n, beams, t]; `<s>` is the very first.
            cache: updated with these tokens.

        Returns:
            float32 [n, beams, t, vocabulary].

        Raises:
            ValueError: the numbers of boxes or beams differ from the cache's, or the tokens exceed its capacity.
        """
        boxes, beams, length = tokens.shape
        if (
            boxes * beams != cache.self_kv[0].shape[1]
            or beams != cache.num_beams
            or cache.length + length > cache.capacity
        ):
            raise ValueError(
                f"tokens of {list(tokens.shape)} do not go on from {cache.length} of {cache.capacity} steps of "
                f"{cache.self_kv[0].shape[1]} texts in beams of {cache.num_beams}"
            )
        logits: Tensor = self.decoder(tokens, cache)
        return logits


def build_ofa(size: str | OfaConfig) -> Ofa:
    """Build an OFA with random weights for inference; under `torch.device("meta")` without weights.

    Args:
        size: a key of `SIZES`, or a configuration.

    Raises:
        ValueError: unknown size.
    """
    if isinstance(size, str):
        if size not in SIZES:
            raise ValueError(f"no OFA of size {size!r}; there are {', '.join(SIZES)}")
        size = SIZES[size]
    return Ofa(size).eval().requires_grad_(False)


def set_precision(network: Ofa, dtype: torch.dtype) -> None:
    """Cast the network to `dtype`, except for position embeddings: their bias is computed in float32 and then rounded
    once.
    """
    for half in (network.encoder, network.decoder):
        for name, part in half.named_children():
            if "pos" not in name:
                part.to(dtype)


def _make_embedding(rows: int, dim: int) -> nn.Embedding:
    """An embedding initialized as in OFA. With PyTorch's default, the tied output layer would be overconfident."""
    made = nn.Embedding(rows, dim)
    nn.init.normal_(made.weight, std=dim**-0.5)
    return made


def _make_bias_tables(buckets: int, heads: int, layers: int) -> nn.ModuleList:
    return nn.ModuleList(_make_embedding(buckets, heads) for _ in range(layers))


def _vocab_logits(states: Tensor, words: Tensor) -> Tensor:
    """Logits of states [..., dim], always in float32: in bfloat16 the most likely tokens would often be tied."""
    with torch.autocast(states.device.type, enabled=False):
        states = states.to(words.dtype)
        if states.is_cuda and states.dtype != torch.float32:
            rows: Tensor = torch.mm(states.flatten(0, -2), words.T, out_dtype=torch.float32)
            return rows.view(*states.shape[:-1], len(words))
        return (states @ words.T).float()


def _padding_bias(padding: Tensor, dtype: torch.dtype) -> Tensor:
    """bool [n, L] -> bias [n, 1, 1, L], -inf where True."""
    return torch.zeros_like(padding, dtype=dtype).masked_fill(padding, -torch.inf)[:, None, None]
