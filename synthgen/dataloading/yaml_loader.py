"""Reads YAML as plain lists, mappings and scalars; safe for untrusted files.

The dialect is YAML 1.2: `no` is a string and `1e-4` a number. Tags are refused, so no text becomes a Python object.
Anchors are refused, so a small file cannot expand to a large one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from synthgen.dataloading.manifest_errors import Location, ManifestIssue
from synthgen.errors import SynthgenError, escape_control_chars

#: Maximum file size. Manifests have a few kB.
MAX_BYTES = 256 * 1024

#: Maximum depth; a manifest has four levels.
MAX_DEPTH = 16

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NON_PRINTABLE = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # not allowed in YAML
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]{0,30}")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]{1,4})?")
_KEYWORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{word: float(word.replace(".", "")) for word in (".inf", "+.inf", "-.inf", ".nan", ".NaN")},
}


class DuplicateKey:
    """Replaces the value of a key that occurs more than once in a mapping.

    Args:
        lines: the lines of the file that have the key, counted from 1.
    """

    def __init__(self, lines: list[int]) -> None:
        self.lines = lines


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file: str, int, float, bool, None, lists, mappings, and `DuplicateKey`.

    Args:
        path: an untrusted file.

    Raises:
        SynthgenError: there is no such file, or it is not valid YAML of this dialect.
    """
    text = _read_text(path)
    try:
        _check_events(text, path)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as why:
        mark = why.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "some line"
        problem = why.problem or why.context or "it makes no sense"
        if "'\\t'" in problem or "tab character" in problem:
            problem = "it is indented by a tab"
        remedy = "use blanks" if problem.endswith("a tab") else "fix it there"
        raise SynthgenError(f"{path} is not valid YAML at {line}: {problem}; {remedy}") from None
    except yaml.YAMLError as why:
        raise SynthgenError(
            f"{path} is not valid YAML ({escape_control_chars(str(why).splitlines()[0])}); fix it"
        ) from None
    if not isinstance(root, yaml.MappingNode):
        what = "a list" if isinstance(root, yaml.SequenceNode) else "a single value" if root and root.value else "empty"
        raise SynthgenError(f"{path} is {what}, and a manifest is a mapping of keys such as name: and mixture:")
    return _construct_mapping(root, path)


def pop_duplicate_keys(value: Any, location: Location) -> Iterator[ManifestIssue]:
    """Remove and return every key that occurs more than once.

    Args:
        value: the manifest, or a part of it; its mappings and lists are changed in place.
        location: the place of `value` in the manifest.
    """
    places = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, inner in places:
        if isinstance(inner, DuplicateKey):
            del value[key]
            lines = sorted(set(inner.lines))
            where = f"line{'s' * (len(lines) > 1)} {' and '.join(map(str, lines))}"
            yield ManifestIssue((*location, key), f"said {len(inner.lines)} times, in {where}; leave one of them")
        else:
            yield from pop_duplicate_keys(inner, (*location, key))


def _read_text(path: Path) -> str:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no ordinary file" if path.exists() else None
        raise SynthgenError(f"{path} {what}; name a manifest" if what else f"no manifest {path}; check its name")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check its permissions") from None
    if len(data) > MAX_BYTES:
        raise SynthgenError(f"{path} is larger than {MAX_BYTES // 1024} KiB and is no manifest; name another file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as why:
        raise SynthgenError(f"{path} is no text in UTF-8 (byte {why.start:,}); save it as such") from None
    if odd := _NON_PRINTABLE.search(text):
        _reject_control_character(path, text.count("\n", 0, odd.start()) + 1)
    return text


def _reject_control_character(path: Path, line: int) -> NoReturn:
    raise SynthgenError(f"{path} holds a control character in line {line}, as no name does; take it out")


def _check_events(text: str, path: Path) -> None:
    """Refuse what a manifest does not need, before nodes are made of it: depth, anchors, tags, further documents.

    Nodes are made and read by recursion, and one with an anchor may be inside itself.
    """
    depth = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if documents > 1:
            raise SynthgenError(f"{path} holds a second document at line {line}; a manifest is one: take out '---'")
        if depth > MAX_DEPTH:
            raise SynthgenError(f"{path} is nested {MAX_DEPTH} levels deep at line {line}; a manifest has four")
        if anchor is not None:
            raise SynthgenError(
                f"{path} has an anchor or alias (&{anchor}) in line {line}, and a manifest has none; "
                "write the value out"
            )
        if tag is not None:
            raise SynthgenError(
                f"{path} has a tag ({escape_control_chars(tag)[:100]}) in line {line}, and a manifest holds plain "
                "values only; take it out"
            )
        if _NON_PRINTABLE.search(getattr(event, "value", "")):  # written as "\0"
            _reject_control_character(path, line)


def _construct_mapping(node: yaml.MappingNode, path: Path) -> dict[str, Any]:
    lines: dict[str, list[int]] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise SynthgenError(f"{path} has a list or a mapping as a key in line {line}; a key is a word")
        lines.setdefault(key.value, []).append(line)
    values = {key.value: _construct(value, path) for key, value in node.value}
    return {key: DuplicateKey(lines[key]) if len(lines[key]) > 1 else value for key, value in values.items()}


def _construct(node: yaml.Node, path: Path) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(node, path)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, path) for item in node.value]
    return _parse_scalar(node.value, is_plain=not node.style)


def _parse_scalar(text: str, *, is_plain: bool) -> Any:
    """A scalar by YAML 1.2. Unlike there, numbers may have underscores; quoted scalars are strings."""
    if not is_plain:
        return text
    if text in _KEYWORDS:
        return _KEYWORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if len(text) < 100 and _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return text
