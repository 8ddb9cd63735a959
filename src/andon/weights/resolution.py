"""Where learned parts come from, and what is checked before they are used.

A published file is looked for in this order: a file the user names, the local cache, a file embedded in the package,
the hub. Every file must have the SHA-256 that is pinned for it; pickles are read without running anything in them; and
nothing ever falls back to random weights.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from andon.core import AndonError, listed
from andon.weights.record import WeightsRecord

__all__ = [
    "ALIASES",
    "PUBLISHED",
    "PublishedFile",
    "PublishedWeights",
    "cache_directory",
    "check_state_dict",
    "fetch_weights",
    "file_sha256",
    "find_part",
    "find_weights",
    "load_into",
    "located",
    "published_weights",
    "random_seed",
    "read_state_dict",
    "searched_places",
    "split_hash",
    "state_dict_sha256",
]

_EMBEDDED = "embedded"
"""Folder beside this module with the files that the package brings along, named as in a cache."""
_LARGEST_MEMBER = 2**30
"""Bytes of a file in an archive that are read at most: no archive of weights comes near it."""
_WRAPPERS = ("module.", "backbone.", "model.", "encoder.")
_NESTED = ("state_dict", "model", "model_state_dict")


def cache_directory() -> Path:
    """Andon's cache on this machine: ``$ANDON_CACHE``, or the platform's place for caches."""
    named = os.environ.get("ANDON_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "andon" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "andon"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "andon"


@dataclass(frozen=True)
class PublishedFile:
    """One file that holds published weights.

    Attributes:
        filename: its name in a cache.
        sha256: its hash, as found in sources that do not depend on each other, none of them this project.
        url: where it is published; "" for a file that only comes with the package.
        hub: (repository, revision, file name) on the model hub, where it is published there.
        member: for a zip archive, the name (without folders) of the file in it that holds the weights.
    """

    filename: str
    sha256: str
    url: str
    hub: tuple[str, str, str] | None = None
    member: str = ""


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that their authors publish, as one file or as several of equal content.

    Attributes:
        name: their name in records ("tv_in1k").
        licence: as the publisher states it.
        files: in the order of preference; the first is the one that is fetched.
    """

    name: str
    licence: str
    files: tuple[PublishedFile, ...]


def _hub(part: str, name: str, revision: str, sha256: str) -> PublishedFile:
    repository, file = f"timm/{part}.{name}", "model.safetensors"
    url = f"https://huggingface.co/{repository}/resolve/{revision}/{file}"
    return PublishedFile(f"{part}-{name}.safetensors", sha256, url, (repository, revision, file))


def _torch(filename: str, sha256: str) -> PublishedFile:
    return PublishedFile(filename, sha256, f"https://download.pytorch.org/models/{filename}")


def _release(tag: str, archive: str, sha256: str, member: str) -> PublishedFile:
    url = f"https://github.com/open-edge-platform/anomalib/releases/download/{tag}/{archive}"
    return PublishedFile(archive, sha256, url, member=member)


_TEACHERS = (
    "efficientad_pretrained_weights",
    "efficientad_pretrained_weights.zip",
    "c09aeaa2b33f244b3261a5efdaeae8f8284a949470a4c5a526c61275fe62684a",
)
_CODEBOOK = (
    "dsr_pretrained_weights",
    "dsr_vq_model_pretrained.zip",
    "52fe7504ec8e9df70b4382f287ab26269dcfe000cd7a7e146a52c6f146f34afb",
)

