"""The manifest: a YAML file with the training data, the excluded images, the evaluation and the schedule.

Paths in it are relative to its folder. This module never opens the store; `synthgen.dataloading.manifest_check` does.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from synthgen import plugins
from synthgen.dataloading.augment import AugmentConfig
from synthgen.dataloading.config import (
    BoxSegmenterSettings,
    CaptionerConfig,
    ConfigSection,
    DataLoaderConfig,
    ImageSides,
    ModelConfig,
    ScheduleConfig,
)
from synthgen.dataloading.manifest_errors import Location, ManifestIssue, explain_validation_error, make_manifest_error
from synthgen.dataloading.network_checks import check_network_consistency
from synthgen.dataloading.renamed_keys import find_renamed_keys, rename_manifest_keys
from synthgen.dataloading.source_config import (
    TASKS_PACKAGE,
    UNKNOWN_TASK,
    EvalSource,
    LayerSource,
    ManifestPath,
    TrainSource,
)
from synthgen.dataloading.yaml_loader import load_yaml, pop_duplicate_keys
from synthgen.errors import SynthgenError
from synthgen.storage.disk import default_store

log = logging.getLogger(__name__)


class Manifest(ConfigSection):
    """A manifest; its sections are in `config` and `source_config`.

    Attributes:
        seed: seed of all random draws; up to 2**63 - 1.
        store: root of the shards.
        exclude: files of image keys, one a line, that no source may show.
        eval_size: (shorter side, maximum of the longer side) of the network's input in evaluation, in pixels.
        captioner, box_segmenter: a network that is trained instead of `model`; if both are None, `model` is trained.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    store: Annotated[ManifestPath, Field(default_factory=default_store)]
    mixture: tuple[TrainSource, ...] = ()
    exclude: tuple[ManifestPath, ...] = ()
    eval: tuple[EvalSource, ...] = ()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    eval_size: ImageSides = (800, 1333)
    captioner: CaptionerConfig | None = None
    box_segmenter: BoxSegmenterSettings | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    dataloader: DataLoaderConfig = DataLoaderConfig()

    @property
    def network_section(self) -> str:
        """The key of the section of the network that is trained: "model", "captioner" or "box_segmenter"."""
        return next((key for key in OTHER_NETWORKS if getattr(self, key) is not None), "model")


#: Sections of networks that are trained instead of `model`.
OTHER_NETWORKS: dict[str, type[ConfigSection]] = {"captioner": CaptionerConfig, "box_segmenter": BoxSegmenterSettings}

#: The sections by the first part of a place in them; () is the manifest itself.
_SECTIONS: dict[str, type[Any]] = {
    "": Manifest,
    "mixture": TrainSource,
    "eval": EvalSource,
    "augment": AugmentConfig,
    "model": ModelConfig,
    **OTHER_NETWORKS,
    "schedule": ScheduleConfig,
    "dataloader": DataLoaderConfig,
}


@dataclass(frozen=True, slots=True)
class ManifestDraft:
    """A manifest that may have errors, with its valid parts, so that these can be checked as well.

    Attributes:
        errors: all errors that can be found without the store.
        store: None = it is invalid.
        mixture, eval, exclude: the valid entries, by location in the manifest.
        manifest: None = there are errors.
    """

    path: Path
    errors: tuple[ManifestIssue, ...]
    store: Path | None
    mixture: Mapping[int, TrainSource]
    eval: Mapping[int, EvalSource]
    exclude: Mapping[int, Path]
    manifest: Manifest | None

    def to_exception(self, more_errors: Sequence[ManifestIssue] = ()) -> SynthgenError:
        """All errors, with `more_errors`, as one exception."""
        return make_manifest_error(
            self.path,
            [*self.errors, *more_errors],
            [key for section in _SECTIONS.values() for key in _section_keys(section)],
        )


def load_manifest(path: Path, *, store: Path | None = None) -> Manifest:
    """Read a manifest. Its paths become relative to the working directory.

    Args:
        path: a YAML file.
        store: root of the shards, instead of the manifest's; the default is $SYNTHGEN_STORE, then ./shards.

    Raises:
        SynthgenError: all errors that can be found without the store, one per line, with location and fix.
    """
    found = load_draft(path, store=store)
    if found.manifest is None:
        raise found.to_exception()
    return found.manifest


