"""Reading files of weights, and what is checked before they are used: no code in them is run."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import torch
from safetensors.torch import load_file
from torch import nn

from andon._tools.files import open_regular, path_of
from andon._tools.pickles import check_torch_file
from andon._tools.text import first_line
from andon.core import WeightsError, listed

__all__ = ["check_state_dict", "file_sha256", "load_into", "read_state_dict", "state_dict_sha256"]

_LARGEST_MEMBER = 2**30
"""Bytes of a file in an archive that are read at most: no archive of weights comes near it."""
_MOST_PACKED, _ALWAYS_BYTES = 20, 2**24
"""Times that weights may be packed (they hardly can be), and bytes up to which nobody minds."""
_WRAPPERS = ("module.", "backbone.", "model.", "encoder.")
_NESTED = ("state_dict", "model", "model_state_dict")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    try:
        with open_regular(path, what="weights", error=WeightsError, name=f"weights {path}") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"weights {path}: cannot be read ({error.strerror})") from error


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
        WeightsError: missing, truncated or damaged file; a pickle that holds anything but tensors; not a state dict.
    """
    with open_regular(path, what="weights", error=WeightsError, name=f"weights {path}") as file:
        if path.suffix == ".zip":
            return _read_pickle(_member(file, path, member), path)
        if path.suffix == ".safetensors":
            try:
                return _unwrapped(load_file(path_of(file)), path)
            except WeightsError:
                raise
            except Exception as error:  # a header may be damaged in any way
                raise WeightsError(
                    f"weights {path}: truncated or not a safetensors file ({first_line(error)})"
                ) from error
        if path.suffix not in (".pth", ".pt", ".bin", ".pckl"):
            raise WeightsError(f"weights {path}: unknown file type {path.suffix!r}; expected .safetensors or .pth")
        return _read_pickle(file, path)


def _member(file: BinaryIO, path: Path, member: str) -> io.BytesIO:
    """The bytes of one file of an archive; nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(file) as archive:
            found = [entry for entry in archive.infolist() if PurePosixPath(entry.filename).name == member]
            if not member or len(found) != 1:
                raise WeightsError(
                    f"weights {path}: the archive does not hold one file {member or 'of weights'!r}: "
                    "truncated, or another archive"
                )
            size, packed = found[0].file_size, found[0].compress_size
            if size > _LARGEST_MEMBER or size > max(_ALWAYS_BYTES, _MOST_PACKED * packed):
                raise WeightsError(
                    f"weights {path}: {found[0].filename} says that {packed:,} bytes unpack to {size:,}, "
                    "which no weights do: refused"
                )
            content = io.BytesIO()
            with archive.open(found[0]) as unpacked:
                while piece := unpacked.read(2**20):
                    content.write(piece)
                    if content.tell() > size:
                        raise WeightsError(f"weights {path}: {found[0].filename} is larger than it says: refused")
            content.seek(0)
            return content
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise WeightsError(f"weights {path}: truncated or not a zip archive ({first_line(error)})") from error


def _read_pickle(file: BinaryIO, path: Path) -> dict[str, torch.Tensor]:
    try:
        check_torch_file(file)
    except ValueError as error:
        raise WeightsError(
            f"weights {path}: {first_line(error)}; save its tensors alone, best as .safetensors"
        ) from error
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch says both "this pickle wants to run code" and "this is no pickle" with one class.
        unsafe = "weights only" in str(error).lower() and "unsupported" in str(error).lower()
        what = "holds Python code or objects, not only tensors: refused" if unsafe else "truncated or not a torch file"
        raise WeightsError(f"weights {path}: {what}; save its tensors alone, best as .safetensors") from error
    except Exception as error:  # the reader of the legacy format, above all, fails in any way on damage
        raise WeightsError(f"weights {path}: truncated or not a torch file ({first_line(error)})") from error
    return _unwrapped(loaded, path)


def _unwrapped(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    for key in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"weights {path}: not a state dict (names and tensors)")
    strangers = [str(k) for k, v in loaded.items() if not (isinstance(k, str) and isinstance(v, torch.Tensor))]
    if strangers:
        raise WeightsError(f"weights {path}: not tensors: {listed(strangers)}")
    if odd := [name for name, tensor in loaded.items() if not _is_plain(tensor)]:
        raise WeightsError(f"weights {path}: tensor {listed(odd, 3)} is sparse, quantised or without values")
    state: dict[str, torch.Tensor] = dict(loaded)
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_plain(tensor: torch.Tensor) -> bool:
    """Values in memory, of a type that can be computed with."""
    small = tensor.is_floating_point() and tensor.itemsize < 2
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized and not small


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
        WeightsError: a missing, misshapen or unexpected tensor, a value that is not finite; all name file and tensor.
    """
    counters = re.compile(r"(^|.*\.)num_batches_tracked")
    wanted = {n: t for n, t in module.state_dict().items() if not counters.fullmatch(n)}
    given = {n: t for n, t in state.items() if not counters.fullmatch(n)}
    if missing := [n for n in wanted if n not in given]:
        raise WeightsError(f"weights {source}: tensor {listed(missing, 3)} missing; are they for another network?")
    for name, tensor in wanted.items():
        other = given[name]
        if other.shape != tensor.shape:
            raise WeightsError(
                f"weights {source}: tensor {name} has shape {list(other.shape)}, the network needs {list(tensor.shape)}"
            )
        if not other.is_floating_point() or not bool(torch.isfinite(other).all()):
            raise WeightsError(f"weights {source}: tensor {name} holds values that are not finite numbers")
    if strangers := [n for n in given if n not in wanted and not re.fullmatch(spare, n)]:
        raise WeightsError(f"weights {source}: unexpected tensor {listed(strangers, 3)}; are they for another network?")
    return list(wanted)
