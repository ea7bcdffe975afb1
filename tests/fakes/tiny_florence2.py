"""A Florence-2 of 64 channels and 2 + 2 layers with random weights, in a folder as published ones lie in."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    BartConfig,
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2VisionConfig,
)

from fakes import tiny_ofa

#: Pixels of the square that images are resized to; a 32nd along a side, and one for the whole, are its tokens.
SIDE = 64
TOKENS = 1 + (SIDE // 32) ** 2

#: One tensor by several names, of which a file has the first.
EMBEDDING = "model.language_model.shared.weight"
TIED = ("lm_head.weight", "model.language_model.encoder.embed_tokens.weight",
         "model.language_model.decoder.embed_tokens.weight")  # fmt: skip

#: In the order in which Florence-2 adds them to BART's vocabulary.
ADDED = [
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *(f"<loc_{i}>" for i in range(1000)),
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"),
    *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>", "<image>"),
]


def config(**text: int) -> Florence2Config:
    """Of the published ones' kind, and as small as works."""
    words = {"vocab_size": len(tiny_ofa.vocabulary()) + len(ADDED), "max_position_embeddings": 128, **text}
    return Florence2Config(
        vision_config=Florence2VisionConfig(
            depths=[1] * 4,
            embed_dim=[16, 32, 32, 64],
            num_heads=[2, 2, 2, 4],
            num_groups=[2, 2, 2, 4],
            window_size=4,
            projection_dim=64,
            max_position_embeddings=8,
        ).to_dict(),
        text_config=BartConfig(
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            init_std=0.3,  # so that it prefers some words to others, and looks at the image
            **words,
        ).to_dict(),
        image_token_id=len(tiny_ofa.vocabulary()) + len(ADDED) - 1,
    )


def network(seed: int = 0, **text: int) -> Florence2ForConditionalGeneration:
    """The same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        own = Florence2ForConditionalGeneration(config(**text))
        # It says letters rather than places or bytes that are none, and comes to an end more often than by chance.
        rows = own.get_input_embeddings().weight.data
        letters = [tiny_ofa.vocabulary()[letter] for letter in "abcdefghijklmnopqrstuvwxyzĠ"]
        rows[[i for i in range(len(rows)) if i not in letters]] *= 0.3
        end = rows[own.config.text_config.eos_token_id]
        own.model.language_model.decoder.layers[-1].final_layer_norm.bias.data = 3 * end / end.square().sum()
    return own.eval()


def write_tokenizer(folder: Path) -> None:
    """A vocabulary that spells, with Florence-2's additions."""
    own = Tokenizer(models.BPE(tiny_ofa.vocabulary(), tiny_ofa.MERGES, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    own.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    own.add_special_tokens(ADDED)
    own.save(str(folder / "tokenizer.json"))
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}
    says = {f"{key}_token": token for key, token in names.items()}
    says |= {"tokenizer_class": "BartTokenizer", "extra_special_tokens": {"image_token": "<image>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(says))


def weights(seed: int = 0, **text: int) -> dict[str, Tensor]:
    """As a file has them."""
    return {name: tensor for name, tensor in network(seed, **text).state_dict().items() if name not in TIED}


def write(folder: Path, seed: int = 0, **text: int) -> Path:
    """The folder of a checkpoint; `text` changes its language model's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    config(**text).save_pretrained(folder)
    save_file(weights(seed, **text), folder / "model.safetensors", metadata={"format": "pt"})
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessor(
        size=size,
        crop_size=size,
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        image_seq_length=TOKENS,
    ).save_pretrained(folder)
    write_tokenizer(folder)
    return folder
