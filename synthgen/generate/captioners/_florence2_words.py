"""Loads Florence-2's tokenizer and image processor from untrusted files: size limits, known keys only.

Transformers opens further files: those that a configuration names, templates, subfolders. So it gets a temporary folder
with checked files only, and the image settings without any file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import BartTokenizer, CLIPImageProcessor

from synthgen.errors import escape_control_chars

#: One of them is enough; if both exist, the second counts if it has image settings.
IMAGE_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
#: One of the two sets is enough; the first counts.
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
TOKENIZER_CONFIG_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

#: Maximum bytes of a file: several times those of published files.
_MAX_BYTES = {"tokenizer.json": 2**25, "vocab.json": 2**23, "merges.txt": 2**23}
_MAX_BYTES_DEFAULT = 2**21

#: Published tokenizers have 51,289 tokens, 1,025 of them added to BART's, and 49,992 merges.
_MAX_VOCAB, _MAX_ADDED_TOKENS, _MAX_MERGES = 2**16, 2048, 2**17

#: Maximum length of a token.
_MAX_TOKEN_LENGTH = 256

#: Settings of the tokenizer that are used.
_SPECIAL_TOKEN_KEYS = frozenset(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask", "image"))
_TOKEN_LIST_KEYS = frozenset({"extra_special_tokens", "additional_special_tokens", "added_tokens_decoder"})
_BOOL_KEYS = frozenset({"add_prefix_space", "trim_offsets"})
_TOKEN_FIELDS = frozenset({"content", "lstrip", "rstrip", "normalized", "single_word", "special", "__type", "id"})

#: Settings of the image processor that are used.
_IMAGE_PROCESSOR_KEYS = frozenset(
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize image_mean image_std "
    "do_convert_rgb".split()
)


def list_processor_files(folder: Path) -> list[str]:
    """Names of the files above that exist; all of them affect captions."""
    there = {path.name for path in folder.iterdir() if path.is_file()}
    words = next((names for names in TOKENIZER_FILES if there.issuperset(names)), ())
    return [*words, *(name for name in (*IMAGE_PROCESSOR_FILES, *TOKENIZER_CONFIG_FILES) if name in there)]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of limited size.

    Args:
        path: untrusted file.

    Raises:
        ValueError: it is too large, or not a JSON object.
    """
    try:
        with path.open("rb") as file:
            most = _MAX_BYTES.get(path.name, _MAX_BYTES_DEFAULT)
            content = file.read(most + 1)
        says = json.loads(content) if len(content) <= most else None
    except (OSError, ValueError, RecursionError) as why:
        raise ValueError(f"its {path.name} cannot be read ({first_line(why)})") from None
    if len(content) > most:
        raise ValueError(f"its {path.name} is larger than any model's")
    if not isinstance(says, dict):
        raise ValueError(f"its {path.name} cannot be read (it holds no JSON object)")
    return says


def load_image_processor(folder: Path) -> CLIPImageProcessor:
    """The image processor of the folder's configuration.

    Args:
        folder: folder of the model; untrusted.

    Raises:
        ValueError: it is not a Florence-2's; one sentence without the folder.
    """
    given = {name: read_json(folder / name) for name in list_processor_files(folder) if name in IMAGE_PROCESSOR_FILES}
    nested = given.get(IMAGE_PROCESSOR_FILES[1], {}).get("image_processor")
    path = folder / IMAGE_PROCESSOR_FILES[nested is not None or IMAGE_PROCESSOR_FILES[0] not in given]
    says = given[path.name] if path.name == IMAGE_PROCESSOR_FILES[0] else nested
    if not isinstance(says, dict):
        raise ValueError(f"its {path.name} says nothing of images")
    known = {key: value for key, value in says.items() if key in _IMAGE_PROCESSOR_KEYS}
    for key in known.keys() & {"image_mean", "image_std"}:
        numbers = known[key]
        if not isinstance(numbers, list) or len(numbers) != 3 or not all(_is_number(x) for x in numbers):
            raise ValueError(
                f"its {path.name} says {key} {escape_control_chars(str(numbers))[:80]}, which are not three numbers"
            )
        if key == "image_std" and min(numbers) <= 0:
            raise ValueError(
                f"its {path.name} says {key} {escape_control_chars(str(numbers))[:80]}, by which nothing is divided"
            )
    return CLIPImageProcessor(**known)


