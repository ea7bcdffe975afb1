"""Recipes: the settings that determine a shard's bytes, as plain JSON, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def fingerprint(recipe: dict[str, Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of a recipe's canonical JSON."""
    text = json.dumps(recipe, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def format_recipe(recipe: dict[str, Any]) -> str:
    """A recipe as short text: "grabcut iterations=3", "ingest of coco". Long values are cut."""
    if "plugin" not in recipe:
        return f"{recipe.get('stage', 'unknown')} of {recipe.get('dataset', 'unknown')}"
    options = {**recipe.get("stage_options", {}), **recipe.get("options", {})}
    return " ".join([recipe["plugin"], *(f"{key}={_shorten(value)}" for key, value in sorted(options.items()))])


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:30]}...{fingerprint({'value': text})[:8]}"


def source_members(footer: Mapping[str, Any]) -> dict[str, Any]:
    """What a footer says about the source's file. Each layer made from it repeats it."""
    kept = {key: footer[key] for key in ("category_records", "licenses") if key in footer}
    return {"categories": footer.get("categories", []), **kept}
