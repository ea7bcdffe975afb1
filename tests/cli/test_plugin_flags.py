"""Flags of plugins: the options classes make them, and the command hands on what was given."""

from __future__ import annotations

import pytest

from synthgen import plugins
from synthgen.cli import plugin_flags
from synthgen.plugin_options import list_options

FOLDERS = {"masks": "generate.segmenters", "captions": "generate.captioners"}


def help_of(synthgen, command: str) -> str:
    return " ".join(synthgen(command, "--help")[1].split()).replace("- ", "-")


@pytest.mark.parametrize("command", FOLDERS)
def test_the_help_has_every_flag_and_every_plugin(synthgen, command):
    told = help_of(synthgen, command)
    classes = plugins.list_flag_options(FOLDERS[command])
    flags = {name for own in classes.values() for name, info in list_options(own).items() if info.flag}
    assert {"checkpoint", "device"} < flags
    assert not [name for name in flags if f" --{name.replace('_', '-')} " not in told]
    assert "box-chunk" not in told
    assert not [name for name in plugins.list_plugins(FOLDERS[command]) if name not in told]
    assert f"Options of {' and '.join(classes)}:" in told


def test_the_help_has_every_dataset(synthgen):
    told = help_of(synthgen, "ingest")
    assert not [name for name in plugins.list_plugins("formats.readers") if name.replace("_", "-") not in told]


def test_the_command_gets_the_values_that_were_given():
    seen = []

    def command(path: str, own: dict[str, str] | None = None, more: dict[str, str] | None = None) -> None:
        """Do it."""
        seen.append((path, own, more))

    flagged = plugin_flags.add_flags(
        own=plugin_flags.plugin_flags("generate.captioners"), more=plugin_flags.stage_flags("captions")
    )(command)
    names = list(flagged.__annotations__)
    assert (names[0], flagged.__doc__) == ("path", "Do it.")
    assert names.index("device") < names.index("top_k")
    flagged(path="a", **{**dict.fromkeys(names[1:]), "num_beams": 3, "top_k": 2})
    assert seen == [("a", {"num_beams": 3}, {"top_k": 2})]


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        (
            "masks",
            ("--segmenter", "grabcut", "--zoom"),
            "'grabcut' takes side, margin, batch_size, threads; got 'zoom'",
        ),
        ("masks", ("--segmenter", "grabcut", "--batch-size", "many"), "should be a whole number, got 'many'"),
        ("masks", ("--segmenter", "sam", "--precision", "fp8"), "--precision fp8 should be fp32 or bf16"),
        ("masks", ("--batch-size", "2", "-O", "batch_size=3"), "batch_size is given twice, the second time as -O"),
        ("captions", ("--num-beams", "3"), "'attributes' takes batch_size; got 'num_beams'"),
    ],
)
def test_what_a_plugin_refuses_is_a_sentence(synthgen, tmp_path, command, words, sentence):
    (tmp_path / "boxes.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "photos").mkdir()
    own = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")
    code, told = synthgen(command, *own, *words)
    assert (code, sentence in told) == (2, True), told
