"""The manifest: one YAML file that says what a model is trained on, what it must never see, and how it is trained.

Paths in it are relative to its own folder. This module never opens the store;
`synthgen.dataloading.manifest_check` does.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from synthgen import plugins
from synthgen.dataloading.augment import Augment
from synthgen.dataloading.config import Captioner, Model, Readers, Schedule, Section, Sides, of_one_kind
from synthgen.dataloading.manifest_errors import Mistake, Place, told, worded
from synthgen.dataloading.source_config import SHELF, UNKNOWN, EvalSource, FromHere, Reading, Source
from synthgen.dataloading.yaml_loader import read, take_twice
from synthgen.errors import SynthgenError


def default_store() -> Path:
    """Where shards lie, if nobody says where."""
    return Path(os.environ.get("SYNTHGEN_STORE") or "shards")


class Manifest(Section):
    """A run. See the sections.

    Attributes:
        seed: decides every draw; up to 2**63 - 1.
        store: root of the shards.
        exclude: files of image keys, one a line, that no source may show.
        eval_size: sides of what the network sees when it is evaluated, in pixels: the shorter, and the longer at most.
        captioner: what is trained instead of `model`; None = nothing is.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    store: Annotated[FromHere, Field(default_factory=default_store)]
    mixture: tuple[Source, ...] = ()
    exclude: tuple[FromHere, ...] = ()
    eval: tuple[EvalSource, ...] = ()
    augment: Augment = Augment()
    model: Model = Model()
    eval_size: Sides = (800, 1333)
    captioner: Captioner | None = None
    schedule: Schedule = Schedule()
    readers: Readers = Readers()


