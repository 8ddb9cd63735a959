"""What installed packages hold, by their metadata alone: none of them is imported."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

__all__ = ["installed_versions", "packaged_path"]


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def packaged_path(package: str, path: str) -> Path | None:
    """Where a file or folder of an installed package is, whether it is there or not; None where the package is not."""
    try:
        return Path(str(metadata.distribution(package).locate_file(path)))
    except metadata.PackageNotFoundError:
        return None
