"""Findings about category names: within one split, and between splits."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synthgen.ingest.validation.diagnosis import MAX_EXAMPLES, FindingCollector, FindingExample

#: The blank; and two joiners, which are parts of words in some scripts, and of emoji.
_USUAL = frozenset(" \u200c\u200d")


@dataclass(frozen=True, slots=True)
class SplitCategories:
    """The categories of a split.

    Attributes:
        split: its name.
        names: by category id, in the order of the file; padded: those with outer blanks, as the file spells them.
        box_counts: how many boxes have each id.
    """

    split: str
    names: Mapping[int, str]
    padded: Mapping[int, str]
    box_counts: Mapping[int, int]


def inspect_categories(categories: SplitCategories, findings: FindingCollector) -> None:
    """Add the findings about the names of one split.

    Args:
        categories: the names of the split, and its number of boxes by category.
        findings: takes the findings.
    """
    names = categories.names
    unused = [name for key, name in names.items() if not categories.box_counts.get(key)]
    findings.add("unused_category", "categories", len(unused), (FindingExample(name, "no box") for name in unused))
    padded = [name for name in categories.padded.values() if name.strip()]
    examples = (FindingExample(name.strip(), f"written {name!r}") for name in padded)
    findings.add("outer_blanks", "categories", len(padded), examples)
    ids: defaultdict[str, list[int]] = defaultdict(list)
    for key, name in names.items():
        ids[name].append(key)
    same = {name: keys for name, keys in ids.items() if len(keys) > 1}
    examples = (FindingExample(name, f"ids {', '.join(map(str, keys))}") for name, keys in same.items())
    findings.add("same_name", "categories", sum(len(keys) - 1 for keys in same.values()), examples)
    _inspect_characters(list(ids), findings)
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for name in {seen_as(name): name for name in ids}.values():
        spellings["".join(seen_as(name).casefold().split())].append(name)
    alike = [some for some in spellings.values() if len(some) > 1]
    examples = (FindingExample(some[0], ", ".join(map(repr, some))) for some in alike)
    findings.add("nearly_same_name", "categories", sum(len(some) - 1 for some in alike), examples)


def _inspect_characters(names: Sequence[str], findings: FindingCollector) -> None:
    """Names with characters that nobody sees, and names that look like another one."""
    hidden = {name: points for name in names if (points := describe_hidden(name))}
    examples = (FindingExample(name, points) for name, points in hidden.items())
    findings.add("hidden_characters", "categories", len(hidden), examples)
    looks: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        looks[seen_as(name)].append(name)
    same = [some for some in looks.values() if len(some) > 1]
    examples = (FindingExample(some[0], " and ".join(map(ascii, some))) for some in same)
    findings.add("looks_the_same", "categories", sum(len(some) - 1 for some in same), examples)


def seen_as(name: str) -> str:
    """What a reader of a name sees: one form for equal letters, usual widths and blanks, nothing invisible."""
    if name.isascii() and name.isprintable():
        return name
    plain = "".join(" " if c in "\t\n\r" else c for c in unicodedata.normalize("NFKC", name))
    return " ".join("".join(c for c in plain if unicodedata.category(c) not in ("Cf", "Cc")).split())


def describe_hidden(name: str) -> str:
    """The characters of a name that are not seen, with their code points: "U+200B ZERO WIDTH SPACE"; "" = none."""
    kinds = ((c, unicodedata.category(c)) for c in name if c not in _USUAL)
    odd = dict.fromkeys(c for c, kind in kinds if kind in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"))
    return ", ".join(f"U+{ord(c):04X} {unicodedata.name(c, 'control character')}" for c in odd)


def compare_splits(splits: Sequence[tuple[SplitCategories, FindingCollector]]) -> None:
    """Findings between splits: names of each against the others, ids and order against the first."""
    for one, found in splits:
        elsewhere = {name: other.split for other, _ in splits if other is not one for name in other.names.values()}
        own_names = set(one.names.values())
        absent = [name for name in elsewhere if name not in own_names]
        examples = [
            FindingExample(name, f"named in {elsewhere[name]}, not in {one.split}") for name in absent[:MAX_EXAMPLES]
        ]
        found.add("not_in_split", "categories", len(absent), examples)
    first = splits[0][0]
    for other, found in splits[1:]:
        renamed = [key for key, name in other.names.items() if first.names.get(key, name) != name]
        examples = [
            FindingExample(other.names[key], f"id {key}, which is '{first.names[key]}' in {first.split}")
            for key in renamed[:MAX_EXAMPLES]
        ]
        found.add("id_renamed", "categories", len(renamed), examples)
        ours, theirs = (list(dict.fromkeys(names.names.values())) for names in (other, first))
        common = set(ours) & set(theirs)
        places = zip((n for n in ours if n in common), (n for n in theirs if n in common), strict=True)
        moved = [(our, their) for our, their in places if our != their]
        examples = [
            FindingExample(our, f"in its place {first.split} has '{their}'") for our, their in moved[:MAX_EXAMPLES]
        ]
        found.add("other_order", "categories", len(moved), examples)
