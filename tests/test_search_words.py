"""CONTRIBUTING.md, "Where to find things": a search for each word of the table finds its module.

The search is what an engineer does in an editor. It compares without case, spaces and underscores, so that "external
sort" finds `external_sort.py` and "contact sheet" finds `make_contact_sheet`. Its hits are modules in this order:

1. the file name is the word (`matcher.py` for "matcher"; a package has the name of its folder);
2. the file name contains the word;
3. a class or function of the module has the word as its name;
4. the name of a class or function contains the word.

A module counts once, at its best place. Ties are sorted by path. A row such as "SIGTERM / preemption" holds two words.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = "## Where to find things"
MIN_WORDS = 40
MAX_RANK = 3


def _squash(text: str) -> str:
    return re.sub(r"[\s_-]", "", text).lower()


def _defined_names(source: str) -> set[str]:
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {_squash(node.name) for node in ast.walk(ast.parse(source)) if isinstance(node, definitions)}


def _file_name(path: Path) -> str:
    return _squash(path.parent.name if path.name == "__init__.py" else path.stem)


def _search(word: str, names: dict[str, tuple[str, set[str]]]) -> list[str]:
    """Paths of the modules that a word finds, best first. `names`: path -> file name, defined names."""
    wanted = _squash(word)
    hits = []
    for path, (file_name, defined) in names.items():
        matches = (
            file_name == wanted,
            wanted in file_name,
            wanted in defined,
            any(wanted in name for name in defined),
        )
        if any(matches):
            hits.append((matches.index(True), path))
    return [path for _, path in sorted(hits)]


def _table(text: str) -> list[tuple[str, str]]:
    """(word, path) for each word of the section's table; a folder stands for its `__init__.py`."""
    section = text.partition(f"{SECTION}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|`]+) \| `([^`|]+)`[^|]* \|$", section, flags=re.MULTILINE)
    return [
        (word.strip(), f"{path}__init__.py" if path.endswith("/") else path)
        for words, path in rows
        for word in words.split(" / ")
    ]


def _problem(word: str, path: str, names: dict[str, tuple[str, set[str]]]) -> str:
    """What is wrong with one row, or an empty text."""
    if path not in names:
        return f"'{word}': {path} does not exist"
    hits = _search(word, names)
    if path not in hits[:MAX_RANK]:
        place = f"number {hits.index(path) + 1}" if path in hits else "not among the hits"
        return f"'{word}' finds {', '.join(hits[:MAX_RANK]) or 'nothing'}; {path} is {place}"
    return ""


@pytest.fixture(scope="module")
def names() -> dict[str, tuple[str, set[str]]]:
    modules = sorted((ROOT / "synthgen").rglob("*.py"))
    return {str(path.relative_to(ROOT)): (_file_name(path), _defined_names(path.read_text())) for path in modules}


def test_each_word_finds_its_module(names: dict[str, tuple[str, set[str]]]) -> None:
    table = _table((ROOT / "CONTRIBUTING.md").read_text())
    assert len({word for word, _ in table}) >= MIN_WORDS
    assert len({word for word, _ in table}) == len(table), "a word has two rows"
    problems = [problem for word, path in table if (problem := _problem(word, path, names))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| matcher | `synthgen/models/mqformer/losses.py` |", "is not among the hits"),
        ("| no such thing | `synthgen/models/mqformer/losses.py` |", "finds nothing"),
        ("| forward | `synthgen/models/sam_attention.py` |", "is number"),
        ("| matcher | `synthgen/models/mqformer/no_such_file.py` |", "does not exist"),
    ],
)
def test_a_wrong_row_is_reported(row: str, problem: str, names: dict[str, tuple[str, set[str]]]) -> None:
    ((word, path),) = _table(f"{SECTION}\n\n| search for | module |\n| --- | --- |\n{row}\n")
    assert problem in _problem(word, path, names)


def test_the_order_of_the_hits() -> None:
    names: dict[str, tuple[str, set[str]]] = {
        "a.py": ("a", {"loadmatcher"}),
        "b.py": ("b", {"matcher"}),
        "c.py": ("matchertest", set()),
        "e.py": ("matcher", set()),
        "d.py": ("matcher", set()),
        "f.py": ("f", {"other"}),
    }
    assert _search("Matcher", names) == ["d.py", "e.py", "c.py", "b.py", "a.py"]
