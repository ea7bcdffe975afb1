"""The training state in a checkpoint, and resuming from it."""

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
from synthgen.training.ema import ModelEma
from synthgen.training.learner import Learner

#: Seconds until a checkpoint written by rank 0 must be visible to all processes: file systems cache directories.
_VISIBILITY_TIMEOUT_SECONDS = 90


@dataclass(frozen=True, slots=True)
class ResumeState:
    """The state at which a run resumes.

    Attributes:
        step: number of completed steps.
        loader_state: position in the data; see `TrainLoader.state_dict`.
        best_score: best score of an evaluation; -inf = none yet.
        nonfinite_steps: number of last steps in a row that were skipped because of non-finite gradients.
    """

    step: int
    loader_state: Mapping[str, Any]
    best_score: float
    nonfinite_steps: int


def collect_training_state(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    ema: ModelEma | None,
    loader_state: Mapping[str, Any],
    best_score: float,
    nonfinite_steps: int,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights for inference, state for resuming).

    Args:
        learner: gives the network.
        optimizer: gives the moments.
        ema: gives the averages, which are then the weights for inference; None = the run has none.
        loader_state: the position in the data; see `TrainLoader.state_dict`.
        best_score: the best main value so far, which `best.pt` has; minus infinity before the first evaluation.
        nonfinite_steps: steps without a finite loss, in a row, up to now.
    """
    weights = checkpoint.checkpoint_state_dict(learner.module)
    kept: dict[str, Any] = {
        "optimiser": optimizer.state_dict(), "place": json.dumps(loader_state), "best": best_score,
        "unsound": nonfinite_steps,
    }  # fmt: skip
    if ema is not None:
        kept["weights"] = {name: weights[name] for name in ema.weights}
        weights = {**weights, **ema.weights}
    return weights, kept


def has_seen_masks(loader_state: Mapping[str, Any]) -> bool:
    """Whether any sample up to a `loader_state` had a mask."""
    return any(count.get("masks", 0) > 0 for seen in loader_state["seen"].values() for count in seen["counts"])


def restore_training_state(
    path: Path, learner: Learner, optimizer: torch.optim.Optimizer, ema: ModelEma | None
) -> ResumeState:
    """Restore the state of a run from its checkpoint.

    Args:
        path: the checkpoint; may appear with a delay on a network file system.
        learner: its network gets the weights.
        optimizer: gets the moments.
        ema: gets the averages; None = the run has none.

    Raises:
        SynthgenError: it cannot be read, or belongs to another run.
    """
    until = time.monotonic() + _VISIBILITY_TIMEOUT_SECONDS
    while not path.exists() and time.monotonic() < until:
        time.sleep(1)
    try:
        found = checkpoint.load_checkpoint(path)
    except SynthgenError as why:
        raise SynthgenError(f"{why}; if it cannot be mended, delete it, and the one before it is taken") from None
    weights = dict(found.weights)
    try:
        if found.kind != learner.kind or run_dir.checkpoint_path(path.parent, found.step) != path:
            raise ValueError("another run's")
        if ema is not None:
            ema.load(weights)
            learning = found.training_state["weights"]
            if learning.keys() != ema.weights.keys():
                raise ValueError("other parts are averaged")
            weights |= learning
        if weights.keys() != checkpoint.checkpoint_state_dict(learner.module).keys():
            raise ValueError("other parts")
        learner.module.load_state_dict(weights, strict=False)
        learner.has_learned_masks = found.has_learned_masks
        unsound = int(found.training_state.get("unsound", 0))
        if unsound < found.step:  # else all steps were skipped, and AdamW has no state
            _restore_optimizer(path, optimizer, found.training_state["optimiser"], found.step)
        place, best = json.loads(found.training_state["place"]), float(found.training_state["best"])
        if math.isnan(best) or not isinstance(place, dict):
            raise ValueError("no score, or no place")
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, RecursionError, OverflowError):
        raise SynthgenError(f"{path} does not fit its run; delete it, and the checkpoint before it is taken") from None
    return ResumeState(found.step, place, best, unsound)


def _restore_optimizer(
    path: Path, optimizer: torch.optim.Optimizer, saved_state: Mapping[str, Any], steps: int
) -> None:
    """Restore AdamW's moments of each parameter; learning rates follow from the manifest.

    Args:
        path: the checkpoint, for the message.
        optimizer: AdamW, without moments.
        saved_state: a `state_dict()` of it; untrusted.
        steps: completed steps; AdamW counts at most as many, those that were not skipped.

    Raises:
        SynthgenError: the parameters are the same but grouped differently, so moments cannot be assigned to them.
        ValueError: the moments do not fit the parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    mine, theirs = ([list(group["params"]) for group in groups] for groups in (own, saved_state["param_groups"]))
    if sum(map(len, mine)) != sum(map(len, theirs)):
        raise ValueError("other groups")
    if mine != theirs:
        raise SynthgenError(
            f"{path} is of a synthgen that grouped parameters otherwise (weight decay), and its training cannot go on "
            "here; end it with that version, or begin another --out with its weights (model.weights, captioner.weights "
            "or box_segmenter.weights)"
        )
    optimizer.load_state_dict({"state": saved_state["state"], "param_groups": own})
    if not optimizer.state:
        raise ValueError("no moments")
    for parameter, state in optimizer.state.items():
        fits = state["exp_avg"].shape == state["exp_avg_sq"].shape == parameter.shape and state["step"].dim() == 0
        if not fits or not 0 < float(state["step"]) <= steps:
            raise ValueError("moments of other parameters")
