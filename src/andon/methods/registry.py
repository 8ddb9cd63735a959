"""Methods by reference: the name of an installed one, ``package.module:Class``, or ``path/to/file.py:Class``;
``anomalib:Model`` is a model of the anomalib library.

Installed methods are entry points of the group ``andon.methods`` (name = method's name, value = ``module:Class``):
Andon's own, and those of anybody's package, which so appear in the same tables. A reference is resolved once a process.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
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
from andon.methods._config import MethodConfig
from andon.methods._own_files import folder_importable, method_files
from andon.methods.anomalib_model import PREFIX, anomalib_method, anomalib_version
from andon.methods.base import Method

__all__ = [
    "code_fingerprint",
    "create_method",
    "method_class",
    "method_names",
    "method_presets",
    "preset_config",
    "recorded_method",
]

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
        reference: an installed method's name, ``package.module:Class``, ``path/to/file.py:Class``, or
            ``anomalib:Model``.

    Raises:
        ConfigError: nothing of that name, a file or module that fails when imported, or no Method in it.
    """
    filename, _, class_name = reference.rpartition(":")
    if filename.endswith(".py"):
        if not class_name.isidentifier():
            raise ConfigError(f"method {reference!r}: {class_name!r} is no class; expected path/to/file.py:Class")
        return _class_of(reference, _executed(filename, reference), class_name)
    if reference.startswith(PREFIX):
        return anomalib_method(reference.removeprefix(PREFIX))
    point = _installed().get(reference)
    target = point.value if point is not None else reference
    if ":" not in target:
        known = ", ".join(method_names()) or "none (entry points are read from an installed package: pip install it)"
        raise ConfigError(
            f"unknown method {reference!r}; known: {known} (or package.module:Class, or path/to/file.py:Class)"
        )
    module_name, _, class_name = target.partition(":")
    if not all(word.isidentifier() for word in (*module_name.split("."), class_name)):
        raise ConfigError(f"method {reference!r}: is neither package.module:Class nor path/to/file.py:Class")
    if module_name == "__main__":
        raise ConfigError(
            f"method {reference!r} is defined in the program that runs, which the experiments' processes do not "
            "import; put it in a file and name it path/to/file.py:Class"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"method {reference!r}: {module_name} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"method {reference!r}: {module_name} fails when imported: {error!r}") from error
    return _class_of(reference, module, class_name)


@cache
def _executed(filename: str, reference: str) -> ModuleType:
    """A file's module, executed once a process."""
    try:
        path = Path(filename).resolve()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a zero in it, links that lead round
        raise ConfigError(f"method {reference!r}: cannot be read ({error})") from error
    if not there:
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
        with folder_importable(path) as loaded:
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"method {reference!r}: {path} fails when imported: {error!r}") from error
    if unnamed := sorted(set(loaded) - set(method_files(path))):
        del sys.modules[name]
        raise ConfigError(
            f"method {reference!r}: {path} loads {unnamed[0]} without an import statement: write one, so that a change "
            "of that file makes another experiment"
        )
    return module


def _class_of(reference: str, module: ModuleType, class_name: str) -> type[Method[Any]]:
    where = getattr(module, "__file__", None) or module.__name__
    try:
        cls = getattr(module, class_name, None)
    except Exception as error:  # a module may make its names when they are asked for
        raise ConfigError(f"method {reference!r}: {where} fails when asked for {class_name}: {error!r}") from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ConfigError(f"method {reference!r}: {where} has no class {class_name} that is an andon Method")
    own = getattr(cls, "Config", None)
    if inspect.isabstract(cls) or not (isinstance(own, type) and issubclass(own, MethodConfig)):
        raise ConfigError(f"method {reference!r}: {class_name} needs a learn() and a Config that is a MethodConfig")
    if absent := [name for name in ("name", "title") if not isinstance(getattr(cls, name, None), str)]:
        raise ConfigError(f"method {reference!r}: {class_name} needs a {' and a '.join(absent)}")
    return cls


def code_fingerprint(reference: str) -> str:
    """Hash of the code of a method from outside, 32 hexadecimal digits, so that changed code is another experiment.

    It covers the file of ``path/to/file.py:Class`` and the modules beside it that it imports, and all Python files of
    the top-level package of an importable class; of anomalib its version; "" for Andon's own methods, which the version
    stands for.
    """
    if reference.startswith(PREFIX):
        return hashlib.blake2b(f"anomalib {anomalib_version()}".encode(), digest_size=16).hexdigest()
    module = sys.modules[method_class(reference).__module__]
    top = module.__name__.partition(".")[0]
    if top == "andon":
        return ""
    package = sys.modules.get(top, module)
    if hasattr(package, "__path__"):
        files = sorted(path for folder in package.__path__ for path in Path(folder).rglob("*.py"))
    else:
        file = Path(str(module.__file__))
        files = list(method_files(file)) if reference.rpartition(":")[0].endswith(".py") else [file]
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        if len(files) > 1:
            digest.update(path.name.encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def method_presets(reference: str) -> dict[str, Mapping[str, Any]]:
    """All presets of a method by name, as options that differ from the Config's.

    Beside the class's own there are "embedded", an older name of "designed", and for every method "paper", the Config's
    own values.
    """
    presets = dict(method_class(reference).presets)
    if "designed" in presets:
        presets["embedded"] = presets["designed"]
    return presets | {"paper": {}}


def preset_config(reference: str, preset: str) -> dict[str, Any]:
    """The options of a method's preset, as a new mapping; ConfigError where the method has no such preset."""
    presets = method_presets(reference)
    if preset not in presets:
        raise ConfigError(f"method {reference}: unknown preset {preset!r}; its presets: {', '.join(presets)}")
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
        preset: named configuration of the method below both (``Method.presets``). None for "default", where the
            method has it; but who names a ``backbone`` (or ``teacher``) gets the paper's other options.

    Raises:
        ConfigError: unknown method or preset, unknown or invalid hyperparameter (named).

    >>> create_method("patchcore").config.backbone
    'efficientnet_lite0'
    >>> create_method("patchcore", preset="designed").config.backbone
    'andon-features'
    """
    cls = method_class(reference)
    given = {**(config or {}), **overrides}
    if preset is None and "default" in cls.presets and not {"backbone", "teacher"} & given.keys():
        preset = "default"
    options = _merged(preset_config(reference, preset) if preset else {}, given)
    try:
        return cls(cls.Config(**options))
    except ValidationError as error:
        raise ConfigError(f"method {reference}: {first_fault(error, cls.Config)}") from error


def recorded_method(reference: str, config: Mapping[str, Any]) -> Method[Any]:
    """The method of a whole configuration, as a record or a detector's file keeps it.

    An option that is younger than the record has the value that the method had before there was one, the Config's:
    never a preset's.

    Raises:
        ConfigError: as for ``create_method``.
    """
    return create_method(reference, config, preset="paper")