PUBLISHED: Mapping[tuple[str, str], PublishedWeights] = {
    ("resnet18", "tv_in1k"): PublishedWeights(
        "tv_in1k",
        "BSD-3-Clause",
        (
            _hub(
                "resnet18",
                "tv_in1k",
                "a987fd6b60f845221bfff84b6f0191273ba56ead",
                "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
            ),
            _torch("resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"),
        ),
    ),
    ("resnet34", "tv_in1k"): PublishedWeights(
        "tv_in1k",
        "BSD-3-Clause",
        (_torch("resnet34-b627a593.pth", "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f"),),
    ),
    ("resnet50", "tv_in1k"): PublishedWeights(
        "tv_in1k",
        "BSD-3-Clause",
        (
            _hub(
                "resnet50",
                "tv_in1k",
                "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
                "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
            ),
            _torch("resnet50-0676ba61.pth", "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"),
        ),
    ),
    ("wide_resnet50_2", "tv_in1k"): PublishedWeights(
        "tv_in1k",
        "BSD-3-Clause",
        (
            _hub(
                "wide_resnet50_2",
                "tv_in1k",
                "343c5fa59ca8a131e0cdf42144a641b36a0387c2",
                "df6fb6c4824769769de18e14088475fd6ee94236849aa4e5d8022ba9d9a9a16c",
            ),
            _torch("wide_resnet50_2-95faca4d.pth", "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8"),
        ),
    ),
    ("resnet18", "a1_in1k"): PublishedWeights(
        "a1_in1k",
        "Apache-2.0",
        (
            _hub(
                "resnet18",
                "a1_in1k",
                "491b427b45c94c7fb0e78b5474cc919aff584bbf",
                "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
            ),
        ),
    ),
    ("wide_resnet50_2", "racm_in1k"): PublishedWeights(
        "racm_in1k",
        "Apache-2.0",
        (
            _hub(
                "wide_resnet50_2",
                "racm_in1k",
                "30f73aceaaa1911830a9795b83ab1908dba18719",
                "03b71d65fb2c73bb0de079a1781009f27a782ec481d2f64ab3bde9b1cdec3000",
            ),
        ),
    ),
    ("dsr_discrete_latent_model", "embedded"): PublishedWeights(
        "embedded",
        "Apache-2.0",
        (
            PublishedFile(
                "dsr_discrete_latent_model.safetensors",
                "4d875ae5bccfb969965c113c23cf918a20b2e1d2150dd5822cbd408c1730aaa9",
                "",
            ),
        ),
    ),
    # Neither release states a licence of its weights; both were learned from ImageNet.
    ("efficientad_teacher_small", "imagenet"): PublishedWeights(
        "imagenet", "", (_release(*_TEACHERS, "pretrained_teacher_small.pth"),)
    ),
    ("efficientad_teacher_medium", "imagenet"): PublishedWeights(
        "imagenet", "", (_release(*_TEACHERS, "pretrained_teacher_medium.pth"),)
    ),
    ("dsr_discrete_latent_model", "imagenet"): PublishedWeights(
        "imagenet", "", (_release(*_CODEBOOK, "vq_model_pretrained_128_4096.pckl"),)
    ),
}
"""(part, name) to what is published under it.

Names of backbones' weights are timm's: tv_in1k is torchvision's IMAGENET1K_V1. What comes with the package is called
"embedded".
"""
ALIASES = {"imagenet": "tv_in1k"}


def published_weights(part: str, name: str) -> PublishedWeights | None:
    """What a name, or an alias of one, stands for; None where it stands for nothing (then it is a file)."""
    return PUBLISHED.get((part, name)) or PUBLISHED.get((part, ALIASES.get(name, name)))


def random_seed(weights: str | Path) -> int | None:
    """The seed of "random" (0) or "random:SEED"; None for any other weights."""
    text = str(weights)
    if text != "random" and not text.startswith("random:"):
        return None
    seed = text.removeprefix("random").removeprefix(":") or "0"
    if not re.fullmatch(r"\d{1,18}", seed):
        raise AndonError(f"weights {text!r}: the seed must be a whole number, as in random:1")
    return int(seed)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AndonError(f"weights {path}: cannot be read ({error.strerror})") from error


