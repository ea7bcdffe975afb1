"""What a phrase says of the mirrored picture: left and right exchanged, or no answer where that cannot be told.

"The right cup" becomes "the left cup". But "right behind the cup" means directly, "some milk left" means remaining,
and "the second zebra" counts from a side that it does not name: of these nothing is said, and the picture stays as it
is. That costs one mirrored view; a wrong exchange would teach a falsehood. The rules are the same for both words, so
what is exchanged twice is itself again. For English: pictures with texts of other languages should not be mirrored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

#: A word ends at all that is no letter: left_handed, bottom-right, man's left.
_WORD = r"(?<![^\W\d_])(?:{})(?![^\W\d_])"


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(_WORD.format(pattern), re.IGNORECASE)


_GAP = r"[\s_-]+"
_ORDINAL = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|[0-9]+(?:st|nd|rd|th)"

_SIDE = _words(
    r"(?P<joined>far|top|bottom|upper|lower|middle|mid|center|centre|front|back|rear)?"
    r"(?P<side>left|right)(?P<ending>most|hand|handed|hander|side|wards?|y)?"
)
_CLOCKWISE = _words("(?P<counter>counter)?(?P<word>clockwise)")

#: Sides that have no opposite to write, or words that are no sides in company.
_UNSURE = _words(
    r"o\W?clock|starboard|port\W+side|(?:north|south)?(?:east|west)"  # places on a dial, a ship, a map
    rf"|anticlockwise|(?:anti|counter){_GAP}(?:counter)?clockwise"  # one opposite for several spellings
    r"|l|r|lt|rt|lft|rgt|rght|righ|rigth|rihgt|rite|rightt|lef|letf|lefft|leftt|lhs|rhs"
    rf"|(?:left|right){_GAP}(?:angles?|angled|way|of{_GAP}way|whale|side{_GAP}(?:up|out)|away|now|overs?)"
    rf"|just{_GAP}(?:left|right)|all{_GAP}left"
)
_ALL_RIGHT = _words(rf"all{_GAP}right")

#: After these the word is a side, whatever follows: "on the right behind the counter".
_PLACED = frozenset(
    "the on to at far from its his her their your my our top bottom upper lower front back rear middle mid center "
    "centre extreme very toward towards and or".split()
)
#: Before these it may be "directly" or "remaining": "right behind", "left on the plate".
_ADVERBIAL = frozenset(
    "about above across after against along alongside alone around as at atop away back before behind below beneath "
    "beside between beyond by close down empty for here in infront inside into near next now off on onto open opposite "
    "out outside over past standing there through to unattended under underneath uneaten unfinished untouched up when "
    "where with without".split()
)
#: After these, at the end of what is said, it may be "remaining" or "correct"; after the second, a verb.
_BEING = frozenset(
    "is are was were be been being am has have had having get gets got isn't aren't wasn't hasn't haven't what's "
    "that's there's it's who's not only".split()
)
_LEAVING = frozenset("who he she they".split())
_REMAINING = re.compile(
    _WORD.format("some|few|little|much|many|any|nothing|anything|something|half|more|none|enough|slices?|bites?")
    + rf"(?:{_GAP}[\w']+){{0,3}}{_GAP}$",
    re.IGNORECASE,
)
_BEFORE = re.compile(rf"([\w'’]+){_GAP}$")
_AFTER = re.compile(rf"{_GAP}([\w'’]+)")
_ACROSS = re.compile(rf"to{_GAP}(?:the{_GAP})?(?:left|right)", re.IGNORECASE)

_COUNTED = _words(_ORDINAL)
#: What is counted upwards or into the depth, or not counted at all.
_NOT_ACROSS = _words(
    rf"(?:{_ORDINAL}){_GAP}(?:row|shelf|floor|base|class|aid|hand)"
    rf"|from{_GAP}(?:the{_GAP})?(?:top|bottom|front|back|camera|ground)"
)


def mirrored(texts: Sequence[str]) -> tuple[str, ...] | None:
    """The texts of a picture as they are true of its mirror image; None = one of them cannot be told, do not mirror.

    Case is kept, and two different texts stay different. Names of body parts are exchanged like places: in the mirror
    a left hand is a right one. Writing that a text quotes is left as it is, though in the mirror it cannot be read.
    """
    found = [_mirrored(text) for text in texts]
    told = tuple(text for text in found if text is not None)
    return told if len(told) == len(found) else None


@lru_cache(maxsize=8192)  # names come again with every image
def _mirrored(text: str) -> str | None:
    if _UNSURE.search(text):
        return None
    kept = {match.end() for match in _ALL_RIGHT.finditer(text)}
    sides = [match for match in _SIDE.finditer(text) if match.end() not in kept]
    turns = list(_CLOCKWISE.finditer(text))
    if not sides and _COUNTED.search(text) and not _NOT_ACROSS.search(text):
        return None
    if any(_unclear(text, match) for match in sides):
        return None
    parts, done = [], 0
    for match in sorted(sides + turns, key=re.Match.start):
        new = _other_turn(match) if match in turns else _other_side(match)
        if new is None:
            return None
        parts += [text[done : match.start()], new]
        done = match.end()
    return "".join([*parts, text[done:]])


def _unclear(text: str, match: re.Match[str]) -> bool:
    """Whether a "left" or "right" may be something else than a side, by the words around it."""
    if match["joined"] or match["ending"]:
        return False
    ahead, behind = text[: match.start()], text[match.end() :]
    before, after = (found[1].casefold() if found else "" for found in (_BEFORE.search(ahead), _AFTER.match(behind)))
    if before in _PLACED:
        return False
    if before in _LEAVING:
        return True
    if after in _ADVERBIAL:
        return _ACROSS.match(behind.lstrip(" \t-_")) is None
    return not after and (before.replace("’", "'") in _BEING or _REMAINING.search(ahead) is not None)


def _other_side(match: re.Match[str]) -> str | None:
    new = _cased("right" if match["side"].casefold() == "left" else "left", like=match["side"])
    return None if new is None else (match["joined"] or "") + new + (match["ending"] or "")


def _other_turn(match: re.Match[str]) -> str | None:
    return _cased("clockwise" if match["counter"] else "counterclockwise", like=match[0])


def _cased(word: str, *, like: str) -> str | None:
    """The word in small letters, in capitals, or with one capital as another has it; None = that is none of these."""
    for case in (str.lower, str.upper, str.capitalize):
        if case(like) == like:
            return case(word)
    return None
