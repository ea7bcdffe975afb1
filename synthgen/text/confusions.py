"""Data for `agreement`: words used interchangeably, words that exclude each other, and misspelled category names."""

from __future__ import annotations

#: Words for female and male people; a word of one set disagrees with a word of the other.
GENDERED_NOUNS = (
    frozenset("man boy son brother father husband he him king groom".split()),
    frozenset("woman girl daughter sister mother wife she her queen bride".split()),
)

#: Words that are used interchangeably or are ambiguous. No conclusion is drawn if one replaces another or a hyponym of
#: another. All words for people are treated the same way.
CONFUSABLE_GROUPS = (
    frozenset("cup bowl vase pot jar pitcher jug glass urn plate basin container".split()),
    frozenset("bottle jug flask jar".split()),
    frozenset(["drink", "cup", "glass", "bottle"]),
    frozenset("sink basin".split()),
    frozenset("desk desktop".split()),
    frozenset("car truck van suv trailer".split()),
    frozenset("bicycle scooter".split()),
    frozenset("motorcycle scooter".split()),
    frozenset("bicycle tricycle".split()),
    frozenset(["monitor", "tv", "computer", "laptop", "screen"]),
    frozenset("desk table counter dresser drawer nightstand cabinet shelf furniture".split()),
    frozenset(["jacket", "coat", "shirt", "sweater", "hoodie", "vest", "t shirt", "blouse", "suit", "uniform"]),
    frozenset(["pole", "post", "street light", "lamp", "traffic light"]),
    frozenset("lamp candle".split()),
    frozenset(["toy", "doll", "teddy bear", "action figure"]),
    frozenset("carpet floor tile".split()),
    frozenset(["sign", "picture", "billboard"]),
    frozenset("couch chair bench stool bed mattress ottoman".split()),
    frozenset("bag suitcase backpack handbag briefcase".split()),
    frozenset("blanket pillow towel carpet curtain".split()),
    frozenset("road sidewalk path".split()),
    frozenset("grass field plant tree bush flower".split()),
    frozenset("oven microwave toaster stove".split()),
    frozenset("surfboard snowboard skateboard ski".split()),
    frozenset(["ski", "ski pole"]),
    frozenset("hat helmet".split()),
    frozenset("glove mitt".split()),
    frozenset("deer antelope".split()),
    frozenset(["hot dog", "sausage", "sandwich"]),
    frozenset("sandwich bagel toast bread".split()),
    frozenset("cake pastry muffin bread".split()),
    frozenset("donut pastry".split()),
    frozenset("pie pastry".split()),
    frozenset("chip fry".split()),
    frozenset("toilet urinal".split()),
    frozenset(["clock", "clock tower"]),
    frozenset("kite parasail".split()),
    frozenset("umbrella canopy awning tent".split()),
    frozenset(["brush", "paint brush", "toothbrush", "broom"]),
    frozenset("sky cloud".split()),
    frozenset("sand beach".split()),
    frozenset("hand finger arm".split()),
    frozenset("head face hair".split()),
)

#: Words with a second meaning. No conclusion is drawn if one replaces the other or a hyponym of it.
AMBIGUOUS_NOUNS = {
    "fan": "person",
    "mouse": "animal",
    "crane": "bird",
    "glasses": "glass",
    "green vegetable": "vegetable",
}

#: Misspellings in data sets.
SPELLING_CORRECTIONS = {
    "moniter": "monitor",
    "bakset": "basket",
    "ballon": "balloon",
    "dinning": "dining",
    "campel": "camel",
    "buttefly": "butterfly",
    "mushroon": "mushroom",
    "noddles": "noodles",
    "teniis": "tennis",
    "extention": "extension",
    "measur": "measure",
    "hamimelon": "hami melon",
    "billards": "billiards",
    "hotair": "hot air",
    "skiboard": "ski",
    "unbrella": "umbrella",
    "cloths": "clothes",
}
