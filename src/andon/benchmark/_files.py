"""Writing to a store: a full disk or missing permissions end the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from andon._tools import files
from andon.core import StoreError

__all__ = ["StoreWriteError", "publish_directory", "write_atomically"]


class StoreWriteError(StoreError):
    """The store cannot be written (full disk, permissions): no further experiment could be kept either."""


@contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreWriteError(
            f"{target}: cannot be written ({error.strerror or error}); nothing was left half-written and what was "
            "finished before is kept: make room or mend the permissions, then run again"
        ) from error


def write_atomically(target: Path, content: bytes, scratch: Path) -> None:
    """Writes a file whole or not at all (``scratch`` holds it meanwhile); StoreWriteError where it cannot be."""
    with _reported(target):
        files.write_atomically(target, content, scratch=scratch)


def publish_directory(target: Path, fill: Callable[[Path], None], scratch: Path) -> bool:
    """See ``andon._tools.files.published``; StoreWriteError where it cannot be written."""
    with _reported(target):
        return files.published(target, fill, scratch)
