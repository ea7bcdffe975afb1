"""Load a CLIP or sentence encoder and its tokenizer from a folder, without executing code from it.

Only the classes listed here are used, never classes named in a configuration, and nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from synthgen.models.checkpoint_reader import read_pretrained
from synthgen.models.mqformer.weights import first_line, load_pretrained, silence_transformers

_ARCHITECTURES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "albert": (AlbertConfig, AlbertModel),
    "bert": (BertConfig, BertModel),
    "clip": (CLIPTextConfig, CLIPTextModelWithProjection),
    "clip_text_model": (CLIPTextConfig, CLIPTextModelWithProjection),
    "distilbert": (DistilBertConfig, DistilBertModel),
    "electra": (ElectraConfig, ElectraModel),
    "mpnet": (MPNetConfig, MPNetModel),
    "roberta": (RobertaConfig, RobertaModel),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel),
}

#: Built without the pooling layer, which is not used and would never be trained.
_WITH_POOLER = ("albert", "bert", "mpnet", "roberta", "xlm-roberta")

#: These models number positions from behind the padding id, which reduces the usable context length.
_OFFSET_POSITIONS = ("mpnet", "roberta", "xlm-roberta")

#: Configuration keys that are read. Keys that name code, download locations or decoders are ignored.
_CONFIG_KEYS = {
    *("vocab_size", "hidden_size", "embedding_size", "intermediate_size", "max_position_embeddings", "type_vocab_size"),
    *("num_hidden_layers", "num_attention_heads", "num_hidden_groups", "inner_group_num", "layer_norm_eps"),
    *("dim", "hidden_dim", "n_layers", "n_heads", "projection_dim", "relative_attention_num_buckets"),
    *("hidden_act", "activation", "pad_token_id", "bos_token_id", "eos_token_id"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob", "dropout"),
    *("attention_dropout",),
}

#: Weights of a full model that its text encoder does not have.
_UNUSED_WEIGHTS = (
    r"(vision_model|visual_projection|pooler|bert\.pooler|roberta\.pooler|mpnet\.pooler|albert\.pooler|cls|lm_head|"
    r"vocab_\w+|predictions|discriminator_predictions|generator_\w+)\..*|logit_scale"
)

#: Pooling modes supported here, with the names of older and newer versions of sentence-transformers.
_POOLING_MODES: dict[str, str] = {
    **{"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"},
    **{"mean": "mean", "cls": "cls", "max": "max"},
}

#: Limits for untrusted folders.
_MAX_FILE_BYTES = 2**26
_MAX_LAYERS = 128
_MAX_CONTEXT_LENGTH = 8192

#: No tokenizer has words for all of it.
_UNUSUAL_TEXT = "q 7 ξ \u0bb5 \U0001f993"

#: Longer texts are truncated: no token has more characters than this on average.
_MAX_CHARS_PER_TOKEN = 64


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """Maps a text to token ids, truncated to the context length.

    Attributes:
        tokenizer: adds the start and end tokens; does not pad.
        context_length: maximum number of ids of a text.
        vocab_size: of the network.
        pad_id: id of padding.
    """

    tokenizer: Tokenizer
    context_length: int
    vocab_size: int
    pad_id: int
    lowercase: bool = False

    def __call__(self, text: str) -> list[int]:
        """One to `context_length` ids. Special tokens in the text, such as "[SEP]", are encoded as ordinary text."""
        # Lone surrogates are not valid text.
        text = text[: _MAX_CHARS_PER_TOKEN * self.context_length].encode(errors="replace").decode()
        if not self.tokenizer.encode_special_tokens:  # a copied tokenizer loses this setting
            self.tokenizer.encode_special_tokens = True
        ids: list[int] = self.tokenizer.encode(text.lower() if self.lowercase else text).ids
        return ids or [self.pad_id]


class SentenceEncoder(nn.Module):
    """A sentence encoder: pools the token outputs as sentence-transformers does.

    Args:
        model: the network whose token outputs are pooled.
        pooling: "mean", "max" or "cls": over tokens, or the output of the first token.
    """

    def __init__(self, model: PreTrainedModel, pooling: str) -> None:
        super().__init__()
        self.model, self.pooling, self.dim = model, pooling, int(model.config.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed T texts: float [T, dim].

        Args:
            input_ids: int64 [T, L], token ids.
            attention_mask: bool [T, L], False on padding.
        """
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask.long()).last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "max":
            return hidden.masked_fill(~attention_mask[..., None], -torch.inf).amax(1)
        return (hidden * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)