def state_dict_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the names, types, shapes and values of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_state_dict(path: Path, member: str = "") -> dict[str, torch.Tensor]:
    """Reads ``.safetensors``, or a ``.pth``/``.pt``/``.bin`` pickle of tensors alone; tensors are on the CPU.

    A state dict may lie under "state_dict" or "model", and its names may begin with "module." or "backbone.".

    Args:
        member: of a ``.zip`` archive, the name (without folders) of the file in it that is read.

    Raises:
        AndonError: missing, truncated or damaged file; a pickle that holds anything but tensors; not a state dict.
    """
    if not path.is_file():
        raise AndonError(f"weights {path}: there is no such file")
    if path.suffix == ".zip":
        return _read_pickle(_member(path, member), path)
    if path.suffix == ".safetensors":
        try:
            return _unwrapped(load_file(path), path)
        except (SafetensorError, OSError, ValueError) as error:
            raise AndonError(f"weights {path}: truncated or not a safetensors file ({error})") from error
    if path.suffix not in (".pth", ".pt", ".bin", ".pckl"):
        raise AndonError(f"weights {path}: unknown file type {path.suffix!r}; expected .safetensors or .pth")
    return _read_pickle(path, path)


def _member(path: Path, member: str) -> io.BytesIO:
    """The bytes of one file of an archive; nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [entry for entry in archive.infolist() if PurePosixPath(entry.filename).name == member]
            if not member or len(found) != 1:
                raise AndonError(
                    f"weights {path}: the archive does not hold one file {member or 'of weights'!r}: "
                    "truncated, or another archive"
                )
            if found[0].file_size > _LARGEST_MEMBER:
                raise AndonError(f"weights {path}: {found[0].filename} is larger than any weights are: refused")
            return io.BytesIO(archive.read(found[0]))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise AndonError(f"weights {path}: truncated or not a zip archive ({_first_line(error)})") from error


def _read_pickle(file: Path | io.BytesIO, path: Path) -> dict[str, torch.Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch says both "this pickle wants to run code" and "this is no pickle" with one class.
        unsafe = "weights only" in str(error).lower() and "unsupported" in str(error).lower()
        what = "holds Python code or objects, not only tensors: refused" if unsafe else "truncated or not a torch file"
        raise AndonError(f"weights {path}: {what}; save its tensors alone, best as .safetensors") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, AttributeError, struct.error) as error:
        raise AndonError(f"weights {path}: truncated or not a torch file ({_first_line(error)})") from error
    return _unwrapped(loaded, path)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _unwrapped(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    for key in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise AndonError(f"weights {path}: not a state dict (names and tensors)")
    strangers = [str(k) for k, v in loaded.items() if not (isinstance(k, str) and isinstance(v, torch.Tensor))]
    if strangers:
        raise AndonError(f"weights {path}: not tensors: {listed(strangers)}")
    state: dict[str, torch.Tensor] = dict(loaded)
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def load_into(module: nn.Module, state: Mapping[str, torch.Tensor], source: str | Path, spare: str = r"") -> None:
    """Copies a state dict into a module, after ``check_state_dict``."""
    names = check_state_dict(module, state, source, spare)
    module.load_state_dict({name: state[name] for name in names}, strict=False)


def check_state_dict(
    module: nn.Module, state: Mapping[str, torch.Tensor], source: str | Path, spare: str = r""
) -> list[str]:
    """Whether a state dict fits a module (which may be on "meta"): every tensor must be there with its shape.

    Args:
        source: the file, for messages.
        spare: names (regular expression) that the state dict may have and the module lacks: the classifier, stages
            that are not built. ``num_batches_tracked`` may be absent or present on either side.

    Returns:
        The names of the tensors that the module takes.

    Raises:
        AndonError: a missing, misshapen or unexpected tensor, a value that is not finite; all name file and tensor.
    """
    counters = re.compile(r"(^|.*\.)num_batches_tracked")
    wanted = {n: t for n, t in module.state_dict().items() if not counters.fullmatch(n)}
    given = {n: t for n, t in state.items() if not counters.fullmatch(n)}
    if missing := [n for n in wanted if n not in given]:
        raise AndonError(f"weights {source}: tensor {listed(missing, 3)} missing; are they for another network?")
    for name, tensor in wanted.items():
        other = given[name]
        if other.shape != tensor.shape:
            raise AndonError(
                f"weights {source}: tensor {name} has shape {list(other.shape)}, the network needs {list(tensor.shape)}"
            )
        if not other.is_floating_point() or not bool(torch.isfinite(other).all()):
            raise AndonError(f"weights {source}: tensor {name} holds values that are not finite numbers")
    if strangers := [n for n in given if n not in wanted and not re.fullmatch(spare, n)]:
        raise AndonError(f"weights {source}: unexpected tensor {listed(strangers, 3)}; are they for another network?")
    return list(wanted)


def split_hash(weights: str | Path) -> tuple[str, str]:
    """ "NAME#sha256=HEX" to (NAME, HEX); HEX is "" where none is given."""
    name, mark, digest = str(weights).partition("#sha256=")
    if mark and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise AndonError(f"weights {weights}: a SHA-256 has 64 hexadecimal digits, not {digest!r}")
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
        AndonError: nothing found (says how to get it), or a file whose hash is not the pinned one.
    """
    name, given = split_hash(weights)
    if published is None:
        path = Path(name).expanduser()
        if not path.is_file():
            known = [*(ALIASES if (part, "tv_in1k") in PUBLISHED else []), *(n for p, n in PUBLISHED if p == part)]
            also = f"; published weights have the names {', '.join(known)}" if known else ""
            raise AndonError(f"weights for {part}: there is no file {name}{also}")
        return path, WeightsRecord(part, "file", path.name, _checked(path, given))
    files = [f for f in published.files if given in ("", f.sha256)]
    if not files:
        raise AndonError(f"weights {weights} for {part}: no published file has this SHA-256")
    for source, path, file in _places(files):
        if path.is_file():
            return path, WeightsRecord(part, source, published.name, _checked(path, file.sha256), published.licence)
    path = _download(part, files[0])
    return path, WeightsRecord(part, "hub", published.name, _checked(path, files[0].sha256), published.licence)


