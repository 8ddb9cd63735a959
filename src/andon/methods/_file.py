"""A detector's file: safetensors, with the method, its configuration and its report in the header. No pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save

from andon._tools.files import open_regular, path_of, write_file
from andon._tools.text import first_line
from andon.core import AndonError, DetectorError
from andon.methods._fitting import FitReport
from andon.methods.anomalib_model import PREFIX
from andon.methods.base import Detector, Method
from andon.methods.registry import method_names, recorded_method
from andon.weights import WeightsRecord

__all__ = ["detector_bytes", "load", "load_bytes", "save_detector"]

_FORMAT = 1
_KEY = "andon"


def detector_bytes(detector: Detector) -> bytes:
    """See ``Detector.to_bytes``."""
    header = {
        "format": _FORMAT,
        "method": detector.method.name,
        "config": detector.method.config.model_dump(mode="json"),
        "report": asdict(detector.report),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    # One entry, because the library writes several in an order that differs from run to run.
    return save(tensors, {_KEY: json.dumps(header, ensure_ascii=False, sort_keys=True)})


def save_detector(detector: Detector, path: Path) -> None:
    """See ``Detector.save``; the file appears whole or not at all."""
    write_file(path, detector_bytes(detector), DetectorError)


def load(path: str | Path, *, device: torch.device | str = "cpu", method: Method[Any] | None = None) -> Detector:
    """Reads what ``Detector.save`` wrote. No code in the file is run, and no weights are looked for.

    Args:
        path: the file.
        device: where the detector's tensors shall be.
        method: the method, where it is one of your own that is not installed by name.

    Raises:
        DetectorError: no such file, damaged, of a newer version, or of a method that is not known.
    """
    path = Path(path)
    if not path.exists():
        raise DetectorError(f"{path}: there is no such file; a detector is written by its save()")
    try:
        with (
            open_regular(path, what="a detector", error=DetectorError) as regular,
            safe_open(path_of(regular), framework="pt") as file,
        ):
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(str(path), error) from error
    return _restored(str(path), metadata, tensors, method).to(device)


def load_bytes(
    content: bytes, *, name: str, device: torch.device | str = "cpu", method: Method[Any] | None = None
) -> Detector:
    """``load`` of what ``Detector.to_bytes`` gave; messages call it ``name``."""
    try:
        tensors = load_tensors(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(name, error) from error
    return _restored(name, metadata, tensors, method).to(device)


def _damaged(name: str, error: Exception) -> DetectorError:
    return DetectorError(f"{name}: is not a detector's file, or is damaged ({first_line(error)})")


def _restored(
    name: str, metadata: dict[str, str], tensors: dict[str, torch.Tensor], method: Method[Any] | None
) -> Detector:
    """The detector of a file's metadata and tensors."""
    if _KEY not in metadata:
        raise DetectorError(
            f"{name}: holds tensors, but no detector (states that stores kept before there were detectors are "
            "not read: run the experiment again)"
        )
    try:
        header = json.loads(metadata[_KEY])
        if header["format"] != _FORMAT:
            raise DetectorError(f"{name}: is of format {header['format']}, this version of Andon reads {_FORMAT}")
        report = _report(header["report"])
        known = header["method"] in method_names() or header["method"].startswith(PREFIX)
        if method is None and not known:
            # Not create_method's to decide: a reference to a module or file would run its code.
            raise DetectorError(f"{name}: was learned by {header['method']!r}, which is not installed")
        recipe = method or recorded_method(header["method"], header["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError, RecursionError) as error:
        raise _damaged(name, error) from error
    except DetectorError:
        raise
    except AndonError as error:
        raise DetectorError(f"{name}: {error}") from error
    if recipe.name != header["method"] or recipe.describe()["config"] != header["config"]:
        raise DetectorError(f"{name}: was learned by {header['method']} with other options than the method given")
    try:
        return recipe.restore(tensors, report)
    except DetectorError as error:
        raise DetectorError(f"{name}: {error}") from error


def _report(fields: dict[str, Any]) -> FitReport:
    return FitReport(
        n_train=int(fields["n_train"]),
        seconds={str(k): float(v) for k, v in fields["seconds"].items()},
        weights=tuple(WeightsRecord(**record) for record in fields["weights"]),
        notes=tuple(str(note) for note in fields["notes"]),
        curves={k: [(int(step), float(value)) for step, value in points] for k, points in fields["curves"].items()},
        n_constant=int(fields.get("n_constant", 0)),
    )
