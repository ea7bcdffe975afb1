"""The docstrings: pydoclint's findings, the names of arguments, and the shape, dtype and frame of public arrays.

Like tests/test_architecture.py, each rule of ours is a function from a tree of source files to the sentences in
which it is broken. The last part of this file breaks every rule once, to show that it can fail.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: pydoclint's findings that fail this test: arguments (DOC1xx) and missing Raises sections (DOC5xx).
DEMANDED = ("DOC1", "DOC5")
#: The two that it misjudges. DOC502: a function documents an error that a function it calls raises. DOC503: pydoclint
#: compares names in `raise` statements, also of errors that the function itself catches, and of functions that make
#: an error (`raise make_error(...)`).
NOT_DEMANDED = ("DOC502", "DOC503")

#: (path, function or class, argument) -> why its docstring needs no shape, dtype or frame.
EXCEPTIONS: dict[tuple[str, str, str], str] = {}

# --- pydoclint --------------------------------------------------------------------------------------------------------

PYDOCLINT = shutil.which("pydoclint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
needs_pydoclint = pytest.mark.skipif(PYDOCLINT is None, reason="pydoclint is not installed; `pip install pydoclint`")


def pydoclint_findings(root: Path) -> list[str]:
    """The demanded findings in `synthgen/` of a root, with the settings in pyproject.toml."""
    done = subprocess.run(
        [str(PYDOCLINT), "--quiet", f"--config={ROOT / 'pyproject.toml'}", "-sfn", "True", "synthgen"],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.returncode in (0, 1), done.stderr
    found = []
    for line in (done.stdout + done.stderr).splitlines():
        match = re.match(r"\s*(\S+\.py):(\d+): (DOC\d+): (.*)", line)
        if match and match[3].startswith(DEMANDED) and match[3] not in NOT_DEMANDED:
            path, number, code, text = match.groups()
            if int(number) not in _command_lines(root / path):
                found.append(f"{path}:{number}: {code}: {text}")
    return found


def _command_lines(path: Path) -> set[int]:
    """The lines of functions that are commands: their docstrings are the text of `--help`, without sections."""
    return {
        node.lineno
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and path.parent.name == "cli"
        and re.search(r"\b(?:typer\.(?:Option|Argument)|opt\.\w+)", ast.unparse(node.args))
    }


@needs_pydoclint
def test_sections_name_all_arguments_and_errors() -> None:
    found = pydoclint_findings(ROOT)
    assert not found, "\n".join(found)


@needs_pydoclint
def test_pydoclint_reports_what_is_demanded(tmp_path: Path) -> None:
    sections = '"""Sum.\n\n    Args:\n        a: a number.\n    """\n'
    raises = '"""Sum.\n\n    Raises:\n        ValueError: from `int`.\n    """\n'
    _write(
        tmp_path,
        {
            "synthgen/a.py": f"def f(a: int, b: int) -> int:\n    {sections}    return a + b\n",
            "synthgen/b.py": f"def f(a: int) -> int:\n    {sections}    raise ValueError\n",
            "synthgen/c.py": f"def f() -> int:\n    {raises}    return int('1')\n",
            "synthgen/cli/d.py": f"def f(a: int, b: opt.Store) -> None:\n    {sections}",
            "synthgen/e.py": 'def f(a: int) -> int:\n    """A short docstring."""\n    return a\n',
        },
    )
    found = pydoclint_findings(tmp_path)
    assert {line.split(":")[0] for line in found} == {"synthgen/a.py", "synthgen/b.py"}
    assert {re.findall(r"DOC\d", line)[0] for line in found} == set(DEMANDED)


# --- the rules --------------------------------------------------------------------------------------------------------

ARRAYS = {"NDArray", "ndarray", "ArrayLike", "Tensor"}
#: Types whose elements are looked at. Those of mappings and functions are not.
SEQUENCES = {"Sequence", "list", "tuple", "Iterable", "Iterator", "Optional"}
#: The last part of a name that holds coordinates, except the suffix of its convention.
COORDINATES = {"box", "boxes", "bbox", "bboxes", "point", "points", "coordinates"}
CONVENTIONS = {"xyxy", "xywh", "cxcywh", "xy"}

#: Dimensions in brackets, or words. Ranges such as [0, 1] and [-1, 1] are not shapes.
SHAPE = re.compile(
    r"(?<![\w\]])\[(?!(?:0|-\d+)(?:\.\d+)?, )[^\[\]]+\]|\bscalars?\b|\bone number\b|\bany shape\b|\bsame shape\b|"
    r"\bshaped like\b|\bshape of\b"
)
DTYPE = re.compile(r"\b(?:b?float(?:16|32|64)?|u?int(?:8|16|32|64)?|bool|complex64|dtype|integers?)\b")
FRAME = re.compile(r"pixel|\babsolute\b|\brelative\b|\bnormali[sz]ed\b|\[0, 1\]|\bXYXY\b|\bXYWH\b|\bcxcywh\b", re.I)

#: "See `X`" or "as `X`": the docstring of X says it.
REFERENCE = re.compile(r"\b(?:see|as|as in|as for|as of) `([\w.]+)`", re.I)


@dataclass(frozen=True)
class Definition:
    """A function, a method or a class, with its docstring as its prose and its entries for arguments or attributes."""

    path: str
    line: int
    name: str
    arguments: dict[str, ast.expr | None]
    docstring: str
    prose: str
    entries: dict[str, str]
    is_public: bool
    is_class: bool


class DocstringTree:
    """All definitions below `synthgen/` of a root."""

    def __init__(self, root: Path) -> None:
        self.definitions = [
            definition
            for file in sorted(root.glob("synthgen/**/*.py"))
            for path in [file.relative_to(root).as_posix()]
            for definition in _definitions(path, ast.parse(file.read_text()))
        ]

    def arrays(self) -> Iterator[tuple[Definition, str, str]]:
        """(definition, argument, what the docstring says about it) for each public argument that is an array."""
        for definition in self.definitions:
            for name, annotation in definition.arguments.items():
                excepted = (definition.path, definition.name, name) in EXCEPTIONS
                if definition.is_public and _is_array(annotation) and not excepted:
                    yield definition, name, self.text(definition, name)

    def text(self, definition: Definition, argument: str, depth: int = 3) -> str:
        """The entry of an argument, or the prose if there is none, with the text that it refers to.

        A reference to a class means the class, and its method of the same name.
        """
        text = definition.entries.get(argument, definition.prose)
        for reference in REFERENCE.findall(text) if depth else []:
            owner, _, last = reference.rpartition(".")
            for other in self.definitions:
                method = definition.name.rpartition(".")[2]
                if f".{other.name}".endswith((f".{reference}", f".{reference}.{method}")):
                    text += "\n" + self.text(other, argument, depth - 1)
                elif other.name == owner.rpartition(".")[2] and last in other.entries:
                    text += "\n" + self.text(other, last, depth - 1)
        return text


def _definitions(path: str, module: ast.Module) -> Iterator[Definition]:
    """The functions and classes of a module. A method without a docstring has that of its class, as `__init__` does."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    for node in module.body:
        public = not any(part.startswith("_") for part in (*parts, getattr(node, "name", "")))
        if isinstance(node, ast.FunctionDef):
            yield _definition(path, node, node.name, _arguments(node), [node], public)
        elif isinstance(node, ast.ClassDef):
            fields = {ast.unparse(f.target): f.annotation for f in node.body if isinstance(f, ast.AnnAssign)}
            shown = {name: annotation for name, annotation in fields.items() if not name.startswith("_")}
            yield _definition(path, node, node.name, shown, [node], public)
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    hidden = method.name.startswith("_") and method.name not in ("__init__", "__call__")
                    described = ast.get_docstring(method) and method.name != "__init__"
                    owners = [method] if described else [method, node]
                    name = f"{node.name}.{method.name}"
                    yield _definition(path, method, name, _arguments(method), owners, public and not hidden)