def _checked(path: Path, expected: str) -> str:
    found = file_sha256(path)
    if expected and found != expected:
        raise AndonError(
            f"weights {path}: SHA-256 is {found}, expected {expected}: "
            "damaged, incomplete or another file; remove it or fetch it anew"
        )
    return found


def _places(files: Sequence[PublishedFile]) -> Iterator[tuple[str, Path, PublishedFile]]:
    """(source, path, file) of every local place, in order: Andon's cache, other caches, the package."""
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
        yield "embedded", Path(str(resources.files("andon.weights"))) / _EMBEDDED / file.filename, file


def _in_hub_cache(repository: str, revision: str, filename: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

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
    archives = published or PUBLISHED.get((part, "imagenet"))
    members = {file.member for file in archives.files if file.member} if archives else set()
    state = read_state_dict(path, next(iter(members), ""))
    return (convert(state) if convert else state), path, record


def fetch_weights(part: str, name: str) -> tuple[Path, WeightsRecord]:
    """Makes sure that published weights are on this machine: what is there is checked, the rest is downloaded.

    Raises:
        AndonError: an unknown part or name; no network (says where to put the file); a wrong hash.
    """
    published = published_weights(part, name)
    if published is None:
        known = [f"{p} {n}" for p, n in PUBLISHED]
        raise AndonError(f"there are no published weights {name!r} for {part!r}; known: {listed(known, 20)}")
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
    if not file.url:
        raise AndonError(
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
        raise AndonError(
            f"weights for {part} are not on this machine and cannot be fetched ({_first_line(error)}): get {file.url} "
            f"where there is a network and put it at {target}, or name a file as the weights; "
            "the weights 'random' need none, and every result says so"
        ) from error
    return target
