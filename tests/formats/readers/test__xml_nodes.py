"""XML of strangers: whole files and streams, with their limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.formats.readers import _xml_nodes
from synthgen.formats.readers._label_files import LabelFileError, OtherFormatError
from synthgen.formats.readers._xml_nodes import XmlNode, read_xml, stream_xml


def put(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def events(path: Path, *containers: str) -> list[tuple[str, str, str, int]]:
    """(kind, tag, text, number of children) of what `stream_xml` yields; attributes by hand."""
    found = stream_xml(path, "r", frozenset(containers))
    return [(kind, node.tag, node.text.strip(), len(node.children)) for kind, node in found]


def test_a_file_is_a_tree(tmp_path):
    root = read_xml(put(tmp_path / "x", '<r a="1"> t <b><c>u &amp; v</c><c/></b> tail <b x="2"/></r>'), "r", 1_000)
    assert (root.tag, root.attributes, root.text.strip()) == ("r", {"a": "1"}, "t")
    assert root.text_at("b", "c") == "u & v" and root.text_at("b", "d") == "" and root.find("d") is None
    assert [node.attributes for node in root.find_all("b")] == [{}, {"x": "2"}] and len(root.children[0].children) == 2


def test_containers_are_opened_and_closed_and_other_elements_come_whole(tmp_path):
    path = put(tmp_path / "x", "<r><m><n/></m><i><s>1</s><i/></i><t><i><u/></i></t></r>")
    assert events(path, "i", "t") == [
        ("open", "r", "", 0), ("node", "m", "", 1), ("open", "i", "", 0), ("node", "s", "1", 0), ("open", "i", "", 0),
        ("close", "i", "", 0), ("close", "i", "", 0), ("open", "t", "", 0), ("open", "i", "", 0), ("node", "u", "", 0),
        ("close", "i", "", 0), ("close", "t", "", 0), ("close", "r", "", 0),
    ]  # fmt: skip
    assert [event[:2] for event in events(path)] == [
        ("open", "r"),
        ("node", "m"),
        ("node", "i"),
        ("node", "t"),
        ("close", "r"),
    ]


def test_a_stream_gives_elements_before_the_end_and_counts_bytes(tmp_path):
    path = put(tmp_path / "x", "<r>" + "<s>text</s>" * 50_000 + "</r>")
    done: list[int] = []
    stream = stream_xml(path, "r", frozenset(), done.append)
    assert next(stream)[0] == "open" and next(stream)[1].text == "text" and sum(done) < 100_000
    assert sum(kind == "node" for kind, _ in stream) == 49_999 and sum(done) == path.stat().st_size


def test_another_first_element_is_another_format(tmp_path):
    with pytest.raises(OtherFormatError, match=r"starts with <s>, not with <r>"):
        read_xml(put(tmp_path / "x", "<s></s>"), "r", 100)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<r>" * 65, "more than 64 nested elements"),
        ("<r><a>", "not valid XML"),
        ("", "not valid XML"),
        ("<!DOCTYPE r><r/>", "document type or an entity"),
        ('<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><r>&a;</r>', "document type or an entity"),
        ("<?xml version='1.0' encoding='x-no'?><r/>", "not valid XML"),
        ("<r>" + "x" * 2_000 + "</r>", "more than 0 MiB"),
    ],
)
def test_files_that_are_refused(tmp_path, text, why):
    with pytest.raises(LabelFileError, match=why):
        read_xml(put(tmp_path / "x", text), "r", 1_000)


def test_limits_of_a_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(_xml_nodes, "_MAX_ELEMENTS", 100)
    monkeypatch.setattr(_xml_nodes, "_MAX_SILENT_BYTES", 200_000)
    many = put(tmp_path / "many", "<r>" + "<s/>" * 1_000 + "</r>")
    assert len(events(many)) == 1_002  # elements one by one are not in memory together
    for name, text, why in (
        ("wide", "<r><s>" + "<t/>" * 200 + "</s></r>", "more than 100 elements inside"),
        ("attribute", '<r><s a="' + "x" * 600_000 + '"/></r>', "an attribute or a text of more than"),
    ):
        with pytest.raises(LabelFileError, match=why):
            events(put(tmp_path / name, text))


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(LabelFileError, match="not a file"):
            read_xml(path, "r", 100)


def test_a_node_without_content():
    node = XmlNode("a", {})
    assert node.find("b") is None and node.find_all("b") == [] and node.text_at("b") == "" and node.text_at() == ""
