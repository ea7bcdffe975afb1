"""docs/formats.md agrees with the code: readers, layers, splits, options, flags, findings, example commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from synthgen import plugins
from synthgen.cli.main import app
from synthgen.formats.recognition import READERS_PACKAGE, option_name
from synthgen.ingest.validation.finding_codes import FINDING_CODES, INFO_CODES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "formats.md"
READERS = ROOT / "synthgen" / "formats" / "readers"

#: What each section of a reader says, in this order.
PARTS = ("Written by", "Splits", "Boxes", "Masks", "Flags", "Findings", "Left out")

#: The commands that read a dataset, and their options that name one.
COMMANDS = ("doctor", "ingest", "masks", "captions")
DATASET_OPTIONS = {"--dataset", "--split", "--name", "--images", "--annotations", "--data"} | {
    "--match-names",
    "--crowds-as-objects",
}

_UNITS = "boxes|annotations|images|categories|files|lines|splits"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def readers() -> dict[str, Any]:
    """The reader modules, by the word after `--dataset`."""
    names = plugins.list_plugins(READERS_PACKAGE)
    return {option_name(name): plugins.load_plugin(READERS_PACKAGE, name) for name in names}


def sections(page: str) -> dict[str, str]:
    """By the word after `--dataset`, the text of its section."""
    parts = re.split(r"(?m)^##? ", page)
    return {match[1]: part for part in parts if (match := re.match(r"[^\n]+\n\n`--dataset ([a-z0-9-]+)`\. ", part))}


def said(section: str, part: str) -> str:
    """The paragraph of a section that begins with the bold word `part`."""
    match = re.search(rf"(?ms)^\*\*{part}\*\*(.*?)(?:\n\n|\Z)", section)
    return match[1] if match else ""


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def rows(page: str, head: str) -> list[list[str]]:
    """The rows of the table whose first heading is `head`."""
    match = re.search(rf"(?m)^\| {head} \|.*\n\| --.*\n((?:\|.*\n)+)", page)
    return [] if match is None else [line.strip("| ").split(" | ") for line in match[1].splitlines()]


def reported_codes(module: Any) -> set[str]:
    """The findings that a reader's own modules count, by the text of these modules."""
    waiting, seen, found = [Path(module.__file__).name], set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        text = (READERS / name).read_text(encoding="utf-8")
        waiting += [f"{one}.py" for one in re.findall(r"(?m)^from synthgen\.formats\.readers\.(_\w+) import", text)]
        found |= set(re.findall(rf'"(\w+)",\s*"(?:{_UNITS})"', text)) & set(FINDING_CODES)
    return found


def commands() -> dict[str, Any]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def option_names(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def examples(page: str) -> list[str]:
    """The commands in blocks of shell, without comments."""
    blocks = re.findall(r"(?s)```sh\n(.*?)```", page)
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def wrong_sections(page: str) -> Iterator[str]:
    """What the sections of readers say that is not so, and what they do not say."""
    known, told = readers(), sections(page)
    if told.keys() != known.keys():
        yield f"sections: {sorted(told.keys() ^ known.keys())}"
    for name in told.keys() & known.keys():
        module, section = known[name], told[name]
        yield from (f"{name} does not say: {part}" for part in PARTS if not said(section, part))
        if "Format: " not in section or not re.search(r"(?m)^```\n", section):
            yield f"{name} has no format or no tree of files"
        if not any(hasattr(module, "recognize") or f" --dataset {name} " in line for line in examples(section)):
            yield f"{name} has no example"
        listed = quoted(said(section, "Flags")) | quoted(said(section, "Findings"))
        yield from (f"{name}: {code} is no finding" for code in sorted(listed - FINDING_CODES.keys()))
        missing = reported_codes(module) - quoted(said(section, "Findings"))
        yield from (f"{name} does not name {code}" for code in sorted(missing))
        if not getattr(module, "LAYOUT_SPLITS", False):
            lost = set(module.SPLITS) - quoted(said(section, "Splits"))
            yield from (f"{name} does not name the split {split}" for split in sorted(lost))
        if ("human" in module.LAYERS) == said(section, "Masks").startswith(": none"):
            yield f"{name}: masks"


def wrong_table(page: str) -> Iterator[str]:
    """The same of the table of formats."""
    known = readers()
    table = {cells[1].strip("`"): cells for cells in rows(page, "format")}
    if table.keys() != known.keys():
        yield f"table: {sorted(table.keys() ^ known.keys())}"
    for name in table.keys() & known.keys():
        _, _, _, masks, recognised = table[name]
        if (recognised == "by path") != hasattr(known[name], "recognize"):
            yield f"{name} is recognised otherwise"
        if (masks == "none") == ("human" in known[name].LAYERS):
            yield f"{name} has other masks"


def wrong_findings(page: str) -> Iterator[str]:
    """The same of the table of findings."""
    table = {cells[0].strip("`"): cells[1:] for cells in rows(page, "finding")}
    yield from (f"{code} is not documented" for code in FINDING_CODES.keys() - table.keys())
    yield from (f"{code} is no finding" for code in table.keys() - FINDING_CODES.keys())
    for code in table.keys() & FINDING_CODES.keys():
        kind, meaning, remedy = table[code]
        if kind != ("know" if code in INFO_CODES else "look at"):
            yield f"{code} is of another kind"
        if meaning != FINDING_CODES[code]:
            yield f"{code} means: {FINDING_CODES[code]}"
        if len(remedy) < len("Nothing.") or not remedy.endswith("."):
            yield f"{code} has no remedy"
        if remedy == "Nothing." and code not in INFO_CODES:
            yield f"{code} is to be looked at, and the remedy is nothing"


def wrong_options(page: str) -> Iterator[str]:
    """The same of options and example commands."""
    known = commands()
    everywhere = set().union(*map(option_names, known.values()))
    yield from (f"{option} is no option" for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) - everywhere)
    table = {cells[0].strip("`") for cells in rows(page, "option")}
    yield from (f"{option} is not in the table of options" for option in DATASET_OPTIONS - table)
    for line in examples(page):
        program, name, *words = shlex.split(line)
        if program != "synthgen" or name not in known:
            yield f"{line}: no command of synthgen"
            continue
        try:
            known[name].make_context(name, list(words))
        except typer.Exit:
            yield f"{line}: exits"
        except Exception as why:  # typer's own click raises types of several packages
            yield f"{line}: {why}"


