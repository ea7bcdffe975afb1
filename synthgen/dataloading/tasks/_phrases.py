"""Phrases of an object, for the tasks `referring` and `captioning`."""

from __future__ import annotations

from synthgen.dataloading.tasks._places import LabeledRegion


def collect_phrases(region: LabeledRegion) -> dict[str, str]:
    """The phrases of an object, each once, with spaces normalized."""
    found = (" ".join(caption.text.split()) for a in region.annotations for caption in a.captions)
    return {normalize_phrase(phrase): phrase for phrase in found if phrase}


def normalize_phrase(phrase: str) -> str:
    """The key by which phrases are compared: case is ignored."""
    return phrase.lower()
