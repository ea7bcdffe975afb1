"""The manifest: one YAML file that says what a model is trained on, what it must never see, and how it is trained.

Paths in it are relative to its own folder. Nothing here looks into the store: `synthgen.reading.check` does.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo

from synthgen import plugins
from synthgen.errors import SynthgenError, did_you_mean
from synthgen.reading.augment import Augment
from synthgen.reading.document import read, take_twice
from synthgen.reading.mistakes import Mistake, Place, have, short, told, worded
from synthgen.reading.settings import Captioner, Model, Readers, Schedule, Section, Sides, of_one_kind
from synthgen.records.sample import REASONS
from synthgen.records.store import Shard, check_word

#: Where the tasks stand.
SHELF = "reading.tasks"

#: Stands for a task that is one of the mistakes: the rest of its source can be looked at all the same.
UNKNOWN = ""


def _layer(value: str) -> str:
    words = value.split("/")
    if len(words) != 3:
        raise ValueError(f"'{short(value)}' names no layer; write DATASET/SPLIT/LAYER, as `synthgen status` lists them")
    for word in words:
        try:
            check_word(word)
        except SynthgenError as why:
            raise ValueError(str(why)) from None
    return value


def _task(value: str) -> str:
    known = plugins.names(SHELF)  # no module of one's own: a stranger's manifest must not say what is imported
    name = plugins.stem(value)
    if name not in known:
        raise ValueError(f"no task named '{short(value)}'{did_you_mean(name, known) or have(known)}")
    return name


def _reason(value: str) -> str:
    if value not in REASONS:
        known = list(REASONS)
        raise ValueError(f"no reason named '{short(value)}'{did_you_mean(value, known) or have(known)}")
    return value


def _below(value: Path, info: ValidationInfo) -> Path:
    """A path as the manifest gives it, from where this process is."""
    if value == Path():
        raise ValueError("should name a file or a folder, got nothing")
    return Path((info.context or {}).get("folder", ".")) / value


def default_store() -> Path:
    """Where shards lie, if nobody says where."""
    return Path(os.environ.get("SYNTHGEN_STORE") or "shards")


_Layer = Annotated[str, AfterValidator(_layer)]
_Task = Annotated[str, AfterValidator(_task)]
_Path = Annotated[Path, AfterValidator(_below)]
_Score = Annotated[float | None, Field(ge=0, le=1)]


class EvalSource(Section):
    """A layer to evaluate on; people drew what it holds.

    Attributes:
        shards: "dataset/split/layer".
        task: file on the shelf `reading.tasks`, whose `METRIC` is measured.
        images: folder of its images; None = where the runs that made the layer found them.
    """

    shards: _Layer
    task: _Task
    images: _Path | None = None

    @property
    def parts(self) -> tuple[str, str, str]:
        """(dataset, split, layer)."""
        dataset, split, layer = self.shards.split("/")
        return dataset, split, layer


class Source(EvalSource):
    """A layer to learn from. Thresholds act at reading: what fails one keeps its class and its box.

    Attributes:
        ratio: the relative chance that the next image is one of this source.
        share: only this share of the layer's shards, the first ones: 0.3 = "30 % of Objects365".
        min_predicted_iou, min_stability_score, min_box_iou: masks by machines below it are not learned from.
        min_caption_score: captions by machines below it are not drawn (mean token log-probability).
        require_category_match: only captions whose noun agrees with the box's category are drawn.
        drop_reasons: captions with one of these reasons (`REASONS`) are not drawn.
        caption_sources: only captions by these writers are drawn ("human", "ofa base"); None = by all.
        mask_weight: mask losses count by this score; None = all the same.
        max_texts: names and phrases that an image is asked for, at most.
    """

    ratio: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_predicted_iou: _Score = None
    min_stability_score: _Score = None
    min_box_iou: _Score = None
    min_caption_score: float | None = None
    require_category_match: bool = False
    drop_reasons: tuple[Annotated[str, AfterValidator(_reason)], ...] = ()
    caption_sources: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    mask_weight: Literal["predicted_iou", "box_iou"] | None = None
    max_texts: Annotated[int, Field(ge=1)] = 365

    def taken(self, shards: Sequence[Shard]) -> list[Shard]:
        """Those of a layer's shards that are in the first `share` of its plan, which is one shard at least."""
        return [shard for shard in shards if shard.index < max(1, round(self.share * shard.count))]


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
    store: Annotated[_Path, Field(default_factory=default_store)]
    mixture: tuple[Source, ...] = ()
    exclude: tuple[_Path, ...] = ()
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
    mistakes += [
        *_repeated("mixture", mixture, bad),
        *_repeated("eval", evals, bad),
        *_repeated("exclude", exclude, bad),
        *of_one_kind(text, {("mixture", i): s.task for i, s in mixture.items() if s.task != UNKNOWN}),
        *of_one_kind(text, {("eval", i): s.task for i, s in evals.items() if s.task != UNKNOWN}),
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
        if isinstance(entry, EvalSource):
            same = {"images": None, "ratio": 1.0} if isinstance(entry, Source) else {"images": None}
            entry = entry.model_copy(update=same)
        if (other := first.setdefault(entry, i)) != i:
            remedy = "raise the ratio there instead" if key == "mixture" else "take it out"
            yield Mistake((key, i), f"the same as {key}.{other}; {remedy}")
