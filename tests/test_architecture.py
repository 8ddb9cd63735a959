"""The rooms' import order, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "andon"
RANK = {
    "core": 0,
    "_tools": 0,
    "evaluation": 1,
    "data": 2,
    "synthetic": 3,
    "weights": 3,
    "features": 4,
    "training": 4,
    "methods": 5,
    "benchmark": 6,
    "inspection": 6,
    "report": 7,
    "cli": 8,
}
"""Rooms of one rank stand side by side: they do not import from one another."""
EXCEPTIONS = {
    ("_tools", "core"): "the error tree",
    ("features", "training"): "pre-training a backbone is training; nothing else of ``features`` trains",
}
MODULES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """(line, parts of the module, names) of every import from Andon, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split(".")), ()
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: relative import hides the room it comes from"
            names = tuple(alias.name for alias in node.names)
            if node.module == "andon":
                for name in names:
                    if not name.startswith("__"):
                        yield node.lineno, ("andon", name), ()
            else:
                yield node.lineno, tuple(node.module.split(".")), names


def from_other_rooms(path: Path) -> Iterator[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    own = room(path)
    for line, module, names in imports(path):
        if module[0] == "andon" and len(module) > 1 and module[1] != own:
            yield line, module, names


def test_every_room_of_the_design_is_there_and_no_other() -> None:
    assert {room(path) for path in MODULES} == {*RANK, "__init__", "__main__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_from_the_faces_of_rooms_before_it(path: Path) -> None:
    own = room(path)
    if own in ("__init__", "__main__"):
        return  # the package's own face: names of the API, imported lazily
    for line, module, names in from_other_rooms(path):
        other, where = module[1], f"{path}:{line}"
        assert other in RANK, f"{where}: {other} is no room"
        assert RANK[other] < RANK[own] or (own, other) in EXCEPTIONS, f"{where}: {own} imports from {other}"
        private = [part for part in (*module[2:], *names) if part.startswith("_")]
        assert not private, f"{where}: {private} are private to {other}"
        # A method's folder is a face of its own; core and the cupboard have none.
        faces = 3 if other in ("_tools", "methods") else 2
        assert len(module) <= faces, f"{where}: import from the face andon.{other}, not from {'.'.join(module)}"


def test_core_imports_nothing_of_andon_and_evaluation_only_core_and_tools() -> None:
    for path in MODULES:
        others = {module[1] for _, module, _ in from_other_rooms(path)}
        if room(path) == "core":
            assert not others
        elif room(path) == "evaluation":
            assert others <= {"core", "_tools"}


def test_faces_give_what_they_name() -> None:
    for name in ("andon", *(f"andon.{r}" for r in RANK if (SOURCE / r / "__init__.py").is_file())):
        face = importlib.import_module(name)
        for public in getattr(face, "__all__", ()):
            assert getattr(face, public) is not None, f"{name}.{public}"
            assert public in dir(face)
            # Importing a module makes it an attribute of its package: it would take the name's place.
            shadow = SOURCE.joinpath(*name.split(".")[1:], f"{public}.py")
            assert not shadow.exists(), f"{name}.{public} has the name of a module"


def test_files_and_functions_stay_short() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        if room(path) == "synthetic":
            continue  # scenes are long lists of parts
        assert text.count("\n") <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length < 60, f"{path}:{node.lineno}: {node.name} has {length} lines"


def test_nothing_imports_torchvision_or_what_needs_it_at_import() -> None:
    forbidden = {"torchvision", "timm", "anomalib", "open_clip"}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Import):
                assert not forbidden & {a.name.split(".")[0] for a in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in forbidden, path


def test_import_andon_and_the_command_line_do_not_load_torch() -> None:
    code = "import sys, andon, andon.cli.main; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