def _definition(
    path: str,
    node: ast.FunctionDef | ast.ClassDef,
    name: str,
    arguments: dict[str, ast.expr | None],
    owners: list[ast.FunctionDef | ast.ClassDef],
    is_public: bool,
) -> Definition:
    texts = [ast.get_docstring(owner) or "" for owner in owners]
    prose = "\n".join(re.split(r"^(?:Args|Attributes|Raises|Returns|Yields):$", text, flags=re.M)[0] for text in texts)
    entries = {key: value for text in reversed(texts) for key, value in _entries(text).items()}
    is_class = isinstance(node, ast.ClassDef)
    return Definition(path, node.lineno, name, arguments, "\n".join(texts), prose, entries, is_public, is_class)


def _arguments(node: ast.FunctionDef) -> dict[str, ast.expr | None]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    return {a.arg: a.annotation for a in every if a is not None and not a.arg.startswith("_")}


def _entries(docstring: str) -> dict[str, str]:
    """Argument -> its text in the sections Args and Attributes."""
    found: dict[str, str] = {}
    for section in re.findall(r"^(?:Args|Attributes):\n((?:(?: +.*)?(?:\n|\Z))*)", docstring, flags=re.M):
        for entry in re.findall(r"^\S.*(?:\n +.*|\n(?= *$))*", textwrap.dedent(section), flags=re.M):
            names, _, text = entry.partition(":")
            found |= {name.strip(" *"): text for name in names.split(",")}
    return found


