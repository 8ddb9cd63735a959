"""Writing that a killed process or a full disk cannot leave half done."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from andon.core import AndonError

__all__ = ["StoreError", "fsync_directory", "publish_directory", "write_atomically"]


class StoreError(AndonError):
    """The store cannot be written (full disk, permissions): no further experiment could be kept either."""


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
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{target}: cannot be written ({error.strerror or error}); nothing was left half-written and what was "
            "finished before is kept: make room or mend the permissions, then run again"
        ) from error


def write_atomically(target: Path, content: bytes, scratch: Path) -> None:
    """Writes a file so that at any moment either the old or the whole new content is there.

    Args:
        target: the file.
        content: its new bytes.
        scratch: a folder on the same file system for the file while it is incomplete.

    Raises:
        StoreError: it cannot be written; the old content, if any, is untouched.
    """
    aside = scratch / f"{target.name}-{uuid.uuid4().hex}"
    with _reported(target):
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
            fsync_directory(target.parent)
        finally:
            aside.unlink(missing_ok=True)


def publish_directory(target: Path, fill: Callable[[Path], None], scratch: Path) -> bool:
    """Makes a folder appear whole: ``fill`` writes its files aside, they are synced, then the folder is renamed.

    Returns:
        False if ``target`` appeared meanwhile: that one is kept and the new one dropped.

    Raises:
        StoreError: it cannot be written; nothing is left of it.
    """
    aside = scratch / f"{target.name}-{uuid.uuid4().hex}"
    with _reported(target):
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