class ClipTextEncoder(nn.Module):
    """CLIP's text encoder: projects the output of the end token to the joint embedding space.

    Args:
        model: CLIP's text network with its projection.
    """

    def __init__(self, model: CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.model, self.dim = model, int(model.config.projection_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed T texts: float [T, dim].

        Args:
            input_ids: int64 [T, L], token ids.
            attention_mask: bool [T, L], False on padding.
        """
        embeddings: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask.long()).text_embeds
        return embeddings


def read_text_encoder(folder: Path) -> tuple[ClipTextEncoder | SentenceEncoder, TextTokenizer]:
    """Load the network (float32, on the CPU) and the tokenizer of a folder in Hugging Face or sentence-transformers
    format.

    The folder contains config.json, tokenizer.json and model.safetensors or pytorch_model.bin. A sentence encoder also
    has modules.json and the files that it names; without it, token outputs are averaged.

    Args:
        folder: an untrusted model folder.

    Raises:
        ValueError: not such a folder, or damaged. The message is one sentence without the path.
    """
    if not folder.is_dir():
        raise ValueError("it is no folder")
    inner, pooling = _read_modules(folder)
    kind, config = _read_config(inner)
    network = _load_network(kind, config, inner)
    named = sorted(inner.glob("sentence_*_config.json"))
    words = _load_tokenizer(inner, kind, config, _read_json(named[0]) if named else {})
    encoder = ClipTextEncoder(network) if kind.startswith("clip") else SentenceEncoder(network, pooling)
    _smoke_test(encoder, words)
    return encoder, words


def _read_modules(folder: Path) -> tuple[Path, str]:
    """The folder of the network's files, and the pooling mode."""
    if not (folder / "modules.json").is_file():
        return folder, "mean"
    parts = [part for part in _read_json(folder / "modules.json", list) if isinstance(part, dict)]
    kinds = [str(part.get("type")).rsplit(".", 1)[-1] for part in parts]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(f"its modules.json has {first_line(', '.join(kinds))}, and only Transformer, Pooling and "
                         "Normalize are known here")  # fmt: skip
    inner, pooling = (_subfolder(folder, part.get("path")) for part in parts[:2])
    says = _read_json(pooling / "config.json")
    modes = [key for key, value in says.items() if key.startswith("pooling_mode") and value not in (False, None)]
    found = _POOLING_MODES.get(modes[0] if says[modes[0]] is True else str(says[modes[0]])) if len(modes) == 1 else None
    if found is None:
        raise ValueError(f"its pooling ({first_line(', '.join(modes))}) is none of mean, cls and max")
    return inner, found


def _subfolder(folder: Path, name: object) -> Path:
    """A subfolder, or the folder itself for "". Paths that leave the folder are rejected."""
    if name == "":
        return folder
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name):
        raise ValueError(f"its modules.json names a folder that is not in it ({first_line(name)})")
    return folder / name


def _read_config(folder: Path) -> tuple[str, PreTrainedConfig]:
    says = _read_json(folder / "config.json")
    kind = str(says.get("model_type"))
    if kind not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES.keys() - {"clip_text_model"}))
        raise ValueError(f"its config.json is of {first_line(repr(kind))}, and only {known} are known here")
    if isinstance(text := says.get("text_config"), dict) and kind == "clip":
        says = {**text, "projection_dim": says.get("projection_dim", 512)}  # the value in text_config is not used
    numbers = {key: value for key, value in says.items() if key in _CONFIG_KEYS and value is not None}
    for key in ("num_hidden_layers", "n_layers"):
        if numbers.get(key, 1) not in range(1, _MAX_LAYERS + 1):
            raise ValueError(f"its config.json says {first_line(repr(numbers[key]))} layers")
    try:
        with silence_transformers():
            return kind, _ARCHITECTURES[kind][0](**numbers)
    except Exception as why:  # values of a wrong type can raise any exception
        raise ValueError(f"its config.json cannot be read ({first_line(why)})") from None


