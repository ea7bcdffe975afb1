"""Reads XML of strangers with defusedxml: whole small files, or the elements of a huge file one by one.

Document types, entities and external references are refused. Depth, size and number of elements are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, XMLParser

from synthgen.errors import escape_control_chars
from synthgen.formats.readers._label_files import (
    LabelFileError,
    OtherFormatError,
    open_label_file,
    read_label_file,
)

_MAX_DEPTH = 64
_MAX_ELEMENTS = 1_000_000  # in memory at the same time
_MAX_SILENT_BYTES = 2**25  # read without the end or the start of an element: a longer attribute or text
_CHUNK_BYTES = 2**16


class XmlNode:
    """An element: its tag, attributes, text before the first child, and children."""

    __slots__ = ("attributes", "children", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes, self.text = tag, attributes, ""
        self.children: list[XmlNode] = []

    def find(self, tag: str) -> XmlNode | None:
        """The first child with this tag."""
        return next((child for child in self.children if child.tag == tag), None)

    def find_all(self, tag: str) -> list[XmlNode]:
        """All children with this tag."""
        return [child for child in self.children if child.tag == tag]

    def text_at(self, *tags: str) -> str:
        """The stripped text of the first element on this path of tags; "" if there is none."""
        node: XmlNode | None = self
        for tag in tags:
            node = node.find(tag) if node is not None else None
        return node.text.strip() if node is not None else ""


def read_xml(path: Path, root: str, max_bytes: int) -> XmlNode:
    """The first element of a small file, with all its content.

    Args:
        path: untrusted file.
        root: tag that the first element must have.
        max_bytes: larger files are refused.

    Raises:
        LabelFileError: it is not such XML; an `OtherFormatError` if only the tag is another.
    """
    content = read_label_file(path, max_bytes)
    [(_, node)] = _parse(iter([content]), root, frozenset())
    return node


def stream_xml(
    path: Path, root: str, containers: frozenset[str], on_bytes: Callable[[int], None] | None = None
) -> Iterator[tuple[str, XmlNode]]:
    """The elements of a file of any size: ("open" or "close", container) and ("node", any other element).

    Containers are the first element and those inside it, level by level, that have one of the tags in `containers`.
    They have no children here. Other elements come with all their content when they end.

    Args:
        path: untrusted file.
        root: tag that the first element must have.
        containers: tags of elements that are given in pieces.
        on_bytes: called with the number of further bytes read; None = not called.

    Raises:
        LabelFileError: as `read_xml`; maybe after some elements.
    """

    def chunks() -> Iterator[bytes]:
        with open_label_file(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                if on_bytes is not None:
                    on_bytes(len(chunk))
                yield chunk

    return _parse(chunks(), root, containers | {root})


def _parse(chunks: Iterator[bytes], root: str, containers: frozenset[str]) -> Iterator[tuple[str, XmlNode]]:
    target = _NodeBuilder(root, containers)
    try:
        parser = XMLParser(target=target, forbid_dtd=True)
        silent, seen = 0, 0
        for chunk in chunks:
            for start in range(0, len(chunk), _CHUNK_BYTES):
                part = chunk[start : start + _CHUNK_BYTES]
                parser.feed(part)
                silent = silent + len(part) if target.seen == seen else 0
                seen = target.seen
                if silent > _MAX_SILENT_BYTES:
                    raise LabelFileError(f"has an attribute or a text of more than {_MAX_SILENT_BYTES >> 20} MiB")
                yield from target.take()
        parser.close()
        yield from target.take()
    except DefusedXmlException:
        raise LabelFileError("has a document type or an entity (<!DOCTYPE>, <!ENTITY>); remove it") from None
    except (ParseError, ValueError, LookupError) as why:  # an unknown encoding is a ValueError or a LookupError
        if isinstance(why, LabelFileError):
            raise
        raise LabelFileError(f"is not valid XML ({escape_control_chars(str(why))[:100]})") from None


class _NodeBuilder:
    """Gets the parser's events, and keeps the elements that have ended until `take` is called."""

    def __init__(self, root: str, containers: frozenset[str]) -> None:
        self.seen = 0  # starts and ends of elements
        self._root, self._containers = root, containers
        self._open: list[XmlNode] = []
        self._num_containers = 0  # of the open elements; they are the first ones
        self._elements = 0  # in memory
        self._ready: list[tuple[str, XmlNode]] = []
        self._text: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.seen += 1
        self._end_text()
        if not self._open and tag != self._root:
            raise OtherFormatError(f"starts with <{escape_control_chars(tag)[:40]}>, not with <{self._root}>")
        if len(self._open) >= _MAX_DEPTH:
            raise LabelFileError(f"has more than {_MAX_DEPTH} nested elements")
        node = XmlNode(tag, attributes)
        if len(self._open) == self._num_containers and tag in self._containers:
            self._num_containers += 1
            self._ready.append(("open", node))
        else:
            self._elements += 1
            if self._elements > _MAX_ELEMENTS:
                raise LabelFileError(f"has an element with more than {_MAX_ELEMENTS:,} elements inside")
            if len(self._open) > self._num_containers:
                self._open[-1].children.append(node)
        self._open.append(node)

    def data(self, text: str) -> None:
        self._text.append(text)

    def end(self, tag: str) -> None:  # noqa: ARG002 - the parser has checked it
        self.seen += 1
        self._end_text()
        node = self._open.pop()
        if len(self._open) < self._num_containers:
            self._num_containers -= 1
            self._ready.append(("close", node))
        elif len(self._open) == self._num_containers:
            self._elements = 0
            self._ready.append(("node", node))

    def close(self) -> None:
        """The end of the file."""

    def take(self) -> list[tuple[str, XmlNode]]:
        """What has ended since the last call."""
        ready, self._ready = self._ready, []
        return ready

    def _end_text(self) -> None:
        if self._text:
            if self._open and not self._open[-1].text:
                self._open[-1].text = "".join(self._text)
            self._text.clear()
