"""GCAD: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import nn

from andon.methods._patch_teachers import DESIGNED_TEACHER, PatchBatch, PatchDetector, PatchMethod, PatchStage
from andon.methods.base import MethodConfig
from andon.methods.gcad.config import GcadConfig
from andon.methods.gcad.networks import FieldNetworks

__all__ = ["Gcad", "GcadDetector"]


class GcadDetector(PatchDetector):
    """The local encoder ("teacher.…") and the networks of every receptive field ("fields.0.local_regression.…").

    Maps: the structural and the logical one of each receptive field in turn.
    """

    config: GcadConfig
    fields: nn.ModuleList
    networks_name = "fields"
    branch_names = ("structural", "logical")

    def field_maps(self, network: nn.Module, batch: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return cast(FieldNetworks, network).branches(batch, target)

    def branches(self, batch: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """What each branch says alone, on its normalised scale: image scores ``[B]`` and maps ``[B, h, w]``; the sum of
        their maps is the detector's."""
        maps = self.normalised_maps(batch)
        alone = [self.enlarged(maps[:, number::2].mean(1)) for number in range(2)]
        return {name: (each.amax((1, 2)), each) for name, each in zip(self.branch_names, alone, strict=True)}


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
    Config: ClassVar[type[MethodConfig]] = GcadConfig
    detector = GcadDetector
    stage = _Training
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": {},
        "default": {**_QUICK, "receptive_fields": (33,), "teacher": "efficientnet_lite0", "layers": ("row3",)},
        "designed": {**_QUICK, **DESIGNED_TEACHER},
    }

    def networks(self, shares: Sequence[int]) -> nn.ModuleList:
        return nn.ModuleList(FieldNetworks(self.config, channels) for channels in shares)
