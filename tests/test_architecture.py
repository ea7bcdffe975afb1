"""The import table as data: who may import whom, which files may import a dependency, and a light command line.

Each rule is a function from a tree of source files to the sentences in which it is broken. The last part of this file
breaks every rule once, in a small tree of its own, to show that the rule can fail.
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


def _packages(names: str) -> set[str]:
    return {f"synthgen.{name}" for name in names.split()}


#: Package -> the packages that its modules may import, beside itself. The longest name that fits a module decides.
MAY_IMPORT: dict[str, set[str]] = {
    "synthgen.__main__": _packages("cli"),
    "synthgen.errors": set(),
    "synthgen.shipped": _packages("errors"),
    "synthgen.plugin_options": set(),
    "synthgen.compat": set(),
    "synthgen.plugins": _packages("plugin_options errors"),
    "synthgen.progress": _packages("errors"),
    "synthgen.devices": _packages("errors"),
    "synthgen.oom": _packages("errors"),
    "synthgen.distributed": _packages("devices errors"),
    "synthgen.weights": _packages("storage progress errors"),
    "synthgen.demo": _packages("errors"),
    "synthgen.records": _packages("errors"),
    "synthgen.records.sample": set(),
    "synthgen.storage": _packages("records errors"),
    "synthgen.images": _packages("records errors"),
    "synthgen.text": set(),
    "synthgen.models": _packages("compat"),
    "synthgen.formats": _packages("records images plugins errors"),
    "synthgen.ingest": _packages("formats images records storage plugins progress errors"),
    "synthgen.generate": _packages(
        "formats images ingest models records storage text compat devices oom plugin_options plugins progress weights "
        "errors"
    ),
    "synthgen.dataloading": _packages("images records storage text plugins progress errors"),
    "synthgen.visualize": _packages("dataloading records plugins errors"),
    "synthgen.review": _packages("images records storage visualize plugins errors"),
    "synthgen.checkpoints": _packages("dataloading models storage plugins weights errors"),
    "synthgen.evaluation": _packages(
        "checkpoints dataloading images models records storage visualize compat devices oom distributed plugins "
        "progress errors"
    ),
    "synthgen.training": _packages(
        "checkpoints dataloading evaluation models records storage visualize devices oom distributed plugins "
        "progress errors"
    ),
    "synthgen.export": _packages("images records storage plugin_options plugins progress errors"),
    "synthgen.layers": _packages("export images records storage visualize progress errors"),
    "synthgen.api": _packages(
        "cluster devices evaluation export formats generate images ingest layers oom records storage training "
        "plugin_options plugins progress errors"
    ),
    "synthgen.cluster": _packages("dataloading distributed generate records storage training progress weights errors"),
    "synthgen.cli": {"synthgen"},
    "pipelines": {"pipelines", "synthgen.cli"},
}

#: Only these may import the cluster code, and only inside functions.
MAY_USE_CLUSTER = ("synthgen.api", "synthgen.cli", "synthgen.cluster")

#: A plugin folder holds one file for each plugin. Plugins know the folder's protocol and its files that start with "_".
PLUGIN_FOLDERS = {
    "synthgen.formats.readers",
    "synthgen.generate.segmenters",
    "synthgen.generate.captioners",
    "synthgen.generate.stages",
    "synthgen.dataloading.tasks",
    "synthgen.evaluation.metrics",
    "synthgen.export.exporters",
}
PLUGIN_MAY_IMPORT = _packages("records images models text weights compat devices oom plugin_options errors")
#: Metrics compare with what tasks make of a sample. Exporters share the drawing of polygons, and write files. Stages
#: check what the plugins of other folders return.
ALSO: dict[str, set[str]] = {
    "synthgen.evaluation.metrics": _packages("dataloading.tasks"),
    "synthgen.generate.stages": _packages("generate.output_checks"),
    "synthgen.export.exporters": _packages("export storage"),
}

#: Dependency -> the only files that may import it.
_TORCH = [
    "synthgen/generate/segmenters/*.py",
    "synthgen/generate/captioners/*.py",
    "synthgen/models/*.py",
    "synthgen/models/*/*.py",
    "synthgen/compat.py",
    "synthgen/devices.py",
    "synthgen/oom.py",
    "synthgen/distributed.py",
    "synthgen/dataloading/collate.py",
    "synthgen/dataloading/worker_processes.py",
    "synthgen/checkpoints/*.py",
    "synthgen/evaluation/*.py",
    "synthgen/evaluation/metrics/*.py",
    "synthgen/training/*.py",
]
DEPENDENCY_FILES: dict[str, list[str]] = {
    "ray": ["synthgen/cluster/*.py"],
    "cv2": [
        "synthgen/generate/segmenters/grabcut.py",
        "synthgen/dataloading/transforms.py",
        "synthgen/dataloading/color_jitter.py",
        *(f"synthgen/export/{name}.py" for name in ("polygons", "ring_bridges")),
    ],
    "scipy": ["synthgen/models/mqformer/matcher.py"],
    "pyarrow": [
        *(f"synthgen/records/{name}.py" for name in ("parquet_schema", "box_table", "content_digest")),
        *(f"synthgen/storage/{name}.py" for name in ("shard_store", "parquet_file", "identity", "migrate")),
        *(f"synthgen/images/{name}.py" for name in ("parquet_pages", "arrow_stream")),
        *(f"synthgen/export/exporters/{name}.py" for name in ("hf", "_hf_schema")),
        "synthgen/formats/readers/*.py",
    ],
    "pydantic": [
        *(f"synthgen/dataloading/{name}.py" for name in ("manifest", "source_config", "config")),
        "synthgen/checkpoints/checkpoint.py",
    ],
    "yaml": [
        "synthgen/dataloading/yaml_loader.py",
        "synthgen/formats/readers/_plain_yaml.py",
        "synthgen/export/dataset_card.py",
    ],
    "pandas": ["synthgen/layers/table_export.py"],
    "supervision": ["synthgen/layers/table_export.py"],
    "PIL": ["synthgen/images/*.py", "synthgen/visualize/drawing.py", "synthgen/visualize/contact_sheet.py"],
    "pycocotools": ["synthgen/records/rle.py", "synthgen/evaluation/metrics/*.py"],
    "typer": ["synthgen/cli/*.py"],
    "rich": ["synthgen/progress.py"],
    "msgspec": [
        "synthgen/formats/readers/*.py",
        *(f"synthgen/formats/{name}.py" for name in ("mask_files", "coco_ids")),
        "synthgen/export/exporters/*.py",
    ],
    "defusedxml": ["synthgen/formats/readers/*.py"],
    "segment_anything": ["synthgen/generate/segmenters/*.py", "synthgen/models/*.py"],
    "transformers": _TORCH[:4],
    "tokenizers": ["synthgen/models/ofa/tokenizer.py", "synthgen/models/mqformer/text_encoder_files.py"],
    "tensorboard": ["synthgen/training/logger.py"],
    "pycocoevalcap": ["synthgen/evaluation/metrics/cider.py"],
    "torch": _TORCH,
    "torchvision": _TORCH,
    "timm": [
        "synthgen/models/box_segmenter/*.py",
        "synthgen/models/timm_networks.py",
        "synthgen/models/mqformer/timm_backbone.py",
    ],
    "safetensors": ["synthgen/models/checkpoint_reader.py", "synthgen/models/box_segmenter/weights.py"],
    "numpy": ["synthgen/*/*.py", "synthgen/*/*/*.py", "synthgen/*/*/*/*.py"],
}
#: Packages that a user may have. synthgen does not depend on them, and says how to install them.
OPTIONAL = {"pandas", "supervision"}
#: Distributions whose import name is another.
IMPORT_NAME = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}

#: Names of test files in folders of packages that test several modules together.
CROSS_MODULE_TESTS = {
    "all_captioners", "all_readers", "all_segmenters", "all_tasks", "cluster_files", "end_to_end", "entry_points",
    "exit_codes", "format_docs", "gpu", "invariants", "learning", "own_data", "real_data", "slurm", "unusable_paths",
}  # fmt: skip

#: Documented by Python in spite of their names.
PUBLIC_NAMES = {"_exit", "_replace"}

VAGUE_NAMES = {"utils", "util", "common", "base", "helpers", "helper", "misc", "manager", "managers", "tools"}
LINES = 400
LONGER = {"synthgen/models/ofa/model.py"}
BY_NAME = {"import_module", "__import__"}

#: What neither `synthgen --help` nor `import synthgen.cli.main` may load.
HEAVY = {
    "torch", "torchvision", "ray", "transformers", "timm", "segment_anything", "cv2", "scipy", "pyarrow",
    "pycocotools", "PIL", "numpy", "pydantic", "msgspec", "yaml",
}  # fmt: skip
HELP_SECONDS = 0.2
IMPORT_SECONDS = 0.05


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
    def syntax(self) -> ast.Module:
        return ast.parse(self.text)


class SourceTree:
    """All source files below `synthgen/` and `pipelines/` of a root."""

    def __init__(self, root: Path) -> None:
        self.modules = [
            Module(path, path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), file.read_text())
            for file in sorted([*root.glob("synthgen/**/*.py"), *root.glob("pipelines/**/*.py")])
            for path in [file.relative_to(root).as_posix()]
        ]
        self.names = {m.name for m in self.modules}

    def imports(self, module: Module) -> Iterator[tuple[int, str]]:
        """(line, what is imported) for every import of a module, those inside functions and by name included.

        Imports for type checkers alone (`if TYPE_CHECKING:`) are left out: they never run.
        """
        typing_only = {
            id(inner)
            for node in ast.walk(module.syntax)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(module.syntax):
            if id(node) in typing_only:
                continue
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                for alias in node.names:
                    full = f"{source}.{alias.name}"
                    yield node.lineno, full if full in self.names else source
            elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in BY_NAME:
                yield from ((node.lineno, str(a.value)) for a in node.args[:1] if isinstance(a, ast.Constant))

    def project_imports(self, module: Module) -> Iterator[tuple[int, str]]:
        """Those that name modules of the project."""
        return ((line, name) for line, name in self.imports(module) if name.split(".")[0] in ("synthgen", "pipelines"))


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def packages_import_only_what_they_may(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        if module.name == "synthgen":
            continue
        packages = [package for package in MAY_IMPORT if _within(module.name, package)]
        if not packages:
            yield f"{module.path} is in no package of MAY_IMPORT; add its package there"
            continue
        package = max(packages, key=len)
        own = package if package.count(".") == 1 else ""
        for line, name in tree.project_imports(module):
            version = name == "synthgen"  # see `the_public_names_are_for_users`
            allowed = MAY_IMPORT[package] | ({own} if own else set())
            if not version and not any(_within(name, one) for one in allowed):
                may = ", ".join(sorted(MAY_IMPORT[package])) or "no other package"
                yield f"{module.path}:{line} imports {name}; {package} may import {may}"


def the_cluster_code_is_imported_late(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        if _within(module.name, "synthgen.cluster"):
            continue
        top = {id(node) for node in module.syntax.body}
        for node in ast.walk(module.syntax):
            if isinstance(node, ast.ImportFrom) and _within(node.module or "", "synthgen.cluster"):
                if not any(_within(module.name, one) for one in MAY_USE_CLUSTER):
                    who = " and ".join(MAY_USE_CLUSTER[:2])
                    yield f"{module.path}:{node.lineno} imports {node.module}; only {who} may"
                elif id(node) in top:
                    yield f"{module.path}:{node.lineno} imports {node.module} at the top; import it inside a function"


def plugins_know_only_their_folder(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        folder, _, stem = module.name.rpartition(".")
        if folder not in PLUGIN_FOLDERS or module.is_package:
            continue
        may = PLUGIN_MAY_IMPORT | ALSO.get(folder, set())
        for line, name in tree.project_imports(module):
            own = name == folder or _within(name, f"{folder}._") or name.startswith(f"{folder}._")
            # Stages combine plugins of other folders, by `plugins` and by protocol, never by name.
            stage = folder.endswith(".stages") and (name == "synthgen.plugins" or name in PLUGIN_FOLDERS)
            if not (own or stage or any(_within(name, package) for package in may)):
                yield (
                    f"{module.path}:{line} imports {name}; the plugin '{stem}' may import {folder}, its files "
                    f"that start with '_', {', '.join(sorted(may))}"
                )


def each_dependency_is_imported_in_named_files(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        for line, name in tree.imports(module):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in ("synthgen", "pipelines", ""):
                continue
            if top not in DEPENDENCY_FILES:
                yield f"{module.path}:{line} imports {top}, which DEPENDENCY_FILES does not list; add its files there"
            elif not any(PurePosixPath(module.path).match(file) for file in DEPENDENCY_FILES[top]):
                yield f"{module.path}:{line} imports {top}; only {', '.join(DEPENDENCY_FILES[top])} may"


def private_names_of_others_are_in_compat(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        if module.name == "synthgen.compat":
            continue
        for node in ast.walk(module.syntax):
            names: list[str] = []
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                names = [node.attr]
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
            elif isinstance(node, ast.ImportFrom) and not _within(node.module or "", "synthgen"):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            for name in names:
                if name.startswith("_") and not name.startswith("__") and name not in PUBLIC_NAMES:
                    yield f"{module.path}:{node.lineno} uses {name}; private names belong into synthgen/compat.py"


def imports_are_absolute_and_by_name(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        for line, name in tree.imports(module):
            if name.startswith("."):
                yield f"{module.path}:{line} imports relatively; write the name in full, as everywhere"
        for node in ast.walk(module.syntax):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                yield f"{module.path}:{node.lineno} imports *; name what is meant"


def there_are_no_import_cycles(tree: SourceTree) -> Iterator[str]:
    edges = {m.name: {name for _, name in tree.project_imports(m) if name in tree.names} for m in tree.modules}
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> Iterator[str]:
        if name in way:
            yield f"import cycle: {' -> '.join([*way[way.index(name) :], name])}"
        elif name not in done:
            for other in sorted(edges[name] - {name}):
                yield from walk(other, [*way, name])
            done.add(name)

    for name in sorted(edges):
        yield from walk(name, [])


def there_are_no_package_cycles(tree: SourceTree) -> Iterator[str]:
    edges: dict[str, set[str]] = {}
    for module in tree.modules:
        for _, name in tree.project_imports(module):
            pair = [".".join(one.split(".")[:2]) for one in (module.name, name)]
            if pair[0] != pair[1] and "synthgen" not in pair:
                edges.setdefault(pair[0], set()).add(pair[1])

    def reached(package: str, seen: set[str]) -> set[str]:
        for other in edges.get(package, set()) - seen:
            seen.add(other)
            reached(other, seen)
        return seen

    if found := [package for package in sorted(edges) if package in reached(package, set())]:
        yield f"package cycle through {', '.join(found)}"


def the_public_names_are_for_users(tree: SourceTree) -> Iterator[str]:
    """The names of `import synthgen` are imported late, which hides them from the import table."""
    for module in tree.modules:
        for node in ast.walk(module.syntax):
            if not isinstance(node, ast.ImportFrom) or node.module != "synthgen":
                continue
            for alias in node.names:
                if alias.name != "__version__" and f"synthgen.{alias.name}" not in tree.names:
                    yield f"{module.path}:{node.lineno} imports {alias.name} from synthgen; name its module"


def no_vague_names(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        for part in module.name.split("."):
            if part.lstrip("_") in VAGUE_NAMES:
                yield f"{module.path}: '{part}' does not say what the module holds; name it after that"


def packages_hold_a_docstring(tree: SourceTree) -> Iterator[str]:
    folders = {str(PurePosixPath(m.path).parent) for m in tree.modules}
    for folder in sorted(folders - {str(PurePosixPath(m.path).parent) for m in tree.modules if m.is_package}):
        yield f"{folder} has no __init__.py, so tools do not take it for a package; add one with a docstring"
    for module in tree.modules:
        if not module.is_package or module.name == "synthgen":
            continue
        plugins = module.name in PLUGIN_FOLDERS
        allowed = (ast.Import, ast.ImportFrom, ast.ClassDef) if plugins else ()
        for node in module.syntax.body[1:]:
            typing_only = plugins and (
                (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
                or (isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias")
            )
            if not isinstance(node, allowed) and not typing_only:
                holds = "a docstring and its protocol" if plugins else "a docstring and nothing else"
                yield f"{module.path}:{node.lineno} holds code; this __init__ holds {holds}"


def modules_open_with_a_docstring(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        if not ast.get_docstring(module.syntax):
            yield f"{module.path} has no docstring; open it with one sentence"


def files_are_short(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        count = module.text.count("\n")
        if count > LINES and module.path not in LONGER:
            yield f"{module.path} has {count} lines, more than {LINES}; split it by responsibility"


def nothing_prints(tree: SourceTree) -> Iterator[str]:
    for module in tree.modules:
        for node in ast.walk(module.syntax):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "pprint", "pprint.pprint"):
                yield f"{module.path}:{node.lineno} prints; log with logging.getLogger(__name__), or return it"


RULES: list[Callable[[SourceTree], Iterator[str]]] = [
    packages_import_only_what_they_may,
    the_cluster_code_is_imported_late,
    plugins_know_only_their_folder,
    each_dependency_is_imported_in_named_files,
    private_names_of_others_are_in_compat,
    imports_are_absolute_and_by_name,
    there_are_no_import_cycles,
    there_are_no_package_cycles,
    the_public_names_are_for_users,
    no_vague_names,
    packages_hold_a_docstring,
    modules_open_with_a_docstring,
    files_are_short,
    nothing_prints,
]


@pytest.fixture(scope="module")
def tree() -> SourceTree:
    found = SourceTree(ROOT)
    assert {
        "synthgen.cli.main",
        "synthgen.storage.shard_store",
        "synthgen.generate.stages.masks",
        "pipelines",
    } <= found.names
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Callable[[SourceTree], Iterator[str]], tree: SourceTree) -> None:
    broken = list(rule(tree))
    assert not broken, "\n".join(broken)


def test_each_test_file_is_named_after_its_module() -> None:
    """`test_<module>.py` or `test_<module>_<topic>.py`; a test of several modules is listed in `CROSS_MODULE_TESTS`."""
    strays = []
    for path in sorted((ROOT / "tests").glob("*/**/test_*.py")):
        folder = ROOT / "synthgen" / path.parent.relative_to(ROOT / "tests")
        stem = path.stem.removeprefix("test_")
        fits = any(stem == m.stem or stem.startswith(f"{m.stem}_") for m in folder.glob("*.py") if m.stem != "__init__")
        if not fits and stem not in CROSS_MODULE_TESTS:
            strays.append(f"{path.relative_to(ROOT)} tests no module of synthgen/{folder.name}/; rename it or list it")
    assert not strays, "\n".join(strays)


def test_every_dependency_is_declared_and_used() -> None:
    """pyproject.toml and DEPENDENCY_FILES name the same packages: none is undeclared, none is unused."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked_for = [*project["dependencies"], *(d for extra in ("train", "ray", "eval") for d in extras[extra])]
    declared = [d.split(">")[0].split("[")[0] for d in asked_for if not d.startswith(project["name"])]
    assert {IMPORT_NAME.get(name, name.replace("-", "_")) for name in declared} == set(DEPENDENCY_FILES) - OPTIONAL
    assert all(">=" in dependency or dependency.startswith(project["name"]) for dependency in asked_for), (
        "a dependency without a lower bound"
    )


