"""Mistakes in a manifest: each with its place, what is wrong and the remedy, and all of them told at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from synthgen.errors import SeveralErrors, SynthgenError, did_you_mean

#: A mistake's place: ("mixture", 1, "task").
Place = tuple[str | int, ...]

#: Mistakes that are told one by one; the rest are counted.
MOST = 100

#: What other trainers call our keys.
_ALSO = {
    **dict.fromkeys(("weight", "sampling_ratio", "probability"), "ratio"),
    **dict.fromkeys(("dataset", "layer", "path", "source", "name"), "shards"),
    **dict.fromkeys(("learning_rate", "base_lr"), "lr"),
    **dict.fromkeys(("max_iter", "iterations", "max_steps", "epochs"), "steps"),
    **dict.fromkeys(("clip_grad", "grad_clip", "max_norm"), "clip"),
    **dict.fromkeys(("sources", "train", "datasets", "data"), "mixture"),
    **dict.fromkeys(("val", "test", "evaluate", "evaluation"), "eval"),
    **dict.fromkeys(("num_workers", "threads"), "workers"),
    **dict.fromkeys(("warmup", "warmup_iters"), "warmup_steps"),
    **dict.fromkeys(("fraction", "percent", "part"), "share"),
    "min_iou": "min_predicted_iou",
}

#: What a value should have been, by pydantic's word for what it is not.
_SHOULD_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "path_type": "a path",
    "tuple_type": "a list",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dataclass_type": "a mapping of keys",
    "dataclass_exact_type": "a mapping of keys",
    "string_pattern_mismatch": "1 to 100 letters, digits, '.', '_' and '-', a letter or digit first",
}
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


class Mistake(NamedTuple):
    """What is wrong, and the remedy, in one sentence; `at` is where in the manifest."""

    at: Place
    what: str

    def __str__(self) -> str:
        return f"{dotted(self.at) or 'manifest'}: {self.what}"


def dotted(at: Place) -> str:
    """ "mixture.1.task"."""
    return ".".join(map(str, at))


def told(path: Path, mistakes: Iterable[Mistake], order: Iterable[str]) -> SynthgenError:
    """The error that tells all mistakes of a manifest, in the `order` of its keys, each once."""
    ranks = {name: rank for rank, name in reversed(list(enumerate(order)))}
    known = sorted(
        dict.fromkeys(mistakes),
        key=lambda mistake: [
            (part, "") if isinstance(part, int) else (ranks.get(part, len(ranks)), part) for part in mistake.at
        ],
    )
    sentences = [str(mistake) for mistake in known[:MOST]]
    if len(known) > MOST:
        sentences.append(f"... and {len(known) - MOST:,} more")
    return SeveralErrors(f"{path} has {f'{len(known):,} mistakes' if len(known) > 1 else 'a mistake'}", sentences)


def worded(error: Mapping[str, Any], known: Sequence[str]) -> Iterator[Mistake]:
    """One error of pydantic's in the house's words.

    Args:
        error: of its `ValidationError.errors()`.
        known: the keys that the section has in which it happened.
    """
    at, kind, value, facts = tuple(error["loc"]), error["type"], error.get("input"), error.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        yield Mistake(at, _no_such_key(str(at[-1]), known))
    elif kind == "missing":
        yield Mistake(at, "is missing; add it")
    elif kind == "value_error":
        yield from _own(at, str(facts["error"]), known)
    elif kind in _BOUNDS:
        fact, words = _BOUNDS[kind]
        yield Mistake(at, f"should be {words} {facts[fact]:,g}, got {got(value)}")
    elif kind == "literal_error":
        choice = re.findall(r"'([^']*)'", str(facts["expected"]))
        close = did_you_mean(value, choice) if isinstance(value, str) else ""
        yield Mistake(at, f"should be {', '.join(choice[:-1])} or {choice[-1]}, got {got(value)}{close}")
    elif kind in ("too_short", "too_long"):
        bound = f"at least {facts.get('min_length')}" if kind == "too_short" else f"at most {facts.get('max_length')}"
        yield Mistake(at, f"should have {bound} values, got {facts.get('actual_length')}")
    elif kind in _SHOULD_BE:
        yield Mistake(at, f"should be {_SHOULD_BE[kind]}, got {got(value)}")
    else:
        yield Mistake(at, f"{error['msg']}, got {got(value)}")


def got(value: Any) -> str:
    """A value as a sentence quotes it: short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | dict):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"'{short(value)}'" if isinstance(value, str) else short(str(value))


def short(text: str) -> str:
    """At most 80 letters of a text that may be anything."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def have(known: Sequence[str]) -> str:
    """What a sentence ends with where nothing was close."""
    return f" (have: {', '.join(known)})"


def _no_such_key(key: str, known: Sequence[str]) -> str:
    if _ALSO.get(key) in known:
        return f"no such key; did you mean '{_ALSO[key]}'?"
    return f"no such key{did_you_mean(key, list(known)) or f'; take it out{have(known)}'}"


def _own(at: Place, what: str, known: Sequence[str]) -> Iterator[Mistake]:
    """What a section says of itself; of several sentences, each at the key that it begins with."""
    for sentence in what.split("; ") if all(part.split(" ")[0] in known for part in what.split("; ")) else [what]:
        key, _, rest = sentence.partition(" ")
        yield Mistake((*at, key), rest) if key in known and rest.startswith("should") else Mistake(at, sentence)
