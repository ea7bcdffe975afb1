"""Options of plugins. A frozen dataclass declares each option once: its name, type, default and help.

The command line makes its flags from these classes (`flag=True`), and a job's recipe holds every option that is not
`runtime=True`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

#: Plugins that declare their options as keywords of `build` have no place for `runtime=True`; there the name decides.
KEYWORD_RUNTIME_OPTIONS = frozenset(
    {"device", "batch_size", "threads", "checkpoint", "compile", "box_chunk", "self_test"}
)

OptionValue = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """What is known of an option beside its name; see `option`."""

    default: OptionValue
    help: str = ""
    runtime: bool = False
    flag: bool = False
    metavar: str | None = None
    minimum: int | None = None


def option(
    default: OptionValue,
    *,
    help: str,
    runtime: bool = False,
    flag: bool = False,
    metavar: str | None = None,
    minimum: int | None = None,
) -> Any:
    """Declare one option as a field of a dataclass.

    Args:
        default: its type decides how text of the command line is read.
        help: what the option does, and what an empty default means.
        runtime: the option says where and how fast, not what, so it is not in a recipe. Another value may change the
            last bit of a float sum: a pixel on a mask's outline, a score's fourth decimal.
        flag: the command has `--name` for it; the default of a bool is then False. Every option can also be given as
            `-O name=value`.
        metavar: what the help shows for the value, e.g. "fp32|bf16".
        minimum: the smallest value that the flag accepts.
    """
    info = OptionInfo(default, help, runtime, flag, metavar, minimum)
    return dataclasses.field(default=default, metadata={"option": info})


def list_options(options_class: type) -> dict[str, OptionInfo]:
    """The options of a class, `options_class`, that are declared with `option`, by name."""
    fields = dataclasses.fields(options_class)
    return {field.name: field.metadata["option"] for field in fields if "option" in field.metadata}


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of all plugins that run a network on a device."""

    checkpoint: str = option("", runtime=True, flag=True, metavar="PATH", help="Weights")
    weights: str = option("", help="SHA-256 that the checkpoint must have; empty accepts any")
    precision: str = option(
        "fp32", flag=True, metavar="fp32|bf16", help="bf16 is several times as fast as fp32 on a GPU"
    )
    device: str = option("auto", runtime=True, flag=True, metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute")
    batch_size: str = option(
        "auto",
        runtime=True,
        flag=True,
        metavar="auto|N",
        help="Images per batch; auto goes by the device's free memory and halves the batch if memory runs out",
    )
    box_chunk: int = option(
        0, runtime=True, help="Boxes per forward pass, which bounds the memory; 0 chooses by the device's free memory"
    )
