"""What the model saw: counts by source, small enough to travel with every batch, and a table of them for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from synthgen.errors import printable

#: Of images that could not be used, so many are named for each source.
NAMED = 20

#: What is counted of the images that became part of a batch:
COUNTED = {
    "images": "images",
    "objects": "objects, regions or phrases in them, as far as they are in view",
    "masks": "those with a mask to learn from",
    "captions": "those under a phrase of somebody's instead of their category",
    "unseen": "objects that the view of their image left nothing of",
    "ignored": "images with a region in view from which no absence is learned",
}

#: Images that were passed over: "skipped/error" and so on.
SKIPPED = {
    "error": "have an error in their layer",
    "excluded": "are on a list of `exclude:`",
    "nothing": "hold nothing that the task learns",
    "unreadable": "could not be read",
    "broken": "have annotations that contradict themselves",
}


class Seen:
    """Counts by source. A reader counts, and `take`s what came since the last batch; the main process `add`s that up.

    Keys are those of `COUNTED`, "skipped/" and one of `SKIPPED`, and those of `thresholds.accepted`: "mask/REASON" and
    "caption/REASON" for what was refused of the images that were seen.

    Attributes:
        sources: what each source is called.
        counts: for each of them.
        names: for each of them, the first images that could not be read or were broken, with the reason.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.sources = tuple(sources)
        self.counts: list[Counter[str]] = [Counter() for _ in sources]
        self.names: list[list[str]] = [[] for _ in sources]
        self._told = [0] * len(self.sources)

    def count(self, source: int, more: Mapping[str, int]) -> None:
        """Add to the counts of a source."""
        self.counts[source].update(more)

    def name(self, source: int, name: str) -> None:
        """Name an image that could not be used, unless enough are named."""
        if self._told[source] < NAMED:
            self._told[source] += 1
            self.names[source].append(printable(name)[:300])

    def take(self) -> dict[str, Any]:
        """What was counted since the last `take`: `state`, which it empties."""
        taken = self.state()
        for count, names in zip(self.counts, self.names, strict=True):
            count.clear()
            names.clear()
        return taken

    def add(self, taken: Mapping[str, Any]) -> None:
        """Add what a reader took, or an earlier `state`."""
        for i, (more, names) in enumerate(zip(taken["counts"], taken["names"], strict=True)):
            self.count(i, more)
            for name in names:
                self.name(i, name)

    def state(self) -> dict[str, Any]:
        """All of it, as plain JSON."""
        return {
            "counts": [dict(sorted((+count).items())) for count in self.counts],
            "names": [list(names) for names in self.names],
        }

    def lines(self) -> list[str]:
        """A table for people: a line a source, and below it what was refused and passed over, and why."""
        total = sum(count["images"] for count in self.counts)
        width = max(map(len, self.sources), default=0)
        lines = [f"{'what the model saw':<{width}}    share" + "".join(f"{key:>12}" for key in COUNTED)]
        for source, count, names in zip(self.sources, self.counts, self.names, strict=True):
            share = f"{100 * count['images'] / max(total, 1):6.2f} %"
            lines.append(f"{source:<{width}} {share}" + "".join(f"{count[key]:>12,}" for key in COUNTED))
            for kind, words in (("mask", "masks refused"), ("caption", "captions refused"), ("skipped", "passed over")):
                reasons = {key.partition("/")[2]: n for key, n in sorted(count.items()) if key.startswith(f"{kind}/")}
                if reasons:
                    told = ", ".join(f"{n:,} {SKIPPED.get(reason, reason)}" for reason, n in reasons.items())
                    lines.append(f"  {words}: {told}")
            lines += [f"    {name}" for name in names]
            unnamed = count["skipped/unreadable"] + count["skipped/broken"] - len(names)
            if names and unnamed > 0:
                lines.append(f"    and {unnamed:,} more")
        return lines