def _is_array(annotation: ast.expr | None) -> bool:
    """Whether a value of this type is an array, or holds arrays in a sequence."""
    if isinstance(annotation, ast.BinOp):
        return _is_array(annotation.left) or _is_array(annotation.right)
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _is_array(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.Subscript):
        name = ast.unparse(annotation.value).rpartition(".")[2]
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return name in ARRAYS or (name in SEQUENCES and any(map(_is_array, inner)))
    return annotation is not None and ast.unparse(annotation).rpartition(".")[2] in ARRAYS


def _holds_coordinates(name: str) -> bool:
    parts = [part for part in name.split("_") if part not in CONVENTIONS]
    return bool(parts) and parts[-1] in COORDINATES


def arguments_are_named(tree: DocstringTree) -> Iterator[str]:
    """Not in cli/, where the docstring of a command is its help, and not after "See `X`": X names them."""
    for d in tree.definitions:
        exempt = d.path.startswith("synthgen/cli/") or d.docstring.strip().startswith("See `")
        if d.is_public and not d.is_class and not exempt:
            for argument in d.arguments:
                if argument not in ("self", "cls") and not re.search(rf"\b{re.escape(argument)}\b", d.docstring):
                    yield f"{d.path}:{d.line} {d.name}: the docstring does not name `{argument}`"


def _say(definition: Definition, argument: str, lack: str) -> str:
    return f"{definition.path}:{definition.line} {definition.name}: the docstring gives `{argument}` no {lack}"


def arrays_have_a_shape(tree: DocstringTree) -> Iterator[str]:
    for definition, argument, text in tree.arrays():
        if not SHAPE.search(text):
            yield _say(definition, argument, "shape, such as [N, 4]")


def arrays_have_a_dtype(tree: DocstringTree) -> Iterator[str]:
    for definition, argument, text in tree.arrays():
        if not DTYPE.search(text):
            yield _say(definition, argument, "dtype, such as float32")


def coordinates_have_a_frame(tree: DocstringTree) -> Iterator[str]:
    for definition, argument, text in tree.arrays():
        if _holds_coordinates(argument) and not FRAME.search(text):
            yield _say(definition, argument, "frame, such as absolute pixels or XYXY relative to the image")


RULES: list[Callable[[DocstringTree], Iterator[str]]] = [
    arguments_are_named,
    arrays_have_a_shape,
    arrays_have_a_dtype,
    coordinates_have_a_frame,
]


