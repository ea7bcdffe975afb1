"""What a manifest says of the network, the schedule and the readers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from synthgen.errors import did_you_mean
from synthgen.train.mistakes import have, short

#: Text encoders by name; anything with a slash is a folder.
TEXT_ENCODERS = ("clip_b", "clip_l")

_Count = Annotated[int, Field(ge=0)]


def _milestones(value: tuple[float, ...]) -> tuple[float, ...]:
    if list(value) != sorted(set(value)) or any(not 0 < share < 1 for share in value):
        raise ValueError(f"should be shares of the steps, each larger than the last, in (0, 1), got {list(value)}")
    return value


def _text_encoder(value: str) -> str:
    if "/" not in value and value not in TEXT_ENCODERS:
        raise ValueError(
            f"no text encoder named '{short(value)}'{did_you_mean(value, list(TEXT_ENCODERS)) or have(TEXT_ENCODERS)}, "
            "or a folder, with a slash in its name"
        )
    return value


class Section(BaseModel):
    """A part of a manifest: typed as it is written, closed to other keys, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=False)


class Model(Section):
    """The network; the defaults are the paper's ablation setting, with the smallest Swin.

    Attributes:
        queries: mixed, or one of the two kinds alone.
        text_encoder: one of `TEXT_ENCODERS`, or a folder.
    """

    backbone: Literal["resnet50", "swin_t", "swin_s", "swin_b", "swin_l"] = "swin_t"
    queries: Literal["mixed", "learnable", "conditional"] = "mixed"
    learnable_queries: _Count = 100
    conditional_queries: _Count = 300
    text_encoder: Annotated[str, AfterValidator(_text_encoder)] = "clip_b"

    @model_validator(mode="after")
    def _some_queries(self) -> Model:
        for kind, other in (("learnable", "conditional"), ("conditional", "learnable")):
            key = f"{kind}_queries"
            if self.queries in ("mixed", kind) and not getattr(self, key):
                raise ValueError(f"queries '{self.queries}' need {key} above 0; raise it, or choose queries: {other}")
            if self.queries == other and getattr(self, key) not in (0, type(self).model_fields[key].default):
                raise ValueError(f"queries '{other}' use no {key}; take it out, or choose queries: mixed")
        return self


class Schedule(Section):
    """How long and how fast; the defaults are the paper's and Mask DINO's.

    Attributes:
        steps: in all; the default is 50 epochs of COCO.
        batch_size: images a step, over all processes.
        milestones: after these shares of the steps, the learning rate is a tenth of what it was.
        clip: the largest norm of all gradients together; None = any.
        ema: decay of a moving average of the weights; None = none is kept.
        checkpoint_every: steps.
    """

    steps: Annotated[int, Field(ge=1)] = 184_375
    batch_size: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0)] = 2e-4
    backbone_lr: Annotated[float, Field(ge=0)] = 2e-5
    warmup_steps: _Count = 10
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    milestones: Annotated[tuple[float, ...], AfterValidator(_milestones)] = (0.9, 0.95)
    clip: Annotated[float | None, Field(gt=0)] = 0.01
    ema: Annotated[float | None, Field(gt=0, lt=1)] = None
    checkpoint_every: Annotated[int, Field(ge=1)] = 5_000

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Schedule:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} should be fewer than the steps, {self.steps}; lower it")
        return self


class Readers(Section):
    """How images are read; it changes no batch.

    Attributes:
        workers: processes that decode, for each training process; 0 = none of their own.
        cache_mib: decoded images are kept up to so many MiB a worker.
    """

    workers: Annotated[int, Field(ge=0, le=256)] = 4
    cache_mib: _Count = 0
