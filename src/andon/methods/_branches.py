"""Detectors whose score is made of branches that can be looked at alone, as GCAD's structural and logical one.

A method offers it by a detector that has ``branches(batch)``; figures of each branch then stand in a run's notes.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch

from andon.core import FloatArray
from andon.data import Images
from andon.methods.base import Detector

__all__ = ["Branched", "branch_scores"]


@runtime_checkable
class Branched(Protocol):
    """A detector with branches."""

    def branches(self, batch: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """By a branch's name its image scores ``[B]`` and maps ``[B, h, w]``, for a batch as ``forward`` takes it."""
        ...


@torch.inference_mode()
def branch_scores(detector: Detector, images: Images) -> dict[str, FloatArray]:
    """Image scores float32 ``[N]`` of every branch alone; empty for a detector without branches."""
    if not isinstance(detector, Branched):
        return {}
    parts: dict[str, list[FloatArray]] = {}
    for _, batch in images.batches(detector.transform, detector.config.batch_size):
        for name, (scores, _maps) in detector.branches(batch.to(detector.device)).items():
            parts.setdefault(name, []).append(scores.cpu().numpy())
    return {name: np.concatenate(scores) for name, scores in parts.items()}
