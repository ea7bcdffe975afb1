"""The laws of the house as data: who may import whom, one gate for each dependency, and a front door that is light.

Each law is a function from a tree of source files to the sentences that it is broken by. The last part of this file
breaks every law once, in a small tree of its own: a law that cannot fail protects nothing.
"""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]

#: Room -> the rooms of the house that it may import. The longest name that fits a module is its room.
_WING = {
    *("synthgen.records", "synthgen.networks", "synthgen.language"),
    *("synthgen.plugins", "synthgen.weights", "synthgen.devices", "synthgen.errors"),
}
MAY_IMPORT: dict[str, set[str]] = {
    "synthgen.__main__": {"synthgen.cli"},
    "synthgen.cli": {"synthgen"},
    "synthgen.jobs": {"synthgen"},
    "synthgen.training": {"synthgen"},
    "synthgen.terminal": {"synthgen.progress", "synthgen.errors"},
    "synthgen.options": set(),
    "synthgen.errors": set(),
    "synthgen.shipped": {"synthgen.errors"},
    "synthgen.plugins": {"synthgen.errors"},
    "synthgen.progress": {"synthgen.errors"},
    "synthgen.weights": {"synthgen.records.files", "synthgen.progress", "synthgen.errors"},
    "synthgen.devices": {"synthgen.errors"},
    "synthgen.words": {"synthgen.generate", "synthgen.records", "synthgen.errors"},
    "synthgen.demo": {"synthgen.demo", "synthgen.errors"},
    "synthgen.records": {"synthgen.records", "synthgen.errors"},
    "synthgen.records.sample": set(),
    "synthgen.networks": {"synthgen.networks"},
    "synthgen.language": {"synthgen.language"},
    "synthgen.generate": {"synthgen.generate", *_WING},
    "synthgen.reading": {
        *("synthgen.reading", "synthgen.records", "synthgen.language", "synthgen.plugins", "synthgen.errors"),
    },
    "synthgen.train": {"synthgen.train", "synthgen.reading", *_WING},
    "synthgen.review": {"synthgen.review", "synthgen.records", "synthgen.plugins", "synthgen.errors"},
    "synthgen.cluster": {
        *("synthgen.cluster", "synthgen.generate", "synthgen.reading", "synthgen.train", "synthgen.records"),
        *("synthgen.weights", "synthgen.progress", "synthgen.errors"),
    },
    "pipelines": {"pipelines", "synthgen.cluster", "synthgen.cli"},
}

#: A shelf holds plugins, one file each. They know their shelf's protocol and its files with a leading underscore.
SHELVES = {
    "synthgen.generate.datasets",
    "synthgen.generate.segmenters",
    "synthgen.generate.captioners",
    "synthgen.generate.stages",
    "synthgen.reading.tasks",
    "synthgen.train.metrics",
}
PLUGIN_MAY_IMPORT = _WING - {"synthgen.plugins"}

