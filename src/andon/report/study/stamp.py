"""Whether the pages in a folder are what the same store, options and code would give again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from andon import __version__
from andon._tools.files import sha256_of_file
from andon._tools.packages import installed_versions
from andon.benchmark import Store, StudyPlan, StudyProtocol
from andon.report.write import write_bytes

__all__ = ["pages_key", "stamp_pages", "stamped_pages"]

_STAMP = ".andon-pages.json"
_PACKAGES = ("cairosvg", "jinja2", "numpy", "opencv-python-headless", "pillow", "scipy")
"""Beside Andon: what pages and drawings are made with."""
_CODE = (".py", ".j2", ".css", ".js", ".bib")


def pages_key(store: Store, parts: Sequence[StudyPlan], protocol: StudyProtocol) -> str:
    """Of all that the pages depend on, as hexadecimal SHA-256.

    Images and masks are in it by the experiments' ids, which are hashes of what their data sets hold; an experiment's
    files by its manifest, which has their digests. Costs one read of the plans, manifests and failures, and of the
    package's code.
    """
    digest = hashlib.sha256()

    def add(name: str, content: bytes) -> None:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)

    add("version", json.dumps([__version__, installed_versions(_PACKAGES)], sort_keys=True).encode())
    for name, content in _code(resources.files("andon")):
        add(name, content)
    add("protocol", repr(protocol).encode())
    for part in parts:
        stored = store.plan(part.name)
        add(part.part, b"" if stored is None else stored.model_dump_json().encode())
    for folder, pattern in (("experiments", "*/manifest.json"), ("failures", "*.json")):
        for path in sorted((store.root / folder).glob(pattern)):
            add(path.relative_to(store.root).as_posix(), path.read_bytes())
    for path in sorted((store.root / "galleries").rglob("*")):
        status = path.stat()
        add(path.relative_to(store.root).as_posix(), f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _code(folder: Traversable, where: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        name = f"{where}/{entry.name}"
        if entry.is_dir():
            yield from _code(entry, name)
        elif entry.name.endswith(_CODE):
            yield name, entry.read_bytes()


def stamped_pages(folder: Path, key: str) -> list[Path] | None:
    """The files that ``stamp_pages`` named under this key, if every one is as it was; None otherwise."""
    try:
        stamp = json.loads((folder / _STAMP).read_bytes())
        if stamp["key"] != key:
            return None
        files = {folder / str(name): str(sha256) for name, sha256 in stamp["files"].items()}
        same = all(sha256_of_file(path) == sha256 for path, sha256 in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # none is there, or it is damaged: the pages are written anew
    return list(files) if same else None


def stamp_pages(folder: Path, key: str, files: Sequence[Path]) -> None:
    """Writes down, when all files are written, which they are and what they were made from."""
    digests = {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}
    write_bytes(folder / _STAMP, json.dumps({"key": key, "files": digests}, indent=1).encode())
