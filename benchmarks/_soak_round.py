"""One round of soak.py: a store, the commands that a fault disturbs, and what they must do."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import _soak_runs as runs
import _soak_world as worlds
from _soak_runs import Ended, Prepare
from _soak_world import LAYERS, STAGES, World

#: How a round may end.
RECOVERED = "recovered by the same command"
NAMED = "named with a reason, recovered by the same command after the repair"
REFUSED = "refused with a sentence, recovered by the same command after the file was deleted"
IGNORED = "named by `status` and `verify`, and ignored"
DAMAGED = "named by `verify`, recovered by the same command after the file was deleted"
HARMLESS = "no row changed"


class FindingError(Exception):
    """A promise was not kept."""


@dataclass
class Round:
    """One fault, and the commands that it disturbs.

    Attributes:
        plugins: the stages, and the options that name their plugins; () = the usual ones.
        reference: the store of an undisturbed run of these.
        tried: how often the fault was injected.
    """

    world: World
    folder: Path
    rng: random.Random
    plugins: dict[str, tuple[object, ...]] = field(default_factory=lambda: dict.fromkeys(STAGES, ()))
    reference: Path = field(init=False)
    photos: Path = field(init=False)
    store: Path = field(init=False)
    tried: int = 0

    def __post_init__(self) -> None:
        self.reference, self.photos, self.store = self.world.calm, self.world.photos, self.folder / "store"
        self.folder.mkdir(parents=True)

    def start(self, stage: str, *more: object, prepare: Sequence[Prepare] = (), name: str = "output") -> runs.Running:
        words = [*self.world.words(stage, self.store, self.photos, self.plugins.get(stage, ())), *more]
        with (self.folder / "commands.txt").open("a") as file:
            print(*words, file=file)
        return runs.Running(words, self.folder / f"{name}.txt", prepare)

    def run(self, stage: str, *more: object, codes: Sequence[int], prepare: Sequence[Prepare] = ()) -> Ended:
        return self.expect(stage, self.start(stage, *more, prepare=prepare).wait(), codes)

    def inspect(self, *words: object, codes: Sequence[int]) -> Ended:
        """Run a command that reads the store only."""
        output = self.folder / "inspection.txt"
        return self.expect(words[0], runs.Running([*words, "--store", self.store], output).wait(), codes)

    def expect(self, what: object, ended: Ended, codes: Sequence[int]) -> Ended:
        """Check an exit code, and that there is no traceback."""
        if ended.code is None:
            raise FindingError(f"{what} hung:\n{ended.text}")
        if ended.code not in codes:
            raise FindingError(f"{what} ended with {ended.code} instead of {list(codes)}:\n{ended.text}")
        if "Traceback" in ended.text:
            raise FindingError(f"{what} printed a traceback:\n{ended.text}")
        return ended

    def copy_layers(self, *layers: str) -> None:
        for layer in layers:
            worlds.copy_layer(self.world, self.store, layer)

    def begin_stage(self) -> str:
        """A stage whose input is there."""
        place = self.rng.randrange(len(STAGES))
        self.copy_layers(*LAYERS[:place])
        self.store.mkdir(exist_ok=True)
        return STAGES[place]

    def check(self, found: Sequence[str]) -> None:
        """Raise a finding if there is one."""
        if found:
            raise FindingError("; ".join(found[:5]))

    def check_says(self, ended: Ended, *words: str) -> None:
        """Check that a command has said something."""
        text = " ".join(ended.text.split())
        self.check([f"no '{word}' in: {ended.text}" for word in words if word not in text])

    def random_change(self, stage: str) -> int:
        return self.rng.randint(1, self.world.changes[stage])

    def signal_at_change(self, stage: str, number: int) -> Prepare:
        """A signal just before a random change of the store, or within two milliseconds after that."""
        soon = runs.send_to_itself_soon(number, self.rng.random() * 0.002)
        do = runs.send_to_itself(number) if self.rng.random() < 0.5 else soon
        return runs.at_change(self.random_change(stage), self.store, do)

    def wait_a_while(self, stage: str) -> None:
        time.sleep(self.rng.random() * self.world.seconds[stage])
