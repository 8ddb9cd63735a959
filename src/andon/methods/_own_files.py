"""A method's file and the modules beside it that it imports.

The file's folder is on the import path while the file is imported, and only then, as for a program that is run; modules
of the folder are not left in ``sys.modules``, so that two methods may each have a ``helper.py`` of their own.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

__all__ = ["folder_importable", "method_files"]

_NEVER = frozenset({"andon", "__main__", *sys.stdlib_module_names})
"""Names that a module beside a file does not stand for."""


def method_files(path: Path) -> tuple[Path, ...]:
    """A method's file and those of its folder that its import statements lead to: the file first, the others sorted.

    Nothing is imported. Of a package beside the file all Python files count. A file that cannot be read or is no Python
    stands alone: importing it says why.
    """
    path = path.resolve()
    found: dict[Path, None] = {}
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found[current] = None
        for name in _imported(current):
            waiting += _files_of(path.parent, name)
    return (path, *sorted(other for other in found if other != path))


@contextmanager
def folder_importable(path: Path) -> Iterator[list[Path]]:
    """Has what stands beside a file found by its import statements, while the block runs.

    Yields:
        Files of the modules that were loaded from the folder; filled when the block ends.
    """
    folder, loaded = path.resolve().parent, list[Path]()
    names = {name for file in method_files(path) for name in _imported(file) if _files_of(folder, name)}
    hidden = _hidden(names, folder)
    before = set(sys.modules)
    importlib.invalidate_caches()  # the folder may have been looked into before the file came
    sys.path.insert(0, str(folder))
    try:
        yield loaded
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = _file_of(sys.modules[name])
            # The method's own module is entered under a name that nobody imports.
            if file is not None and file != path.resolve() and file.is_relative_to(folder) and _is_top(name, folder):
                loaded.append(file)
                del sys.modules[name]
        sys.modules.update(hidden)


def _hidden(names: set[str], folder: Path) -> Mapping[str, ModuleType]:
    """Takes modules of the same names from elsewhere out of ``sys.modules``, to be put back."""
    hidden = {}
    for name in list(sys.modules):
        if name.partition(".")[0] in names:
            file = _file_of(sys.modules[name])
            if file is None or not file.is_relative_to(folder):
                hidden[name] = sys.modules.pop(name)
    return hidden


def _is_top(name: str, folder: Path) -> bool:
    return bool(_files_of(folder, name.partition(".")[0]))


def _file_of(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def _imported(path: Path) -> set[str]:
    """Top-level names that a file's import statements name, wherever they stand in it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - _NEVER


def _files_of(folder: Path, name: str) -> list[Path]:
    """Files of the module or package ``name`` in a folder; none where it is not there."""
    if name in _NEVER:
        return []
    package = folder / name
    if (package / "__init__.py").is_file():
        return sorted(file.resolve() for file in package.rglob("*.py"))
    module = folder / f"{name}.py"
    return [module.resolve()] if module.is_file() else []
