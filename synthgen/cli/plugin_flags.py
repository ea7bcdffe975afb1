"""Flags of the commands that stand for options of plugins and stages, made from their options classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from synthgen import plugins
from synthgen.plugin_options import OptionInfo, list_options

if TYPE_CHECKING:
    from synthgen.compat import Context, HelpFormatter

#: Heading of the options that only `--engine ray` accepts.
RAY_PANEL = "With --engine ray"


class GroupedCommand(TyperCommand):
    """A command whose help has one section for each group of options. Those of Ray are shown where Ray is used."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write a section for each `rich_help_panel`."""
        engine = ctx.params.get("engine") or ctx.lookup_default("engine")
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            panel = getattr(param, "rich_help_panel", None) or "Options"
            if (record := param.get_help_record(ctx)) and (panel != RAY_PANEL or engine == "ray"):
                sections.setdefault(panel, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def add_flags(**groups: list[inspect.Parameter]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: its parameter `NAME` becomes the flags of the group `NAME`.

    For the parameter, the command receives a dictionary with the values that were given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            for group, flags in groups.items():
                given = {flag.name: values.pop(flag.name) for flag in flags}
                values[group] = {name: value for name, value in given.items() if value is not None}
            command(**values)

        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            parameters += groups.get(parameter.name, [parameter])
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def plugin_flags(package: str) -> list[inspect.Parameter]:
    """One flag for each option that plugins of a folder mark with `flag`; options of one name share a flag."""
    classes = plugins.list_flag_options(package)
    found: dict[str, dict[str, OptionInfo]] = {}
    for plugin, options_class in classes.items():
        for name, info in list_options(options_class).items():
            if info.flag:
                found.setdefault(name, {})[plugin] = info
    return [
        _make_flag(name, classes[next(iter(by_plugin))], by_plugin, panel=f"Options of {' and '.join(by_plugin)}")
        for name, by_plugin in found.items()
    ]


def stage_flags(stage: str) -> list[inspect.Parameter]:
    """One flag for each option of a stage."""
    options_class = plugins.list_flag_options("generate.stages")[stage]
    return [
        _make_flag(name, options_class, {stage: info}, panel=None) for name, info in list_options(options_class).items()
    ]


def _make_flag(
    name: str, options_class: type, by_plugin: Mapping[str, OptionInfo], *, panel: str | None
) -> inspect.Parameter:
    """The parameter of a command for one option. None = not given, so that the default of the option holds."""
    first = next(iter(by_plugin.values()))
    kind: Any = get_type_hints(options_class)[name]
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        metavar=first.metavar,
        min=first.minimum,
        help=_describe_flag(by_plugin),
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Annotated[kind | None, option]
    )


def _describe_flag(by_plugin: Mapping[str, OptionInfo]) -> str:
    """Help and default; one for each plugin where they differ."""
    helps = {plugin: info.help for plugin, info in by_plugin.items()}
    text = _join_texts(helps.values(), [f"{plugin}: {text}" for plugin, text in helps.items()], "; ")
    defaults = {
        plugin: str(info.default) for plugin, info in by_plugin.items() if info.default not in ("", False, None)
    }
    if not defaults:
        return text
    default = _join_texts(defaults.values(), [f"{value} with {plugin}" for plugin, value in defaults.items()], ", ")
    return f"{text} (default: {default})"


def _join_texts(texts: Iterable[str], labeled: Sequence[str], separator: str) -> str:
    """The one text of all plugins, or the labeled texts where they differ."""
    distinct = set(texts)
    return distinct.pop() if len(distinct) == 1 else separator.join(labeled)


def describe_plugins(package: str, *, weights: str) -> str:
    """The plugins of a folder in a sentence for the help: the choice of `auto`, with weights, and without.

    Args:
        package: plugin folder, such as "generate.segmenters".
        weights: what is said of plugins with the option `checkpoint`.
    """
    options = plugins.list_flag_options(package)
    with_weights = [name for name, own in options.items() if "checkpoint" in list_options(own)]
    without = [name for name in plugins.list_plugins(package) if name not in with_weights]
    return (
        "auto (that of the layer if it is begun, else the best one whose weights are on this machine; downloads "
        f"nothing); {', '.join(with_weights)} ({weights}); {', '.join(without)} (no weights); or "
        "package.module of your own"
    )


def describe_datasets() -> str:
    """The datasets that synthgen reads, in a sentence for the help."""
    names = ", ".join(name.replace("_", "-") for name in plugins.list_plugins("formats.readers"))
    return (
        f"{names}. For your own data: coco-json with --annotations FILE; foreground or semantic-folder with "
        "--annotations FOLDER; or package.module of your own"
    )
