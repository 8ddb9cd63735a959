"""The rooms' import order, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
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


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every import from Andon, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: relative import hides the room it comes from"
            names = [f"andon.{alias.name}" for alias in node.names] if node.module == "andon" else [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "andon" and len(parts) > 1 and parts[1] in RANK:
                yield node.lineno, parts[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_from_rooms_before_it(path: Path) -> None:
    own = room(path.relative_to(SOURCE).parts)
    if own in ("__init__", "__main__"):
        return  # the package's own face: names of the API, imported lazily
    assert own in RANK, f"{path}: a room that the design does not know"
    for line, other in imported_rooms(path):
        allowed = other == own or RANK[other] < RANK[own] or (own, other) in EXCEPTIONS
        assert allowed, f"{path}:{line}: {own} imports from {other}, which is not to its left"


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
