"""Singular and plural of English nouns, and their indefinite article: rules and exceptions."""

from __future__ import annotations

import re

_IRREGULAR_SINGULARS = {
    "people": "person",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "lice": "louse",
    "oxen": "ox",
    "skis": "ski",
    "taxis": "taxi",
    "kiwis": "kiwi",
    "bikinis": "bikini",
    "zucchinis": "zucchini",
    "dice": "die",
    "cacti": "cactus",
    "octopi": "octopus",
    "fungi": "fungus",
    "buses": "bus",
    "busses": "bus",
    "gases": "gas",
    "lenses": "lens",
    "canvases": "canvas",
    "atlases": "atlas",
    "irises": "iris",
    "quizzes": "quiz",
    "axes": "axe",
    "shoes": "shoe",
    "toes": "toe",
    "canoes": "canoe",
    "hoes": "hoe",
    "oboes": "oboe",
    "caches": "cache",
    "avocadoes": "avocado",
    "moustaches": "moustache",
    "mustaches": "mustache",
    "headaches": "headache",
    "quiches": "quiche",
    "brioches": "brioche",
}
#: Words with -f or -fe for -ves; all others have -ve (gloves, sleeves, stoves, olives, waves).
_VES_TO_F = {
    stem + "ves": stem + "f" for stem in "lea loa hal shel cal scar wol thie hoo el sel shea dwar bookshel".split()
}
_VES_TO_F |= {stem + "ves": stem + "fe" for stem in ("kni", "wi", "li", "jackkni", "midwi")}
#: Words with -ie for -ies; all others have -y (berries, puppies).
_IES_TO_IE = frozenset(
    "movies cookies ties pies brownies hoodies selfies zombies smoothies veggies birdies rookies pixies genies "
    "prairies bowties neckties magpies eyeries collies calories beanies onesies eeries lies dies".split()
)
#: Endings with -s for -ses; all others have -se (horses, vases, noses, houses).
_SES_TO_S = ("sses", "uses")
_USES_TO_USE = frozenset(
    "houses mouses blouses uses fuses muses causes spouses excuses greenhouses warehouses lighthouses".split()
)
#: Singular nouns in -s.
_SINGULAR_IN_S = frozenset(
    "bus gas lens canvas christmas atlas iris bias pancreas thermos rhinoceros chaos cosmos asbestos news series "
    "species is was has as us this his its always perhaps yes does goes swiss paris texas tennis pampas alas ms mrs "
    "walrus plus mathematics gymnastics athletics electronics ceramics kudos ethos pathos hers ours theirs billiards "
    "upstairs downstairs outdoors indoors towards besides afterwards sideways across".split()
)
#: Plural nouns without -s.
_PLURAL_WITHOUT_S = frozenset(
    {"people", "men", "women", "children", "feet", "teeth", "geese", "mice", "cattle", "dice", "oxen"}
)
#: Words in -men that are not plurals of -man.
_MEN_NOT_MAN = frozenset(
    {"specimen", "abdomen", "ramen", "omen", "semen", "regimen", "acumen", "hymen", "stamen", "bitumen"}
)
#: Uncountable nouns, without "a".
_MASS_NOUNS = frozenset(
    "air asparagus bread broccoli butter cardboard cattle cheese clothing corn cutlery dirt electronics equipment fog "
    "food fruit fruits fur furniture garlic glassware grass gravel ground hair hay ice jewelry jewellery juice "
    "lettuce luggage machinery meat milk mud okra paper pasta popcorn rice sand sea silverware sky snow soap spinach "
    "steam sugar sushi tennis toast toiletry traffic water wheat wood baozi billiards curling cosmetics celery "
    "cilantro parsley seaweed tofu yogurt smoke mulch moss foliage rubble straw".split()
)
_VOWEL = re.compile(r"[aeiou]")
#: Words that begin with a vowel letter but a consonant sound (you, w), and vice versa.
_CONSONANT_SOUND = re.compile(r"(uni(?![nm])|us[eua]|uri|uku|ute|uto|eu|ewe|one(?![a-z])|once|ouija|u-|ufo)")
_VOWEL_SOUND = re.compile(r"(hour|honest|honou?r|heir|x-|suv|hdmi)")


def singularize(word: str) -> str:
    """The singular of a lower-case word; a singular word is returned unchanged."""
    if word in _SINGULAR_IN_S or len(word) < 3:
        return word
    known = _IRREGULAR_SINGULARS.get(word) or _VES_TO_F.get(word)
    if known:
        return known
    if word.endswith("men") and word not in _MEN_NOT_MAN:
        return word[:-2] + "an"
    if not word.endswith("s") or word.endswith(("ss", "us", "is", "'s")):
        return word
    if word.endswith("ies"):
        return word[:-1] if word in _IES_TO_IE or len(word) < 5 else word[:-3] + "y"
    if word.endswith(_SES_TO_S) and word not in _USES_TO_USE:
        return word[:-2]
    if word.endswith(("xes", "ches", "shes", "zzes", "oes")):
        return word[:-2]
    return word[:-1]


def is_plural(noun: str) -> bool:
    """Whether a noun phrase is plural, by the last word before an "of" ("pairs of skis", "french fries")."""
    head = re.split(r" (?:of|for|with|in|on) ", noun)[0].split()[-1:]
    return bool(head) and (head[0] in _PLURAL_WITHOUT_S or singularize(head[0]) != head[0])


def with_article(noun: str) -> str:
    """The noun phrase with "a" or "an", or unchanged if it is plural or uncountable.

    Args:
        noun: lower case, with its adjectives: "orange cup", "french fries", "grass".
    """
    if not noun.strip() or is_plural(noun) or noun.split()[-1] in _MASS_NOUNS:
        return noun
    return f"{'an' if _starts_with_vowel_sound(noun) else 'a'} {noun}"


def _starts_with_vowel_sound(noun: str) -> bool:
    first = noun.split()[0]
    if not _VOWEL.search(first) and re.fullmatch(r"[a-z]{1,4}[0-9]*", first) and "y" not in first:
        return first[0] in "fhlmnrsx"  # initialisms are spelled out: an lcd, a tv
    if _VOWEL_SOUND.match(first):
        return True
    return first[0] in "aeiouáàâäéèêëíîïóôöúû8" and not _CONSONANT_SOUND.match(first)
