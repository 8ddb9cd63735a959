"""Content hashes of files and of whole categories: what caches and experiments are identified by."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from andon._tools.files import open_regular
from andon._tools.parallel import ordered_map
from andon.core import AndonError, Category, ProgressCallback, canonical_json, no_progress

__all__ = ["category_fingerprint", "file_fingerprint"]

# A file is taken to be unchanged while all of these are: inode, size, modification and change time in nanoseconds.
_Status = tuple[int, int, int, int]
_known: dict[str, tuple[_Status, str]] = {}
_known_lock = threading.Lock()
_MAX_KNOWN = 2**18  # some 80 MB at the most


def file_fingerprint(path: Path) -> str:
    """Hash of a file's bytes (BLAKE2b, 32 hexadecimal digits); read once a process as long as the file is unchanged.

    Raises:
        AndonError: the file cannot be read, or is no regular file.
    """
    try:
        status = os.stat(path)
        key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        remembered = _known.get(str(path))
        if remembered is not None and remembered[0] == key:
            return remembered[1]
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except (OSError, ValueError) as error:
        raise AndonError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    with _known_lock:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[str(path)] = (key, digest)
    return digest


def category_fingerprint(category: Category, *, progress: ProgressCallback = no_progress) -> str:
    """Hash of everything that a category consists of (BLAKE2b, 32 hexadecimal digits).

    Content, name within the category's folder, split and defect type of every image and mask, and the entries of
    ``defects_config.json``. The same on every machine and wherever the folder lies; files are read by several threads.

    Raises:
        AndonError: a file cannot be read.
    """
    files = [path for sample in category.samples for path in (sample.path, *sample.mask_paths)]
    digests = _fingerprints(files, progress)
    entries = [
        [
            sample.id,
            *([_relative(path, category.root), digests[path]] for path in (sample.path, *sample.mask_paths)),
        ]
        for sample in category.samples
    ]
    value = ["andon-category", 1, [asdict(defect) for defect in category.defects], sorted(entries)]
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=16).hexdigest()


def _fingerprints(paths: Iterable[Path], progress: ProgressCallback) -> dict[Path, str]:
    paths = list(paths)
    found = {}
    for done, (path, digest) in enumerate(zip(paths, ordered_map(file_fingerprint, paths), strict=True), start=1):
        found[path] = digest
        progress("fingerprint", done, len(paths))
    return found


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
