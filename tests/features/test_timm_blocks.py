"""timm's EfficientNets at stages that its own list leaves out, through a stand-in."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from andon.core import ConfigError
from andon.features import blank_extractor, create_extractor
from andon.methods import create_method
from andon.methods.csflow import Csflow


class EfficientNetStandIn(nn.Module):
    """Names as in timm; ``feature_info`` has what a halving follows, and the last stage."""

    feature_info = (
        {"module": "blocks.0", "num_chs": 5, "reduction": 4},
        {"module": "blocks.2", "num_chs": 9, "reduction": 8},
    )

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(
            nn.Conv2d(4, 5, 3, stride=2, padding=1),
            nn.Conv2d(5, 7, 3, stride=2, padding=1),
            nn.Conv2d(7, 9, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.blocks(self.bn1(self.conv_stem(x)))
        return found

    def forward_intermediates(self, x: torch.Tensor, indices: list[int], **_: object) -> list[torch.Tensor]:
        first = self.blocks[0](self.bn1(self.conv_stem(x)))
        return [(first, self.blocks[2](self.blocks[1](first)))[i] for i in indices]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("timm")
    module.create_model = lambda name, pretrained, num_classes: EfficientNetStandIn()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)


def test_any_block_is_a_stage() -> None:
    extractor = create_extractor("timm:tf_efficientnet_b5", ("blocks.1", "blocks.0"), "random:1")
    assert (extractor.channels, extractor.strides) == ((7, 5), (8, 4))
    batch = torch.rand((2, 3, 32, 48), generator=torch.Generator().manual_seed(0))
    second, first = extractor(batch)
    listed = create_extractor("timm:tf_efficientnet_b5", ("blocks.0", "blocks.2"), "random:1")
    torch.testing.assert_close(listed(batch)[0], first)
    model = extractor.model
    assert isinstance(model, EfficientNetStandIn)
    torch.testing.assert_close(second, model.blocks[1](first))
    assert len({extractor.fingerprint, listed.fingerprint}) == 2
    blank = blank_extractor("timm:tf_efficientnet_b5", ("blocks.1", "blocks.0"), extractor.weights, {})
    blank.load_state_dict(extractor.state_dict())
    torch.testing.assert_close(blank(batch)[0], second)


def test_stages_that_there_are_not() -> None:
    for stages in (("blocks.3",), ("blocks.1", "blocks.1")):
        with pytest.raises(ConfigError, match=r"no stage 'blocks.3'|different"):
            create_extractor("timm:tf_efficientnet_b5", stages, "random")


def test_cs_flows_features_in_the_study_are_such_a_stage() -> None:
    method = create_method("csflow", {"weights": "random", "layers": ("blocks.1",)}, preset="study")
    assert isinstance(method, Csflow)
    assert method.extractor.channels == (7, 7, 7)
    assert method.extractor.strides == (8, 16, 32)
