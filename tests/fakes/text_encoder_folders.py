"""Folders of tiny text encoders of many kinds, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] a the of left right big horse zebra stop sign photo red car two many video game".split()
)

SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "pad_token_id": 0,
}
DISTIL = {"vocab_size": len(WORDS), "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}

KINDS = {
    "bert": ("Bert", SMALL),
    "albert": ("Albert", {**SMALL, "embedding_size": 8}),
    "electra": ("Electra", {**SMALL, "embedding_size": 8}),
    "mpnet": ("MPNet", SMALL),
    "roberta": ("Roberta", SMALL),
    "xlm-roberta": ("XLMRoberta", SMALL),
    "distilbert": ("DistilBert", {**DISTIL, "max_position_embeddings": 12, "pad_token_id": 0}),
}


def write_tokenizer(folder: Path, begin: str = "[CLS]", end: str = "[SEP]", words: list[str] = WORDS) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([begin, end])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(word, words.index(word)) for word in (begin, end)]
    )
    tokenizer.enable_padding(length=20)  # as published ones do
    tokenizer.save(str(folder / "tokenizer.json"))


def randomize(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape) * (0.5 if parameter.dim() > 1 else 0.1))


def write_sentence_encoder(folder: Path, kind: str = "bert", form: str = "safetensors", **changes: object) -> Path:
    """A sentence encoder's folder, with random weights of a size that tells texts apart."""
    folder.mkdir(exist_ok=True)
    name, numbers = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**numbers, **changes})
    model = getattr(transformers, f"{name}Model")(config)
    randomize(model)
    if form == "safetensors":
        model.save_pretrained(folder)
    else:
        config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    write_tokenizer(folder)
    return folder


CLIP_WORDS = ["!", "<unk>", *WORDS[4:], "<start>", "<end>"]


def write_clip(folder: Path, whole: bool = False, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    numbers = {**SMALL, "vocab_size": len(CLIP_WORDS), "max_position_embeddings": 10}
    numbers |= {"bos_token_id": len(CLIP_WORDS) - 2, "eos_token_id": len(CLIP_WORDS) - 1, **changes}
    if whole:
        vision = {**SMALL, "image_size": 16, "patch_size": 8}
        config = transformers.CLIPConfig(text_config=numbers, vision_config=vision, projection_dim=14)
        model = transformers.CLIPModel(config)
    else:
        model = CLIPTextModelWithProjection(CLIPTextConfig(**numbers, projection_dim=14))
    randomize(model)
    model.save_pretrained(folder)
    write_tokenizer(folder, "<start>", "<end>", CLIP_WORDS)
    return folder


def is_close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=atol)
