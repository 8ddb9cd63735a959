"""Methods by name. A new method is one module with ``@register`` on its class, named in ``_MODULES`` or an entry point.

Entry points of the group ``andon.methods`` (name = method's name, value = ``module:Class``) are found too, so a method
in somebody's own package appears in the same tables; and ``path/to/file.py:Class`` works wherever a name does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from andon.core import AndonError
from andon.methods.base import Method

__all__ = ["create_method", "method_class", "method_names", "preset_config", "register"]

# One line a method: its module is imported when the name is asked for, so that a listing costs no torch model.
_MODULES = {
    "cflow": "andon.methods.cflow",
    "draem": "andon.methods.draem",
    "dsr": "andon.methods.dsr",
    "efficientad": "andon.methods.efficientad",
    "padim": "andon.methods.padim",
    "patchcore": "andon.methods.patchcore",
    "thumbnail-nn": "andon.methods.thumbnail_nn",
}
_REGISTERED: dict[str, type[Method[Any]]] = {}

ClassT = TypeVar("ClassT", bound=type[Method[Any]])


def register(cls: ClassT) -> ClassT:
    """Class decorator: makes a method known under its ``name``."""
    known = _REGISTERED.get(cls.name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise AndonError(f"two methods are called {cls.name!r}: {known.__module__} and {cls.__module__}")
    _REGISTERED[cls.name] = cls
    return cls


def method_names() -> tuple[str, ...]:
    """All known names, sorted."""
    plugins = {point.name for point in entry_points(group="andon.methods")}
    return tuple(sorted({*_MODULES, *_REGISTERED, *plugins}))


def _from_file(reference: str) -> type[Method[Any]]:
    filename, _, class_name = reference.rpartition(":")
    path = Path(filename)
    if not path.is_file():
        raise AndonError(f"method {reference!r}: there is no file {filename}")
    module_name = f"andon_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise AndonError(f"method {reference!r}: {filename} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise AndonError(f"method {reference!r}: {filename} fails when imported: {error!r}") from error
    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise AndonError(f"method {reference!r}: {filename} has no class {class_name} that is an andon Method")
    return cls


def method_class(name: str) -> type[Method[Any]]:
    """The class of a method: a known name, or ``path/to/file.py:Class``."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    if ".py:" in name:
        return _from_file(name)
    if name in _MODULES:
        importlib.import_module(_MODULES[name])
        return _REGISTERED[name]
    for point in entry_points(group="andon.methods"):
        if point.name == name:
            loaded: type[Method[Any]] = point.load()
            return register(loaded)
    raise AndonError(f"unknown method {name!r}; known: {', '.join(method_names())} (or path/to/file.py:Class)")


def preset_config(name: str, preset: str) -> dict[str, Any]:
    """The options of a method's preset, as a new mapping; AndonError where the method has no such preset."""
    presets = method_class(name).presets
    if preset not in presets:
        known = f"its presets: {', '.join(presets)}" if presets else "it has none"
        raise AndonError(f"method {name}: unknown preset {preset!r}; {known}")
    return _merged(presets[preset], {})


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, mappings in them (``transform``) likewise."""
    merged = {k: _merged(v, {}) if isinstance(v, Mapping) else v for k, v in below.items()}
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return merged


def create_method(
    name: str, config: Mapping[str, Any] | None = None, *, preset: str | None = None, **overrides: Any
) -> Method[Any]:
    """Makes a method with its default Config and the given overrides.

    Args:
        name: a known name or ``path/to/file.py:Class``.
        config: hyperparameters as a mapping (from a plan); ``overrides`` wins over it.
        preset: named configuration of the method below both (``Method.presets``), "embedded" for instance.

    Raises:
        AndonError: unknown method or preset, unknown or invalid hyperparameter (named).
    """
    cls = method_class(name)
    options = {**_merged(preset_config(name, preset) if preset else {}, config or {}), **overrides}
    try:
        return cls(cls.Config(**options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "config"
        if first["type"] == "extra_forbidden":
            known = ", ".join(cls.Config.model_fields)
            raise AndonError(f"method {name}: unknown option {where!r}; known: {known}") from error
        raise AndonError(f"method {name}: option {where!r}: {first['msg']} (got {first['input']!r})") from error
