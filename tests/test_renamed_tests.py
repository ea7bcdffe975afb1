"""`renamed_tests.txt`: every test of the tree before the renaming has a successor, or a reason for its removal."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "renamed_tests.txt"

# The left column must not change: it names the tests of the last commit before the renaming.
COUNT = 1532
SHA256 = "8f0b36159ffc9bae2f54bd2cbf2f3e4c384dc717b2cb969a393a8ace20a3634a"


def names_of_tests(body: list[ast.stmt]) -> Iterator[str]:
    """`test_x` for functions, `TestX::test_x` for methods."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{name}" for name in names_of_tests(node.body))


def digest(ids: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def find_errors(text: str, root: Path, count: int, sha256: str) -> list[str]:
    """What is wrong in the list `text`, for the test files below `root`."""
    rows = [line.split("\t") for line in text.splitlines()]
    ids = [row[0] for row in rows]
    errors = []
    if (len(ids), digest(ids)) != (count, sha256):
        errors.append(f"the left column has changed: {len(ids)} lines, sha256 {digest(ids)}")
    known: dict[str, set[str]] = {}
    for old, *columns in rows:
        new = columns[0] if columns else ""
        file, _, name = new.partition("::")
        if file not in known:
            path = root / file
            known[file] = set(names_of_tests(ast.parse(path.read_text()).body)) if path.is_file() else set()
        if not new:
            errors.append(f"{old} is not mapped")
        elif new == "-":
            if not "".join(columns[1:]).strip():
                errors.append(f"{old} was removed without a reason")
        elif name not in known[file]:
            errors.append(f"{old} became {new}, which does not exist")
    return errors


def test_every_old_test_is_accounted_for() -> None:
    assert find_errors(LIST.read_text(), ROOT, COUNT, SHA256) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("\ttests/test_b.py::test_new", ""), "test_old is not mapped"),
        (("\ttests/test_b.py::test_new", "\t"), "test_old is not mapped"),
        (("test_new", "test_gone"), "which does not exist"),
        (("test_b.py::test_new", "test_c.py::test_new"), "which does not exist"),
        (("TestOne::test_method\n", "test_method\n"), "which does not exist"),
        (("\tno longer used", ""), "test_removed was removed without a reason"),
        (("\tno longer used", "\t "), "test_removed was removed without a reason"),
        (("tests/test_a.py::test_removed\t-\tno longer used\n", ""), "the left column has changed: 2 lines"),
        (("test_a.py::test_old", "test_a.py::test_older"), "the left column has changed: 3 lines"),
    ],
)
def test_each_error_of_the_list_is_reported(tmp_path: Path, change: tuple[str, str], error: str) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_b.py").write_text(
        "def test_new(): ...\n\n\nclass TestOne:\n    def test_method(self): ...\n"
    )
    text = (
        "tests/test_a.py::test_old\ttests/test_b.py::test_new\n"
        "tests/test_a.py::test_method\ttests/test_b.py::TestOne::test_method\n"
        "tests/test_a.py::test_removed\t-\tno longer used\n"
    )
    ids = [line.split("\t")[0] for line in text.splitlines()]
    assert find_errors(text, tmp_path, 3, digest(ids)) == []
    assert text.count(change[0]) == 1
    (found,) = find_errors(text.replace(*change), tmp_path, 3, digest(ids))
    assert error in found
