"""The scripts and the notebook in `examples/` run from an installed wheel, and the notebook is clean."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes.installed_wheel import ROOT, environment, run

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOK = EXAMPLES / "quickstart.ipynb"

#: Scripts that need the extra `train`.
WITH_TRAINING = {"train_and_predict.py"}

MAX_STATEMENTS = 12


def cells(kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.fixture(scope="module")
def trained(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and the packages of the extras `train` and `ray`."""
    return environment(tmp_path_factory.mktemp("train") / "env", wheel, "torch", "train-ray")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples in a folder of its own, far from the checkout; on a machine without other weights."""
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path / "no weights"))
    monkeypatch.delenv("SYNTHGEN_STORE", raising=False)
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    return tmp_path


#: What a script prints, and the files that it writes.
OUTCOMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "check_dataset.py": ("train: 7 images, 25 boxes, 24 of them can be prompted", ()),
    "export_coco.py": (" images; the largest has ", ("demo/masks.json",)),
    "generate_masks.py": (" masks for 25 boxes on 7 images\nboxes without a mask: {'crowd': 1", ()),
    "read_layer.py": ("astronaut.jpg: ", ("demo/first.png",)),
    "segment_photo.py": (" of 240000 pixels, stability ", ()),
    "train_and_predict.py": ("10 steps, demo/example-run/step-00000010.pt", ("demo/example-run/step-00000010.pt",)),
    "write_captions.py": ("astronaut.jpg, person: ", ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_runs_from_the_wheel(request: pytest.FixtureRequest, folder: Path, script: Path) -> None:
    python = request.getfixturevalue("trained" if script.name in WITH_TRAINING else "core")
    code, said = run(python, f"examples/{script.name}", folder=folder)
    assert code == 0, said
    sentence, files = OUTCOMES[script.name]
    assert sentence in said, said
    assert all((folder / name).stat().st_size for name in files)
    assert "Traceback" not in said and "Warning" not in said, said


#: Executes a notebook in a kernel of its own, and writes it with its outputs.
EXECUTE = """
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read("examples/quickstart.ipynb", as_version=4)
notebook.cells.append(nbformat.v4.new_code_cell("sg.__file__"))
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, "executed.ipynb")
"""


@pytest.mark.slow
def test_the_notebook_runs_from_the_wheel(wheel: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    python = environment(tmp_path_factory.mktemp("notebook") / "env", wheel, "torch", "dev")
    code, said = run(python, "-c", EXECUTE, folder=folder)
    assert code == 0, said
    executed = [cell for cell in json.loads((folder / "executed.ipynb").read_text())["cells"] if "outputs" in cell]
    shown = ["".join(str(output) for output in cell["outputs"]) for cell in executed]
    assert str(python.parents[1]) in shown[-1]
    assert any("<Layer demo/train/masks in demo/shards, 7 images>" in text for text in shown)
    assert any("image/png" in text for text in shown), "a picture is shown"
    assert not any("Traceback" in text for text in shown), shown
    exported = json.loads((folder / "demo/masks.json").read_text())
    assert len(exported["images"]) == 7 and exported["annotations"]


def test_the_notebook_is_valid_and_without_outputs() -> None:
    """The rules of nbformat 4.5 that a notebook by hand may break."""
    content = json.loads(NOTEBOOK.read_text())
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids) and all(id_.replace("-", "").isalnum() and len(id_) <= 64 for id_ in ids)
    for cell in content["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            keys |= {"execution_count", "outputs"}
            assert cell["execution_count"] is None and cell["outputs"] == []
            ast.parse("".join(cell["source"]))
        else:
            assert cell["cell_type"] == "markdown"
        assert cell.keys() == keys and cell["metadata"] == {}
        assert all(isinstance(line, str) for line in cell["source"])
        assert all(line.endswith("\n") for line in cell["source"][:-1]), "lines keep their ends"
    assert len(cells("code")) > 5 and len(cells("markdown")) > 5


def test_every_script_is_short_and_has_an_outcome() -> None:
    assert {script.name for script in SCRIPTS} == OUTCOMES.keys()
    for script in SCRIPTS:
        body = ast.parse(script.read_text()).body
        assert isinstance(body[0], ast.Expr), f"{script.name} has no docstring"
        work = [node for node in body[1:] if not isinstance(node, ast.Import | ast.ImportFrom)]
        assert len(work) <= MAX_STATEMENTS, f"{script.name} has {len(work)} statements"
