"""Getting a published data set: by download where nobody has to agree to anything, from its files otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from andon.core import AndonError, ConfigError, DataError, Dataset, ProgressCallback, listed, no_progress
from andon.data.archives import archive_stem, is_archive, unpack
from andon.data.catalogue import PublishedSet
from andon.data.download import RemoteFile, download, zenodo_files
from andon.data.elpv import elpv_folder
from andon.data.files import list_folder
from andon.data.registry import load_dataset

__all__ = ["Fetched", "fetch_set"]

_ZENODO = "https://zenodo.org"


@dataclass(frozen=True)
class Fetched:
    """What came of it.

    Attributes:
        dataset: the data set.
        notes: what was done, a line each.
    """

    dataset: Dataset
    notes: tuple[str, ...]


def fetch_set(
    entry: PublishedSet,
    out: Path,
    *,
    source: Path | None = None,
    categories: Sequence[str] | None = None,
    progress: ProgressCallback = no_progress,
    host: str = _ZENODO,
) -> Fetched:
    """Makes a published data set ready to be read.

    What is there already is not fetched again; a download that was stopped goes on. Each archive is unpacked when it is
    whole, and removed then.

    Args:
        out: folder for it.
        source: its archive, a folder of its archives, or the unpacked data set, which is left where it is; None
            downloads it.
        categories: only these, where each has an archive of its own; None for all.
        host: of Zenodo.

    Raises:
        ConfigError: it may not be downloaded unattended: says where to get it; or no such category.
        DataError: a file that is not what it should be, no network, a full disk.
    """
    notes: list[str] = []
    if source is not None:
        folder = _from_files(entry, out, source, notes, progress)
    elif entry.package:
        folder = _from_package(entry)
    elif entry.unattended:
        folder = _from_network(entry, out, categories, notes, progress, host)
    else:
        raise ConfigError(f"{entry.title} cannot be downloaded unattended: {entry.way}; its page: {entry.page}")
    return Fetched(_checked(entry, folder), tuple(notes))


def _checked(entry: PublishedSet, folder: Path) -> Dataset:
    """The data set in a folder; DataError where it is another one."""
    dataset = load_dataset(folder)
    if dataset.layout not in entry.layouts:
        raise DataError(f"{folder}: is not {entry.title}: its layout is {dataset.layout}, not {entry.layouts[0]}")
    strange = [name for name in dataset.categories if entry.categories and name not in entry.categories]
    if strange:
        raise DataError(f"{folder}: is not {entry.title}: it has a category {strange[0]}")
    return dataset


def _from_package(entry: PublishedSet) -> Path:
    folder = elpv_folder()
    if folder is None:
        raise ConfigError(
            f"{entry.title} comes as a package: pip install --no-deps {entry.package} (90 MB), then run this again"
        )
    return folder


def _from_files(entry: PublishedSet, out: Path, source: Path, notes: list[str], progress: ProgressCallback) -> Path:
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder")
    if source.is_dir():
        names = [name for name in list_folder(source).others if is_archive(source / name)]
        wanted = [name for name in names if name.casefold() in {file.casefold() for file in entry.files}]
        chosen = [source / name for name in wanted or names]
        if not chosen or _loads(source):
            notes.append(f"{source} is unpacked already and stays where it is")
            return source
    elif is_archive(source):
        chosen = [source]
    else:
        raise DataError(f"{source}: neither an archive (zip, tar) nor a folder")
    apart = len(chosen) > 1 or _is_category(entry, chosen[0].name)
    for archive in chosen:
        _put(archive, out / archive_stem(archive.name) if apart else out, notes, progress)
    return out


def _loads(folder: Path) -> bool:
    try:
        load_dataset(folder)
    except AndonError:
        return False
    return True


def _is_category(entry: PublishedSet, file: str) -> bool:
    """Whether an archive is one of several of a data set."""
    return len(entry.files) > 1 and file.casefold() in {name.casefold() for name in entry.files}


def _put(archive: Path, target: Path, notes: list[str], progress: ProgressCallback) -> None:
    if target.is_dir() and any(target.iterdir()):
        notes.append(f"{target} is there already; {archive.name} was not unpacked")
        return
    if target.is_dir():
        target.rmdir()
    unpack(archive, target, progress=progress)
    notes.append(f"unpacked {archive.name} to {target}")


def _from_network(
    entry: PublishedSet,
    out: Path,
    categories: Sequence[str] | None,
    notes: list[str],
    progress: ProgressCallback,
    host: str,
) -> Path:
    several = len(entry.files) > 1
    if categories:
        known = [archive_stem(name) for name in entry.files] if several else []
        unknown = [name for name in categories if name not in known]
        if unknown:
            raise ConfigError(
                f"{entry.name} has no archive of {listed(unknown)}; it has: {listed(known) or 'one for all of it'}"
            )
    aside = out.with_name(f"{out.name}.download")
    missing = [
        name
        for name in entry.files
        if not _is_there(out / archive_stem(name) if several else out)
        and (not categories or archive_stem(name) in categories)
    ]
    if not missing:
        notes.append(f"{out}: all of it is there already")
        return out
    published = {file.name: file for file in _published(entry, host)}
    for name in missing:
        if name not in published:
            raise DataError(f"{entry.page}: has no file {name} any more; it has: {listed(published)}")
        archive = download(published[name], aside / name, progress=progress)
        _put(archive, out / archive_stem(name) if several else out, notes, progress)
        archive.unlink()
    for name, file in published.items():
        if several and not _is_named_archive(name) and not (out / name).exists():
            download(file, aside / name, progress=progress).replace(out / name)
    shutil.rmtree(aside, ignore_errors=True)
    return out


def _is_there(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _is_named_archive(name: str) -> bool:
    """Whether a name is an archive's."""
    return archive_stem(name) != name


def _published(entry: PublishedSet, host: str) -> tuple[RemoteFile, ...]:
    if entry.zenodo is None:
        return entry.remote
    try:
        listed_there = zenodo_files(entry.zenodo, host=host)
    except DataError as error:
        raise DataError(f"{error}; or get its files from {entry.page} and give their folder with --from") from error
    return tuple(
        replace(file, checksums=(*file.checksums, ("sha256", entry.sha256[file.name])))
        if file.name in entry.sha256
        else file
        for file in listed_there
    )