def load_bart_tokenizer(folder: Path) -> BartTokenizer:
    """The tokenizer from `TOKENIZER_FILES` and `TOKENIZER_CONFIG_FILES` only.

    Args:
        folder: folder of the model; untrusted.

    Raises:
        ValueError: they are not a tokenizer's; one sentence without the folder. Content of wrong types raises other
            errors, too.
    """
    with TemporaryDirectory() as own:
        for name in (name for name in list_processor_files(folder) if name not in IMAGE_PROCESSOR_FILES):
            (Path(own) / name).write_text(_sanitize_file(folder / name), encoding="utf-8")
        return BartTokenizer.from_pretrained(own, local_files_only=True)


def _sanitize_file(path: Path) -> str:
    """The allowed content of a tokenizer file."""
    if path.name == "merges.txt":
        return _read_merges(path)
    content = read_json(path)
    if path.name == "tokenizer.json":
        model = content["model"]
        _check_list_size(path, model["vocab"], _MAX_VOCAB)
        _check_list_size(path, model["merges"], _MAX_MERGES)
        known = {"type": "BPE", "vocab": model["vocab"], "merges": model["merges"]}
        nothing = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
        return json.dumps({"version": "1.0", **nothing, "added_tokens": _added_tokens(path, content), "model": known})
    if path.name in ("vocab.json", "added_tokens.json"):
        _check_list_size(path, content, _MAX_VOCAB if path.name == "vocab.json" else _MAX_ADDED_TOKENS)
        if not all(type(number) is int for number in content.values()):
            raise ValueError(f"its {path.name} is not words and their numbers")
        return json.dumps(content)
    allowed = {
        key: _check_token(path, value)
        for key, value in content.items()
        if key in _SPECIAL_TOKEN_KEYS and value is not None
    }
    allowed |= {key: value for key, value in content.items() if key in _BOOL_KEYS and isinstance(value, bool)}
    for key in content.keys() & _TOKEN_LIST_KEYS:
        listed = content[key]
        _check_list_size(path, listed, _MAX_ADDED_TOKENS)
        if isinstance(listed, dict):
            allowed[key] = {str(name)[:_MAX_TOKEN_LENGTH]: _check_token(path, value) for name, value in listed.items()}
        else:
            allowed[key] = [_check_token(path, value) for value in listed]
    return json.dumps(allowed)


def _added_tokens(path: Path, says: Mapping[str, Any]) -> list[Any]:
    listed = says.get("added_tokens") or []
    _check_list_size(path, listed, _MAX_ADDED_TOKENS)
    return [_check_token(path, value) for value in listed]


def _check_token(path: Path, value: Any) -> Any:
    """A token of a configuration: a string, or an object with matching options."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str) or len(content) > _MAX_TOKEN_LENGTH:
        raise ValueError(f"its {path.name} has {escape_control_chars(repr(content))[:60]} for a token")
    return {key: own for key, own in value.items() if key in _TOKEN_FIELDS} if isinstance(value, dict) else value


def _check_list_size(path: Path, listed: Iterable[Any], most: int) -> None:
    if not isinstance(listed, list | dict):
        raise ValueError(f"its {path.name} has a {type(listed).__name__} for a list of words")
    if len(listed) > most:
        raise ValueError(f"its {path.name} lists {len(listed)} words, more than any Florence-2's")


def _read_merges(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES[path.name] + 1)
    if len(content) > _MAX_BYTES[path.name] or content.count(b"\n") > _MAX_MERGES:
        raise ValueError(f"its {path.name} is larger than any model's")
    return content.decode()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def first_line(why: BaseException) -> str:
    """The first line of a library's error, without control characters."""
    return escape_control_chars(
        next((line.strip() for line in str(why).splitlines() if line.strip()), type(why).__name__)[:160]
    )
