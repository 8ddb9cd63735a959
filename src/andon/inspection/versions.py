"""Earlier versions of an inspector's file: kept beside it, to go back to, byte for byte.

``door-seal.andon.versions/0001-1f3a5b7c9d0e.andon``: a number in the order of keeping, and the fingerprint. A version
is written before the file is replaced, and both appear whole or not at all: whenever a process is killed, the file is
the old one or the new one, and the old one is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from andon._tools.files import fsync_directory, read_regular, write_file
from andon.core import DetectorError
from andon.inspection.container import MAX_BYTES
from andon.inspection.file import InspectorFile
from andon.inspection.updating import Proposal

__all__ = ["Version", "accept_update", "earlier_versions", "roll_back", "undone_on_failure"]

_NAME = re.compile(r"(\d{4,9})-([0-9a-f]{12})\.andon")


class Version(NamedTuple):
    """A version of an inspector's file that is kept.

    Attributes:
        number: in the order of keeping, from 1.
        fingerprint: of its content.
        path: where it is.
    """

    number: int
    fingerprint: str
    path: Path


def accept_update(path: str | Path, proposal: Proposal) -> Path:
    """Replaces an inspector's file by a proposed update of it, and keeps the earlier version.

    Returns:
        Where the earlier version is.

    Raises:
        DetectorError: the file is no longer the one that the update was proposed for, or cannot be written.
    """
    path = Path(path)
    found = InspectorFile.read(path).fingerprint
    if found != proposal.parent:
        raise DetectorError(
            f"{path}: its fingerprint is {found}, the update was proposed for {proposal.parent}; propose it again"
        )
    kept = _keep(path, found)
    proposal.inspector.save(path)
    return kept


def earlier_versions(path: str | Path) -> tuple[Version, ...]:
    """The versions that are kept of an inspector's file, the oldest first; DetectorError where that is not known."""
    folder = _folder(Path(path))
    if not folder.is_dir():
        return ()
    try:
        entries = sorted(folder.iterdir())
    except OSError as problem:
        raise DetectorError(f"{folder}: cannot be listed ({problem.strerror or problem})") from problem
    named = ((entry, _NAME.fullmatch(entry.name)) for entry in entries)
    found = (Version(int(match[1]), match[2], entry) for entry, match in named if match)
    return tuple(sorted(found, key=lambda version: version.number))


def roll_back(path: str | Path, to: str | None = None) -> Version:
    """Puts a version that is kept in the file's place, byte for byte; what was there is kept as well.

    Args:
        path: the inspector's file.
        to: fingerprint of the version; None for the one that the last update was made of.

    Raises:
        DetectorError: the file was never updated, no such version is kept, or it is damaged.
    """
    path = Path(path)
    now = InspectorFile.read(path)
    if to is None:
        updates = now.content.provenance.updates
        if not updates:
            raise DetectorError(f"{path}: was never updated; there is no earlier version to go back to")
        to = updates[-1].parent
    versions = earlier_versions(path)
    version = next((version for version in versions if version.fingerprint == to), None)
    if version is None:
        kept = ", ".join(version.fingerprint for version in versions) or "none"
        raise DetectorError(f"{path}: no version {to} is kept in {_folder(path)} (there are: {kept})")
    if InspectorFile.read(version.path).fingerprint != to:
        raise DetectorError(f"{version.path}: its content is not that of its name")
    _keep(path, now.fingerprint)
    write_file(path, _content(version.path), DetectorError)
    return version


@contextmanager
def undone_on_failure(path: str | Path) -> Iterator[None]:
    """Where the block raises, an inspector's file gets back the content that it had, byte for byte.

    Raises:
        DetectorError: the file cannot be read, or not be put back.
    """
    path = Path(path)
    before = _content(path)
    try:
        yield
    except BaseException as error:
        try:
            if not path.exists() or _content(path) != before:
                write_file(path, before, DetectorError)
        except DetectorError as problem:
            raise DetectorError(f"{error}; and the file cannot be put back: {problem}") from error
        raise


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.versions")


def _keep(path: Path, fingerprint: str) -> Path:
    """Where a file's present content is kept; it is written where it is not yet."""
    versions = earlier_versions(path)
    content = _content(path)
    for version in versions:
        if version.fingerprint == fingerprint and _content(version.path) == content:
            return version.path
    number = 1 + max((version.number for version in versions), default=0)
    kept = _folder(path) / f"{number:04d}-{fingerprint}.andon"
    write_file(kept, content, DetectorError)
    fsync_directory(path.parent)
    return kept


def _content(path: Path) -> bytes:
    return read_regular(path, MAX_BYTES, what="an inspector's file", error=DetectorError)
