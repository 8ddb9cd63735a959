"""Reading that no pipe, device or endless file can hold up; writing that a killed process or a full disk cannot leave
half done."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from os import PathLike, fspath
from pathlib import Path

from andon.core import AndonError, DataError

__all__ = [
    "folders_above",
    "folders_below",
    "fsync_directory",
    "open_regular",
    "path_of",
    "published",
    "read_regular",
    "sha256_of_file",
    "write_atomically",
    "write_file",
    "written_atomically",
]

# Opening a pipe waits for a writer unless it is told not to; a terminal must not become this process's own.
_READ = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
_MOST_FOLDERS = 100_000


def open_regular(
    path: str | PathLike[str],
    max_bytes: int | None = None,
    *,
    what: str = "a file of data",
    error: type[AndonError] = DataError,
    name: str | None = None,
) -> BufferedReader:
    """Opens a file that a user handed in; links are followed. This is the one door for all of them.

    Folders, pipes, sockets and devices, and links to one, are refused at once: nothing is waited for or read. What was
    looked at is what is open, so nobody can change it in between.

    Args:
        max_bytes: size of the largest file that is opened; None for any.
        what: what the file should be, for messages: "an image".
        error: class of what is raised.
        name: what messages call the file, instead of its path.

    Raises:
        AndonError: of the class ``error``: missing, cannot be opened, no regular file, or too large.
    """
    name = fspath(path) if name is None else name
    try:
        _check_regular(os.stat(path).st_mode, name, what, error)  # opening some devices does something
        descriptor = os.open(path, _READ)
        try:
            status = os.fstat(descriptor)
            _check_regular(status.st_mode, name, what, error)
            if max_bytes is not None and status.st_size > max_bytes:
                raise error(f"{name}: {status.st_size:,} bytes are too many for {what} (limit {max_bytes:,})")
            return open(path, "rb", opener=lambda *_: descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    except FileNotFoundError:
        raise error(f"{name}: there is no such file") from None
    except (OSError, ValueError) as problem:
        raise error(f"{name}: cannot be read ({getattr(problem, 'strerror', None) or problem})") from problem


def _check_regular(mode: int, name: str, what: str, error: type[AndonError]) -> None:
    if stat.S_ISDIR(mode):
        raise error(f"{name}: a folder, not {what}")
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
        raise error(f"{name}: a {kinds.get(stat.S_IFMT(mode), 'special file')}, not a regular file; remove it")


def read_regular(
    path: str | PathLike[str],
    max_bytes: int,
    *,
    what: str = "a file of data",
    error: type[AndonError] = DataError,
    name: str | None = None,
) -> bytes:
    """The bytes of a file, opened as ``open_regular`` does; one that grows beyond ``max_bytes`` is refused as well."""
    name = fspath(path) if name is None else name
    with open_regular(path, max_bytes, what=what, error=error, name=name) as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError as problem:
            raise error(f"{name}: cannot be read ({problem.strerror or problem})") from problem
    if len(content) > max_bytes:
        raise error(f"{name}: too large for {what} (limit {max_bytes:,} bytes)")
    return content


def sha256_of_file(path: Path) -> str:
    """SHA-256 of the bytes of a file of ours, hexadecimal; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_of(file: BufferedReader) -> str:
    """A path that opens what ``file`` has open, for libraries that take paths only; its name where there is none."""
    link = f"/proc/self/fd/{file.fileno()}"
    return link if os.path.exists(link) else str(file.name)


def folders_below(folder: Path, *, error: type[AndonError] = DataError) -> Iterator[tuple[Path, list[str]]]:
    """``(folder, names of its files)`` of a folder and all below, sorted, linked folders too; hidden ones left out.

    Raises:
        AndonError: of the class ``error``: a folder cannot be listed, is a link to one that it lies in, or there are
            more than 100,000.
    """
    waiting = [(folder, folders_above(folder))]
    count = 0
    while waiting:
        current, above = waiting.pop()
        count += 1
        if count > _MOST_FOLDERS:
            raise error(f"{folder}: more than {_MOST_FOLDERS:,} folders below it; do its links lead in circles?")
        try:
            status = current.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                raise error(f"{current}: a link to a folder that it lies in; remove it")
            with os.scandir(current) as entries:
                found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
        except OSError as problem:
            raise error(f"{current}: cannot be listed ({problem.strerror or problem})") from problem
        yield current, [name for name, is_folder in found if not is_folder]
        deeper = above | {identity}
        waiting += [(current / name, deeper) for name, is_folder in reversed(found) if is_folder]


def folders_above(folder: Path) -> frozenset[tuple[int, int]]:
    """(device, inode) of the folders that a folder lies in, by its path and by where its links lead: entering one of
    them again would never end."""
    found = set()
    for path in (folder.absolute(), Path(os.path.realpath(folder))):
        for above in path.parents:
            try:
                status = above.stat()
            except OSError:
                continue
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


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


def write_file(path: Path, content: bytes, error: type[AndonError], way_out: str = "") -> None:
    """``write_atomically`` of a file that a user asked for.

    Raises:
        AndonError: of the class ``error``: it cannot be written; the message ends with ``way_out``.
    """
    try:
        write_atomically(path, content)
    except OSError as problem:
        raise error(f"{path}: cannot be written ({problem.strerror or problem}){way_out}") from problem


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
