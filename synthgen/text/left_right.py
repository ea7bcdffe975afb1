"""Exchange left and right in phrases for horizontally flipped images.

"The right cup" becomes "the left cup". Ambiguous phrases are not exchanged, and their image is not flipped: "right
behind the cup" means directly, "some milk left" means remaining, and "the second zebra" counts from an unnamed side.
Skipping a flip costs one augmented view, but a wrong exchange creates a wrong label. The rules treat both words alike,
so exchanging twice restores the phrase. English only: do not flip images with texts in other languages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

#: Any non-letter is a word boundary: left_handed, bottom-right, man's left.
_WORD_TEMPLATE = r"(?<![^\W\d_])(?:{})(?![^\W\d_])"


def _word_pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(_WORD_TEMPLATE.format(pattern), re.IGNORECASE)


_GAP = r"[\s_-]+"
_ORDINAL = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|[0-9]+(?:st|nd|rd|th)"

_SIDE = _word_pattern(
    r"(?P<joined>far|top|bottom|upper|lower|middle|mid|center|centre|front|back|rear)?"
    r"(?P<side>left|right)(?P<ending>most|hand|handed|hander|side|wards?|y)?"
)
_CLOCKWISE = _word_pattern("(?P<counter>counter)?(?P<word>clockwise)")

#: Directions without a mirrored form, and phrases in which "left" or "right" is not a side.
_UNSWAPPABLE = _word_pattern(
    r"o\W?clock|starboard|port\W+side|(?:north|south)?(?:east|west)"  # clock positions, ships, maps
    rf"|anticlockwise|(?:anti|counter){_GAP}(?:counter)?clockwise"  # several spellings have one opposite
    r"|l|r|lt|rt|lft|rgt|rght|righ|rigth|rihgt|rite|rightt|lef|letf|lefft|leftt|lhs|rhs"
    rf"|(?:left|right){_GAP}(?:angles?|angled|way|of{_GAP}way|whale|side{_GAP}(?:up|out)|away|now|overs?)"
    rf"|just{_GAP}(?:left|right)|all{_GAP}left"
)
_ALL_RIGHT = _word_pattern(rf"all{_GAP}right")

#: After these words it is a side, whatever follows: "on the right behind the counter".
_SIDE_CONTEXT = frozenset(
    "the on to at far from its his her their your my our top bottom upper lower front back rear middle mid center "
    "centre extreme very toward towards and or".split()
)
#: Before these words it may mean "directly" or "remaining": "right behind", "left on the plate".
_ADVERBIAL = frozenset(
    "about above across after against along alongside alone around as at atop away back before behind below beneath "
    "beside between beyond by close down empty for here in infront inside into near next now off on onto open opposite "
    "out outside over past standing there through to unattended under underneath uneaten unfinished untouched up when "
    "where with without".split()
)
#: After these words, at the end of a phrase, it may mean "remaining" or "correct"; after the second group, a verb.
_COPULAS = frozenset(
    "is are was were be been being am has have had having get gets got isn't aren't wasn't hasn't haven't what's "
    "that's there's it's who's not only".split()
)
_PRONOUNS_BEFORE_LEFT = frozenset("who he she they".split())
_REMAINING = re.compile(
    _WORD_TEMPLATE.format(
        "some|few|little|much|many|any|nothing|anything|something|half|more|none|enough|slices?|bites?"
    )
    + rf"(?:{_GAP}[\w']+){{0,3}}{_GAP}$",
    re.IGNORECASE,
)
_WORD_BEFORE = re.compile(rf"([\w'’]+){_GAP}$")
_WORD_AFTER = re.compile(rf"{_GAP}([\w'’]+)")
_TO_THE_SIDE = re.compile(rf"to{_GAP}(?:the{_GAP})?(?:left|right)", re.IGNORECASE)

_ORDINAL_WORD = _word_pattern(_ORDINAL)
#: Words counted upwards or in depth, or not counted at all.
_NON_HORIZONTAL_ORDER = _word_pattern(
    rf"(?:{_ORDINAL}){_GAP}(?:row|shelf|floor|base|class|aid|hand)"
    rf"|from{_GAP}(?:the{_GAP})?(?:top|bottom|front|back|camera|ground)"
)


def mirror_texts(texts: Sequence[str]) -> tuple[str, ...] | None:
    """The texts as they apply to the mirrored image; None = a text is ambiguous, do not flip.

    Case is kept, and different texts stay different. Body parts are exchanged like positions: a left hand appears as a
    right hand in the mirror. Quoted writing is kept, although it is not readable in the mirror.
    """
    found = [_mirror_text(text) for text in texts]
    mirrored = tuple(text for text in found if text is not None)
    return mirrored if len(mirrored) == len(found) else None


@lru_cache(maxsize=8192)  # names recur in most images
def _mirror_text(text: str) -> str | None:
    if _UNSWAPPABLE.search(text):
        return None
    kept = {match.end() for match in _ALL_RIGHT.finditer(text)}
    sides = [match for match in _SIDE.finditer(text) if match.end() not in kept]
    turns = list(_CLOCKWISE.finditer(text))
    if not sides and _ORDINAL_WORD.search(text) and not _NON_HORIZONTAL_ORDER.search(text):
        return None
    if any(_is_ambiguous(text, match) for match in sides):
        return None
    parts, done = [], 0
    for match in sorted(sides + turns, key=re.Match.start):
        new = _swap_rotation(match) if match in turns else _swap_side(match)
        if new is None:
            return None
        parts += [text[done : match.start()], new]
        done = match.end()
    return "".join([*parts, text[done:]])


def _is_ambiguous(text: str, match: re.Match[str]) -> bool:
    """Whether "left" or "right" may have another meaning than a side, according to the surrounding words."""
    if match["joined"] or match["ending"]:
        return False
    ahead, behind = text[: match.start()], text[match.end() :]
    before, after = (
        found[1].casefold() if found else "" for found in (_WORD_BEFORE.search(ahead), _WORD_AFTER.match(behind))
    )
    if before in _SIDE_CONTEXT:
        return False
    if before in _PRONOUNS_BEFORE_LEFT:
        return True
    if after in _ADVERBIAL:
        return _TO_THE_SIDE.match(behind.lstrip(" \t-_")) is None
    return not after and (before.replace("’", "'") in _COPULAS or _REMAINING.search(ahead) is not None)


def _swap_side(match: re.Match[str]) -> str | None:
    new = _match_case("right" if match["side"].casefold() == "left" else "left", case_of=match["side"])
    return None if new is None else (match["joined"] or "") + new + (match["ending"] or "")


def _swap_rotation(match: re.Match[str]) -> str | None:
    return _match_case("clockwise" if match["counter"] else "counterclockwise", case_of=match[0])


def _match_case(word: str, *, case_of: str) -> str | None:
    """The word in lower case, upper case, or capitalized, like the other word; None = the other word has mixed case."""
    for case in (str.lower, str.upper, str.capitalize):
        if case(case_of) == case_of:
            return case(word)
    return None
