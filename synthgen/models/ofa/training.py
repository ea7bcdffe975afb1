"""Training of OFA: teacher-forced logits and the label-smoothed loss."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from synthgen.models.ofa.beam import BOS, PAD
from synthgen.models.ofa.model import Ofa

#: Probability mass that is spread over all other tokens.
LABEL_SMOOTHING = 0.1

#: Parameters of image generation; text output does not depend on them.
_IMAGE_GENERATION_PARAMETERS = re.compile(
    r"decoder\.(embed_image_positions|image_pos_ln|code_layernorm_embedding|image_rel_pos_table_list)\..*"
)
_TOKEN_EMBEDDINGS = ("encoder.embed_tokens.weight",)


def prepare_for_training(network: Ofa, *, train_token_embeddings: bool, checkpointing: bool = False) -> Ofa:
    """Make the parameters that text output depends on trainable; batch norm statistics stay fixed.

    Args:
        network: changed in place and returned.
        train_token_embeddings: whether to train the token embeddings. OFA's own fine-tuning freezes them.
        checkpointing: activation checkpointing of the encoder layers, which saves memory.
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
    """The logits of each token of n texts, given all previous tokens (teacher forcing).

    Args:
        network: from `prepare_for_training`.
        images: float [B, 3, h, w], from `preprocess.preprocess_images`.
        image_indices: for each text, the index of its image.
        prompts: int64 [n, t], the prompt of each text.
        texts: int64 [n, s], target tokens, `</s>` last, followed by padding.

    Returns:
        float32 [tokens, vocabulary]: for all tokens except padding, text by text.
    """
    image = network.encoder.extract_image_tokens(images)
    places = network.encoder.compute_position_bias(image.rows, image.columns, prompts.shape[1])
    index = torch.tensor(image_indices, dtype=torch.int64, device=images.device)
    encoded = network.encoder(image.tokens[index], prompts, places, None)
    given = torch.cat([torch.full_like(texts[:, :1], BOS), texts[:, :-1]], dim=1)
    # The decoder is causal, so only padding attends to the padding after a text.
    states = network.decoder.run_layers(given[:, None], network.decoder.init_cache(encoded, texts.shape[1]))
    return network.decoder.project_logits(states[:, 0][texts != PAD])


def label_smoothed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy with `LABEL_SMOOTHING`, summed over tokens, as in fairseq and OFA.

    Args:
        logits: float32 [tokens, vocabulary].
        targets: int64 [tokens].
    """
    others = logits.shape[1] - 1  # fairseq smooths over the other tokens only, PyTorch also over the target
    return cross_entropy(logits, targets, reduction="sum", label_smoothing=LABEL_SMOOTHING * (others + 1) / others)
