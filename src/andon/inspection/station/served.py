"""Inspectors at their places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from andon.core import AndonError
from andon.inspection.file import InspectorFile
from andon.inspection.inspector import Inspector, inspector_of
from andon.inspection.station.monitor import DriftMonitor

__all__ = ["Loaded", "Served", "model_fingerprint"]


@dataclass(frozen=True)
class Served:
    """An inspector at its place.

    Attributes:
        name: at this station.
        inspector: with the thresholds that hold.
        model: fingerprint of all but the thresholds: whose scores can be compared.
        fingerprint: of the file, as ``andon train`` and ``andon threshold`` print it.
        path: of the file; None for one that was never written.
        monitor: of its scores.
    """

    name: str
    inspector: Inspector
    model: str
    fingerprint: str
    path: Path | None
    monitor: DriftMonitor


class Loaded(NamedTuple):
    """An inspector that was read and run once."""

    inspector: Inspector
    model: str
    fingerprint: str
    path: Path | None

    @classmethod
    def of(cls, source: str | Path | Inspector) -> Loaded:
        if isinstance(source, Inspector):
            inspector, file, path = source, source.file(), None
        else:
            path = Path(source)
            file = InspectorFile.read(path)
            inspector = inspector_of(file)
        _warm(inspector)
        return cls(inspector, model_fingerprint(file), file.fingerprint, path)


def model_fingerprint(file: InspectorFile) -> str:
    """Of all but the thresholds, 12 hexadecimal digits: models with the same give the same scores."""
    return file.with_content(thresholds={"look": 0.0, "stop": 0.0}, second_day=None).fingerprint


def _warm(inspector: Inspector) -> None:
    """Runs it once, so that the first image at the line waits no longer than the others."""
    size = inspector.provenance.size or inspector.thumbnail.shape[:2]
    image = cv2.resize(inspector.thumbnail, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    try:
        inspector.inspect(np.asarray(image, dtype=np.uint8))
    except AndonError:
        return  # a thumbnail that does not fit: the first image will be the first
