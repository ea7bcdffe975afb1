"""What of a run goes into a checkpoint beside the weights that predict, and how it goes on from there."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthgen.checkpoints import checkpoint
from synthgen.errors import SynthgenError
from synthgen.training import run_dir
from synthgen.training.learner import Learner
from synthgen.training.optimizer import Average

#: Seconds in which a checkpoint that the first process sees is to be seen by all: file systems remember folders.
_SEEN_BY_ALL = 90


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a run goes on.

    Attributes:
        step: so many are learned.
        place: in the data; see `loader.Loader.state`.
        best: the best score of an evaluation; -inf where there was none.
        unsound: the last so many steps changed nothing, as their gradients were no numbers.
    """

    step: int
    place: Mapping[str, Any]
    best: float
    unsound: int


def training(
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    average: Average | None,
    place: Mapping[str, Any],
    best: float,
    unsound: int,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(the weights that predict, what it takes to learn on)."""
    weights = checkpoint.learned(learner.module)
    kept: dict[str, Any] = {
        "optimiser": optimiser.state_dict(), "place": json.dumps(place), "best": best, "unsound": unsound,
    }  # fmt: skip
    if average is not None:
        kept["weights"] = {name: weights[name] for name in average.weights}
        weights = {**weights, **average.weights}
    return weights, kept


def saw_masks(place: Mapping[str, Any]) -> bool:
    """Whether there was a mask to learn from in what a run saw before it came to a place in the data."""
    return any(count.get("masks", 0) > 0 for seen in place["seen"].values() for count in seen["counts"])


def resume(path: Path, learner: Learner, optimiser: torch.optim.Optimizer, average: Average | None) -> Resumed:
    """Put all that a checkpoint of the same run kept back where it was.

    Raises:
        SynthgenError: it cannot be read, or is not of this run.
    """
    until = time.monotonic() + _SEEN_BY_ALL
    while not path.exists() and time.monotonic() < until:
        time.sleep(1)
    try:
        found = checkpoint.read(path)
    except SynthgenError as why:
        raise SynthgenError(f"{why}; if it cannot be mended, delete it, and the one before it is taken") from None
    weights = dict(found.weights)
    try:
        if found.kind != learner.kind or run_dir.checkpoint(path.parent, found.step) != path:
            raise ValueError("another run's")
        if average is not None:
            average.load(weights)
            learning = found.training["weights"]
            if learning.keys() != average.weights.keys():
                raise ValueError("other parts are averaged")
            weights |= learning
        if weights.keys() != checkpoint.learned(learner.module).keys():
            raise ValueError("other parts")
        learner.module.load_state_dict(weights, strict=False)
        learner.masks = found.masks
        unsound = int(found.training.get("unsound", 0))
        if unsound < found.step:  # else nothing has moved yet
            _moments(path, optimiser, found.training["optimiser"])
        place, best = json.loads(found.training["place"]), float(found.training["best"])
        if math.isnan(best) or not isinstance(place, dict):
            raise ValueError("no score, or no place")
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, RecursionError, OverflowError):
        raise SynthgenError(f"{path} does not fit its run; delete it, and the checkpoint before it is taken") from None
    return Resumed(found.step, place, best, unsound)


def _moments(path: Path, optimiser: torch.optim.Optimizer, kept: Mapping[str, Any]) -> None:
    """Put back what AdamW remembers of each parameter; its rates follow from the manifest.

    Raises:
        SynthgenError: the parameters are the same, and were grouped by other rules, so that nobody knows whose is what.
    """
    own = optimiser.state_dict()["param_groups"]
    mine, theirs = ([list(group["params"]) for group in groups] for groups in (own, kept["param_groups"]))
    if sum(map(len, mine)) != sum(map(len, theirs)):
        raise ValueError("other groups")
    if mine != theirs:
        raise SynthgenError(
            f"{path} is of a synthgen that grouped parameters otherwise (weight decay), and its training cannot go on "
            "here; end it with that version, or begin another --out with its weights (model.weights, captioner.weights)"
        )
    optimiser.load_state_dict({"state": kept["state"], "param_groups": own})
    if not optimiser.state:
        raise ValueError("no moments")
    for parameter, state in optimiser.state.items():
        fits = state["exp_avg"].shape == state["exp_avg_sq"].shape == parameter.shape and state["step"].dim() == 0
        if not fits:
            raise ValueError("moments of other parameters")
