"""Archives of data sets (zip; tar, also compressed by gzip, bzip2 or xz), unpacked so that none can do harm.

Refused, before or while unpacking, and nothing is left of it: names that lead out of the folder, links, devices, two
files of one name, encryption, and what unpacks to far more than the archive holds. Rights and owners are not kept.
Archives in an archive are unpacked as well, one level deep, each into a folder of its name.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from andon.core import DataError, ProgressCallback, no_progress

__all__ = ["ARCHIVE_SUFFIXES", "archive_stem", "is_archive", "unpack", "unpacked_beside"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_FILES = 2_000_000
"""Files in an archive."""
MAX_RATIO = 100
"""Bytes that come out of one byte, once more than ``FREE_BYTES`` come out: black masks shrink to nearly nothing."""
FREE_BYTES = 2**31
MAX_BYTES = 2**40
_XZ_MEMORY = 2**30
_MAX_NAME, _MAX_DEPTH = 4096, 32
_STEP = 2**20
_MARK = ".andon-archive.json"
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


def is_archive(path: Path) -> bool:
    """Whether a file is called as an archive is."""
    return path.name.casefold().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def archive_stem(name: str) -> str:
    """The name without what makes it an archive's: "bottle" of "bottle.tar.xz"."""
    suffix = max((s for s in ARCHIVE_SUFFIXES if name.casefold().endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)] or name


def unpacked_beside(archive: Path, *, progress: ProgressCallback = no_progress) -> tuple[Path, str]:
    """The folder ``<name>.unpacked`` beside an archive, made where it is not there, and the archive's name.

    It is taken as it is while the archive has the size and the time that it had.

    Raises:
        DataError: as ``unpack``, the folder is of another archive, or cannot be made there.
    """
    stem = archive_stem(archive.name)
    target = archive.absolute().with_name(f"{stem}.unpacked")
    status = archive.stat()
    mark: dict[str, str | int] = {"archive": archive.name, "bytes": status.st_size, "time": status.st_mtime_ns}
    if target.is_dir():
        if not _is_marked(target, mark):
            raise DataError(f"{target}: is not what {archive.name} unpacks to, or of an earlier one; remove the folder")
        return target, stem
    if not os.access(target.parent, os.W_OK):
        raise DataError(
            f"{archive}: cannot be unpacked beside itself, {target.parent} may not be written to; unpack it elsewhere "
            "with andon data fetch NAME --from FILE --out DIR"
        )
    try:
        unpack(archive, target, progress=progress, mark=json.dumps(mark).encode())
    except DataError:
        if not _is_marked(target, mark):  # otherwise another process was faster
            raise
    return target, stem


def _is_marked(folder: Path, mark: dict[str, str | int]) -> bool:
    try:
        found: object = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found == mark


def unpack(archive: Path, target: Path, *, progress: ProgressCallback = no_progress, mark: bytes | None = None) -> None:
    """Unpacks an archive into a new folder, which appears whole or not at all.

    A folder that is all that the archive holds, and has its name, is left out: bottle.zip with bottle/train gives
    target/train.

    Args:
        progress: called with ("unpack", bytes done, bytes in all), the archive's.
        mark: content of a hidden file that says what was unpacked.

    Raises:
        DataError: names the archive and the file in it; ``target`` exists or cannot be written.
    """
    if target.exists():
        raise DataError(f"{target}: is there already")
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        scratch.mkdir(parents=True)
        budget = _Budget(archive, archive.stat().st_size)
        _unpack(archive, scratch, budget, progress)
        for inner in sorted(path for path in scratch.rglob("*") if is_archive(path)):
            _unpack_inner(inner, budget)
        whole = _lifted(scratch, archive_stem(archive.name))
        if mark is not None:
            (whole / _MARK).write_bytes(mark)
        whole.rename(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error}); nothing was kept") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack_inner(inner: Path, budget: _Budget) -> None:
    folder = inner.with_name(archive_stem(inner.name))
    if folder.exists():
        raise DataError(f"{budget.archive}: holds both {inner.name} and {folder.name}")
    scratch = inner.with_name(f".{folder.name}.part")
    scratch.mkdir()
    _unpack(inner, scratch, budget, no_progress)
    _lifted(scratch, folder.name).rename(folder)
    shutil.rmtree(scratch, ignore_errors=True)
    inner.unlink()


def _lifted(folder: Path, name: str) -> Path:
    """The only folder in a folder, where it has the archive's name; the folder itself otherwise."""
    entries = list(folder.iterdir())
    only = entries[0] if len(entries) == 1 else None
    return only if only is not None and only.is_dir() and only.name.casefold() == name.casefold() else folder


