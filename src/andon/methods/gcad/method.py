"""GCAD: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from andon._tools.networks import blank, default_weights
from andon.methods._patch_teachers import (
    DESIGNED_TEACHER,
    PatchBatch,
    PatchDetector,
    PatchMethod,
    PatchStage,
    PatchTeacher,
)
from andon.methods._teachers import ExtractorTeacher
from andon.methods.base import Fitting, MethodConfig
from andon.methods.gcad.config import GcadConfig
from andon.methods.gcad.networks import FieldNetworks
from andon.weights import WeightsRecord

__all__ = ["Gcad", "GcadDetector"]


class GcadDetector(PatchDetector):
    """The local encoder ("teacher.…") and the networks of every receptive field ("fields.0.local_regression.…").

    Maps: the structural and the logical one of each receptive field in turn.
    """

    config: GcadConfig
    branch_names = ("structural", "logical")

    def __init__(
        self,
        config: GcadConfig,
        teacher: PatchTeacher | ExtractorTeacher,
        shares: Sequence[int],
        fields: nn.ModuleList,
    ) -> None:
        super().__init__(config, teacher, 2 * len(fields))
        self.shares, self.fields = tuple(shares), fields

    def raw_maps(self, batch: torch.Tensor) -> torch.Tensor:
        targets = self.teacher(batch).split(self.shares, dim=1)
        fields = zip(self._networks(), targets, strict=True)
        return torch.cat([networks.branches(batch, target) for networks, target in fields], dim=1)

    def branches(self, batch: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """What each branch says alone, on its normalised scale: image scores ``[B]`` and maps ``[B, h, w]``; the sum of
        their maps is the detector's."""
        maps = self.normalised_maps(batch)
        alone = [self.enlarged(maps[:, number::2].mean(1)) for number in range(2)]
        return {name: (each.amax((1, 2)), each) for name, each in zip(self.branch_names, alone, strict=True)}

    def _networks(self) -> list[FieldNetworks]:
        return [networks for networks in self.fields if isinstance(networks, FieldNetworks)]


class _Training(PatchStage):
    """The three losses of every receptive field."""

    def losses(self, batch: PatchBatch) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = {}
        fields = zip(self.config.receptive_fields, self.networks, self.targets(batch), strict=True)
        for field, networks, target in fields:
            losses |= {f"{name} {field}": loss for name, loss in networks(batch.images, target).items()}
        return losses


# Minutes on a CPU: descriptors every eighth pixel of small images, narrow networks, many steps of one image.
_QUICK: Mapping[str, Any] = {
    "transform": {"size": (128, 128)},
    "stride": 8,
    "padding": "edge",
    "epochs": 40,
    "learning_rate": 1e-3,
    "encoder_width": 32,
    "regression_width": 16,
    "regression_levels": 4,
    "sigma": 4.0,
}


class Gcad(PatchMethod[GcadConfig]):
    """GCAD (Bergmann et al. 2022): a local and a global branch."""

    name = "gcad"
    title = "GCAD"
    paper = (
        "Bergmann et al., Beyond dents and scratches: logical constraints in unsupervised anomaly detection and "
        "localization, IJCV 2022, doi:10.1007/s11263-022-01578-9"
    )
    trained = True
    Config: ClassVar[type[MethodConfig]] = GcadConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": {},
        "default": {**_QUICK, "receptive_fields": (33,), "teacher": "efficientnet_lite0", "layers": ("row3",)},
        "designed": {**_QUICK, **DESIGNED_TEACHER},
    }

    def learn(self, fitting: Fitting) -> GcadDetector:
        split, teacher, described = self.described(fitting)
        fields = self._fields(self.shares(teacher))
        default_weights(fields, fitting.seed, bias_first=False)
        fields.to(fitting.device)
        fitting.train(_Training(self.config, fields, described, split.train, self.shares(teacher), fitting.seed))
        detector = GcadDetector(self.config, teacher, self.shares(teacher), fields)
        return self.normalised(detector, split, fitting)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> GcadDetector:
        teacher = self.blank_teacher(shapes, weights)
        shares = self.shares(teacher)
        return GcadDetector(self.config, teacher, shares, self._fields(shares))

    def _fields(self, shares: Sequence[int]) -> nn.ModuleList:
        return blank(lambda: nn.ModuleList(FieldNetworks(self.config, channels) for channels in shares))
