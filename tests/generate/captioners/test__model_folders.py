"""Folders of captioners in the folder of weights: found by their config.json, which comes from strangers."""

from __future__ import annotations

import json
import os

import pytest

from synthgen.generate.captioners._model_folders import describe_download, list_model_folders


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "my weights"
    path.mkdir()
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(path))
    return path


def write(folder, name, content, size=10):
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / name / "model.safetensors").write_bytes(b"x" * size)


def test_the_largest_folder_of_the_model_is_first(folder):
    for name, size in (("a-tiny", 5), ("c-large", 50), ("b-base", 20), ("d-base", 20)):
        write(folder, name, {"model_type": "ofa"}, size)
    write(folder, "other", {"model_type": "florence2"}, 90)
    (folder / "file.pth").write_bytes(b"x")
    found = list_model_folders("ofa")
    assert [local.options["checkpoint"] for local in found] == [
        str(folder / name) for name in ("c-large", "b-base", "d-base", "a-tiny")
    ]
    assert found[0].reason == f"c-large is in {folder}"
    assert [local.options for local in list_model_folders("florence2")] == [{"checkpoint": str(folder / "other")}]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '"ofa"',
        "null",
        '{"model_type": ["ofa"]}',
        "[" * 100_000,
        "\x00",
        '{"model_type": "ofa"' + " " * 2**21,
    ],
)
def test_a_configuration_that_says_nothing_is_passed_over(folder, content):
    write(folder, "bad", content)
    write(folder, "good", {"model_type": "ofa"})
    assert [local.options["checkpoint"] for local in list_model_folders("ofa")] == [str(folder / "good")]


def test_other_things_by_the_name_of_a_configuration(folder):
    """A pipe would wait for a writer."""
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe/config.json")
    (folder / "deep/config.json").mkdir(parents=True)
    (folder / "lost").symlink_to(folder / "nowhere")
    (folder / "circle").symlink_to(folder / "circle")
    assert list_model_folders("ofa") == []


def test_without_the_folder_of_weights_there_are_none(tmp_path, monkeypatch):
    for place in (tmp_path / "nowhere", tmp_path / "file", tmp_path / "file/deeper"):
        monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(place))
        assert list_model_folders("ofa") == []
        (tmp_path / "file").touch()


def test_the_download_command_names_the_folder_for_a_shell(folder):
    assert describe_download("OFA-Sys/ofa-base", "OFA's") == (
        f"`hf download OFA-Sys/ofa-base --local-dir '{folder}/ofa-base'` fetches OFA's weights"
    )
