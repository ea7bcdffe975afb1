"""Checks that a manifest trains one network, and that all its keys have an effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synthgen.dataloading.manifest_errors import Location, ManifestIssue

#: The section of the network that each task trains. All other tasks train `model`.
NETWORK_BY_TASK = {"captioning": "captioner", "box_prompt": "box_segmenter"}

#: Keys of a manifest that have no effect on a network, and the reason.
_INEFFECTIVE_KEYS: Mapping[str, Mapping[str, str]] = {
    "captioner": dict.fromkeys(("augment", "eval_size"), "a captioner sees whole images, stretched to its image_size"),
    "box_segmenter": {"eval_size": "a box segmenter sees crops of the image file around boxes"},
}


def check_network_consistency(document: Mapping[str, Any], tasks: Mapping[Location, str]) -> Iterator[ManifestIssue]:
    """Check that a manifest trains one network, that its tasks train this one, and that its other keys have an effect.

    Args:
        document: the manifest as read from YAML.
        tasks: of its sources and evaluated layers, by location in the manifest.
    """
    named = [section for section in _INEFFECTIVE_KEYS if document.get(section) is not None]
    trained = named[0] if named else "model"
    for at, task in tasks.items():
        own = NETWORK_BY_TASK.get(task.replace("-", "_"), "model")
        if own != trained:
            fits = next((name for name, section in NETWORK_BY_TASK.items() if section == trained), None)
            problem = (
                f"no {_spell(trained)}; name '{fits}'" if fits else f"a {_spell(own)}; say {own}: {{}}, or more of it"
            )
            yield ManifestIssue((*at, "task"), f"'{task}' trains {problem}")
    if not named:
        return
    for other in ("model", *named[1:]):
        if other in document:
            yield ManifestIssue(
                (other,), f"is one network and {trained}: another, and one is trained; take the other out"
            )
    ineffective = _INEFFECTIVE_KEYS[trained]
    for key, why in ineffective.items():
        if key in document:
            yield ManifestIssue((key,), f"changes nothing, as {why}; take it out")
    entries = document["eval"] if isinstance(document.get("eval"), list) else []
    for i, entry in enumerate(entries):
        if isinstance(entry, Mapping) and entry.get("size") is not None:
            yield ManifestIssue(("eval", i, "size"), f"changes nothing, as {ineffective['eval_size']}; take it out")
    schedule = document.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("compile"):
        problem = f"compiles layers that a {_spell(trained)} does not have; take it out"
        yield ManifestIssue(("schedule", "compile"), problem)
    if isinstance(schedule, Mapping) and trained == "box_segmenter":
        for key in ("activation_checkpointing", "mask_points", "text_encoder_lr"):
            if key in schedule:
                yield ManifestIssue(("schedule", key), "changes nothing for a box segmenter; take it out")


def _spell(section: str) -> str:
    return section.replace("_", " ")
