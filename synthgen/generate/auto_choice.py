"""Chooses the plugin of `--segmenter auto` and `--captioner auto`, before a job is created.

A layer that is begun keeps its plugin. Else the choice is the best plugin whose weights are on this machine, and
without weights the `DEFAULT_PLUGIN` of the stage. A job by `auto` is the job that names the plugin: `auto` is not in a
recipe. Nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate.dataset_spec import DatasetSpec
from synthgen.records.recipe import format_recipe
from synthgen.storage.shard_store import ShardStore
from synthgen.weights import LocalWeights, weights_folder

#: The name that asks for a choice. It is not a plugin.
AUTO = "auto"

#: A plugin name of a recipe is quoted up to so many characters.
_MAX_NAME_CHARS = 100


@dataclass(frozen=True, slots=True)
class PluginChoice:
    """The plugin of a job.

    Attributes:
        plugin: its name.
        options: those that the user gives, and those that choose the weights.
        sentence: what was chosen, why, and how to choose another; "" where the user names the plugin.
    """

    plugin: str
    options: dict[str, Any]
    sentence: str = ""


def choose_plugin(name: str, options: Mapping[str, Any], *, stage: str) -> PluginChoice:
    """The plugin of a stage without a layer: the one that the user names, or the choice of `auto`.

    Args:
        name: a plugin, or `AUTO`.
        options: those that the user gives; only plugins that take them are chosen.
        stage: a plugin of `generate.stages`, such as "masks".
    """
    if name != AUTO:
        return PluginChoice(name, dict(options))
    stage_module: Any = plugins.load_plugin("generate.stages", stage)
    return _choose_best(stage_module.PLUGIN_PACKAGE, stage_module.DEFAULT_PLUGIN, options)


def choose_plugins(
    name: str,
    options: Mapping[str, Any],
    *,
    stage: str,
    specs: Sequence[DatasetSpec],
    store: Path,
    layer: str,
    part: tuple[int, int] = (0, 1),
) -> list[PluginChoice]:
    """The plugin of a stage for each split of a dataset: the one that the user names, or the choice of `auto`.

    Splits whose layer is not begun get the plugin of the first split whose layer is begun, so that all have one.

    Args:
        name: a plugin, or `AUTO`.
        options: those that the user gives; only plugins that take them are chosen.
        stage: a plugin of `generate.stages`, such as "masks".
        specs: one for each split.
        store: root folder of the shards.
        layer: the layer to write.
        part: (i, n), as of `pending_shards`.

    Raises:
        SynthgenError: the plugin of a begun layer is not on this machine; or the run is one part of several over a
            layer that is not begun, for which another machine may choose another plugin.
    """
    if name != AUTO:
        return [PluginChoice(name, dict(options)) for _ in specs]
    stage_module: Any = plugins.load_plugin("generate.stages", stage)
    package: str = stage_module.PLUGIN_PACKAGE
    kept: list[PluginChoice | None] = []
    for spec in specs:
        recipe = _read_recipe(ShardStore(store), spec, stage, layer)
        place = f"{spec.name}/{spec.split}/{layer}"
        kept.append(None if recipe is None else _continue_layer(package, place, recipe, options))
    choice = next((one for one in kept if one is not None), None)
    if choice is None:
        choice = choose_plugin(name, options, stage=stage)
        if part[1] > 1:
            kind, flags = plugins.plugin_kind(package), _format_flags(package, choice, options)
            raise SynthgenError(
                f"--part {part[0]}/{part[1]} of a new layer needs a named {kind}, because parts on machines with other "
                f"weights would choose another one; add {flags}"
            )
    return [one or choice for one in kept]


def _format_flags(package: str, choice: PluginChoice, given: Mapping[str, Any]) -> str:
    """The flags that name what was chosen: "--segmenter sam --variant vit_b"."""
    own = [(key, value) for key, value in choice.options.items() if key not in given and value]
    named = [(plugins.plugin_kind(package), choice.plugin), *own]
    return " ".join(f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in named)


def _read_recipe(store: ShardStore, spec: DatasetSpec, stage: str, layer: str) -> dict[str, Any] | None:
    """The recipe of the first committed shard of a layer; None if the layer is not begun, or not by this stage."""
    for shard in store.list_shards(spec.name, spec.split, layer)[:1]:
        recipe = (store.read_footer(shard) or {}).get("recipe")
        if (
            isinstance(recipe, dict)
            and recipe.get("stage") == stage
            and isinstance(recipe.get("plugin"), str)
            and isinstance(recipe.get("options"), dict)
        ):
            return recipe
    return None


def _continue_layer(package: str, place: str, recipe: dict[str, Any], given: Mapping[str, Any]) -> PluginChoice:
    """The plugin of a begun layer, with the options of its recipe. The recipe comes from a file and is not trusted.

    Options that the user gives replace those of the recipe. If they differ, the job is refused later, as any job with
    another recipe than its layer.

    Args:
        package: plugin folder, such as "generate.segmenters".
        place: DATASET/SPLIT/LAYER, for messages.
        recipe: of the layer.
        given: options that the user gives.

    Raises:
        SynthgenError: it is not a plugin of the folder, or its weights are not on this machine.
    """
    kind, plugin = plugins.plugin_kind(package), recipe["plugin"]
    if plugin not in plugins.list_plugins(package):  # a file must not decide which module is imported
        short = plugin if len(plugin) < _MAX_NAME_CHARS else f"{plugin[:_MAX_NAME_CHARS]}..."
        raise SynthgenError(
            f"{place} was made by the {kind} {short}, which is not part of synthgen; add --{kind} "
            f"{shlex.quote(short)} and the options that it was made with to continue it, or choose another --layer"
        )
    options = _trusted_options(package, plugin, recipe["options"])
    sentence = f"{kind}: {plugin}, as in {place}; another --{kind} needs another --layer"
    module = plugins.list_weights_modules(package).get(plugin)
    if module is None:
        return PluginChoice(plugin, {**options, **given}, sentence)
    expected = options.pop("weights", None)
    if "checkpoint" in given:  # the user says where the weights are
        return PluginChoice(plugin, {**options, **given}, sentence)
    for local in module.list_local_weights():
        own = {**options, **local.options}
        try:
            found = plugins.resolve_options(package, plugin, own).get("weights")
        except SynthgenError:  # an incomplete folder, or another model
            continue
        if found == expected:
            return PluginChoice(plugin, {**own, **given}, sentence)
    made_by = format_recipe({"plugin": plugin, "options": options})
    fields = _list_fields(package, plugin)
    flags = [f"-O {k}={v}" for k, v in options.items() if k != "variant" and v != fields[k].default]
    remedy = module.how_to_get({**options, "weights": expected}) + (
        f", together with {' '.join(flags)}" if flags else ""
    )
    raise SynthgenError(
        f"{place} was made with {made_by}, and its weights are not in {weights_folder()}; {remedy}, or choose another "
        "--layer"
    )


def _trusted_options(package: str, plugin: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe that the plugin knows, of the right type; none that names a file or a device."""
    defaults = {key: field.default for key, field in _list_fields(package, plugin).items()}
    for key in plugins.runtime_options(package, plugin):
        defaults.pop(key, None)
    return {key: value for key, value in stored.items() if key in defaults and type(value) is type(defaults[key])}


