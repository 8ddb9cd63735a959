"""Methods by reference: the name of an installed one, ``package.module:Class``, or ``path/to/file.py:Class``.

Installed methods are entry points of the group ``andon.methods`` (name = method's name, value = ``module:Class``):
Andon's own, and those of anybody's package, which so appear in the same tables. A reference is resolved once a process.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from andon._tools.models import first_fault
from andon.core import ConfigError
from andon.methods.base import Method

__all__ = ["code_fingerprint", "create_method", "method_class", "method_names", "preset_config"]

_GROUP = "andon.methods"


@cache
def _installed() -> Mapping[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=_GROUP):
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            raise ConfigError(f"two installed methods are called {point.name!r}: {known.value} and {point.value}")
    return found


def method_names() -> tuple[str, ...]:
    """Names of all installed methods, sorted; none of them is imported."""
    return tuple(sorted(_installed()))


def method_class(reference: str) -> type[Method[Any]]:
    """The class of a method.

    Args:
        reference: an installed method's name, ``package.module:Class``, or ``path/to/file.py:Class``.

    Raises:
        ConfigError: nothing of that name, a file or module that fails when imported, or no Method in it.
    """
    filename, _, class_name = reference.rpartition(":")
    if filename.endswith(".py"):
        return _class_of(reference, _executed(Path(filename).resolve(), reference), class_name)
    point = _installed().get(reference)
    target = point.value if point is not None else reference
    if ":" not in target:
        known = ", ".join(method_names()) or "none (entry points are read from an installed package: pip install it)"
        raise ConfigError(
            f"unknown method {reference!r}; known: {known} (or package.module:Class, or path/to/file.py:Class)"
        )
    module_name, _, class_name = target.partition(":")
    if module_name == "__main__":
        raise ConfigError(
            f"method {reference!r} is defined in the program that runs, which the experiments' processes do not "
            "import; put it in a file and name it path/to/file.py:Class"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"method {reference!r}: {module_name} cannot be imported: {error}") from error
    return _class_of(reference, module, class_name)


@cache
def _executed(path: Path, reference: str) -> ModuleType:
    """A file's module, executed once a process."""
    if not path.is_file():
        raise ConfigError(f"method {reference!r}: there is no file {path}")
    digest = hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()
    name = f"andon_user_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"method {reference!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"method {reference!r}: {path} fails when imported: {error!r}") from error
    return module


def _class_of(reference: str, module: ModuleType, class_name: str) -> type[Method[Any]]:
    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        where = getattr(module, "__file__", None) or module.__name__
        raise ConfigError(f"method {reference!r}: {where} has no class {class_name} that is an andon Method")
    return cls


def code_fingerprint(reference: str) -> str:
    """Hash of the code of a method from outside, 32 hexadecimal digits, so that changed code is another experiment.

    It covers the file of ``path/to/file.py:Class``, and all Python files of the top-level package of an importable
    class; "" for Andon's own methods, which the version stands for.
    """
    module = sys.modules[method_class(reference).__module__]
    top = module.__name__.partition(".")[0]
    if top == "andon":
        return ""
    package = sys.modules.get(top, module)
    if hasattr(package, "__path__"):
        files = sorted(path for folder in package.__path__ for path in Path(folder).rglob("*.py"))
    else:
        files = [Path(str(module.__file__))]
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        if len(files) > 1:
            digest.update(path.name.encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def preset_config(reference: str, preset: str) -> dict[str, Any]:
    """The options of a method's preset, as a new mapping; ConfigError where the method has no such preset."""
    presets = method_class(reference).presets
    if preset not in presets:
        known = f"its presets: {', '.join(presets)}" if presets else "it has none"
        raise ConfigError(f"method {reference}: unknown preset {preset!r}; {known}")
    return _merged(presets[preset], {})


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, mappings in them (``transform``) likewise."""
    merged = {k: _merged(v, {}) if isinstance(v, Mapping) else v for k, v in below.items()}
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return merged


def create_method(
    reference: str, config: Mapping[str, Any] | None = None, *, preset: str | None = None, **overrides: Any
) -> Method[Any]:
    """Makes a method with its default Config and the given overrides.

    Args:
        reference: see ``method_class``.
        config: hyperparameters as a mapping (from a plan); ``overrides`` wins over it.
        preset: named configuration of the method below both (``Method.presets``), "embedded" for instance.

    Raises:
        ConfigError: unknown method or preset, unknown or invalid hyperparameter (named).

    >>> create_method("patchcore", preset="embedded").config.backbone
    'andon-features'
    """
    cls = method_class(reference)
    options = {**_merged(preset_config(reference, preset) if preset else {}, config or {}), **overrides}
    try:
        return cls(cls.Config(**options))
    except ValidationError as error:
        raise ConfigError(f"method {reference}: {first_fault(error, cls.Config)}") from error