def test_the_command_line_loads_nothing_heavy() -> None:
    for command in (["-c", "import synthgen.cli.main"], ["-m", "synthgen", "--help"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True, cwd=ROOT
        )
        loaded = {
            line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
        }
        assert "synthgen.cli.main" in loaded or command[0] == "-m", "the list of loaded modules was not read"
        assert "typer" in loaded, "the list of loaded modules was not read"
        assert not {name for name in loaded if name.split(".")[0] in HEAVY}, f"loaded by python {' '.join(command)}"


def test_import_synthgen_loads_only_the_standard_library() -> None:
    """A few modules of it: none of numpy, torch, pyarrow, and no other module of synthgen."""
    program = "import sys; before = set(sys.modules); import synthgen; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = done.stdout.split()
    assert [name for name in loaded if name.split(".")[0] == "synthgen"] == ["synthgen"]
    foreign = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names - {"synthgen"}
    assert not foreign


def test_import_synthgen_is_quick() -> None:
    """CPU time beyond that of Python itself; the least of several, as in `test_help_is_quick`."""
    alone = min(_cpu_seconds("-c", "pass") for _ in range(5))
    assert min(_cpu_seconds("-c", "import synthgen") for _ in range(5)) - alone < IMPORT_SECONDS


def test_help_is_quick() -> None:
    """CPU time, so that a busy machine does not fail it; the least of three, since the first fills caches."""
    assert min(_cpu_seconds("-m", "synthgen", "--help") for _ in range(3)) < HELP_SECONDS


def _cpu_seconds(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- every rule, broken once ------------------------------------------------------------------------------------------

SEGMENTERS = "synthgen/generate/segmenters"
SOUND = {
    "synthgen/__init__.py": '"""Package."""\n__version__ = "0"\n',
    "synthgen/errors.py": '"""Errors."""\n',
    "synthgen/cli/__init__.py": '"""Commands."""\n',
    "synthgen/cli/main.py": '"""Commands."""\nimport typer\nfrom synthgen import errors\n',
    "synthgen/records/__init__.py": '"""Records."""\n',
    "synthgen/records/sample.py": '"""Sample."""\n',
    "synthgen/storage/__init__.py": '"""Storage."""\n',
    "synthgen/storage/shard_store.py": '"""Store."""\nimport pyarrow\nfrom synthgen.records.sample import Sample\n',
    "synthgen/generate/__init__.py": '"""Generate."""\n',
    f"{SEGMENTERS}/__init__.py": '"""Segmenters."""\nfrom typing import Protocol\nclass P(Protocol): ...\n',
    f"{SEGMENTERS}/_crop.py": '"""Crop."""\n',
    f"{SEGMENTERS}/sam.py": '"""SAM."""\nimport torch\nfrom synthgen.generate.segmenters import P, _crop\n',
    "synthgen/generate/stages/__init__.py": '"""Stages."""\n',
    "synthgen/generate/stages/masks.py": '"""Stage."""\nfrom synthgen.generate.segmenters import P\n',
    "synthgen/cluster/__init__.py": '"""Cluster."""\n',
    "synthgen/cluster/engine.py": '"""Ray."""\nimport ray\nfrom synthgen.generate.stages import masks\n',
    "pipelines/__init__.py": '"""Entry points."""\n',
    "pipelines/masks.py": '"""Masks."""\nfrom synthgen.cli.main import errors\n',
}

D = '"""A docstring."""\n'
IMPORTS, LATE, PLUGINS = (
    packages_import_only_what_they_may,
    the_cluster_code_is_imported_late,
    plugins_know_only_their_folder,
)
FILES, ABSOLUTE = each_dependency_is_imported_in_named_files, imports_are_absolute_and_by_name
PRIVATE = private_names_of_others_are_in_compat
BROKEN: list[tuple[Callable[[SourceTree], Iterator[str]], str, str, str]] = [
    (IMPORTS, "synthgen/records/x.py", D + "import synthgen.generate", "records may import"),
    (IMPORTS, "synthgen/records/sample.py", D + "from synthgen import errors", "no other package"),
    (IMPORTS, "synthgen/generate/x.py", D + "def f():\n    import synthgen.training", "x.py:3"),
    (IMPORTS, "synthgen/generate/x.py", D + "import pipelines", "imports pipelines"),
    (IMPORTS, "synthgen/cli/main.py", D + "import pipelines.masks", "imports pipelines.masks"),
    (IMPORTS, "synthgen/evaluation/x.py", D + "import synthgen.training", "evaluation may import"),
    (IMPORTS, "synthgen/training/x.py", D + "import synthgen.cluster", "training may import"),
    (IMPORTS, "synthgen/cluster/x.py", D + "import synthgen.cli.main", "cluster may import"),
    (IMPORTS, "synthgen/errors.py", D + "import synthgen.plugins", "no other package"),
    (IMPORTS, "synthgen/models/x.py", D + "import synthgen.records.sample", "models may import"),
    (IMPORTS, "synthgen/stray.py", D, "is in no package"),
    (LATE, "synthgen/cli/x.py", D + "from synthgen.cluster import engine", "inside a function"),
    (LATE, "synthgen/generate/x.py", D + "def f():\n    from synthgen.cluster import engine", "and synthgen.cli may"),
    (LATE, "synthgen/api/x.py", D + "from synthgen.cluster import engine", "inside a function"),
    (PLUGINS, f"{SEGMENTERS}/x.py", D + "import synthgen.generate.segmenters.sam", "plugin 'x'"),
    (PLUGINS, f"{SEGMENTERS}/x.py", D + "import synthgen.generate.stages", "plugin 'x'"),
    (PLUGINS, "synthgen/generate/stages/x.py", D + "import synthgen.generate.segmenters.sam", "plugin 'x'"),
    (FILES, "synthgen/records/x.py", D + "import pyarrow.parquet", "only synthgen/records/parquet_schema.py"),
    (FILES, "synthgen/records/x.py", D + "def f():\n    from ray import remote", "x.py:3"),
    (FILES, "pipelines/masks.py", D + "import ray", "only synthgen/cluster/*.py may"),
    (FILES, "synthgen/records/x.py", D + "import importlib\nimportlib.import_module('ray')", "x.py:3"),
    (FILES, "synthgen/records/x.py", D + "import polars", "does not list"),
    (FILES, "synthgen/records/x.py", D + "import pandas", "only synthgen/layers/table_export.py may"),
    (FILES, "synthgen/errors.py", D + "import numpy", "imports numpy"),
    (PRIVATE, f"{SEGMENTERS}/x.py", D + "import torch\ndef f():\n    torch._C.x()", "x.py:4 uses _C"),
    (PRIVATE, "synthgen/records/x.py", D + "def f(x):\n    x.y()._z = 1", "uses _z"),
    (PRIVATE, f"{SEGMENTERS}/x.py", D + "def f():\n    from torch._inductor import config", "uses _inductor"),
    (PRIVATE, f"{SEGMENTERS}/x.py", D + "from torch import _foreach_lerp_", "uses _foreach_lerp_"),
    (ABSOLUTE, "synthgen/records/x.py", D + "from . import sample", "relatively"),
    (ABSOLUTE, "synthgen/records/x.py", D + "from synthgen.errors import *", "imports *"),
    (
        there_are_no_import_cycles,
        "synthgen/errors.py",
        D + "def f():\n    from synthgen.cli import main",
        "synthgen.cli.main -> synthgen.errors -> synthgen.cli.main",
    ),
    (
        there_are_no_package_cycles,
        "synthgen/records/x.py",
        D + "import synthgen.storage.shard_store",
        "package cycle through synthgen.records, synthgen.storage",
    ),
    (the_public_names_are_for_users, "synthgen/records/x.py", D + "from synthgen import Layer", "imports Layer"),
    (no_vague_names, "synthgen/records/utils.py", D, "'utils' does not say"),
    (no_vague_names, "synthgen/base/__init__.py", D, "'base' does not say"),
    (packages_hold_a_docstring, "synthgen/records/__init__.py", D + "from synthgen import errors", "nothing else"),
    (packages_hold_a_docstring, "synthgen/generate/stages/__init__.py", D + "def f(): ...", "its protocol"),
    (packages_hold_a_docstring, "synthgen/generate/lost/x.py", D, "has no __init__.py"),
    (modules_open_with_a_docstring, "synthgen/records/x.py", "x = 1\n", "has no docstring"),
    (files_are_short, "synthgen/records/x.py", D + "\n" * LINES, f"{LINES + 1} lines"),
    (nothing_prints, "synthgen/records/x.py", D + "def f():\n    print(1)", "x.py:3 prints"),
]


def _build(root: Path, files: dict[str, str]) -> SourceTree:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return SourceTree(root)


def test_a_sound_tree_breaks_no_rule(tmp_path: Path) -> None:
    tree = _build(tmp_path, SOUND)
    assert [sentence for rule in RULES for sentence in rule(tree)] == []


@pytest.mark.parametrize(("rule", "path", "text", "sentence"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_rule_is_reported(
    rule: Callable[[SourceTree], Iterator[str]], path: str, text: str, sentence: str, tmp_path: Path
) -> None:
    found = list(rule(_build(tmp_path, {**SOUND, path: text})))
    assert len(found) == 1
    assert sentence in found[0]


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, *_ in BROKEN} == set(RULES)


def test_a_slow_command_line_would_be_noticed() -> None:
    assert _cpu_seconds("-c", "import time\nwhile time.process_time() < 0.6: pass") > HELP_SECONDS
