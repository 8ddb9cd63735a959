"""Extractors by name, timm's through a stand-in, and what is wrong with a request."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from andon.core import AndonError
from andon.features import create_extractor
from andon.weights.initialisation import pink_noise


def test_channels_strides_and_shapes() -> None:
    extractor = create_extractor("resnet18", ("layer3", 1), "random")
    maps = extractor(torch.zeros(2, 3, 64, 96))
    assert extractor.channels == (256, 64)
    assert extractor.strides == (16, 4)
    assert [tuple(m.shape) for m in maps] == [(2, 256, 4, 6), (2, 64, 16, 24)]
    assert all(m.is_contiguous() and m.dtype == torch.float32 for m in maps)
    assert not any(m.requires_grad for m in maps)


def test_features_can_enter_a_training_graph() -> None:
    (features,) = create_extractor("resnet18", (1,), "random")(torch.ones(1, 3, 32, 32))
    layer = nn.Conv2d(64, 1, 1)
    layer(features).sum().backward()
    assert layer.weight.grad is not None


def test_an_image_s_features_do_not_depend_on_its_batch_mates() -> None:
    extractor = create_extractor("resnet18", (1, 2, 3), "random")
    batch = pink_noise((5, 3, 64, 64), 3).float()
    together = extractor(batch)
    for i in range(5):
        for whole, alone in zip(together, extractor(batch[i : i + 1]), strict=True):
            assert (whole[i : i + 1] - alone).abs().max() <= 1e-5 * alone.abs().max()


def test_fingerprint_follows_backbone_stages_and_weights() -> None:
    requests = [
        ("resnet18", (1,), "random"),
        ("resnet18", (2,), "random"),
        ("resnet18", (1, 2), "random"),
        ("resnet18", (1,), "random:1"),
        ("resnet34", (1,), "random"),
    ]
    fingerprints = {create_extractor(*request).fingerprint for request in requests}
    assert len(fingerprints) == len(requests)
    again = create_extractor("resnet18", ("layer1",), "random:0")
    assert again.fingerprint == create_extractor(*requests[0]).fingerprint
    assert (again.weights.source, again.weights.name) == ("random", "orthogonal, seed 0")
    assert again.weights.pretrained is False


@pytest.mark.parametrize(
    ("backbone", "stages", "message"),
    [
        ("resnet19", (1,), "unknown backbone 'resnet19'; known: efficientnet_lite0"),
        ("resnet18", ("layer5",), "no stage 'layer5'"),
        ("resnet18", (0,), "no stage 0"),
        ("resnet18", (), "one or more different"),
        ("resnet18", (1, "layer1"), "one or more different"),
    ],
)
def test_impossible_requests(backbone: str, stages: tuple[str | int, ...], message: str) -> None:
    with pytest.raises(AndonError, match=message):
        create_extractor(backbone, stages, "random")


class StandIn(nn.Module):
    """What Andon uses of a timm model: ``feature_info`` and ``forward_intermediates``."""

    feature_info = ({"module": "a", "num_chs": 4, "reduction": 2}, {"module": "b", "num_chs": 6, "reduction": 4})

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.bn(self.a(x)))

    def forward_intermediates(
        self, x: torch.Tensor, indices: list[int], intermediates_only: bool, output_fmt: str
    ) -> list[torch.Tensor]:
        assert intermediates_only
        assert output_fmt == "NCHW"
        assert indices == sorted(indices)
        first = self.bn(self.a(x))
        return [(first, self.b(first))[i] for i in indices]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        assert not pretrained
        assert num_classes == 0
        return StandIn()

    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.usefixtures("stand_in")
def test_a_timm_backbone(tmp_path: Path) -> None:
    extractor = create_extractor("timm:tiny", ("b", 0), "random:4")
    first, second = extractor(torch.ones(1, 3, 16, 16))
    assert extractor.channels == (6, 4)
    assert extractor.strides == (4, 2)
    assert first.shape == (1, 6, 4, 4)
    assert second.shape == (1, 4, 8, 8)
    assert not extractor.weights.pretrained

    path = tmp_path / "w.safetensors"
    model = StandIn().eval()
    save_file({**model.state_dict(), "head.weight": torch.zeros(2)}, path)
    from_file = create_extractor("timm:tiny", ("b",), path)
    assert (from_file.weights.source, from_file.weights.pretrained) == ("file", True)
    with torch.no_grad():
        torch.testing.assert_close(from_file(torch.ones(1, 3, 16, 16))[0], model(torch.ones(1, 3, 16, 16)))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "stages", "weights", "message"),
    [
        ("timm:other", (0,), "random", "timm cannot make it"),
        ("timm:tiny", ("c",), "random", "no stage 'c'; it has a, b"),
        ("timm:tiny", (2,), "random", "no stage 2"),
        ("timm:tiny", ("a", 0), "random", "one or more different"),
        ("timm:tiny", (0,), "imagenet", "no SHA-256 is known"),
    ],
)
def test_impossible_timm_requests(name: str, stages: tuple[str | int, ...], weights: str, message: str) -> None:
    with pytest.raises(AndonError, match=message):
        create_extractor(name, stages, weights)


def test_timm_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(AndonError, match=r"needs timm.*install andon\[timm\]"):
        create_extractor("timm:resnet18", (0,), "random")