#: Dependency -> the only files that may import it, at the top of the file, where a reader looks for it.
_TORCH_IN_TRAIN = (
    *("ranks", "network", "truths", "optimiser", "learner", "beside", "journal", "telling"),
    *("loop", "checkpoint", "resume", "captioner", "outputs", "evaluate", "predict"),
)
_TORCH = [
    "synthgen/generate/segmenters/*.py",
    "synthgen/generate/captioners/*.py",
    "synthgen/networks/*.py",
    "synthgen/networks/*/*.py",
    "synthgen/devices.py",
    *(f"synthgen/reading/{name}.py" for name in ("batch", "readers")),
    *(f"synthgen/train/{name}.py" for name in _TORCH_IN_TRAIN),
    "synthgen/train/metrics/*.py",
]
GATES: dict[str, list[str]] = {
    "ray": ["synthgen/cluster/*.py"],
    "cv2": ["synthgen/generate/segmenters/grabcut.py", "synthgen/reading/transforms.py", "synthgen/reading/colour.py"],
    "scipy": ["synthgen/networks/mqformer/matcher.py"],
    "pyarrow": [f"synthgen/records/{name}.py" for name in ("schema", "columns", "store")],
    "pydantic": [
        *(f"synthgen/reading/{name}.py" for name in ("manifest", "sources", "settings")),
        "synthgen/train/checkpoint.py",
    ],
    "yaml": ["synthgen/reading/document.py"],
    "PIL": [f"synthgen/records/{name}.py" for name in ("images", "drawing", "sheet", "resample")],
    "pycocotools": ["synthgen/records/geometry.py", "synthgen/train/metrics/*.py"],
    "typer": [f"synthgen/{name}.py" for name in ("cli", "jobs", "training", "options", "terminal")],
    "rich": ["synthgen/cli.py", "synthgen/progress.py"],
    "msgspec": ["synthgen/generate/datasets/*.py"],
    "segment_anything": ["synthgen/generate/segmenters/*.py", "synthgen/networks/*.py"],
    "transformers": _TORCH[:4],
    "tokenizers": ["synthgen/networks/ofa/tokenizer.py", "synthgen/networks/mqformer/text_folder.py"],
    "tensorboard": ["synthgen/train/journal.py"],
    "pycocoevalcap": ["synthgen/train/metrics/cider.py"],
    "torch": _TORCH,
    "torchvision": _TORCH,
    "numpy": ["synthgen/*/*.py", "synthgen/*/*/*.py", "synthgen/*/*/*/*.py"],  # rooms, not the roof
}
#: Distributions whose import name is another.
IMPORT_NAME = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}

NO_ROOMS = {"utils", "util", "common", "base", "helpers", "helper", "misc", "manager", "managers", "tools"}
LINES = 400
LONGER = {"synthgen/networks/ofa/model.py"}
PRINTS = {"synthgen/cli.py"}
BY_NAME = {"import_module", "__import__"}

#: What neither `synthgen --help` nor `import synthgen.cli` may load.
HEAVY = {
    "torch", "torchvision", "ray", "transformers", "segment_anything", "cv2", "scipy", "pyarrow",
    "pycocotools", "PIL", "numpy", "pydantic", "msgspec", "yaml",
}  # fmt: skip
HELP_SECONDS = 0.5


@dataclass(frozen=True)
class Module:
    """One source file: its path from the root, its dotted name, its syntax tree."""

    path: str
    name: str
    text: str

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


class House:
    """All source files below `synthgen/` and `pipelines/` of a root."""

    def __init__(self, root: Path) -> None:
        self.modules = [
            Module(path, path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), file.read_text())
            for file in sorted([*root.glob("synthgen/**/*.py"), *root.glob("pipelines/**/*.py")])
            for path in [file.relative_to(root).as_posix()]
        ]
        self.names = {m.name for m in self.modules}

    def imports(self, module: Module) -> Iterator[tuple[int, str]]:
        """(line, what is imported) for every import of a module, those inside functions and by name included."""
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                for alias in node.names:
                    full = f"{source}.{alias.name}"
                    yield node.lineno, full if full in self.names else source
            elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in BY_NAME:
                yield from ((node.lineno, str(a.value)) for a in node.args[:1] if isinstance(a, ast.Constant))

    def own_imports(self, module: Module) -> Iterator[tuple[int, str]]:
        """Those of them that stay within the house."""
        return ((line, name) for line, name in self.imports(module) if name.split(".")[0] in ("synthgen", "pipelines"))


def _within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def rooms_import_only_what_they_may(house: House) -> Iterator[str]:
    for module in house.modules:
        rooms = [room for room in MAY_IMPORT if _within(module.name, room)]
        if not rooms:
            if module.name != "synthgen":
                yield f"{module.path} is in no room; give it one in MAY_IMPORT, or put it into a room that is there"
            continue
        room = max(rooms, key=len)
        for line, name in house.own_imports(module):
            version = name == "synthgen"  # its __init__ holds nothing else
            if not version and not any(_within(name, allowed) for allowed in MAY_IMPORT[room]):
                may = ", ".join(sorted(MAY_IMPORT[room])) or "nothing of the house"
                yield f"{module.path}:{line} imports {name}; {room} may import {may}"


