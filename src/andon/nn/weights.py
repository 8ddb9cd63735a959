"""Where learned parts come from, and what is checked before they are used.

A published file is looked for in this order: a file the user names, the local cache, a file embedded in the package,
the hub. Every file must have the SHA-256 that is pinned for it; pickles are read without running anything in them; and
nothing ever falls back to random weights.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from andon.core import AndonError, listed
from andon.nn.features import WeightsRecord

__all__ = [
    "PUBLISHED",
    "PublishedWeights",
    "cache_directory",
    "find_weights",
    "load_into",
    "random_seed",
    "read_state_dict",
    "state_dict_sha256",
]

_EMBEDDED = "weights"
"""Folder beside this module with the files that the package brings along."""
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
class PublishedWeights:
    """A file of weights that its authors publish.

    Attributes:
        name: its name in records and file names ("tv_in1k").
        repository: the hub's repository.
        filename: the file in it.
        revision: the commit that is fetched.
        sha256: the file's hash; "" where none is known from a source worth trusting: it is then only fetched or read
            from a cache if the user gives one ("imagenet#sha256=…").
        licence: as its publisher states it.
        torch_hub: the same weights' file name at download.pytorch.org and in torch's own cache, and its SHA-256.
    """

    name: str
    repository: str
    filename: str = "model.safetensors"
    revision: str = "main"
    sha256: str = ""
    licence: str = ""
    torch_hub: tuple[str, str] | None = None


PUBLISHED: Mapping[tuple[str, str], PublishedWeights] = {
    ("resnet18", "imagenet"): PublishedWeights(
        name="tv_in1k",
        repository="timm/resnet18.tv_in1k",
        revision="a987fd6b60f845221bfff84b6f0191273ba56ead",
        sha256="694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
        licence="BSD-3-Clause",
        torch_hub=("resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"),
    ),
    ("wide_resnet50_2", "imagenet"): PublishedWeights(
        name="tv_in1k",
        repository="timm/wide_resnet50_2.tv_in1k",
        revision="343c5fa59ca8a131e0cdf42144a641b36a0387c2",
        sha256="df6fb6c4824769769de18e14088475fd6ee94236849aa4e5d8022ba9d9a9a16c",
        licence="BSD-3-Clause",
    ),
}
"""(backbone, name) to what is published under it."""


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
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Reads ``.safetensors``, or a ``.pth``/``.pt``/``.bin`` pickle of tensors alone; tensors are on the CPU.

    A state dict may lie under "state_dict" or "model", and its names may begin with "module." or "backbone.".

    Raises:
        AndonError: missing, truncated or damaged file; a pickle that holds anything but tensors; not a state dict.
    """
    if not path.is_file():
        raise AndonError(f"weights {path}: there is no such file")
    if path.suffix == ".safetensors":
        try:
            return _unwrapped(load_file(path), path)
        except (SafetensorError, OSError, ValueError) as error:
            raise AndonError(f"weights {path}: truncated or not a safetensors file ({error})") from error
    if path.suffix not in (".pth", ".pt", ".bin", ".pckl"):
        raise AndonError(f"weights {path}: unknown file type {path.suffix!r}; expected .safetensors or .pth")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
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
    """Copies a state dict into a module; every tensor of the module must be there with its shape.

    Args:
        source: the file, for messages.
        spare: names (regular expression) that the state dict may have and the module lacks: the classifier, stages
            that are not built. ``num_batches_tracked`` may be absent or present on either side.

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
    module.load_state_dict({n: given[n] for n in wanted}, strict=False)


def split_hash(weights: str | Path) -> tuple[str, str]:
    """"NAME#sha256=HEX" to (NAME, HEX); HEX is "" where none is given."""
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
        AndonError: nothing found (says how to get it), wrong hash, no pinned hash.
    """
    name, given = split_hash(weights)
    if published is None:
        path = Path(name).expanduser()
        if not path.is_file():
            raise AndonError(f"weights for {part}: there is no file {name}")
        return path, WeightsRecord(part, "file", path.name, _checked(path, given))

    pin = given or published.sha256
    for source, path, expected in _places(part, published, pin):
        if path.is_file():
            if not expected:
                raise AndonError(_unpinned(part, published, name))
            licence = published.licence
            return path, WeightsRecord(part, source, published.name, _checked(path, expected), licence)
    if not pin:
        raise AndonError(_unpinned(part, published, name))
    path = _download(part, published)
    return path, WeightsRecord(part, "hub", published.name, _checked(path, pin), published.licence)


def _checked(path: Path, expected: str) -> str:
    found = file_sha256(path)
    if expected and found != expected:
        raise AndonError(
            f"weights {path}: SHA-256 is {found}, expected {expected}: damaged or another file; remove it or fetch it anew"
        )
    return found


def cached_name(part: str, published: PublishedWeights) -> str:
    """File name under ``cache_directory() / "weights"`` and of an embedded file."""
    return f"{part}-{published.name}{Path(published.filename).suffix}"


def _places(part: str, published: PublishedWeights, pin: str) -> list[tuple[str, Path, str]]:
    """(source, file, expected hash) of every local place, in order."""
    name = cached_name(part, published)
    places = [("cache", cache_directory() / "weights" / name, pin)]
    if published.torch_hub is not None:
        filename, digest = published.torch_hub
        torch_home = os.environ.get("TORCH_HOME") or str(Path.home() / ".cache" / "torch")
        places.append(("cache", cache_directory() / "weights" / filename, digest))
        places.append(("cache", Path(torch_home) / "hub" / "checkpoints" / filename, digest))
    places.append(("embedded", Path(str(resources.files("andon.nn"))) / _EMBEDDED / name, pin))
    return places


def _unpinned(part: str, published: PublishedWeights, name: str) -> str:
    return (
        f"weights {name!r} for {part} ({published.repository}) have no pinned SHA-256, so they are not taken from a cache "
        f"or the hub unchecked: give the hash of the file you trust ({name}#sha256=…) or the file's path"
    )


def _download(part: str, published: PublishedWeights) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    url = f"https://huggingface.co/{published.repository}/resolve/{published.revision}/{published.filename}"
    try:
        return Path(hf_hub_download(published.repository, published.filename, revision=published.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, RuntimeError, ValueError) as error:
        target = cache_directory() / "weights" / cached_name(part, published)
        raise AndonError(
            f"weights for {part} are not on this machine and the hub cannot be reached ({_first_line(error)}): fetch {url} "
            f"where there is a network and put it at {target}, or give a file (weights=…); "
            'weights="random" runs without, and the result says so'
        ) from error
