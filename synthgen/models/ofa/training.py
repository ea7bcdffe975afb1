"""An OFA that learns: what it would say of each next token of given texts, and the loss of that."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from synthgen.models.ofa.beam import BOS, PAD
from synthgen.models.ofa.model import Ofa

#: Of each token, so much of what is to be said is spread over all other words.
LABEL_SMOOTHING = 0.1

#: For images that OFA draws; no text depends on them.
_IMAGE_GENERATION_PARAMETERS = re.compile(
    r"decoder\.(embed_image_positions|image_pos_ln|code_layernorm_embedding|image_rel_pos_table_list)\..*"
)
_TOKEN_EMBEDDINGS = ("encoder.embed_tokens.weight",)


def prepare_for_training(network: Ofa, *, train_token_embeddings: bool, checkpointing: bool = False) -> Ofa:
    """Let learn what texts depend on; statistics of batch normalisation stay as they came.

    Args:
        train_token_embeddings: whether the table of words learns, too. OFA's own fine-tuning leaves it as it was.
        checkpointing: compute the encoder's layers a second time instead of keeping them, which saves memory.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(
            not _IMAGE_GENERATION_PARAMETERS.fullmatch(name)
            and (train_token_embeddings or name not in _TOKEN_EMBEDDINGS)
        )
    network.encoder.checkpointing = checkpointing
    return network.train()


def teacher_forced_logits(
    network: Ofa, images: Tensor, image_indices: Sequence[int], prompts: Tensor, texts: Tensor
) -> Tensor:
    """The logits of each token of n texts, where all tokens before it are given (teacher forcing).

    Args:
        images: float [B, 3, h, w], as of `preprocess.preprocess_images`.
        image_indices: for each text, the index of its image.
        prompts: int64 [n, t], what is asked of each.
        texts: int64 [n, s], what is to be said, `</s>` last, and padding after it.

    Returns:
        float32 [tokens, vocabulary]: of all tokens of the texts that are no padding, text by text.
    """
    image = network.encoder.extract_image_tokens(images)
    places = network.encoder.compute_position_bias(image.rows, image.columns, prompts.shape[1])
    index = torch.tensor(image_indices, dtype=torch.int64, device=images.device)
    encoded = network.encoder(image.tokens[index], prompts, places, None)
    given = torch.cat([torch.full_like(texts[:, :1], BOS), texts[:, :-1]], dim=1)
    # Nothing looks ahead, so that padding after a text is seen by padding alone.
    states = network.decoder.run_layers(given[:, None], network.decoder.init_cache(encoded, texts.shape[1]))
    return network.decoder.project_logits(states[:, 0][texts != PAD])


def label_smoothed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over tokens of the cross entropy with `LABEL_SMOOTHING`, as fairseq and OFA count it.

    Args:
        logits: float32 [tokens, vocabulary].
        targets: int64 [tokens], what was to be said.
    """
    others = logits.shape[1] - 1  # they share what the token itself does not get; PyTorch gives it a share of that
    return cross_entropy(logits, targets, reduction="sum", label_smoothing=LABEL_SMOOTHING * (others + 1) / others)
