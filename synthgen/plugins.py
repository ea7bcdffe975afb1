"""Finds plugins by file name: `--segmenter grabcut` is `generate/segmenters/grabcut.py`. There is no other registry."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import numbers
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from synthgen.errors import SynthgenError, did_you_mean, shorten_value
from synthgen.plugin_options import KEYWORD_RUNTIME_OPTIONS, list_options

PACKAGE_ROOT = Path(__file__).parent

#: Plugin folder -> the word for its plugins in messages, if it is not the folder's name without "s".
_KINDS = {"formats.readers": "dataset"}


def list_plugins(package: str) -> list[str]:
    """Names of the plugins in the folder `package`, such as "generate.segmenters": its file names. Imports nothing."""
    folder = PACKAGE_ROOT.joinpath(*package.split("."))
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def normalize_name(name: str) -> str:
    """The spelling of a plugin's name in recipes: "coco-json" becomes "coco_json". Module names with a dot stay."""
    return name if "." in name else name.replace("-", "_")


def plugin_kind(package: str) -> str:
    """The word for the plugins of the folder `package` in messages, and the flag that chooses one: "segmenter"."""
    return _KINDS.get(package, package.rsplit(".", 1)[-1].removesuffix("s"))


def load_plugin(package: str, name: str) -> ModuleType:
    """Import the plugin `name` of a plugin folder. A name with a dot is a module of the user.

    Args:
        package: plugin folder, such as "generate.segmenters".
        name: file name of the plugin, with "-" or "_"; or the dotted name of a module.

    Raises:
        SynthgenError: the folder has no such plugin, or the user's module cannot be imported.
    """
    kind = plugin_kind(package)
    if "." in name:
        return _load_user_module(name, kind)
    known = list_plugins(package)
    if normalize_name(name) not in known:
        close = did_you_mean(normalize_name(name), known)
        own = f"; a module of your own needs a dot in its name: package.{name}" if _is_module_here(name) else ""
        raise SynthgenError(f"no {kind} named '{name}'{close}{own} (have: {', '.join(known) or 'none'})")
    return importlib.import_module(f"synthgen.{package}.{normalize_name(name)}")


def _is_module_here(name: str) -> bool:
    """Whether Python would find a module of this name; nothing is imported."""
    try:
        return name.isidentifier() and importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _load_user_module(name: str, kind: str) -> ModuleType:
    """Import a module of the user. The import may raise any exception."""
    try:
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    except (Exception, SystemExit) as why:
        if _is_signal(why):
            raise
        place = _import_error_location(why)
        if place or not isinstance(why, ImportError | ValueError):
            cause = f"{type(why).__name__}: {(str(why).splitlines() or ['no reason given'])[0]}{place}"
            raise SynthgenError(
                f"module '{name}' cannot be imported ({cause}); mend it, or choose another --{kind}"
            ) from None
    raise SynthgenError(f"no module '{name}' to take a {kind} from; is its folder on PYTHONPATH?")


def _import_error_location(why: BaseException) -> str:
    """Where an import failed, as " at file:line"; "" if it failed outside of any user file."""
    if isinstance(why, SyntaxError):
        return f" at {why.filename}:{why.lineno}"
    machinery = {__file__, importlib.__file__, importlib.util.__file__}
    for frame in reversed(traceback.extract_tb(why.__traceback__)):
        if frame.filename not in machinery and not frame.filename.startswith("<"):
            return f" at {frame.filename}:{frame.lineno}"
    return ""


def options_class(package: str, name: str) -> type | None:
    """The dataclass of a plugin's options; None for a plugin that takes them as keywords of `build`.

    It is the name `OPTIONS` of the plugin's module. If its options have flags on the command line, the class is in the
    light file `_NAME_options.py` beside the plugin, so that the help does not import the plugin's dependencies.

    Args:
        package: plugin folder.
        name: see `load_plugin`.
    """
    light = _light_module(package, name, "options")
    module = importlib.import_module(light) if light else load_plugin(package, name)
    found = getattr(module, "OPTIONS", None)
    return found if isinstance(found, type) and dataclasses.is_dataclass(found) else None


def list_flag_options(package: str) -> dict[str, type]:
    """The options classes in light files of the plugin folder `package`, by plugin. Imports no plugin."""
    return {name: module.OPTIONS for name, module in _import_light_modules(package, "options").items()}


def list_weights_modules(package: str) -> dict[str, ModuleType]:
    """The light files `_NAME_weights.py` of the plugin folder `package`, by plugin. Imports no plugin."""
    return _import_light_modules(package, "weights")


def _import_light_modules(package: str, topic: str) -> dict[str, ModuleType]:
    light = {name: _light_module(package, name, topic) for name in list_plugins(package)}
    return {name: importlib.import_module(module) for name, module in light.items() if module}


def _light_module(package: str, name: str, topic: str) -> str | None:
    """The name of the light file `_NAME_TOPIC.py` beside a plugin, as a module; None if there is none."""
    stem = f"_{normalize_name(name)}_{topic}"
    is_there = "." not in name and PACKAGE_ROOT.joinpath(*package.split("."), f"{stem}.py").is_file()
    return f"synthgen.{package}.{stem}" if is_there else None


def runtime_options(package: str, name: str) -> frozenset[str]:
    """Names of a plugin's options that stay out of a recipe, because they say only where and how fast.

    Args:
        package: plugin folder.
        name: see `load_plugin`.
    """
    declared = options_class(package, name)
    if declared is None:
        return KEYWORD_RUNTIME_OPTIONS
    return frozenset(option for option, info in list_options(declared).items() if info.runtime)


