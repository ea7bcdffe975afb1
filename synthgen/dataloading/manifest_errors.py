"""Error messages for manifests: each with location, problem and fix; all are reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from synthgen.errors import MultipleErrors, SynthgenError, did_you_mean

#: Location of an error: ("mixture", 1, "task").
Location = tuple[str | int, ...]

#: Maximum number of errors that are listed; the rest are counted.
MAX_LISTED = 100

#: Names of our keys in other training frameworks.
_KEY_ALIASES = {
    **dict.fromkeys(("weight", "sampling_ratio", "probability"), "ratio"),
    **dict.fromkeys(("dataset", "layer", "path", "source", "name"), "shards"),
    **dict.fromkeys(("learning_rate", "base_lr"), "lr"),
    **dict.fromkeys(("max_iter", "iterations", "max_steps", "epochs"), "steps"),
    **dict.fromkeys(("clip_grad", "grad_clip", "max_norm"), "max_grad_norm"),
    **dict.fromkeys(("sources", "train", "datasets", "data"), "mixture"),
    **dict.fromkeys(("val", "test", "evaluate", "evaluation"), "eval"),
    **dict.fromkeys(("workers", "threads"), "num_workers"),
    **dict.fromkeys(("warmup", "warmup_iters"), "warmup_steps"),
    **dict.fromkeys(("fraction", "percent", "part"), "share"),
    "min_iou": "min_predicted_iou",
}

#: pydantic's error type -> the expected value in words.
_EXPECTED = {
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
    "multiple_of": ("multiple_of", "a multiple of"),
}


class ManifestIssue(NamedTuple):
    """The problem and the fix in one sentence; `location` is the place in the manifest."""

    location: Location
    message: str

    def __str__(self) -> str:
        return f"{format_location(self.location) or 'manifest'}: {self.message}"


def format_location(location: Location) -> str:
    """A `location` as text: "mixture.1.task"."""
    return ".".join(truncate(str(part)) for part in location)


def make_manifest_error(path: Path, issues: Iterable[ManifestIssue], key_order: Iterable[str]) -> SynthgenError:
    """The exception with all errors, each once, in the `key_order` of the manifest.

    Args:
        path: the manifest's file.
        issues: the errors, in any order; the same one may occur several times.
        key_order: the keys of the manifest, at any level, in the order in which their errors are listed.
    """
    ranks = {name: rank for rank, name in reversed(list(enumerate(key_order)))}
    known = sorted(
        dict.fromkeys(issues),
        key=lambda mistake: [
            (part, "") if isinstance(part, int) else (ranks.get(part, len(ranks)), part) for part in mistake.location
        ],
    )
    sentences = [str(mistake) for mistake in known[:MAX_LISTED]]
    if len(known) > MAX_LISTED:
        sentences.append(f"... and {len(known) - MAX_LISTED:,} more")
    return MultipleErrors(f"{path} has {f'{len(known):,} mistakes' if len(known) > 1 else 'a mistake'}", sentences)


def explain_validation_error(error: Mapping[str, Any], known_keys: Sequence[str]) -> Iterator[ManifestIssue]:
    """An error of pydantic in our own words.

    Args:
        error: an entry of `ValidationError.errors()`.
        known_keys: the keys of its section.
    """
    at, kind, value, facts = tuple(error["loc"]), error["type"], error.get("input"), error.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        yield ManifestIssue(at, _explain_unknown_key(str(at[-1]), known_keys))
    elif kind == "missing":
        yield ManifestIssue(at, "is missing; add it")
    elif kind == "value_error":
        yield from _explain_value_error(at, str(facts["error"]), known_keys)
    elif kind in _BOUNDS:
        fact, words = _BOUNDS[kind]
        yield ManifestIssue(at, f"should be {words} {facts[fact]:,g}, got {quote_value(value)}")
    elif kind == "literal_error":
        choice = re.findall(r"'([^']*)'", str(facts["expected"]))
        close = did_you_mean(value, choice) if isinstance(value, str) else ""
        yield ManifestIssue(at, f"should be {', '.join(choice[:-1])} or {choice[-1]}, got {quote_value(value)}{close}")
    elif kind in ("too_short", "too_long"):
        bound = f"at least {facts.get('min_length')}" if kind == "too_short" else f"at most {facts.get('max_length')}"
        yield ManifestIssue(at, f"should have {bound} values, got {facts.get('actual_length')}")
    elif kind in _EXPECTED:
        yield ManifestIssue(at, f"should be {_EXPECTED[kind]}, got {quote_value(value)}")
    else:
        yield ManifestIssue(at, f"{error['msg']}, got {quote_value(value)}")


def quote_value(value: Any) -> str:
    """A value, shortened for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | dict):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"'{truncate(value)}'" if isinstance(value, str) else truncate(str(value))


def truncate(text: str) -> str:
    """At most 80 characters of an untrusted text."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def list_choices(choices: Sequence[str]) -> str:
    """The end of a message that has no close match to suggest, with all `choices`."""
    return f" (have: {', '.join(choices)})"


def _explain_unknown_key(key: str, known_keys: Sequence[str]) -> str:
    if _KEY_ALIASES.get(key) in known_keys:
        return f"no such key; did you mean '{_KEY_ALIASES[key]}'?"
    return f"no such key{did_you_mean(key, list(known_keys)) or f'; take it out{list_choices(known_keys)}'}"


def _explain_value_error(location: Location, message: str, known_keys: Sequence[str]) -> Iterator[ManifestIssue]:
    """The messages of a section's own validator; each goes to the key that it starts with."""
    for sentence in (
        message.split("; ") if all(part.split(" ")[0] in known_keys for part in message.split("; ")) else [message]
    ):
        key, _, rest = sentence.partition(" ")
        yield (
            ManifestIssue((*location, key), rest)
            if key in known_keys and rest.startswith("should")
            else ManifestIssue(location, sentence)
        )
