"""Writing that a killed process or a full disk cannot leave half done."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["fsync_directory", "published", "write_atomically", "written_atomically"]


def fsync_directory(path: Path) -> None:
    """Makes the names in a folder durable; a no-op where folders cannot be opened (Windows)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def written_atomically(
    path: Path, *, scratch: Path | None = None, suffix: str = "", durable: bool = True
) -> Iterator[Path]:
    """Gives a path to write a file to, which takes the place of ``path`` when the block ends; at any moment either the
    old or the whole new content is there.

    Args:
        path: the file; its folder is made.
        scratch: folder, on the same file system, for the file while it is incomplete; beside ``path`` by default.
        suffix: of the incomplete file's name.
        durable: sync file and folder, so that a power failure cannot undo it either.

    Raises:
        OSError: it cannot be written; nothing is left of it, and the old content, if any, is untouched.
    """
    folder = path.parent if scratch is None else scratch
    folder.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{path.name}.{uuid.uuid4().hex}{suffix}"
    try:
        yield aside
        if durable:
            _fsync_file(aside)
        aside.replace(path)
        if durable:
            fsync_directory(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, *, scratch: Path | None = None) -> None:
    """``written_atomically`` of these bytes."""
    with written_atomically(path, scratch=scratch) as aside:
        aside.write_bytes(content)


def published(target: Path, fill: Callable[[Path], None], scratch: Path) -> bool:
    """Makes a folder appear whole: ``fill`` writes its files aside, they are synced, then the folder is renamed.

    Returns:
        False if ``target`` appeared meanwhile: that one is kept and the new one dropped.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    aside = scratch / f"{target.name}-{uuid.uuid4().hex}"
    try:
        aside.mkdir(parents=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        fill(aside)
        for path in aside.iterdir():
            _fsync_file(path)
        fsync_directory(aside)
        try:
            aside.rename(target)
        except OSError:
            if target.is_dir():
                return False
            raise
        fsync_directory(target.parent)
        return True
    finally:
        shutil.rmtree(aside, ignore_errors=True)
