"""Check whether a caption agrees with the category of its box, by comparing head nouns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from synthgen.text.confusions import AMBIGUOUS_NOUNS, CONFUSABLE_GROUPS, GENDERED_NOUNS, SPELLING_CORRECTIONS
from synthgen.text.hypernyms import HYPERNYMS
from synthgen.text.phrases import clean_text, comparison_key, split_words
from synthgen.text.plurals import singularize

#: Longer category names are ignored.
MAX_NAME_CHARS = 60

#: Nouns without information about the object.
_GENERIC_WORDS = frozenset(
    "object thing item one ones it something anything stuff this that these those unknown other others part half all "
    "region area background left right top bottom middle center centre front back side corner edge end".split()
)
#: Words that end a noun phrase.
_PHRASE_STOPS = frozenset(
    "in on at with without near next behind beside besides between under over above below from to for by into onto "
    "off against along across around through inside outside up down while as like than during toward towards among "
    "amongst is are was were be being been has have had having that which who whose whom where when if wears holds "
    "sits stands looks lies rides walks plays runs eats hangs does do will not there nearest closest facing "
    "laying lying worn made seen taken shown left-hand".split()
)
_CONJUNCTIONS = frozenset({"and", "or", "&", ","})
#: "there is a dog", "it's a dog": the noun phrase follows.
_EXPLETIVE_OPENING = re.compile(r"^(there|this|it|that|these|those|here)( is| are| was| were|['’]s)\b")
#: Determiners and the like, dropped at both ends of a noun phrase.
_DETERMINERS = frozenset(
    "a an the this that these those some any another each every his her its their our my your one two three four five "
    "six several many few both other left right top bottom middle center centre far front back first second third "
    "last upper lower outer inner most leftmost rightmost closest nearest furthest only just very all of "
    "partially".split()
)
#: Words that are not the head of a phrase if another noun is available.
_ADJECTIVES = frozenset(
    "black white gray grey brown red green blue yellow pink purple tan beige golden dark bright big small large "
    "larger largest smaller smallest little tiny huge tall taller short shorter long young old older younger wooden "
    "plastic empty full open closed clear shiny striped colorful".split()
)
#: Measures: "a slice of pizza" may be a slice or a pizza.
_MEASURE_NOUNS = frozenset(
    "group pair bunch piece slice set couple row herd flock pile stack lot bit kind type view picture photo image "
    "part close side top front back bottom crowd half number series variety collection line school head reflection "
    "statue cluster section end edge corner rest sort bundle handful shot closeup portrait".split()
)
#: Words in -ing that are nouns or precede one; any other ends a noun phrase ("a man riding").
_ING_NOUNS = frozenset(
    "dining parking cutting chopping swimming washing drying sewing living fishing building ceiling ring king string "
    "wing thing railing clothing awning painting earring icing frosting pudding dressing wedding bedding lettering "
    "spring swing duckling drawing rocking bowling boxing batting baking folding drinking running racing serving "
    "shopping skiing sling nothing something anything everything sibling dumpling topping stuffing lightning evening "
    "morning flooring siding plumbing covering writing crossing landing frying carving filing reading surfing".split()
)


def category_nouns(category: str) -> list[str]:
    """The nouns of a category name, in lower case: "cabinet" and "shelf" for "Cabinet/shelf", "bow" for "bow_(weapon)".

    Empty if the name has no information: "", "object", or no letters.
    """
    # Data sets put explanations in brackets (LVIS), or append qualifiers (COCO stuff).
    text = re.sub(r"\([^()]*\)", " ", clean_text(category, max_chars=MAX_NAME_CHARS).replace("_", " ")).casefold()
    text = re.sub(r"-(other-merged|merged|other|stuff)\b", "", text)
    text = re.sub(r"^(wall|floor)-(\w+)$", r"\2 \1", text)
    found = []
    for part in re.split(r"[/,;|]", text):
        own = [SPELLING_CORRECTIONS.get(word, word) for word in re.sub(r"[^\w'’&.-]+", " ", part).split()]
        if own and own[0] == "other":
            own = own[1:]
        name = " ".join(own).strip("-'’&. ")
        if name and any(c.isalpha() for c in name) and name not in found and name not in _GENERIC_WORDS:
            found.append(name)
    # The parts of "Cutting/chopping Board" share the last word.
    if len(found) == 2 and found[0].endswith("ing") and found[0] not in _taxonomy()[0] and " " in found[1]:
        found[0] += " " + found[1].split(" ", 1)[1]
    return found


@lru_cache(maxsize=65536)
def agrees_with_category(text: str, category: str) -> bool | None:
    """Whether the noun of a caption agrees with a category: the same word, a synonym, a hypernym or a hyponym.

    Args:
        text: a caption or phrase in English.
        category: name of a category, such as "dining table"; may list synonyms, as `category_nouns` reads them.

    Returns:
        True or False; None if undecided: the caption has no noun ("on the left"), the noun is unknown or ambiguous, or
        the category has no information.
    """
    own = [tuple(_lemmatize(word) for word in split_words(name)) for name in category_nouns(category)]
    words = tuple(_lemmatize(word) for word in comparison_key(text).split())
    if any(len(name) > 1 and _starts_with_name(words, name) for name in own):
        return True  # matches as a string, even if it is not a single noun: "chest of drawers"
    wanted = {_parse_noun(_strip_adjectives(name)) for name in own}
    heads = [head for phrase in _noun_phrases(text) for head in _head_nouns(phrase)]
    verdicts = [_compare_nouns(head, name) for head in heads for name in wanted]
    if True in verdicts:
        return True
    return False if verdicts and None not in verdicts else None


@lru_cache(maxsize=65536)
def is_kind_of(category: str, other: str) -> bool:
    """Whether a category is the same as another or a hyponym of it, as far as the table knows.

    Everything is a hyponym of a category without information.

    Args:
        category: the name that may be the narrower one.
        other: the name that may be the wider one.
    """
    one, two = (
        {_parse_noun(tuple(_lemmatize(word) for word in split_words(name))) for name in category_nouns(c)}
        for c in (category, other)
    )
    if not one or not two:
        return not two
    return all(any(b.name in _hypernyms_of(a.name) and b.modifiers <= a.modifiers for b in two) for a in one)


@dataclass(frozen=True, slots=True)
class _Noun:
    """A noun, represented by the first of its synonyms in the table, and the words before it."""

    name: str
    modifiers: frozenset[str] = frozenset()


def _compare_nouns(caption_noun: _Noun, category_noun: _Noun) -> bool | None:
    """Whether a caption's noun agrees with one of the category's nouns.

    A modifier can change the meaning in ways unknown to the table: a gravy boat is not a boat, a skating shoe not a
    sneaker.
    """
    found = _compare_names(caption_noun.name, category_noun.name)
    if not found:
        return found
    # The caption's noun has no modifier.
    has_known_modifiers = caption_noun.modifiers <= category_noun.modifiers | _ADJECTIVES
    if caption_noun.name == category_noun.name:
        return True if has_known_modifiers or not category_noun.modifiers else None
    if caption_noun.name in _hypernyms_of(category_noun.name) or category_noun.name.endswith(f" {caption_noun.name}"):
        return True if has_known_modifiers else None
    return None if category_noun.modifiers else True


def _compare_names(first_name: str, second_name: str) -> bool | None:
    """Whether the nouns are equal or one is a hypernym of the other; None if one of them is unknown."""
    above, below = _hypernyms_of(first_name), _hypernyms_of(second_name)
    if first_name == second_name or second_name in above or first_name in below:
        return True
    table = _taxonomy()[0]
    if any(a not in table and b.endswith(f" {a}") for a, b in ((first_name, second_name), (second_name, first_name))):
        return True  # "stick" and "hockey stick"; but a dog is not a hot dog
    if first_name not in table or second_name not in table:
        return None
    if "person" in above and "person" in below:
        # A man may be a player, and a child a boy; only words for different sexes exclude each other.
        return (
            False
            if any({first_name} & a and {second_name} & b for a, b in (GENDERED_NOUNS, GENDERED_NOUNS[::-1]))
            else None
        )
    if any(
        a in AMBIGUOUS_NOUNS and AMBIGUOUS_NOUNS[a] in _hypernyms_of(b)
        for a, b in ((first_name, second_name), (second_name, first_name))
    ):
        return None
    return None if any(above & group and below & group for group in CONFUSABLE_GROUPS) else False


def _lemmatize(word: str) -> str:
    """The singular of a word, except for words such as "glasses" with a different meaning."""
    return word if word == "glasses" else singularize(word)


def _starts_with_name(lemmas: tuple[str, ...], name: tuple[str, ...]) -> bool:
    """Whether the words start with this name, and not with a longer one: "table tennis" in "a table tennis paddle"."""
    first = next((i for i, word in enumerate(lemmas) if word not in _DETERMINERS | _ADJECTIVES), 0)
    ends = [start + len(name) for start in (0, first) if lemmas[start : start + len(name)] == name]
    return any(end == len(lemmas) or lemmas[end] in _PHRASE_STOPS | _CONJUNCTIONS for end in ends)


def _strip_adjectives(name: tuple[str, ...]) -> tuple[str, ...]:
    """The name without leading adjectives, unless the table contains it with them: "brown shirt", but "black bear"."""
    while len(name) > 1 and name[0] in _ADJECTIVES and " ".join(name) not in _taxonomy()[0]:
        name = name[1:]
    return name


def _noun_phrases(text: str) -> list[list[str]]:
    """The first noun phrase as lemmas, and phrases joined to it by "and", or by "of" after a measure."""
    found: list[list[str]] = [[]]
    text = _EXPLETIVE_OPENING.sub("", text.strip().casefold())
    for part in re.findall(r"[^\W_]+(?:['’][^\W_]+)*|[.,;:!?&]", text)[:60]:
        now = found[-1]
        noun = [word for word in now if word not in _DETERMINERS and word not in _ADJECTIVES]
        if part in _CONJUNCTIONS or (part == "of" and noun and noun[-1] in _MEASURE_NOUNS | _GENERIC_WORDS):
            found.append([])
        elif part == "of" and not noun:
            continue
        elif part in _PHRASE_STOPS or part == "of" or not part[0].isalnum():
            if noun or len(found) > 1:
                break
        elif part.endswith("ing") and len(part) > 4 and part not in _ING_NOUNS:
            if noun or (len(found) > 1 and not now):
                break
            now.append(part)
        else:
            now.append(_lemmatize(part.removesuffix("'s").removesuffix("’s")))
    return [phrase for phrase in found if phrase]


def _head_nouns(phrase: list[str]) -> list[_Noun]:
    """Candidates for the head noun: the last one, and the one before a participle ("a car parked")."""
    while phrase and phrase[-1] in _DETERMINERS | _GENERIC_WORDS:
        phrase = phrase[:-1]
    while phrase and phrase[0] in _DETERMINERS and len(phrase) > 1:
        phrase = phrase[1:]
    ends = [len(phrase)] + [i for i, word in enumerate(phrase) if i and len(word) > 4 and word.endswith("ed")]
    return list(dict.fromkeys(_parse_noun(tuple(phrase[:end])) for end in ends if phrase))


def _parse_noun(lemmas: tuple[str, ...]) -> _Noun:
    """The longest suffix of a phrase that is in the table: "brown teddy bear" is a "teddy bear", not a bear."""
    table, same = _taxonomy()[:2]
    for start in range(max(0, len(lemmas) - 4), len(lemmas)):
        phrase = " ".join(lemmas[start:])
        if phrase in table:
            return _Noun(same.get(phrase, phrase), frozenset(lemmas[:start]))
    return _Noun(lemmas[-1] if lemmas else "", frozenset(lemmas[:-1]))


@cache
def _hypernyms_of(noun: str) -> frozenset[str]:
    """The noun and all its hypernyms."""
    found, todo = {noun}, [noun]
    while todo:
        new = _taxonomy()[2].get(todo.pop(), set()) - found
        found |= new
        todo += new
    return frozenset(found)


@cache
def _taxonomy() -> tuple[frozenset[str], dict[str, str], dict[str, set[str]]]:
    """The table: all words; word -> its first synonym; first synonym -> its hypernyms."""
    same: dict[str, str] = {}
    parents: dict[str, set[str]] = {}

    def entry(text: str) -> str:
        known = [" ".join(_lemmatize(word) for word in name.split()) for name in text.split(" = ")]
        for name in known:
            same.setdefault(name, same.get(known[0], known[0]))
        return same[known[0]]

    lines = HYPERNYMS.replace("\n ", " ").strip().splitlines()
    # Synonyms first, because a member may be given by any of them.
    for line in lines:
        for text in re.split(r"[:,]", line):
            if " = " in text:
                entry(text.strip())
    for line in lines:
        kind, _, members = line.partition(":")
        above = entry(kind.strip())
        for member in filter(None, (text.strip() for text in members.split(","))):
            parents.setdefault(entry(member), set()).add(above)
    return frozenset(same), same, parents