def load_draft(path: Path, *, store: Path | None = None) -> ManifestDraft:
    """Read a manifest and keep what is valid; see `load_manifest`.

    Args:
        path: a YAML file.
        store: root of the shards, as in `load_manifest`.

    Raises:
        SynthgenError: there is no such file, or it is not valid YAML.
    """
    text = load_yaml(path)
    context = {"folder": path.parent}
    mistakes = list(pop_duplicate_keys(text, ()))
    _warn_of_renamed_keys(path, tuple(find_renamed_keys(text)))
    text = rename_manifest_keys(text)
    reported = {mistake.location for mistake in mistakes}
    manifest, errors = _validate(Manifest, text, context)
    mistakes += [
        mistake for error in errors if tuple(error["loc"]) not in reported for mistake in _explain_error(error)
    ]
    bad = {mistake.location for mistake in mistakes}
    for key in _SECTIONS.keys() & text.keys() & {at[0] for at in bad if len(at) > 1}:
        if isinstance(text[key], dict):  # checks between its keys, without the invalid ones
            rest = {k: v for k, v in text[key].items() if not any(at[:2] == (key, k) for at in bad)}
            _, errors = _validate(Manifest, {"name": "rest", key: rest}, context)
            wrong = [str(at[1]) for at in bad if at[0] == key and len(at) > 1]  # their values are unknown
            more = [mistake for error in errors for mistake in _explain_error(error)]
            mistakes += [m for m in more if not any(re.search(rf"\b{re.escape(k)}\b", m.message) for k in wrong)]
    mixture = dict(_valid_sources("mixture", TrainSource, text, bad, context))
    evals = dict(_valid_sources("eval", EvalSource, text, bad, context))
    lists = text["exclude"] if isinstance(text.get("exclude"), list) else []
    exclude = {i: path.parent / one for i, one in enumerate(lists) if isinstance(one, str) and one}
    tasks = {(key, i): one.task for key, own in (("mixture", mixture), ("eval", evals)) for i, one in own.items()}
    mistakes += [
        *_find_duplicates("mixture", mixture, bad),
        *_find_duplicates("eval", evals, bad),
        *_find_duplicates("exclude", exclude, bad),
        *check_network_consistency(text, {at: task for at, task in tasks.items() if task != UNKNOWN_TASK}),
    ]
    if not any(text.get(key) or (key,) in reported for key in ("mixture", "eval")):
        mistakes.append(ManifestIssue((), "nothing to learn from, nothing to evaluate on; add mixture: or eval:"))
    root = store
    if root is None and ("store",) not in bad:
        root = path.parent / text["store"] if "store" in text else default_store()
    if manifest is not None:
        manifest = None if mistakes else manifest.model_copy(update={"store": root})
    return ManifestDraft(path, tuple(mistakes), root, mixture, evals, exclude, manifest)


@functools.cache
def _warn_of_renamed_keys(path: Path, renamed: tuple[tuple[str, str], ...]) -> None:
    """Log one warning that names all renamed keys of a manifest, once per process."""
    if renamed:
        pairs = ", ".join(f"{old} is now {new}" for old, new in renamed)
        log.warning("%s has keys that were renamed: %s; the old names still work", path, pairs)


_T = TypeVar("_T", bound=ConfigSection)


def _validate(kind: type[_T], content: Mapping[str, Any], context: Mapping[str, Any]) -> tuple[_T | None, list[Any]]:
    """A validated section, or pydantic's errors. It goes through JSON, whose lists pass as tuples in strict mode."""
    try:
        return kind.model_validate_json(json.dumps(content), context=dict(context)), []
    except ValidationError as why:
        return None, list(why.errors(include_url=False))


def _explain_error(error: Mapping[str, Any]) -> Iterator[ManifestIssue]:
    at = error["loc"]
    inside = at and (len(at) > 1 or error["type"] == "value_error")
    return explain_validation_error(error, _section_keys(_SECTIONS.get(at[0], Manifest) if inside else Manifest))


def _section_keys(section: type[Any]) -> list[str]:
    return [f.name for f in fields(section)] if section is AugmentConfig else list(section.model_fields)


def _valid_sources(
    key: str, kind: type[_T], document: Mapping[str, Any], bad_locations: set[Location], context: Mapping[str, Any]
) -> Iterator[tuple[int, _T]]:
    """The sources of a list that can be checked further, without their invalid keys."""
    entries = document.get(key)
    for i, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            rest = {k: v for k, v in entry.items() if not any(at[:3] == (key, i, k) for at in bad_locations)}
            lacks_task = "task" not in rest
            source, _ = _validate(
                kind, {**rest, "task": plugins.list_plugins(TASKS_PACKAGE)[0]} if lacks_task else rest, context
            )
            if source is not None:
                yield i, source.model_copy(update={"task": UNKNOWN_TASK}) if lacks_task else source


def _find_duplicates(key: str, entries: Mapping[int, Any], bad_locations: set[Location]) -> Iterator[ManifestIssue]:
    """Valid entries that repeat an earlier entry, apart from the ratio."""
    first: dict[Any, int] = {}
    for i, entry in entries.items():
        if any(at[:2] == (key, i) for at in bad_locations):
            continue
        if isinstance(entry, LayerSource):
            same = {"ratio": 1.0} if isinstance(entry, TrainSource) else {"size": None}
            entry = entry.model_copy(update={"images": None, **same})
        if (other := first.setdefault(entry, i)) != i:
            remedy = "raise the ratio there instead" if key == "mixture" else "take it out"
            yield ManifestIssue((key, i), f"the same as {key}.{other}; {remedy}")