def _load_network(kind: str, config: PreTrainedConfig, folder: Path) -> Any:
    weights, model = read_pretrained(folder), _ARCHITECTURES[kind][1]
    options: dict[str, Any] = {"add_pooling_layer": False} if kind in _WITH_POOLER else {}
    try:
        with torch.device("meta"):  # allocates no memory
            claimed = sum(p.numel() for p in model(config, **options).parameters())
    except Exception as why:  # inconsistent sizes can raise any exception
        raise ValueError(f"its config.json describes no network ({first_line(why)})") from None
    held = sum(tensor.numel() for tensor in weights.values())
    if claimed > held:
        raise ValueError(f"its config.json describes a network of {claimed:,} numbers, and its weights have {held:,}")
    return load_pretrained(model, config, weights, ignored_names=_UNUSED_WEIGHTS, **options)


def _load_tokenizer(folder: Path, kind: str, config: Any, says: dict[str, Any]) -> TextTokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError("it has no tokenizer.json; transformers' AutoTokenizer.save_pretrained writes one")
    pad = config.pad_token_id if type(config.pad_token_id) is int and config.pad_token_id >= 0 else 0
    own = config.max_position_embeddings - (pad + 1 if kind in _OFFSET_POSITIONS else 0)
    most = says.get("max_seq_length")
    context = min(own, most) if type(most) is int and most > 0 else own
    if not 4 <= context <= _MAX_CONTEXT_LENGTH or not pad < config.vocab_size:
        raise ValueError(f"it has places for {context} tokens of a text, and {pad} pads; that is no text encoder")
    try:
        tokenizer = Tokenizer.from_str(_read_text(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(context)
        highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=config.vocab_size)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as why:  # tokenizers raises Exception itself, and a Rust panic in it is not an Exception
        raise ValueError(f"its tokenizer.json cannot be read ({first_line(why)})") from None
    if highest >= config.vocab_size:
        raise ValueError(f"its tokenizer has the word {highest}, and its network has {config.vocab_size} of them")
    return TextTokenizer(tokenizer, context, config.vocab_size, pad, lowercase=says.get("do_lower_case") is True)


def _smoke_test(encoder: ClipTextEncoder | SentenceEncoder, words: TextTokenizer) -> None:
    """Encode one text, so that files that do not fit together are reported at loading time."""
    try:
        highest = max(words(_UNUSUAL_TEXT))  # fails if the tokenizer has no token for unknown words
        ids = words("a photo")
        if (highest := max(highest, *ids)) >= words.vocab_size:
            raise ValueError(f"its tokenizer adds the word {highest}")
        longest = len(words("a " * words.context_length))  # a template may use a text twice, after it was truncated
        if longest > words.context_length:
            raise ValueError(f"a long text has {longest} tokens, and the network has {words.context_length} positions")
        with torch.no_grad():
            found = encoder(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))
        if found.dim() != 2 or not found.isfinite().all() or not found.any():
            raise ValueError("what it makes of a text is no embedding")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as why:  # a Rust panic in tokenizers is not an Exception
        raise ValueError(f"its tokenizer and its network do not go together ({first_line(why)})") from None


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"its {path.name} is larger than any model's")
        return path.read_text(encoding="utf-8")
    except OSError as why:
        raise ValueError(f"its {path.name} cannot be read ({why.strerror or why})") from None
    except UnicodeDecodeError:
        raise ValueError(f"its {path.name} is no text in UTF-8") from None


def _read_json(path: Path, kind: type[Any] = dict) -> Any:
    text = _read_text(path)
    try:
        says = json.loads(text)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits is a ValueError
        says = None
    if not isinstance(says, kind):
        raise ValueError(f"its {path.name} is no JSON {'object' if kind is dict else 'list'}")
    return says