#: The sections by the first part of a place in them; () is the manifest itself.
_SECTIONS: dict[str, type[Any]] = {
    "": Manifest,
    "mixture": Source,
    "eval": EvalSource,
    "augment": Augment,
    "model": Model,
    "captioner": Captioner,
    "schedule": Schedule,
    "readers": Readers,
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A manifest that may have mistakes, and what is sound in it, so that the rest can be looked at all the same.

    Attributes:
        mistakes: all that can be seen without the store.
        store: None = it is one of the mistakes.
        mixture, eval, exclude: by their place in the manifest.
        manifest: None = there are mistakes.
    """

    path: Path
    mistakes: tuple[Mistake, ...]
    store: Path | None
    mixture: Mapping[int, Source]
    eval: Mapping[int, EvalSource]
    exclude: Mapping[int, Path]
    manifest: Manifest | None

    def error(self, more: Sequence[Mistake] = ()) -> SynthgenError:
        """All mistakes, `more` among them, as one error."""
        return told(
            self.path, [*self.mistakes, *more], [key for section in _SECTIONS.values() for key in _keys(section)]
        )


def load(path: Path, *, store: Path | None = None) -> Manifest:
    """Read a manifest; its paths become those from here.

    Args:
        store: the shards' root, instead of the manifest's; without either $SYNTHGEN_STORE, or ./shards.

    Raises:
        SynthgenError: all mistakes that can be seen without the store, a line each, with place and remedy.
    """
    found = draft(path, store=store)
    if found.manifest is None:
        raise found.error()
    return found.manifest


def draft(path: Path, *, store: Path | None = None) -> Draft:
    """Read a manifest as far as it goes; see `load`.

    Raises:
        SynthgenError: there is no such file, or it is no YAML.
    """
    text = read(path)
    context = {"folder": path.parent}
    mistakes = list(take_twice(text, ()))
    said = {mistake.at for mistake in mistakes}
    manifest, errors = _validated(Manifest, text, context)
    mistakes += [mistake for error in errors if tuple(error["loc"]) not in said for mistake in _worded(error)]
    bad = {mistake.at for mistake in mistakes}
    for key in _SECTIONS.keys() & text.keys() & {at[0] for at in bad if len(at) > 1}:
        if isinstance(text[key], dict):  # what its keys say of each other, without those that are mistakes
            rest = {k: v for k, v in text[key].items() if not any(at[:2] == (key, k) for at in bad)}
            _, errors = _validated(Manifest, {"name": "rest", key: rest}, context)
            wrong = [str(at[1]) for at in bad if at[0] == key and len(at) > 1]  # nobody knows what these were to be
            more = [mistake for error in errors for mistake in _worded(error)]
            mistakes += [m for m in more if not any(re.search(rf"\b{re.escape(k)}\b", m.what) for k in wrong)]
    mixture = dict(_sound("mixture", Source, text, bad, context))
    evals = dict(_sound("eval", EvalSource, text, bad, context))
    lists = text["exclude"] if isinstance(text.get("exclude"), list) else []
    exclude = {i: path.parent / one for i, one in enumerate(lists) if isinstance(one, str) and one}
    tasks = {(key, i): one.task for key, own in (("mixture", mixture), ("eval", evals)) for i, one in own.items()}
    mistakes += [
        *_repeated("mixture", mixture, bad),
        *_repeated("eval", evals, bad),
        *_repeated("exclude", exclude, bad),
        *of_one_kind(text, {at: task for at, task in tasks.items() if task != UNKNOWN}),
    ]
    if not any(text.get(key) or (key,) in said for key in ("mixture", "eval")):
        mistakes.append(Mistake((), "nothing to learn from, nothing to evaluate on; add mixture: or eval:"))
    root = store
    if root is None and ("store",) not in bad:
        root = path.parent / text["store"] if "store" in text else default_store()
    if manifest is not None:
        manifest = None if mistakes else manifest.model_copy(update={"store": root})
    return Draft(path, tuple(mistakes), root, mixture, evals, exclude, manifest)


_T = TypeVar("_T", bound=Section)


def _validated(kind: type[_T], content: Mapping[str, Any], context: Mapping[str, Any]) -> tuple[_T | None, list[Any]]:
    """A section, or what pydantic has against it; by way of JSON, whose lists are tuples where types are strict."""
    try:
        return kind.model_validate_json(json.dumps(content), context=dict(context)), []
    except ValidationError as why:
        return None, list(why.errors(include_url=False))


def _worded(error: Mapping[str, Any]) -> Iterator[Mistake]:
    at = error["loc"]
    inside = at and (len(at) > 1 or error["type"] == "value_error")
    return worded(error, _keys(_SECTIONS.get(at[0], Manifest) if inside else Manifest))


def _keys(section: type[Any]) -> list[str]:
    return [f.name for f in fields(section)] if section is Augment else list(section.model_fields)


def _sound(
    key: str, kind: type[_T], text: Mapping[str, Any], bad: set[Place], context: Mapping[str, Any]
) -> Iterator[tuple[int, _T]]:
    """The sources of a list that can be looked at further, without those of their keys that are mistakes."""
    entries = text.get(key)
    for i, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            rest = {k: v for k, v in entry.items() if not any(at[:3] == (key, i, k) for at in bad)}
            lacks_task = "task" not in rest
            source, _ = _validated(kind, {**rest, "task": plugins.names(SHELF)[0]} if lacks_task else rest, context)
            if source is not None:
                yield i, source.model_copy(update={"task": UNKNOWN}) if lacks_task else source


def _repeated(key: str, entries: Mapping[int, Any], bad: set[Place]) -> Iterator[Mistake]:
    """Entries that say what an earlier one says, whatever their ratio; of those that are sound."""
    first: dict[Any, int] = {}
    for i, entry in entries.items():
        if any(at[:2] == (key, i) for at in bad):
            continue
        if isinstance(entry, Reading):
            same = {"ratio": 1.0} if isinstance(entry, Source) else {"size": None}
            entry = entry.model_copy(update={"images": None, **same})
        if (other := first.setdefault(entry, i)) != i:
            remedy = "raise the ratio there instead" if key == "mixture" else "take it out"
            yield Mistake((key, i), f"the same as {key}.{other}; {remedy}")
