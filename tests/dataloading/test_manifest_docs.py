"""docs/manifests.md agrees with the code: keys, defaults, choices, tasks, the example."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from pydantic_core import PydanticUndefined, to_jsonable_python

from synthgen import plugins
from synthgen.dataloading import yaml_loader
from synthgen.dataloading.config import BACKBONE_WEIGHT_ORIGINS, BACKBONES, TEXT_ENCODERS
from synthgen.dataloading.manifest import _SECTIONS, load_manifest
from synthgen.dataloading.source_config import TASKS_PACKAGE
from synthgen.errors import SynthgenError
from synthgen.records.sample import CAPTION_REASONS

PAGE = Path(__file__).parents[2] / "docs" / "manifests.md"

REQUIRED = "required"

#: The heading of the manifest's own keys, which are in no section.
OWN = "The manifest"

#: Choices that no type tells.
CHOICES = {
    ("model", "backbone"): BACKBONES,
    ("model", "backbone_weights"): BACKBONE_WEIGHT_ORIGINS,
    ("model", "text_encoder"): TEXT_ENCODERS,
    ("mixture", "drop_reasons"): tuple(CAPTION_REASONS),
}


def in_code(section: str) -> dict[str, str]:
    """The keys of a section, each with its default in JSON."""
    kind = _SECTIONS[section]
    if dataclasses.is_dataclass(kind):
        values = {field.name: field.default for field in dataclasses.fields(kind)}
    else:
        values = {key: field.get_default(call_default_factory=True) for key, field in kind.model_fields.items()}
    return {key: _default(value, of=_SECTIONS.get(key) if section == "" else None) for key, value in values.items()}


def _default(value: Any, *, of: type[Any] | None) -> str:
    """A default in JSON; of a section that is as its own keys are by default, an empty one."""
    if value is PydanticUndefined or value is dataclasses.MISSING:
        return REQUIRED
    return "{}" if of is not None and isinstance(value, of) and value == of() else json.dumps(to_jsonable_python(value))


def choices(section: str, key: str) -> tuple[str, ...]:
    """The words that a key may have for a value, if there are only so many."""
    hints = [get_type_hints(_SECTIONS[section]).get(key)]
    found: list[str] = list(CHOICES.get((section, key), ()))
    while hints:
        hint = hints.pop()
        if get_origin(hint) is Literal:
            found += map(str, get_args(hint))
        else:
            hints += get_args(hint)
    return tuple(found)


def tables(page: str) -> dict[str, list[tuple[list[str], list[str], str]]]:
    """By section, the rows of its table: (keys, defaults, meaning); "" = the manifest's own."""
    found = {}
    for part in re.split(r"(?m)^## ", page)[1:]:
        heading, _, text = part.partition("\n")
        rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
        name = "" if heading == OWN else heading.strip("`")
        found[name] = [(_quoted(keys), _quoted(default) or [default], meaning) for keys, default, meaning in rows]
    return found


def _quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def wrong(page: str, folder: Path) -> Iterator[str]:
    """What the page says that is not so, and what it does not say."""
    on_page = tables(page)
    if set(on_page) != set(_SECTIONS):
        yield f"sections: {sorted(set(on_page) ^ set(_SECTIONS))}"
    for section in on_page.keys() & _SECTIONS.keys():
        told: dict[str, str] = {}
        for keys, defaults, meaning in on_page[section]:
            for key, default in zip(keys, defaults * (len(keys) if len(defaults) == 1 else 1), strict=True):
                if key in told:
                    yield f"{section}.{key} is told twice"
                told[key] = _in_json(default, folder)
                yield from (
                    f"{section}.{key} does not tell {choice}"
                    for choice in choices(section, key)
                    if choice not in _quoted(meaning)
                )
        known = in_code(section)
        yield from (f"{section}.{key} is missing" for key in known.keys() - told.keys())
        yield from (f"{section}.{key} is no key" for key in told.keys() - known.keys())
        yield from (
            f"{section}.{key} is {known[key]} by default, not {told[key]}"
            for key in known.keys() & told.keys()
            if known[key] != told[key]
        )


def _in_json(default: str, folder: Path) -> str:
    """A default as the page writes it, read as a manifest is read: `1e-4` is a number there."""
    if default == REQUIRED:
        return REQUIRED
    path = folder / "default.yaml"
    path.write_text(f"value: {default}\n")
    return json.dumps(yaml_loader.load_yaml(path)["value"])


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("SYNTHGEN_STORE", raising=False)
    return PAGE.read_text(encoding="utf-8")


def test_every_key_is_documented_with_its_default(page: str, tmp_path: Path) -> None:
    assert list(wrong(page, tmp_path)) == []


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("| `seed` | `0` |", "| `sed` | `0` |", ".seed is missing"),
        ("| `seed` | `0` |", "| `seed`, `sed` | `0` |", ".sed is no key"),
        ("| `seed` | `0` |", "| `seed` | `1` |", ".seed is 0 by default, not 1"),
        ("| `flip` | `0.5` |", "| `flip` | `0.4` |", "augment.flip is 0.5 by default, not 0.4"),
        (
            "| `train_embeddings` | `false` |",
            "| `train_embeddings` | `0` |",
            "captioner.train_embeddings is false by default, not 0",
        ),
        ("| `ratio` | `1.0` |", "| `ratio` | required |", "mixture.ratio is 1.0 by default, not required"),
        ("| `name` | required |", "| `name` | `null` |", ".name is required by default, not null"),
        ("`resnet50`, ", "", "model.backbone does not tell resnet50"),
        ("`clip_l`, ", "", "model.text_encoder does not tell clip_l"),
        ("## `dataloader`", "## `loader`", "sections: ['dataloader', 'loader']"),
        ("| `ema_decay` |", "| `max_grad_norm`, `ema_decay` |", "schedule.max_grad_norm is told twice"),
    ],
)
def test_a_stale_page_is_noticed(page: str, tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert page.count(old) == 1
    assert sentence in list(wrong(page.replace(old, new), tmp_path))


def test_every_task_is_documented_with_its_metric_and_its_view(page: str) -> None:
    head, rows, _ = re.split(r"(?m)^\| task .*\n\| --.*\n((?:\|.*\n)+)", page)
    assert "## " not in head
    told = {}
    for row in rows.splitlines():
        task, _, metric, view = row.strip("| ").split(" | ")
        told[_quoted(task)[0]] = (_quoted(metric)[0], _quoted(view)[0])
    loaded = {name: plugins.load_plugin(TASKS_PACKAGE, name) for name in plugins.list_plugins(TASKS_PACKAGE)}
    assert told == {name: (task.METRIC, task.AUGMENTATION) for name, task in loaded.items()}


def examples(page: str) -> list[str]:
    return re.findall(r"(?s)```yaml\n(.*?)```", page)


def test_the_example_is_a_manifest(page: str, tmp_path: Path) -> None:
    (example,) = examples(page)
    path = tmp_path / "manifests" / "example.yaml"
    path.parent.mkdir()
    path.write_text(example)
    found = load_manifest(path)
    assert found.store == path.parent / "../shards"
    assert found.exclude == (path.parent / "exclude/coco_val2017.txt",)
    assert found.eval[0].shards == "coco/val2017/human"
    assert [source.min_predicted_iou for source in found.mixture] == [None, 0.88]
    path.write_text(example.replace("min_predicted_iou", "min_predictd_iou"))
    with pytest.raises(SynthgenError, match="did you mean 'min_predicted_iou'"):
        load_manifest(path)
