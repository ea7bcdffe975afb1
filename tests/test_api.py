"""`import synthgen`: its public names, their types for editors, and their documentation."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import synthgen as sg

ROOT = Path(__file__).parents[1]
PUBLIC = [name for name in sg.__all__ if name != "__version__"]
FUNCTIONS = [name for name in PUBLIC if inspect.isfunction(getattr(sg, name))]
CLASSES = [name for name in PUBLIC if inspect.isclass(getattr(sg, name))]


def test_every_public_name_is_there() -> None:
    assert {
        "load_layer",
        "doctor",
        "generate_masks",
        "generate_captions",
        "train",
        "evaluate",
        "predict_folder",
    } <= set(FUNCTIONS)
    assert {"Segmenter", "Captioner", "Predictor", "Layer", "SynthgenError"} <= set(CLASSES)
    assert set(PUBLIC) == {*FUNCTIONS, *CLASSES}
    importlib.import_module("synthgen.errors")  # becomes an attribute
    assert {name for name in dir(sg) if not name.startswith("_")} == set(PUBLIC)
    assert sg.__all__ == sorted(sg.__all__)
    with pytest.raises(AttributeError, match=r"module 'synthgen' has no attribute 'segmenter'"):
        sg.segmenter  # noqa: B018


def test_no_public_name_is_a_module() -> None:
    """Python sets `synthgen.NAME` to the module NAME when that is imported, which would hide a function."""
    modules = {path.stem for path in (ROOT / "synthgen").iterdir() if not path.name.startswith("_")}
    assert modules.isdisjoint(PUBLIC)


def test_type_checkers_see_what_python_gets() -> None:
    """The imports under `TYPE_CHECKING` name the module in which each name is found."""
    syntax = ast.parse((ROOT / "synthgen/__init__.py").read_text())
    (block,) = [node for node in syntax.body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed.keys() == set(PUBLIC)
    for name, module in typed.items():
        assert getattr(sg, name) is getattr(importlib.import_module(str(module)), name)
        assert getattr(sg, name).__module__ == module, f"{name} is defined elsewhere"


def test_a_name_is_imported_at_its_first_use() -> None:
    program = (
        "import sys, synthgen; print('pyarrow' in sys.modules, 'torch' in sys.modules); synthgen.load_layer;"
        "print('pyarrow' in sys.modules, 'torch' in sys.modules); from synthgen import Segmenter;"
        "print('load_layer' in vars(synthgen), 'train' in vars(synthgen))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False", "True", "False", "True", "False"]


def documented(name: str) -> list[tuple[str, Any]]:
    """A function, or the public methods of a class; with their names."""
    value = getattr(sg, name)
    if inspect.isfunction(value):
        return [(name, value)]
    own = {member: getattr(value, member) for member in vars(value) if not member.startswith("_")}
    methods = [(f"{name}.{member}", found) for member, found in own.items() if inspect.isroutine(found)]
    init = vars(value).get("__init__")
    return methods + ([(f"{name}.__init__", init)] if name in ("Segmenter", "Captioner") else [])


@pytest.mark.parametrize(
    ("label", "function"), [pytest.param(*pair, id=pair[0]) for name in PUBLIC for pair in documented(name)]
)
def test_the_docstring_names_every_argument(label: str, function: Any) -> None:
    text = inspect.getdoc(function)
    assert text, f"{label} has no docstring"
    signature = inspect.signature(function)
    wanted = [name for name in signature.parameters if name not in ("self", "cls")]
    if wanted:
        args = text.partition("Args:\n")[2].partition("\n\n")[0]
        named = {word for line in re.findall(r"^    (?:\*\*)?([a-z_, ]+):", args, re.M) for word in line.split(", ")}
        assert named == set(wanted), f"{label}: {named.symmetric_difference(wanted)}"
    if wanted and signature.return_annotation not in ("None", "Self", "Layer"):
        assert "Returns:" in text or label == "load_layer", f"{label} does not say what it returns"
    if wanted and label not in ("Layer.to_arrow", "Predictor.look", "Predictor.input_size"):
        assert "Raises:" in text, f"{label} does not say what it raises"


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(sg, name)) or ""
    assert len(text.split()) > 5, name


def test_every_error_of_the_api_is_a_synthgen_error() -> None:
    assert issubclass(sg.ArgumentError, sg.SynthgenError) and issubclass(sg.ArgumentError, ValueError)
    assert issubclass(sg.FailedRunError, sg.SynthgenError)


@pytest.mark.slow
def test_a_user_sees_the_types(tmp_path: Path) -> None:
    """mypy finds the one mistake in a program that uses the public names."""
    (tmp_path / "consumer.py").write_text(
        "import synthgen as sg\n\n"
        'layer = sg.load_layer("shards", "boxes/train/masks")\n'
        "area: int = sum(mask.area for mask in sg.Segmenter('sam').predict('a.jpg', [[1, 2, 3, 4]]))\n"
        "part: sg.Layer = layer[1:]\n"
        "masks: int = sg.generate_masks('boxes.json', images='photos').masks\n"
        "wrong: int = layer[0].file_name\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "consumer.py"]
    # Only what the public names say is of interest here, not the modules behind them.
    done = subprocess.run(
        [*command, "--follow-imports", "silent"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1 and errors[0].startswith("consumer.py:7: error:"), done.stdout