def build_parameters(package: str, name: str) -> dict[str, inspect.Parameter]:
    """The options that a plugin takes, by name, with their defaults.

    Args:
        package: plugin folder.
        name: see `load_plugin`.

    Raises:
        SynthgenError: no such plugin, or a module of the user's own that has no `build`.
    """
    build = getattr(load_plugin(package, name), "build", None)
    if not callable(build):
        raise SynthgenError(f"module '{name}' has no function build(); see the docstring of synthgen.{package}")
    return dict(inspect.signature(options_class(package, name) or build).parameters)


def build_plugin(package: str, name: str, option_values: dict[str, Any]) -> Any:
    """Build a plugin: `build(OPTIONS(...))`, or `build(option=value, ...)` if the module has no `OPTIONS`.

    Values that come as text (from `-O key=value`) are turned into the type of the option's default.

    Args:
        package: plugin folder.
        name: see `load_plugin`.
        option_values: by name, as text or in their types.

    Raises:
        SynthgenError: an option that the plugin does not take, or a value of the wrong kind.
    """
    full, declared = complete_options(package, name, option_values), options_class(package, name)
    build = load_plugin(package, name).build
    with _forbid_exit(name):
        return build(declared(**full)) if declared else build(**full)


def resolve_options(package: str, name: str, option_values: dict[str, Any]) -> dict[str, Any]:
    """The complete options of a plugin, checked, with everything definite that decides the bytes.

    Args:
        package: plugin folder.
        name: see `load_plugin`.
        option_values: by name, as text or in their types.

    Raises:
        SynthgenError: an option that the plugin does not take, or a value that it refuses.
    """
    full, declared = complete_options(package, name, option_values), options_class(package, name)
    resolve = getattr(load_plugin(package, name), "resolve_options", None)
    with _forbid_exit(name):
        if declared is None:
            return resolve(**full) if resolve else full
        options = declared(**full)
        return dataclasses.asdict(resolve(options) if resolve else options)


def _is_signal(why: BaseException) -> bool:
    """Whether the program ends for SIGHUP, Ctrl-C or SIGTERM, which it does wherever it is."""
    return isinstance(why, SystemExit) and why.code in (129, 130, 143)


@contextlib.contextmanager
def _forbid_exit(name: str) -> Iterator[None]:
    """Turn SystemExit from a plugin into an error; the program would end as if all was done."""
    try:
        yield
    except SystemExit as why:
        if _is_signal(why):
            raise
        raise SynthgenError(f"plugin '{name}' ended the program ({why!r}); it should raise an error") from why


def complete_options(package: str, name: str, option_values: dict[str, Any]) -> dict[str, Any]:
    """Check the names of options, convert text, and fill in the defaults.

    Args:
        package: plugin folder.
        name: see `load_plugin`.
        option_values: by name, as text or in their types.

    Raises:
        SynthgenError: an option that the plugin does not take, or a value of the wrong kind.
    """
    known = build_parameters(package, name)
    full = {key: p.default for key, p in known.items() if p.default is not inspect.Parameter.empty}
    for key, value in option_values.items():
        if key not in known:
            raise SynthgenError(
                f"'{name}' takes {', '.join(known) or 'no options'}; got '{key}'"
                f"{_plugins_with_option(package, key) or did_you_mean(key, list(known))}"
            )
        full[key] = _coerce(known[key].default, value, f"option '{key}' of '{name}'")
    missing = [key for key in known if key not in full]
    if missing:
        raise SynthgenError(f"'{name}' needs {', '.join(missing)}; give it as -O {missing[0]}=...")
    return full


def _plugins_with_option(package: str, option: str) -> str:
    """A hint which plugins take an option, such as "; it is an option of sam and hq_sam: add --segmenter sam"."""
    declared = list_flag_options(package)
    takers = sorted((name for name in declared if option in list_options(declared[name])), key=len)
    if not takers:
        return ""
    kind = plugin_kind(package)
    return f"; it is an option of {' and '.join(takers)}: add --{kind} {takers[0]}"


def _coerce(default: Any, value: Any, what: str) -> Any:
    """Turn a value into the type of `default`, so that a recipe holds the same for each way to write it.

    A text may stand for every type. Of an option without a default, or with one of another type, the value stays.
    """
    if not isinstance(value, str) and isinstance(default, bool | int | float | str):
        return _convert(default, value, what)
    if not isinstance(value, str) or not isinstance(default, int | float):  # a bool is an int
        return value
    if isinstance(default, bool):
        if value.lower() in ("true", "yes", "1", "false", "no", "0"):
            return value.lower() in ("true", "yes", "1")
        raise SynthgenError(f"{what} should be true or false, got '{value}'")
    try:
        return type(default)(value)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise SynthgenError(f"{what} should be {kind}, got '{value}'") from None


def _convert(default: bool | float | str, value: Any, what: str) -> bool | float | str:
    """A value of a Python call in the type of `default`. Numbers of numpy become those of Python.

    Args:
        default: of the option.
        value: not a text.
        what: the option, for the message.

    Raises:
        SynthgenError: the value is not of that type.
    """
    is_bool = isinstance(value, bool)
    if isinstance(default, bool):
        kind = "True or False"
        if is_bool:
            return bool(value)
    elif isinstance(default, int):
        kind = "a whole number"
        if isinstance(value, numbers.Integral) and not is_bool:
            return int(value)
    elif isinstance(default, float):
        kind = "a number"
        if isinstance(value, numbers.Real) and not is_bool:
            return float(value)
    else:  # a path, or a number beside words, such as batch_size
        kind = "a text"
        if isinstance(value, os.PathLike) or (isinstance(value, numbers.Integral) and not is_bool):
            return str(value)
    raise SynthgenError(f"{what} should be {kind}, got {shorten_value(value)}")
