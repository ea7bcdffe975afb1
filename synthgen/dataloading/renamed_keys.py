"""Manifest keys that were renamed. Older manifests, runs and checkpoints still have the old names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: New names by old name, for the manifest itself ("") and for each of its sections.
RENAMED_KEYS: Mapping[str, Mapping[str, str]] = {
    "": {"readers": "dataloader"},
    "augment": {
        "crop_semantic": "semantic_crop_size",
        "semantic_long": "semantic_max_size",
        "semantic_colours": "semantic_color_jitter",
    },
    "model": {
        "denoising": "denoising_groups",
        "dim": "hidden_dim",
        "levels": "num_feature_levels",
        "encoder_feedforward": "encoder_dim_feedforward",
    },
    "captioner": {"words": "tokenizer", "train_words": "train_embeddings", "regions": "regions_per_image"},
    "box_segmenter": {},
    "schedule": {
        "accumulate": "accumulation_steps",
        "clip": "max_grad_norm",
        "ema": "ema_decay",
        "checkpointing": "activation_checkpointing",
        "keep": "keep_checkpoints",
    },
    "dataloader": {"workers": "num_workers"},
}


def rename_manifest_keys(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the new key names; its values are not checked.

    A key that is there under both names keeps both, so that validation reports the old one.
    """
    renamed = rename_section_keys("", manifest)
    return {
        key: rename_section_keys(key, value) if key in RENAMED_KEYS and isinstance(value, Mapping) else value
        for key, value in renamed.items()
    }


def rename_section_keys(section: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A section with the new key names; see `rename_manifest_keys`.

    Args:
        section: the section's name, a key of `RENAMED_KEYS`.
        content: the section as read; it may have old and new names.
    """
    names = {old: new for old, new in RENAMED_KEYS[section].items() if new not in content}
    return {names.get(key, key): value for key, value in content.items()}


def find_renamed_keys(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(old name, new name) of each key of a manifest that was renamed, such as "schedule.clip"."""
    for old, new in RENAMED_KEYS[""].items():
        if old in manifest and new not in manifest:
            yield old, new
    for section, content in rename_section_keys("", manifest).items():
        if section in RENAMED_KEYS and isinstance(content, Mapping):
            for old, new in RENAMED_KEYS[section].items():
                if old in content and new not in content:
                    yield f"{section}.{old}", f"{section}.{new}"
