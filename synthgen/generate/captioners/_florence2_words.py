"""Florence-2's tokenizer and image processor from files of strangers: read here, bounded, and known keys of them alone.

Transformers opens more than it is shown: files that a configuration names, templates, folders below. So what it gets is
a folder of our own with nothing in it but what was looked at; the images' settings it gets without any file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import BartTokenizer, CLIPImageProcessor

from synthgen.errors import printable

#: One of them is enough; where both are, the second counts if it says anything of images.
IMAGES = ("preprocessor_config.json", "processor_config.json")
#: One of the two sets is enough, and the first counts.
WORDS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

#: Bytes that are read of a file: several times what published ones have.
_MOST_BYTES = {"tokenizer.json": 2**25, "vocab.json": 2**23, "merges.txt": 2**23}
_MOST_BYTES_ELSE = 2**21

#: Of published ones 51,289 words, of which 1,025 were added to BART's, and 49,992 merges.
_MOST_WORDS, _MOST_ADDED, _MOST_MERGES = 2**16, 2048, 2**17

#: Longer is no word.
_LONGEST = 256

#: All that a tokenizer is told beside its words.
_ROLES = frozenset(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask", "image"))
_LISTS = frozenset({"extra_special_tokens", "additional_special_tokens", "added_tokens_decoder"})
_SWITCHES = frozenset({"add_prefix_space", "trim_offsets"})
_OF_A_TOKEN = frozenset({"content", "lstrip", "rstrip", "normalized", "single_word", "special", "__type", "id"})

#: All that becomes of an image.
_OF_IMAGES = frozenset(
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize image_mean image_std "
    "do_convert_rgb".split()
)


def files_in(folder: Path) -> list[str]:
    """Names of those that are there of the files above that are read; all of them decide what is said."""
    there = {path.name for path in folder.iterdir() if path.is_file()}
    words = next((names for names in WORDS if there.issuperset(names)), ())
    return [*words, *(name for name in (*IMAGES, *BESIDE) if name in there)]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, read whole or not at all.

    Raises:
        ValueError: it is larger than any model's, or no JSON object.
    """
    try:
        with path.open("rb") as file:
            most = _MOST_BYTES.get(path.name, _MOST_BYTES_ELSE)
            content = file.read(most + 1)
        says = json.loads(content) if len(content) <= most else None
    except (OSError, ValueError, RecursionError) as why:
        raise ValueError(f"its {path.name} cannot be read ({first_line(why)})") from None
    if len(content) > most:
        raise ValueError(f"its {path.name} is larger than any model's")
    if not isinstance(says, dict):
        raise ValueError(f"its {path.name} cannot be read (it holds no JSON object)")
    return says


def images_of(folder: Path) -> CLIPImageProcessor:
    """What makes pixels of images, as the folder's configuration says.

    Raises:
        ValueError: it cannot be that of a Florence-2; one sentence without the folder.
    """
    given = {name: read_json(folder / name) for name in files_in(folder) if name in IMAGES}
    nested = given.get(IMAGES[1], {}).get("image_processor")
    path = folder / IMAGES[nested is not None or IMAGES[0] not in given]
    says = given[path.name] if path.name == IMAGES[0] else nested
    if not isinstance(says, dict):
        raise ValueError(f"its {path.name} says nothing of images")
    known = {key: value for key, value in says.items() if key in _OF_IMAGES}
    for key in known.keys() & {"image_mean", "image_std"}:
        numbers = known[key]
        if not isinstance(numbers, list) or len(numbers) != 3 or not all(_is_number(x) for x in numbers):
            raise ValueError(f"its {path.name} says {key} {printable(str(numbers))[:80]}, which are not three numbers")
        if key == "image_std" and min(numbers) <= 0:
            raise ValueError(f"its {path.name} says {key} {printable(str(numbers))[:80]}, by which nothing is divided")
    return CLIPImageProcessor(**known)


def tokenizer_of(folder: Path) -> BartTokenizer:
    """What makes words of tokens, from the files of `WORDS` and `BESIDE` alone.

    Raises:
        ValueError: they cannot be a tokenizer's; one sentence without the folder. Other errors, too, for content of
            other kinds than it should be.
    """
    with TemporaryDirectory() as own:
        for name in (name for name in files_in(folder) if name not in IMAGES):
            (Path(own) / name).write_text(_checked(folder / name), encoding="utf-8")
        return BartTokenizer.from_pretrained(own, local_files_only=True)


def _checked(path: Path) -> str:
    """What a file may tell a tokenizer."""
    if path.name == "merges.txt":
        return _merges(path)
    says = read_json(path)
    if path.name == "tokenizer.json":
        model = says["model"]
        _bounded(path, model["vocab"], _MOST_WORDS)
        _bounded(path, model["merges"], _MOST_MERGES)
        known = {"type": "BPE", "vocab": model["vocab"], "merges": model["merges"]}
        nothing = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
        return json.dumps({"version": "1.0", **nothing, "added_tokens": _tokens(path, says), "model": known})
    if path.name in ("vocab.json", "added_tokens.json"):
        _bounded(path, says, _MOST_WORDS if path.name == "vocab.json" else _MOST_ADDED)
        if not all(type(number) is int for number in says.values()):
            raise ValueError(f"its {path.name} is not words and their numbers")
        return json.dumps(says)
    told = {key: _token(path, value) for key, value in says.items() if key in _ROLES and value is not None}
    told |= {key: value for key, value in says.items() if key in _SWITCHES and isinstance(value, bool)}
    for key in says.keys() & _LISTS:
        listed = says[key]
        _bounded(path, listed, _MOST_ADDED)
        if isinstance(listed, dict):
            told[key] = {str(name)[:_LONGEST]: _token(path, value) for name, value in listed.items()}
        else:
            told[key] = [_token(path, value) for value in listed]
    return json.dumps(told)


def _tokens(path: Path, says: Mapping[str, Any]) -> list[Any]:
    listed = says.get("added_tokens") or []
    _bounded(path, listed, _MOST_ADDED)
    return [_token(path, value) for value in listed]


def _token(path: Path, value: Any) -> Any:
    """A token as configurations have it: a text, or one with how it is found."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str) or len(content) > _LONGEST:
        raise ValueError(f"its {path.name} has {printable(repr(content))[:60]} for a token")
    return {key: own for key, own in value.items() if key in _OF_A_TOKEN} if isinstance(value, dict) else value


def _bounded(path: Path, listed: Iterable[Any], most: int) -> None:
    if not isinstance(listed, list | dict):
        raise ValueError(f"its {path.name} has a {type(listed).__name__} for a list of words")
    if len(listed) > most:
        raise ValueError(f"its {path.name} lists {len(listed)} words, more than any Florence-2's")


def _merges(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES[path.name] + 1)
    if len(content) > _MOST_BYTES[path.name] or content.count(b"\n") > _MOST_MERGES:
        raise ValueError(f"its {path.name} is larger than any model's")
    return content.decode()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def first_line(why: Exception) -> str:
    """What an error of a library says, in one line that cannot steer a terminal."""
    return printable(next((line.strip() for line in str(why).splitlines() if line.strip()), type(why).__name__)[:160])