def wrong(page: str) -> list[str]:
    """All mistakes of the page."""
    checks = (wrong_sections, wrong_table, wrong_findings, wrong_options)
    return [mistake for check in checks for mistake in check(page)]


def test_the_page_agrees_with_the_code(page: str) -> None:
    assert wrong(page) == []
    assert len(examples(page)) > len(readers())


def test_the_options_that_name_a_dataset_are_options_of_each_command_that_reads_one() -> None:
    for name in COMMANDS:
        assert option_names(commands()[name]) >= DATASET_OPTIONS, name


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("`--dataset yolo`. Format", "`--dataset yolow`. Format", "sections: ['yolo', 'yolow']"),
        ("| `voc` | boxes |", "| `vocs` | boxes |", "table: ['voc', 'vocs']"),
        ("| upright boxes around rotated ones | none | by path |", "| boxes | PNG | by path |", "dota has other masks"),
        ("`split_not_found`, ", "", "yolo does not name split_not_found"),
        ("`class_attribute`, `several", "`class_atribute`, `several", "via: class_atribute is no finding"),
        ("| `turned` | know |", "| `turned` | look at |", "turned is of another kind"),
        ("| `turned` |", "| `turnt` |", "turned is not documented"),
        ("| an image file is truncated, or none |", "| cut |", "unreadable means: an image file is truncated, or none"),
        (
            "`training`, `validation`.\n\n**Boxes** are around the visible",
            "`training`.\n\n**Boxes** are around the visible",
            "ade20k-full does not name the split validation",
        ),
        ("photos/ --crowds-as-objects", "photos/ --crowds-as-object", "--crowds-as-object is no option"),
        ("| `--match-names` | Also", "| `--matched-names` | Also", "--matched-names is no option"),
    ],
)
def test_a_stale_page_is_noticed(page: str, old: str, new: str, mistake: str) -> None:
    assert page.count(old) == 1
    assert mistake in wrong(page.replace(old, new))


def test_an_example_that_the_command_line_refuses_is_noticed(page: str) -> None:
    (mistake,) = wrong_options(page.replace("--n 16  ", "--n many", 1).replace("  # look at them", "", 1))
    assert mistake.startswith("synthgen show cones/train/masks --n many")


def test_links_within_the_page_lead_to_headings(page: str) -> None:
    slugs = {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in re.findall(r"(?m)^#+ (.+)$", page)}
    links = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert links and links <= slugs, sorted(links - slugs)


def test_the_readme_leads_here_and_says_each_usual_format() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/formats.md)" in readme
    for title in ("YOLO", "COCO JSON", "Pascal VOC", "LabelMe", "CVAT", "Label Studio", "VIA", "DOTA", "WebDataset"):
        assert title in readme