def _choose_best(package: str, default: str, given: Mapping[str, Any]) -> PluginChoice:
    """The best plugin whose weights are on this machine and that takes the given options; else `default`."""
    kind, modules = plugins.plugin_kind(package), plugins.list_weights_modules(package)
    found = {name: weights for name, module in modules.items() if (weights := module.list_local_weights())}
    device = _device_type(given) if found else "cpu"  # without weights, PyTorch is not imported
    problem = ""
    here = [name for name in _by_rank(modules, device) if name in found]
    for name in here:
        fitting = [local for local in found[name] if _fits(package, name, local, given)]
        # They begin with the most accurate and end with the fastest.
        for local in fitting if device == "cuda" else reversed(fitting):
            if why := _describe_problem(package, name, local, given):
                problem = problem or why
                continue
            better = _describe_better(modules, found, device, above=modules[name].RANK[device])
            change = better or f"--{kind} NAME chooses another"
            return PluginChoice(name, {**given, **local.options}, f"{kind}: {name}, because {local.reason}; {change}")
    change = f"--{kind} NAME chooses another"
    if problem:
        reason = problem
    elif found:
        reason = f"the options given do not fit {' or '.join(here)}, whose weights are here"
    else:
        names = [name for name in _by_rank(modules, device) if modules[name].how_to_get({})]
        reason = f"{weights_folder()} has no weights of {' or '.join(names)}"
        change = _describe_better(modules, found, device, above=0)
    return PluginChoice(default, dict(given), f"{kind}: {default}, because {reason}; {change}")


def _describe_problem(package: str, plugin: str, local: LocalWeights, given: Mapping[str, Any]) -> str:
    """Why a plugin cannot use the weights, such as "FOLDER lacks vocab.json; ..."; "" if it can.

    A mistake in the given options is not a problem of the weights: the job reports it.
    """
    why = ""
    for options in ({**given, **local.options}, dict(local.options)):
        try:
            plugins.resolve_options(package, plugin, options)
        except SynthgenError as error:
            why = str(error)
        else:
            return ""
    return why


def _describe_better(modules: Mapping[str, ModuleType], found: Mapping[str, Any], device: str, *, above: int) -> str:
    """How to get the weights of the best plugin above a rank whose weights are not here; "" if there is none."""
    absent = [name for name in _by_rank(modules, device) if name not in found and modules[name].RANK[device] > above]
    return next((how for name in absent if (how := modules[name].how_to_get({}))), "")


def _by_rank(modules: Mapping[str, ModuleType], device: str) -> list[str]:
    return sorted(modules, key=lambda name: -modules[name].RANK[device])


def _device_type(given: Mapping[str, Any]) -> str:
    """The key of `RANK`: "cuda" if the job would compute there, else "cpu"."""
    from synthgen.devices import resolve_device

    device = str(given.get("device", "auto"))
    return (
        "cuda" if device.startswith("cuda") or (device == "auto" and resolve_device(device).type == "cuda") else "cpu"
    )


def _fits(package: str, plugin: str, local: LocalWeights, given: Mapping[str, Any]) -> bool:
    """Whether a plugin takes all options that the user gives, and none of them chooses other weights."""
    return given.keys() <= _list_fields(package, plugin).keys() and all(
        str(given[key]) == value for key, value in local.options.items() if key in given
    )


def _list_fields(package: str, plugin: str) -> dict[str, dataclasses.Field[Any]]:
    """The options of a plugin of the folder, by name; those in a light file without an import of the plugin."""
    declared = plugins.options_class(package, plugin)
    return {} if declared is None else {field.name: field for field in dataclasses.fields(declared)}
