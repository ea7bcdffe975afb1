"""Counts of the samples that the model saw, by source, and a table of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from synthgen.errors import escape_control_chars

#: Maximum number of unusable images that are named for each source.
MAX_NAMED_FAILURES = 20

#: Counts of the images in batches:
COUNTERS = {
    "images": "images",
    "objects": "objects, regions or phrases in them, as far as they are in view",
    "masks": "those with a mask to learn from",
    "captions": "those under a phrase of somebody's instead of their category",
    "unseen": "objects that the view of their image left nothing of",
    "ignored": "images with a region in view from which no absence is learned",
}

#: Reasons of skipped images: "skipped/error" and so on.
SKIP_REASONS = {
    "error": "have an error in their layer",
    "excluded": "are on a list of `exclude:`",
    "nothing": "hold nothing that the task learns",
    "unreadable": "could not be read",
    "broken": "have annotations that contradict themselves",
}


class SampleStats:
    """Counts by source. Readers send `pop_state` with each batch; the main process adds it with `merge_state`.

    Keys are those of `COUNTERS`, "skipped/" and one of `SKIP_REASONS`, and those of `filters.apply_filters`:
    "mask/REASON" and "caption/REASON" for what the filters rejected in the images of batches.

    Args:
        source_names: unique names, in the order of the manifest.

    Attributes:
        source_names: the name of each source.
        counts: the counts of each source.
        failures: for each source, the first unusable images, with the reason.
    """

    def __init__(self, source_names: Sequence[str]) -> None:
        self.source_names = tuple(source_names)
        self.counts: list[Counter[str]] = [Counter() for _ in source_names]
        self.failures: list[list[str]] = [[] for _ in source_names]
        self._num_failures = [0] * len(self.source_names)

    def count(self, source_id: int, counts: Mapping[str, int]) -> None:
        """Add `counts`, numbers by name, to the source with index `source_id`."""
        self.counts[source_id].update(counts)

    def record_failure(self, source_id: int, message: str) -> None:
        """Record an unusable image, up to `MAX_NAMED_FAILURES` per source.

        Args:
            source_id: the index of the image's source.
            message: the reason, which names the image; it is shortened to 300 characters.
        """
        if self._num_failures[source_id] < MAX_NAMED_FAILURES:
            self._num_failures[source_id] += 1
            self.failures[source_id].append(escape_control_chars(message)[:300])

    def pop_state(self) -> dict[str, Any]:
        """The counts since the last `pop_state`, in the form of `state_dict`; resets them."""
        taken = self.state_dict()
        for count, names in zip(self.counts, self.failures, strict=True):
            count.clear()
            names.clear()
        return taken

    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Add the counts of a reader, or an earlier `state_dict`; `state` has the form of `state_dict`."""
        for i, (more, names) in enumerate(zip(state["counts"], state["names"], strict=True)):
            self.count(i, more)
            for name in names:
                self.record_failure(i, name)

    def state_dict(self) -> dict[str, Any]:
        """All counts as plain JSON."""
        return {
            "counts": [dict(sorted((+count).items())) for count in self.counts],
            "names": [list(names) for names in self.failures],
        }

    def format_table(self) -> list[str]:
        """A table with one row per source, then the rejected and skipped samples with reasons."""
        total = sum(count["images"] for count in self.counts)
        width = max(map(len, self.source_names), default=0)
        lines = [f"{'what the model saw':<{width}}    share" + "".join(f"{key:>12}" for key in COUNTERS)]
        for source, count, names in zip(self.source_names, self.counts, self.failures, strict=True):
            share = f"{100 * count['images'] / max(total, 1):6.2f} %"
            lines.append(f"{source:<{width}} {share}" + "".join(f"{count[key]:>12,}" for key in COUNTERS))
            for kind, words in (("mask", "masks refused"), ("caption", "captions refused"), ("skipped", "passed over")):
                reasons = {key.partition("/")[2]: n for key, n in sorted(count.items()) if key.startswith(f"{kind}/")}
                if reasons:
                    listed = ", ".join(f"{n:,} {SKIP_REASONS.get(reason, reason)}" for reason, n in reasons.items())
                    lines.append(f"  {words}: {listed}")
            lines += [f"    {name}" for name in names]
            unnamed = count["skipped/unreadable"] + count["skipped/broken"] - len(names)
            if names and unnamed > 0:
                lines.append(f"    and {unnamed:,} more")
        return lines
