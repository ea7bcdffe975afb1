"""Finds plugins by file name: `--segmenter grabcut` is `generate/segmenters/grabcut.py`. There is no other registry."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from synthgen.errors import SynthgenError, did_you_mean

PACKAGE_ROOT = Path(__file__).parent

#: Plugin folder -> the word for its plugins in messages, if it is not the folder's name without "s".
_KINDS = {"formats.readers": "dataset"}


def list_plugins(package: str) -> list[str]:
    """Names of the plugins in a folder such as "generate.segmenters": its file names. Imports nothing."""
    folder = PACKAGE_ROOT.joinpath(*package.split("."))
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def normalize_name(name: str) -> str:
    """The spelling of a plugin's name in recipes: "coco-json" becomes "coco_json". Module names with a dot stay."""
    return name if "." in name else name.replace("-", "_")


def load_plugin(package: str, name: str) -> ModuleType:
    """Import the plugin `name` of a plugin folder. A name with a dot is a module of the user.

    Raises:
        SynthgenError: the folder has no such plugin, or the user's module cannot be imported.
    """
    kind = _KINDS.get(package, package.rsplit(".", 1)[-1].removesuffix("s"))
    if "." in name:
        return _load_user_module(name, kind)
    known = list_plugins(package)
    if normalize_name(name) not in known:
        close = did_you_mean(normalize_name(name), known)
        raise SynthgenError(f"no {kind} named '{name}'{close} (have: {', '.join(known) or 'none'})")
    return importlib.import_module(f"synthgen.{package}.{normalize_name(name)}")


def _load_user_module(name: str, kind: str) -> ModuleType:
    """Import a module of the user. The import may raise any exception."""
    try:
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    except Exception as why:
        place = _import_error_location(why)
        if place or not isinstance(why, ImportError | ValueError):
            said = f"{type(why).__name__}: {(str(why).splitlines() or ['no reason given'])[0]}{place}"
            raise SynthgenError(
                f"module '{name}' cannot be imported ({said}); mend it, or choose another --{kind}"
            ) from None
    raise SynthgenError(f"no module '{name}' to take a {kind} from; is its folder on PYTHONPATH?")


def _import_error_location(why: Exception) -> str:
    """Where an import failed, as " at file:line"; "" if it failed outside of any user file."""
    if isinstance(why, SyntaxError):
        return f" at {why.filename}:{why.lineno}"
    machinery = {__file__, importlib.__file__, importlib.util.__file__}
    for frame in reversed(traceback.extract_tb(why.__traceback__)):
        if frame.filename not in machinery and not frame.filename.startswith("<"):
            return f" at {frame.filename}:{frame.lineno}"
    return ""


def build_parameters(package: str, name: str) -> dict[str, inspect.Parameter]:
    """The keyword options that a plugin's `build_plugin` takes, by name, with their defaults.

    Raises:
        SynthgenError: no such plugin, or a module of the user's own that has no `build_plugin`.
    """
    build = getattr(load_plugin(package, name), "build", None)
    if not callable(build):
        raise SynthgenError(f"module '{name}' has no function build(); see the docstring of synthgen.{package}")
    return dict(inspect.signature(build).parameters)


def build_plugin(package: str, name: str, option_values: dict[str, Any]) -> Any:
    """Call the plugin's `build_plugin(**given)`.

    Values that come as text (from `-O key=value`) are turned into the type of the option's default.

    Raises:
        SynthgenError: an option that the plugin does not take, or a value of the wrong kind.
    """
    return load_plugin(package, name).build(**complete_options(package, name, option_values))


def complete_options(package: str, name: str, option_values: dict[str, Any]) -> dict[str, Any]:
    """Check options against `build_plugin`'s signature and fill in the defaults: the complete set, as a recipe needs
    it.
    """
    known = build_parameters(package, name)
    full = {key: p.default for key, p in known.items() if p.default is not inspect.Parameter.empty}
    for key, value in option_values.items():
        if key not in known:
            raise SynthgenError(
                f"'{name}' takes {', '.join(known) or 'no options'}; got '{key}'{did_you_mean(key, list(known))}"
            )
        full[key] = _coerce(known[key].default, value, f"option '{key}' of '{name}'")
    missing = [key for key in known if key not in full]
    if missing:
        raise SynthgenError(f"'{name}' needs {', '.join(missing)}; give it as -O {missing[0]}=...")
    return full


def _coerce(default: Any, value: Any, what: str) -> Any:
    """Turn a text value into the type of `default`; leave everything else as it is."""
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