def plugins_know_only_their_shelf(house: House) -> Iterator[str]:
    for module in house.modules:
        shelf, _, stem = module.name.rpartition(".")
        if shelf not in SHELVES or module.is_package:
            continue
        for line, name in house.own_imports(module):
            own = name == shelf or _within(name, f"{shelf}._") or name.startswith(f"{shelf}._")
            # Stages bring the plugins of other shelves together: by `plugins` and by protocol, never by name.
            bridge = shelf.endswith(".stages") and (name == "synthgen.plugins" or name in SHELVES)
            if not (own or bridge or any(_within(name, room) for room in PLUGIN_MAY_IMPORT)):
                yield (
                    f"{module.path}:{line} imports {name}; the plugin '{stem}' may import {shelf}, its files "
                    f"that start with '_', {', '.join(sorted(PLUGIN_MAY_IMPORT))}"
                )


def each_dependency_has_one_gate(house: House) -> Iterator[str]:
    for module in house.modules:
        for line, name in house.imports(module):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in ("synthgen", "pipelines", ""):
                continue
            if top not in GATES:
                yield f"{module.path}:{line} imports {top}, which has no gate; name its one file in GATES"
            elif not any(PurePosixPath(module.path).match(gate) for gate in GATES[top]):
                yield f"{module.path}:{line} imports {top}; its gate is {', '.join(GATES[top])}"


def imports_are_absolute_and_by_name(house: House) -> Iterator[str]:
    for module in house.modules:
        for line, name in house.imports(module):
            if name.startswith("."):
                yield f"{module.path}:{line} imports relatively; write the name in full, as everywhere"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                yield f"{module.path}:{node.lineno} imports *; name what is meant"


def there_are_no_circles(house: House) -> Iterator[str]:
    edges = {m.name: {name for _, name in house.own_imports(m) if name in house.names} for m in house.modules}
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> Iterator[str]:
        if name in way:
            yield f"import circle: {' -> '.join([*way[way.index(name) :], name])}"
        elif name not in done:
            for other in sorted(edges[name] - {name}):
                yield from walk(other, [*way, name])
            done.add(name)

    for name in sorted(edges):
        yield from walk(name, [])


def no_room_for_leftovers(house: House) -> Iterator[str]:
    for module in house.modules:
        for part in module.name.split("."):
            if part.lstrip("_") in NO_ROOMS:
                yield f"{module.path}: '{part}' says nothing of what is in it; name it after its one thing"


def packages_hold_a_docstring(house: House) -> Iterator[str]:
    folders = {str(PurePosixPath(m.path).parent) for m in house.modules}
    for folder in sorted(folders - {str(PurePosixPath(m.path).parent) for m in house.modules if m.is_package}):
        yield f"{folder} has no __init__.py, so tools take it for no package; give it one with a docstring"
    for module in house.modules:
        if not module.is_package or module.name == "synthgen":
            continue
        shelf = module.name in SHELVES
        allowed = (ast.Import, ast.ImportFrom, ast.ClassDef) if shelf else ()
        for node in module.tree.body[1:]:
            if not isinstance(node, allowed):
                holds = "a docstring and its protocol" if shelf else "a docstring and nothing else"
                yield f"{module.path}:{node.lineno} holds code; this __init__ holds {holds}"


def modules_open_with_a_docstring(house: House) -> Iterator[str]:
    for module in house.modules:
        if not ast.get_docstring(module.tree):
            yield f"{module.path} does not say what it is; open it with a docstring of one sentence"


def files_are_short(house: House) -> Iterator[str]:
    for module in house.modules:
        count = module.text.count("\n")
        if count > LINES and module.path not in LONGER:
            yield f"{module.path} has {count} lines, more than {LINES}; it is two things"


def only_the_front_door_prints(house: House) -> Iterator[str]:
    for module in house.modules:
        if module.path in PRINTS:
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "pprint", "pprint.pprint"):
                yield f"{module.path}:{node.lineno} prints; log with logging.getLogger(__name__), or return it"


LAWS: list[Callable[[House], Iterator[str]]] = [
    rooms_import_only_what_they_may,
    plugins_know_only_their_shelf,
    each_dependency_has_one_gate,
    imports_are_absolute_and_by_name,
    there_are_no_circles,
    no_room_for_leftovers,
    packages_hold_a_docstring,
    modules_open_with_a_docstring,
    files_are_short,
    only_the_front_door_prints,
]


