"""ResNets: names and shapes as published, stages, folding of batch norms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from andon.features.resnet import ARCHITECTURES, ResNet, fold_batch_norm
from andon.weights.initialisation import orthogonal_initialisation, pink_noise

# Parameters of torchvision's models with their 1000-class classifier, from its documentation.
PUBLISHED_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "wide_resnet50_2": 68_883_240,
}
CHECKPOINTS = Path(__file__).parents[1] / "facts" / "checkpoints.json"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_size_is_that_of_the_published_network(name: str) -> None:
    with torch.device("meta"):
        network = ResNet(ARCHITECTURES[name], num_classes=1000)
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED_PARAMETERS[name]


def expected_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's state dict, written out from the paper's Table 1."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}

    def norm(prefix: str, channels: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}.{leaf}"] = (channels,)
        shapes[f"{prefix}.num_batches_tracked"] = ()

    norm("bn1", 64)
    bottleneck, width = {"resnet18": (1, 1), "resnet34": (1, 1), "resnet50": (4, 1), "wide_resnet50_2": (4, 2)}[name]
    depths = (2, 2, 2, 2) if name == "resnet18" else (3, 4, 6, 3)
    inputs = 64
    for stage, depth in enumerate(depths, start=1):
        inner, outputs = 64 * 2 ** (stage - 1) * width, 64 * 2 ** (stage - 1) * bottleneck
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            if bottleneck == 1:
                kernels = [(inner, inputs, 3), (inner, inner, 3)]
            else:
                kernels = [(inner, inputs, 1), (inner, inner, 3), (outputs, inner, 1)]
            for i, (rows, columns, side) in enumerate(kernels, start=1):
                shapes[f"{prefix}.conv{i}.weight"] = (rows, columns, side, side)
                norm(f"{prefix}.bn{i}", rows)
            if block == 0 and inputs != outputs:
                shapes[f"{prefix}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                norm(f"{prefix}.downsample.1", outputs)
            inputs = outputs
    shapes["fc.weight"], shapes["fc.bias"] = (1000, inputs), (1000,)
    return shapes


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tensor_names_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        state = ResNet(ARCHITECTURES[name], num_classes=1000).state_dict()
    assert {n: tuple(t.shape) for n, t in state.items()} == expected_shapes(name)


@pytest.mark.skipif(not CHECKPOINTS.is_file(), reason="the facts are not here")
def test_shapes_agree_with_the_recorded_checkpoints() -> None:
    recorded = json.loads(CHECKPOINTS.read_text(encoding="utf-8"))
    for name in set(recorded) & set(ARCHITECTURES):
        assert {n: tuple(s) for n, s in recorded[name].items()}.items() <= expected_shapes(name).items()


def test_stages_come_in_the_order_asked_for_and_later_ones_are_not_built() -> None:
    network = ResNet(ARCHITECTURES["resnet18"], last_stage=3).eval()
    assert not any(name.startswith(("layer4", "fc")) for name in network.state_dict())
    with torch.no_grad():
        three, one = network.stages(torch.zeros(1, 3, 70, 45), [3, 1])
    assert three.shape == (1, 256, 5, 3)
    assert one.shape == (1, 64, 18, 12)


def test_logits_are_the_classifier_on_the_mean_of_the_last_stage() -> None:
    network = ResNet(ARCHITECTURES["resnet18"], num_classes=7).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (last,) = network.stages(x, [4])
        assert network.fc is not None
        torch.testing.assert_close(network(x), network.fc(last.mean((2, 3))))


def test_a_basic_block_is_the_papers_equation() -> None:
    network = ResNet(ARCHITECTURES["resnet18"], last_stage=2).double().eval()
    orthogonal_initialisation(network, 3)
    network.double()
    block = network.get_submodule("layer2.0")
    p = dict(block.named_parameters()) | dict(block.named_buffers())
    x = torch.randn(1, 64, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def norm(y: torch.Tensor, prefix: str) -> torch.Tensor:
        mean, var, weight, bias = (
            p[f"{prefix}.{leaf}"].view(1, -1, 1, 1) for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / (var + 1e-5).sqrt() * weight + bias

    conv = torch.nn.functional.conv2d
    residual = norm(conv(x, p["conv1.weight"], stride=2, padding=1), "bn1").relu()
    residual = norm(conv(residual, p["conv2.weight"], padding=1), "bn2")
    shortcut = norm(conv(x, p["downsample.0.weight"], stride=2), "downsample.1")
    with torch.no_grad():
        torch.testing.assert_close(block(x), (residual + shortcut).relu(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_folding_batch_norms_changes_nothing_but_the_time(name: str) -> None:
    network = ResNet(ARCHITECTURES[name], last_stage=3)
    orthogonal_initialisation(network, 0)
    network.double()
    x = pink_noise((1, 3, 64, 64), 1)
    with torch.no_grad():
        before = network.stages(x, [1, 2, 3])
        folded = fold_batch_norm(network)
        after = network.stages(x, [1, 2, 3])
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_folded_features_are_equal_in_float32_too() -> None:
    network = ResNet(ARCHITECTURES["resnet18"], last_stage=3)
    orthogonal_initialisation(network, 0)
    x = pink_noise((1, 3, 96, 96), 1).float()
    with torch.no_grad():
        before = network.stages(x, [1, 2, 3])
        fold_batch_norm(network)
        after = network.stages(x, [1, 2, 3])
    for a, b in zip(before, after, strict=True):
        assert (a - b).abs().max() <= 1e-5 * a.abs().max()


@pytest.mark.parametrize(("last_stage", "num_classes"), [(0, 0), (5, 0), (3, 10)])
def test_impossible_networks_are_refused(last_stage: int, num_classes: int) -> None:
    with pytest.raises(ValueError, match="last_stage"):
        ResNet(ARCHITECTURES["resnet18"], last_stage=last_stage, num_classes=num_classes)