@pytest.fixture(scope="module")
def package() -> DocstringTree:
    return DocstringTree(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_docstrings_are_complete(rule: Callable[[DocstringTree], Iterator[str]], package: DocstringTree) -> None:
    broken = list(rule(package))
    assert not broken, "\n".join(broken)


def test_the_public_arrays_are_found(package: DocstringTree) -> None:
    """A rule about nothing would pass: the package has many public arrays, in functions, methods and records."""
    assert len(list(package.arrays())) > 200


def test_every_exception_is_an_array(package: DocstringTree) -> None:
    arguments = {(d.path, d.name, name) for d in package.definitions for name, a in d.arguments.items() if _is_array(a)}
    assert set(EXCEPTIONS) <= arguments


# --- every rule, broken once ------------------------------------------------------------------------------------------

ONE_LINE = 'def f(boxes: NDArray[np.float64]) -> None:\n    """{}"""\n'
WITH_ARGS = (
    "def f(boxes_xyxy: {}, n: int) -> None:\n"
    '    """Draw.\n\n    Args:\n        boxes_xyxy: {}\n        n: [9].\n    """\n'
)
RECORD = (
    '@dataclass\nclass R:\n    """A record.\n\n    Attributes:\n        points: {}\n    """\n\n    points: Tensor\n'
)
METHOD = 'class P(Protocol):\n    """A protocol."""\n\n    def run(self, box: Tensor) -> None:\n        """{}"""\n'
NO_ARRAY = 'def f(boxes: Mapping[str, Tensor], box: Callable[[Tensor], int]):\n    """Call `box` with `boxes`."""\n'
MADE_BY = 'class C:\n    """A thing of some {}."""\n\n    def __init__(self, size: int, **rest: int) -> None: ...\n'

SOUND = {
    "synthgen/one_line.py": ONE_LINE.format("Draw boxes: float64 [N, 4], absolute pixels."),
    "synthgen/with_args.py": WITH_ARGS.format("Sequence[Tensor] | None", "float32 [N, 4] each,\n            pixels."),
    "synthgen/record.py": RECORD.format("float32 [P, 2],\n            relative to the image."),
    "synthgen/method.py": METHOD.format("Segment a box: float32 [4], XYXY, in pixels."),
    "synthgen/_private.py": ONE_LINE.format("Draw."),
    "synthgen/implementation.py": 'class A:\n    def run(self, box: Tensor) -> None:\n        """See `P.run`."""\n',
    "synthgen/attribute.py": WITH_ARGS.format("Tensor", "see `R.points`."),
    "synthgen/no_array.py": NO_ARRAY,
    "synthgen/made_by.py": MADE_BY.format("size and the rest"),
    "synthgen/cli/command.py": 'def run(store: opt.Store) -> None:\n    """The text of the help."""\n',
    "synthgen/by_class.py": 'class B:\n    """See `P`."""\n\n    def run(self, box: Tensor) -> None: ...\n',
}
NAMES, SHAPES, DTYPES, FRAMES = RULES
BROKEN: list[tuple[Callable[[DocstringTree], Iterator[str]], str, str]] = [
    (
        NAMES,
        'def f(image: int, box: int) -> None:\n    """Draw a box on images."""\n',
        "f: the docstring does not name",
    ),
    (NAMES, MADE_BY.format("size"), "C.__init__: the docstring does not name `rest`"),
    (NAMES, "class C:\n    def f(self, size: int) -> None: ...\n", "C.f: the docstring does not name `size`"),
    (SHAPES, ONE_LINE.format("Draw float64 boxes of pixels, in [0, 1] or [-1, 1]."), "gives `boxes` no shape"),
    (SHAPES, WITH_ARGS.format("NDArray[Any] | None", "float32, pixels."), "gives `boxes_xyxy` no shape"),
    (SHAPES, RECORD.format("float32, pixels; see `missing`."), "R: the docstring gives `points` no shape"),
    (DTYPES, ONE_LINE.format("Draw boxes [N, 4] in pixels."), "gives `boxes` no dtype"),
    (DTYPES, WITH_ARGS.format("list[torch.Tensor]", "[N, 4], XYXY."), "gives `boxes_xyxy` no dtype"),
    (DTYPES, METHOD.format("See a float64 [4] there, relative.").replace("float64", "box"), "P.run: the docstring"),
    (FRAMES, WITH_ARGS.format('"NDArray[Any]"', "float32 [N, 4]."), "gives `boxes_xyxy` no frame"),
    (FRAMES, METHOD.format("Segment a box, float32 [4]."), "P.run: the docstring gives `box` no frame"),
]


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_sound_tree_breaks_no_rule(tmp_path: Path) -> None:
    _write(tmp_path, SOUND)
    tree = DocstringTree(tmp_path)
    assert {d.path.removeprefix("synthgen/") for d, _, _ in tree.arrays()} == {
        "one_line.py", "with_args.py", "record.py", "method.py", "implementation.py", "attribute.py", "by_class.py"
    }  # fmt: skip
    assert [sentence for rule in RULES for sentence in rule(tree)] == []


@pytest.mark.parametrize(("rule", "text", "sentence"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_rule_is_reported(
    rule: Callable[[DocstringTree], Iterator[str]], text: str, sentence: str, tmp_path: Path
) -> None:
    _write(tmp_path, {"synthgen/x.py": text})
    tree = DocstringTree(tmp_path)
    found = list(rule(tree))
    assert len(found) == 1
    assert sentence in found[0]
    assert [other for one in RULES if one is not rule for other in one(tree)] == []


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, *_ in BROKEN} == set(RULES)


def test_a_reference_to_a_poor_docstring_is_poor(tmp_path: Path) -> None:
    """`See X` counts only if X is documented."""
    files = {"synthgen/method.py": METHOD.format("Segment."), **{k: SOUND[k] for k in ["synthgen/implementation.py"]}}
    _write(tmp_path, files)
    found = list(arrays_have_a_shape(DocstringTree(tmp_path)))
    assert {sentence.split(":")[0] for sentence in found} == {"synthgen/method.py", "synthgen/implementation.py"}