@pytest.fixture(scope="module")
def house() -> House:
    found = House(ROOT)
    assert {"synthgen.cli", "synthgen.records.store", "synthgen.generate.stages.masks", "pipelines"} <= found.names
    return found


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[House], Iterator[str]], house: House) -> None:
    broken = list(law(house))
    assert not broken, "\n".join(broken)


def test_every_dependency_is_declared_and_has_a_gate() -> None:
    """What pyproject.toml installs is what GATES lets in, so neither a forgotten nor an idle dependency stays."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked_for = [*project["dependencies"], *(d for extra in ("train", "ray", "eval") for d in extras[extra])]
    declared = [d.split(">")[0].split("[")[0] for d in asked_for if not d.startswith(project["name"])]
    assert {IMPORT_NAME.get(name, name.replace("-", "_")) for name in declared} == set(GATES)
    assert all(">=" in dependency or dependency.startswith(project["name"]) for dependency in asked_for), (
        "a dependency without a lower bound"
    )


def test_the_front_door_loads_nothing_heavy() -> None:
    for command in (["-c", "import synthgen.cli"], ["-m", "synthgen", "--help"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True, cwd=ROOT
        )
        loaded = {
            line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
        }
        assert "synthgen.cli" in loaded or command[0] == "-m", "the list of loaded modules was not read"
        assert "typer" in loaded, "the list of loaded modules was not read"
        assert not {name for name in loaded if name.split(".")[0] in HEAVY}, f"loaded by python {' '.join(command)}"


def test_help_is_quick() -> None:
    """CPU time, so that a busy machine does not fail it; the least of three, since the first fills caches."""
    assert min(_cpu_seconds("-m", "synthgen", "--help") for _ in range(3)) < HELP_SECONDS


def _cpu_seconds(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- every law, broken once ------------------------------------------------------------------------------------------

SEGMENTERS = "synthgen/generate/segmenters"
SOUND = {
    "synthgen/__init__.py": '"""The house."""\n__version__ = "0"\n',
    "synthgen/errors.py": '"""Errors."""\n',
    "synthgen/cli.py": '"""The roof."""\nimport typer\nfrom synthgen import errors\nprint(errors, typer)\n',
    "synthgen/records/__init__.py": '"""Records."""\n',
    "synthgen/records/sample.py": '"""Sample."""\n',
    "synthgen/records/store.py": '"""Store."""\nimport pyarrow as pa\nfrom synthgen.records.sample import Sample\n',
    "synthgen/generate/__init__.py": '"""Generate."""\n',
    f"{SEGMENTERS}/__init__.py": '"""Shelf."""\nfrom typing import Protocol\nclass P(Protocol): ...\n',
    f"{SEGMENTERS}/_crop.py": '"""Crop."""\n',
    f"{SEGMENTERS}/sam.py": '"""SAM."""\nimport torch\nfrom synthgen.generate.segmenters import P, _crop\n',
    "synthgen/generate/stages/__init__.py": '"""Shelf."""\n',
    "synthgen/generate/stages/masks.py": '"""Stage."""\nfrom synthgen.generate.segmenters import P\n',
    "synthgen/cluster/__init__.py": '"""Cluster."""\n',
    "synthgen/cluster/engine.py": '"""Ray."""\nimport ray\nfrom synthgen.generate.stages import masks\n',
    "pipelines/__init__.py": '"""Entry points."""\n',
    "pipelines/masks.py": '"""Masks."""\nfrom synthgen.cli import errors\n',
}

D = '"""A docstring."""\n'
BROKEN: list[tuple[Callable[[House], Iterator[str]], str, str, str]] = [
    (rooms_import_only_what_they_may, "synthgen/records/x.py", D + "import synthgen.generate", "records may import"),
    (
        rooms_import_only_what_they_may,
        "synthgen/records/sample.py",
        D + "from synthgen import errors",
        "nothing of the",
    ),
    (rooms_import_only_what_they_may, "synthgen/generate/x.py", D + "def f():\n    import synthgen.train", "x.py:3"),
    (rooms_import_only_what_they_may, "synthgen/generate/x.py", D + "import pipelines", "imports pipelines"),
    (rooms_import_only_what_they_may, "synthgen/cli.py", D + "import pipelines.masks", "imports pipelines.masks"),
    (rooms_import_only_what_they_may, "synthgen/train/x.py", D + "import synthgen.cluster", "train may import"),
    (rooms_import_only_what_they_may, "synthgen/cluster/x.py", D + "import synthgen.cli", "cluster may import"),
    (rooms_import_only_what_they_may, "synthgen/errors.py", D + "import synthgen.plugins", "nothing of the house"),
    (rooms_import_only_what_they_may, "synthgen/networks/x.py", D + "import synthgen.records.sample", "networks may"),
    (rooms_import_only_what_they_may, "synthgen/stray.py", D, "is in no room"),
    (plugins_know_only_their_shelf, f"{SEGMENTERS}/x.py", D + "import synthgen.generate.segmenters.sam", "plugin 'x'"),
    (plugins_know_only_their_shelf, f"{SEGMENTERS}/x.py", D + "import synthgen.generate.stages", "plugin 'x'"),
    (
        plugins_know_only_their_shelf,
        "synthgen/generate/stages/x.py",
        D + "import synthgen.generate.segmenters.sam",
        "plugin 'x'",
    ),
    (each_dependency_has_one_gate, "synthgen/records/x.py", D + "import pyarrow.parquet", "its gate is"),
    (each_dependency_has_one_gate, "synthgen/records/x.py", D + "def f():\n    from ray import remote", "x.py:3"),
    (each_dependency_has_one_gate, "pipelines/masks.py", D + "import ray", "its gate is synthgen/cluster/*.py"),
    (
        each_dependency_has_one_gate,
        "synthgen/records/x.py",
        D + "import importlib\nimportlib.import_module('ray')",
        "x.py:3",
    ),
    (each_dependency_has_one_gate, "synthgen/records/x.py", D + "import pandas", "has no gate"),
    (each_dependency_has_one_gate, "synthgen/cli.py", D + "import numpy", "imports numpy"),
    (imports_are_absolute_and_by_name, "synthgen/records/x.py", D + "from . import sample", "relatively"),
    (imports_are_absolute_and_by_name, "synthgen/records/x.py", D + "from synthgen.errors import *", "imports *"),
    (
        there_are_no_circles,
        "synthgen/errors.py",
        D + "def f():\n    from synthgen import cli",
        "synthgen.cli -> synthgen.errors -> synthgen.cli",
    ),
    (no_room_for_leftovers, "synthgen/records/utils.py", D, "'utils' says nothing"),
    (no_room_for_leftovers, "synthgen/base/__init__.py", D, "'base' says nothing"),
    (packages_hold_a_docstring, "synthgen/records/__init__.py", D + "from synthgen import errors", "nothing else"),
    (packages_hold_a_docstring, "synthgen/generate/stages/__init__.py", D + "def f(): ...", "its protocol"),
    (packages_hold_a_docstring, "synthgen/generate/lost/x.py", D, "has no __init__.py"),
    (modules_open_with_a_docstring, "synthgen/records/x.py", "x = 1\n", "does not say what it is"),
    (files_are_short, "synthgen/records/x.py", D + "\n" * LINES, f"{LINES + 1} lines"),
    (only_the_front_door_prints, "synthgen/records/x.py", D + "def f():\n    print(1)", "x.py:3 prints"),
]


def _build(root: Path, files: dict[str, str]) -> House:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return House(root)


def test_a_sound_tree_breaks_no_law(tmp_path: Path) -> None:
    house = _build(tmp_path, SOUND)
    assert [sentence for law in LAWS for sentence in law(house)] == []


@pytest.mark.parametrize(("law", "path", "text", "sentence"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_law_is_told(
    law: Callable[[House], Iterator[str]], path: str, text: str, sentence: str, tmp_path: Path
) -> None:
    told = list(law(_build(tmp_path, {**SOUND, path: text})))
    assert len(told) == 1
    assert sentence in told[0]


def test_every_law_is_broken_once() -> None:
    assert {law for law, *_ in BROKEN} == set(LAWS)


def test_a_slow_front_door_would_be_noticed() -> None:
    assert _cpu_seconds("-c", "import time\nwhile time.process_time() < 0.6: pass") > HELP_SECONDS
