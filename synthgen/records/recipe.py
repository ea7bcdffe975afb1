"""Recipes: what decides a shard's bytes, as plain JSON. Each footer holds one, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint(recipe: dict[str, Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of a recipe's canonical JSON."""
    text = json.dumps(recipe, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def in_words(recipe: dict[str, Any]) -> str:
    """A recipe as a person would say it: "grabcut iterations=3", "ingest of coco"."""
    if "plugin" not in recipe:
        return f"{recipe.get('stage', 'unknown')} of {recipe.get('dataset', 'unknown')}"
    options = (f"{key}={value}" for key, value in sorted(recipe.get("options", {}).items()))
    return " ".join([recipe["plugin"], *options])
