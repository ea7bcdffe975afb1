"""Plugins: found by their file name; unknown names are reported with the nearest one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from synthgen import plugin_options, plugins
from synthgen.errors import SynthgenError

PLUGIN_PACKAGE = "generate.segmenters"
OWN = '''"""A segmenter of the user's own."""

from pathlib import Path


def build(*, checkpoint, steps: int = 5, rate: float = 0.5, flip: bool = False, mode: str = "fast", limit=None,
          where: Path = Path(), sizes: tuple = (1, 2)):
    return dict(locals())
'''

DECLARED = '''"""A segmenter of the user's own, with a dataclass of options."""

from dataclasses import dataclass, replace

from synthgen.errors import SynthgenError
from synthgen.plugin_options import option


@dataclass(frozen=True)
class Options:
    steps: int = option(5, help="Steps")
    weights: str = option("", help="SHA-256 of the weights")
    cores: int = option(2, runtime=True, help="Cores at once")
    plain: float = 0.5

    def __post_init__(self):
        if self.steps < 1:
            raise SynthgenError(f"option 'steps' should be 1 or more, got {self.steps}")


OPTIONS = Options


def resolve_options(options):
    return replace(options, weights="abc")


def build(options):
    return options
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module beside the package, as a user would write one."""
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "segmenter.py").write_text(OWN)
    (package / "declared.py").write_text(DECLARED)
    (package / "empty.py").write_text("build = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "their_package.segmenter"
    for name in [name for name in sys.modules if name.split(".")[0] == "their_package"]:
        del sys.modules[name]


def test_a_plugin_package_lists_its_files(tmp_path, monkeypatch):
    folder = tmp_path / "generate" / "things"
    folder.mkdir(parents=True)
    for name in ("__init__.py", "_shared.py", "b.py", "a.py", "notes.txt"):
        (folder / name).touch()
    monkeypatch.setattr(plugins, "PACKAGE_ROOT", tmp_path)
    assert plugins.list_plugins("generate.things") == ["a", "b"]
    assert plugins.list_plugins("generate.nothing") == []


def test_the_plugin_packages_are_found():
    assert {"box_fill", "grabcut"} <= set(plugins.list_plugins(PLUGIN_PACKAGE))
    assert {"coco", "coco_json", "objects365"} <= set(plugins.list_plugins("formats.readers"))


def test_listing_imports_nothing():
    code = (
        "import sys; from synthgen import plugins\n"
        "assert plugins.list_plugins('generate.segmenters') and plugins.list_plugins('formats.readers')\n"
        "print(*[m for m in sys.modules if m.startswith(('synthgen.generate', 'numpy', 'cv2'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["box_fill", "box-fill"])
def test_a_dash_is_an_underscore(name):
    assert plugins.load_plugin(PLUGIN_PACKAGE, name).__name__ == "synthgen.generate.segmenters.box_fill"
    assert plugins.normalize_name(name) == "box_fill"


@pytest.mark.parametrize("name", ["box_fil", "boxfill", "Box-Fill", "", "_crop", "__init__", "x/y", "grabcut "])
def test_an_unknown_plugin_name(name):
    with pytest.raises(SynthgenError, match=r"no segmenter named '.*\(have: .*box_fill, grabcut") as why:
        plugins.load_plugin(PLUGIN_PACKAGE, name)
    if name.startswith("box"):
        assert "did you mean 'box_fill'?" in str(why.value)


@pytest.mark.parametrize(
    "name",
    ["no_package.at_all", "synthgen.no_module", ".relative", "..", "../x", "a..b", "x/y.z", "os.path.x", "json.x"],
)
def test_a_module_that_is_not_there(name):
    with pytest.raises(SynthgenError, match="to take a segmenter from; is its folder on PYTHONPATH"):
        plugins.load_plugin(PLUGIN_PACKAGE, name)


def test_a_module_of_the_users_own(own):
    built = plugins.build_plugin(PLUGIN_PACKAGE, own, {"checkpoint": "x.pth", "steps": "7"})
    assert (built["checkpoint"], built["steps"], built["rate"]) == ("x.pth", 7, 0.5)
    assert plugins.normalize_name("their-package.segmenter") == "their-package.segmenter"


def test_a_module_of_the_users_own_that_does_not_fit(own):
    with pytest.raises(SynthgenError, match=r"'their_package\.empty' has no function build"):
        plugins.build_plugin(PLUGIN_PACKAGE, "their_package.empty", {})


def test_options_are_complete_and_of_the_defaults_type(own):
    given = {"checkpoint": "1", "steps": "7", "rate": "1e-3", "flip": "Yes", "mode": "5", "limit": "9"}
    full = plugins.complete_options(PLUGIN_PACKAGE, own, given)
    assert full == {
        "checkpoint": "1", "steps": 7, "rate": 0.001, "flip": True, "mode": "5", "limit": "9", "where": Path(),
        "sizes": (1, 2),
    }  # fmt: skip
    assert [type(full[key]) for key in ("steps", "rate", "flip")] == [int, float, bool]


def test_values_that_are_no_text_stay_as_they_are(own):
    full = plugins.complete_options(PLUGIN_PACKAGE, own, {"checkpoint": None, "steps": 7, "sizes": (3,), "flip": False})
    assert (full["checkpoint"], full["steps"], full["sizes"], full["flip"]) == (None, 7, (3,), False)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("rate", 1, "1"),
        ("rate", np.float32(0.5), "0.5"),
        ("steps", np.int64(7), "7"),
        ("mode", 4, "4"),
        ("mode", Path("a/b"), "a/b"),
        ("flip", True, "true"),
    ],
)
def test_a_value_is_the_same_as_its_text(option, value, text, own):
    """So that a call of Python and a command have one recipe."""
    by_value, by_text = (
        plugins.complete_options(PLUGIN_PACKAGE, own, {"checkpoint": "", option: given})[option]
        for given in (value, text)
    )
    assert by_value == by_text and type(by_value) is type(by_text)


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("steps", None, "a whole number"),
        ("steps", 2.0, "a whole number"),
        ("steps", True, "a whole number"),
        ("rate", [1], "a number"),
        ("rate", False, "a number"),
        ("flip", 1, "True or False"),
        ("mode", None, "a text"),
        ("mode", 0.5, "a text"),
        ("mode", b"fast", "a text"),
    ],
)
def test_a_value_of_another_type_is_a_sentence(option, value, kind, own):
    with pytest.raises(SynthgenError, match=rf"^option '{option}' of '.*' should be {kind}, got "):
        plugins.complete_options(PLUGIN_PACKAGE, own, {"checkpoint": "", option: value})


@pytest.mark.parametrize("text", ["true", "True", "YES", "1"])
def test_words_for_true(text, own):
    assert plugins.complete_options(PLUGIN_PACKAGE, own, {"checkpoint": "", "flip": text})["flip"] is True


@pytest.mark.parametrize("text", ["false", "No", "0"])
def test_words_for_false(text, own):
    assert plugins.complete_options(PLUGIN_PACKAGE, own, {"checkpoint": "", "flip": text})["flip"] is False


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, r"needs checkpoint; give it as -O checkpoint="),
        ({"checkpoint": "", "stepz": "1"}, r"takes checkpoint, steps, .*; got 'stepz'; did you mean 'steps'\?"),
        ({"checkpoint": "", "steps": "many"}, r"option 'steps' of '.*' should be a whole number, got 'many'"),
        ({"checkpoint": "", "steps": "1.5"}, r"should be a whole number, got '1\.5'"),
        ({"checkpoint": "", "steps": ""}, r"should be a whole number, got ''"),
        ({"checkpoint": "", "rate": "0,5"}, r"should be a number, got '0,5'"),
        ({"checkpoint": "", "flip": "maybe"}, r"should be true or false, got 'maybe'"),
    ],
)
def test_options_that_do_not_fit_are_a_sentence(given, sentence, own):
    with pytest.raises(SynthgenError, match=sentence):
        plugins.complete_options(PLUGIN_PACKAGE, own, given)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import a_module_that_is_not_there", r"ModuleNotFoundError: No module named 'a_module.* at .*sick\.py:1\)"),
        ("def (", r"cannot be imported \(SyntaxError: invalid syntax.* at .*sick\.py:1\); mend it, or choose another"),
        ("\n\n1 / 0", r"'their_package\.sick' cannot be imported \(ZeroDivisionError: .* at .*sick\.py:3\)"),
        ("raise KeyError", r"KeyError: no reason given at"),
        ("raise ImportError('two\\nlines')", r"ImportError: two at"),
        ("\nraise SystemExit(0)", r"SystemExit: 0 at .*sick\.py:2\)"),
        ("import sys; sys.exit()", r"SystemExit: no reason given at"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_sentence(text, sentence, own, tmp_path):
    (tmp_path / "their_package" / "sick.py").write_text(text)
    with pytest.raises(SynthgenError, match=sentence) as caught:
        plugins.load_plugin(PLUGIN_PACKAGE, "their_package.sick")
    assert "\n" not in str(caught.value)
    (tmp_path / "their_package" / "inner").mkdir()
    (tmp_path / "their_package" / "inner" / "__init__.py").write_text(text)
    with pytest.raises(SynthgenError, match=r"'their_package\.inner\.deep' cannot be imported"):
        plugins.load_plugin(PLUGIN_PACKAGE, "their_package.inner.deep")


@pytest.mark.parametrize("code", [129, 130, 143])
def test_a_signal_ends_an_import_and_a_build_too(code, own, tmp_path):
    (tmp_path / "their_package" / "sick.py").write_text(f"raise SystemExit({code})")
    (tmp_path / "their_package" / "slow.py").write_text(f"def build():\n    raise SystemExit({code})\n")
    with pytest.raises(SystemExit):
        plugins.load_plugin(PLUGIN_PACKAGE, "their_package.sick")
    with pytest.raises(SystemExit):
        plugins.build_plugin(PLUGIN_PACKAGE, "their_package.slow", {})


@pytest.mark.parametrize("how", ["sys.exit()", "sys.exit(0)", "sys.exit('bye')"])
def test_a_plugin_that_ends_the_program_is_a_sentence(how, own, tmp_path):
    (tmp_path / "their_package" / "ends.py").write_text(
        f"import sys\n\n\ndef resolve_options():\n    {how}\n\n\ndef build():\n    {how}\n"
    )
    for work in (plugins.build_plugin, plugins.resolve_options):
        with pytest.raises(SynthgenError, match=r"^plugin 'their_package\.ends' ended the program \(SystemExit\("):
            work(PLUGIN_PACKAGE, "their_package.ends", {})


def test_a_module_of_the_users_own_may_declare_its_options(own):
    name = "their_package.declared"
    built = plugins.build_plugin(PLUGIN_PACKAGE, name, {"steps": "7"})
    assert (built.steps, built.cores, built.plain) == (7, 2, 0.5)
    resolved = plugins.resolve_options(PLUGIN_PACKAGE, name, {"plain": "1"})
    assert resolved == {"steps": 5, "weights": "abc", "cores": 2, "plain": 1.0}
    assert plugins.runtime_options(PLUGIN_PACKAGE, name) == {"cores"}
    with pytest.raises(SynthgenError, match=r"takes steps, weights, cores, plain; got 'step'; did you mean 'steps'\?"):
        plugins.resolve_options(PLUGIN_PACKAGE, name, {"step": "7"})
    with pytest.raises(SynthgenError, match="'steps' should be 1 or more, got 0"):
        plugins.resolve_options(PLUGIN_PACKAGE, name, {"steps": "0"})


def test_of_keyword_options_the_name_decides_what_a_recipe_holds(own):
    assert {"checkpoint", "device", "batch_size"} < plugins.runtime_options(PLUGIN_PACKAGE, own)
    full = plugins.resolve_options(PLUGIN_PACKAGE, own, {"checkpoint": "x"})
    assert full == plugins.complete_options(PLUGIN_PACKAGE, own, {"checkpoint": "x"})


@pytest.mark.parametrize("package", [PLUGIN_PACKAGE, "generate.captioners"])
def test_every_plugin_declares_its_options_with_help(package):
    for name in plugins.list_plugins(package):
        declared = plugins.options_class(package, name)
        assert declared is not None, name
        options = plugin_options.list_options(declared)
        assert set(options) == set(plugins.build_parameters(package, name)), name
        assert all(info.help for info in options.values()), name
        # So that recipes of plugins with keywords and of those with a dataclass agree.
        assert plugins.runtime_options(package, name) == plugin_options.KEYWORD_RUNTIME_OPTIONS & set(options)
        if any(info.flag for info in options.values()):
            assert name in plugins.list_flag_options(package), f"options of {name} belong in _{name}_options.py"


def test_every_build_takes_keywords_with_defaults_that_go_into_json():
    """An option's default says its type on the command line, and goes into every footer."""
    for name in plugins.list_plugins(PLUGIN_PACKAGE):
        for option in plugins.build_parameters(PLUGIN_PACKAGE, name).values():
            assert option.kind is option.KEYWORD_ONLY, f"{name}: {option}"
            assert option.default is option.empty or isinstance(option.default, int | float | str | None)


@pytest.mark.parametrize("package", [PLUGIN_PACKAGE, "generate.captioners"])
def test_modules_of_weights_load_no_plugin(package):
    code = (
        "import sys; from synthgen import plugins\n"
        f"found = plugins.list_weights_modules({package!r})\n"
        f"assert found and set(found) <= set(plugins.list_plugins({package!r}))\n"
        "print(*[m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'numpy', 'cv2')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("package", [PLUGIN_PACKAGE, "generate.captioners"])
def test_every_plugin_with_a_checkpoint_has_a_rank_of_its_own(package):
    """So that the choice of `auto` depends on no order of files."""
    modules = plugins.list_weights_modules(package)
    names = plugins.list_plugins(package)
    assert set(modules) >= {name for name in names if "checkpoint" in plugins.build_parameters(package, name)}
    for device in ("cpu", "cuda"):
        ranks = [module.RANK[device] for module in modules.values()]
        assert len(set(ranks)) == len(ranks) and min(ranks) > 0