@dataclass
class _Budget:
    """How much may still come out of an archive.

    Attributes:
        archive: whose name messages have.
        size: its bytes.
    """

    archive: Path
    size: int
    files: int = 0
    taken: int = 0

    def file(self) -> None:
        self.files += 1
        if self.files > MAX_FILES:
            raise DataError(f"{self.archive}: more than {MAX_FILES:,} files in it")

    def take(self, count: int) -> None:
        self.taken += count
        limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * self.size))
        if self.taken > limit:
            raise DataError(
                f"{self.archive}: unpacks to more than {limit:,} bytes, which is far more than it holds "
                f"({self.size:,}); no data set does"
            )


def _unpack(archive: Path, folder: Path, budget: _Budget, progress: ProgressCallback) -> None:
    with _guarded(budget.archive if archive.name.startswith(".") else archive):
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder, budget, progress)
        else:
            _unpack_tar(archive, folder, budget, progress)


@contextmanager
def _guarded(archive: Path) -> Iterator[None]:
    """What a damaged archive raises, as DataError that names it; a full disk stays what it is."""
    try:
        yield
    except DataError:
        raise
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OverflowError,
        MemoryError,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{archive}: damaged, or not an archive that is read (zip, tar): {reason}") from error
    except OSError as error:
        if error.errno is None:  # gzip and bzip2 say so of damaged data
            raise DataError(f"{archive}: damaged ({error})") from error
        raise


def _unpack_zip(archive: Path, folder: Path, budget: _Budget, progress: ProgressCallback) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        declared = sum(member.file_size for member in members)
        budget.take(declared)  # before anything is written
        budget.taken -= declared
        _check_space(folder, declared, archive)
        done = 0
        for member in members:
            where = f"{archive}: {member.filename!r}"
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{where} is a link or a device; no data set needs one")
            if member.flag_bits & 1:
                raise DataError(f"{where} is encrypted; unpack the archive with its password yourself")
            target = _target(folder, member.filename, where)
            if member.is_dir():
                _make_folder(target, where)
            elif target is not None:
                with file.open(member) as source:
                    _copy(source, target, where, budget, member.file_size)
            done += member.compress_size
            progress("unpack", done, budget.size)


def _unpack_tar(archive: Path, folder: Path, budget: _Budget, progress: ProgressCallback) -> None:
    with archive.open("rb") as raw:
        start = raw.read(2**16)
        if start.startswith(b"\xfd7zXZ"):
            lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY).decompress(start, max_length=1)
        raw.seek(0)
        with tarfile.open(fileobj=raw, mode="r|*", bufsize=_STEP) as file:
            for member in file:
                where = f"{archive}: {member.name!r}"
                if not (member.isreg() or member.isdir()):
                    raise DataError(f"{where} is a link or a device; no data set needs one")
                target = _target(folder, member.name, where)
                if member.isdir():
                    _make_folder(target, where)
                else:
                    source = file.extractfile(member)
                    assert source is not None
                    if target is None:
                        budget.take(member.size)
                    else:
                        _copy(source, target, where, budget, member.size)
                progress("unpack", min(raw.tell(), budget.size), budget.size)


def _target(folder: Path, name: str, where: str) -> Path | None:
    """Where a file of an archive goes; None for a system's litter, DataError where it would go elsewhere."""
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    drive = len(parts) > 0 and len(parts[0]) == 2 and parts[0][1] == ":"
    if path.startswith("/") or ".." in parts or drive or not path.isprintable():
        raise DataError(
            f"{where} leads out of the folder, or has signs that no name of a file has; nothing is unpacked"
        )
    if len(path) > _MAX_NAME or len(parts) > _MAX_DEPTH or any(len(part.encode()) > 255 for part in parts):
        raise DataError(f"{where:.200}: the name is too long or too deep")
    if not parts:
        return None
    if any(part in _LITTER or part.startswith("._") for part in parts):
        return None
    return folder.joinpath(*parts)


def _make_folder(folder: Path | None, where: str) -> None:
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{where} is a file and a folder in this archive") from None


def _copy(source: IO[bytes], target: Path, where: str, budget: _Budget, declared: int) -> None:
    budget.file()
    written = 0
    _make_folder(target.parent, where)
    try:
        file = target.open("xb")
    except FileExistsError:
        raise DataError(f"{where} is there twice, or its name differs in case only") from None
    except (IsADirectoryError, NotADirectoryError):
        raise DataError(f"{where} is a file and a folder") from None
    with file:
        while block := source.read(_STEP):
            written += len(block)
            budget.take(len(block))
            if written > declared:
                raise DataError(f"{where} is larger than the archive says ({declared:,} bytes)")
            file.write(block)
    if written != declared:
        raise DataError(f"{where} is smaller than the archive says ({declared:,} bytes): the archive is cut off")


def _check_space(folder: Path, needed: int, archive: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{archive}: unpacks to {needed:,} bytes, but {folder.parent} has {free:,} left")
