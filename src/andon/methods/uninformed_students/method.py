"""Uninformed Students: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from andon.methods._patch_networks import PatchNetwork
from andon.methods._patch_teachers import DESIGNED_TEACHER, PatchBatch, PatchDetector, PatchMethod, PatchStage
from andon.methods.base import MethodConfig
from andon.methods.uninformed_students.config import UninformedStudentsConfig

__all__ = ["Students", "UninformedStudents", "UninformedStudentsDetector", "error_and_variance"]


class Students(nn.Module):
    """M students of one receptive field, which share no weight: ``[B, 3, H, W]`` to ``[M, B, C, h, w]``."""

    def __init__(self, config: UninformedStudentsConfig, number: int, channels: int) -> None:
        super().__init__()
        self.students = nn.ModuleList(
            PatchNetwork(
                config.receptive_fields[number],
                channels,
                width=config.student_width,
                stride=config.stride,
                padding=config.padding,
            )
            for _ in range(config.students)
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([student(batch) for student in self.students])


def error_and_variance(said: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Regression error and predictive variance of an ensemble (equations 8 and 9), ``[B, h, w]`` each.

    With μ the mean of the students' outputs: ``‖μ − y‖²`` and ``mean ‖μᵢ‖² − ‖μ‖²``.

    Args:
        said: ``[M, B, C, h, w]``.
        target: y, the teacher's normalised output, ``[B, C, h, w]``.
    """
    mean = said.mean(0)
    # As squares about the mean: a difference of large squares would lose the small variance.
    return (mean - target).square().sum(1), (said - mean).square().sum(2).mean(0)


class UninformedStudentsDetector(PatchDetector):
    """The teacher ("teacher.…") and its students ("ensembles.0.students.0.…": receptive field, student).

    Maps: regression error and predictive variance of each receptive field in turn.
    """

    config: UninformedStudentsConfig
    ensembles: nn.ModuleList
    networks_name = "ensembles"

    def field_maps(self, network: nn.Module, batch: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.stack(error_and_variance(network(batch), target), dim=1)


class _Training(PatchStage):
    """Every student's squared distance from the teacher's vector, mean over positions (equation 7)."""

    def losses(self, batch: PatchBatch) -> dict[str, torch.Tensor]:
        fields = zip(self.config.receptive_fields, self.networks, self.targets(batch), strict=True)
        return {
            f"field {field}": (ensemble(batch.images) - target).square().sum(2).mean((1, 2, 3)).sum()
            for field, ensemble, target in fields
        }


# Minutes on a CPU: descriptors every fourth pixel of small images, narrow students, many steps of one image. The stages
# of the default teacher are those that see about as much of the image as the patches (19 and 67 pixels).
_QUICK: Mapping[str, Any] = {
    "transform": {"size": (128, 128)},
    "stride": 4,
    "padding": "edge",
    "student_width": 0.25,
    "epochs": 40,
    "learning_rate": 2e-3,
    "sigma": 8.0,
}


class UninformedStudents(PatchMethod[UninformedStudentsConfig]):
    """Uninformed Students (Bergmann et al. 2020).

    Cost, whatever the number of training images: with the paper's networks at 256×256 one pass takes about 430 billion
    multiplications for the three receptive fields; a prediction is 1 + M of them, a step M times three.
    """

    name = "uninformed-students"
    title = "Uninformed Students"
    paper = (
        "Bergmann et al., Uninformed students: student-teacher anomaly detection with discriminative latent "
        "embeddings, CVPR 2020, arXiv:1911.02357"
    )
    Config: ClassVar[type[MethodConfig]] = UninformedStudentsConfig
    detector = UninformedStudentsDetector
    stage = _Training
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": {},
        "default": {
            **_QUICK,
            "receptive_fields": (33, 65),
            "teacher": "efficientnet_lite0",
            "layers": ("row2", "row3"),
        },
        "designed": {**_QUICK, **DESIGNED_TEACHER},
    }

    def networks(self, shares: Sequence[int]) -> nn.ModuleList:
        return nn.ModuleList(Students(self.config, number, channels) for number, channels in enumerate(shares))
