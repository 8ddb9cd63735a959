"""EfficientNet-Lite: sizes as published, features against an independent computation, and what its head sees."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from andon._tools.networks import unfilled
from andon.core import ImageArray, WeightsError
from andon.data import Transform
from andon.features import create_extractor
from andon.features.efficientnet import LITE_ARCHITECTURES, EfficientNetLite
from andon.features.resnet import fold_batch_norm
from andon.weights.resolution import find_part

# Millions of parameters with the classifier, from the table of the authors' repository (tpu/efficientnet/lite).
PUBLISHED_MILLIONS = {"efficientnet_lite0": 4.7, "efficientnet_lite1": 5.4, "efficientnet_lite2": 6.1}
# (repeats, kernel, stride, expansion, output channels) of the seven rows, written out for each network.
ROWS = {
    "efficientnet_lite0": [
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ],
    "efficientnet_lite1": [
        (1, 3, 1, 1, 16),
        (3, 3, 2, 6, 24),
        (3, 5, 2, 6, 40),
        (4, 3, 2, 6, 80),
        (4, 5, 1, 6, 112),
        (5, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ],
    "efficientnet_lite2": [
        (1, 3, 1, 1, 16),
        (3, 3, 2, 6, 24),
        (3, 5, 2, 6, 48),
        (4, 3, 2, 6, 88),
        (4, 5, 1, 6, 120),
        (5, 5, 2, 6, 208),
        (1, 3, 1, 6, 352),
    ],
}
ANALOG_CLOCK, CROSSWORD = 409, 918


@pytest.mark.parametrize("name", LITE_ARCHITECTURES)
def test_size_is_that_of_the_published_network(name: str) -> None:
    with torch.device("meta"):
        network = EfficientNetLite(LITE_ARCHITECTURES[name], num_classes=1000)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == PUBLISHED_MILLIONS[name]
    outputs = [row[-1] for row in ROWS[name]]
    assert LITE_ARCHITECTURES[name].channels == (*outputs, *(6 * n for n in outputs[:-1]))
    assert LITE_ARCHITECTURES[name].strides == (2, 4, 8, 16, 16, 32, 32, 2, 4, 8, 16, 16, 32)


def _same(x: torch.Tensor, weight: torch.Tensor, stride: int, groups: int = 1) -> torch.Tensor:
    """TensorFlow's SAME, from its definition: the total padding makes ⌈n/stride⌉ outputs, the odd one comes last."""
    sides = []
    for n in (x.shape[3], x.shape[2]):
        total = max((math.ceil(n / stride) - 1) * stride + weight.shape[-1] - n, 0)
        sides += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, sides), weight, stride=stride, groups=groups)


def _layer_by_layer(
    state: dict[str, torch.Tensor], name: str, x: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Output of every row, and of the first six as the next block expands it, from the raw tensors: no folding."""

    def norm(x: torch.Tensor, prefix: str) -> torch.Tensor:
        mean, variance, weight, bias = (
            state[f"{prefix}.{leaf}"].view(1, -1, 1, 1) for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(variance + 1e-3) * weight + bias

    x = norm(_same(x, state["_conv_stem.weight"], 2), "_bn0").clamp(0, 6)
    number, rows, expanded = 0, [], []
    for repeats, _, stride, expansion, _ in ROWS[name]:
        for i in range(repeats):
            prefix, before = f"_blocks.{number}", x
            if expansion > 1:
                x = norm(_same(x, state[f"{prefix}._expand_conv.weight"], 1), f"{prefix}._bn0").clamp(0, 6)
                if i == 0:
                    expanded.append(x)
            kernel = state[f"{prefix}._depthwise_conv.weight"]
            step = stride if i == 0 else 1
            x = norm(_same(x, kernel, step, groups=len(kernel)), f"{prefix}._bn1").clamp(0, 6)
            x = norm(_same(x, state[f"{prefix}._project_conv.weight"], 1), f"{prefix}._bn2")
            if step == 1 and x.shape == before.shape:
                x = x + before
            number += 1
        rows.append(x)
    return rows, expanded


def _weights(name: str) -> dict[str, torch.Tensor]:
    try:
        return find_part(name, "imagenet")[0]
    except WeightsError as error:
        if name == "efficientnet_lite0":  # a dependency of the package: it must be there
            raise
        pytest.skip(f"andon[features] is not installed: {error}")


@pytest.mark.parametrize("name", LITE_ARCHITECTURES)
@pytest.mark.parametrize("size", [(64, 96), (57, 83)])
def test_rows_equal_an_independent_computation(name: str, size: tuple[int, int]) -> None:
    state = _weights(name)
    batch = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    rows, expanded = _layer_by_layer(state, name, batch)
    names = [*(f"row{n}" for n in range(1, 8)), *(f"expanded{n}" for n in range(1, 7))]
    extractor = create_extractor(name, names, "imagenet")
    found = extractor(batch)
    assert [f.shape[1] for f in found] == list(extractor.channels)
    for stage, a, b in zip(names, found, [*rows, *expanded], strict=True):
        assert a.shape == b.shape, stage
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stages", [("expanded6",), ("expanded3", "row6"), ("expanded5", "row5", "expanded1"), (2, 1)])
def test_a_stage_is_the_same_alone_and_among_others(stages: tuple[str | int, ...]) -> None:
    batch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    every = [*(f"row{n}" for n in range(1, 8)), *(f"expanded{n}" for n in range(1, 7))]
    together = dict(zip(every, create_extractor("efficientnet_lite0", every)(batch), strict=True))
    extractor = create_extractor("efficientnet_lite0", stages)
    for stage, found in zip(stages, extractor(batch), strict=True):
        assert torch.equal(found, together[str(stage) if isinstance(stage, str) else f"row{stage}"]), stage


def test_of_the_block_that_expands_a_last_stage_only_that_is_built() -> None:
    extractor = create_extractor("efficientnet_lite0", ("expanded3",))
    names = {name for name, _ in extractor.named_parameters()}
    assert "network._blocks.5._expand_conv.weight" in names
    assert not any(name.startswith(("network._blocks.5._depthwise", "network._blocks.6")) for name in names)
    assert extractor.fingerprint != create_extractor("efficientnet_lite0", ("row3",)).fingerprint


def test_rows_can_be_picked_in_any_order_and_later_ones_are_not_built() -> None:
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    three, two = create_extractor("efficientnet_lite0", ("row3", 2), "random:1")(batch)
    assert three.shape == (2, 40, 8, 8)
    assert two.shape == (2, 24, 16, 16)
    one = create_extractor("efficientnet_lite0", ("row2",), "random:1")
    torch.testing.assert_close(one(batch)[0], two)
    assert len(list(one.network._blocks)) == 3  # type: ignore[union-attr, arg-type]


def _clock() -> ImageArray:
    """An analog clock on a wall, drawn."""
    image, centre, black = np.full((224, 224, 3), 235, np.uint8), (112, 112), (20, 20, 20)
    cv2.circle(image, centre, 95, (40, 40, 40), -1, cv2.LINE_AA)
    cv2.circle(image, centre, 86, (250, 250, 245), -1, cv2.LINE_AA)

    def at(turn: float, radius: float) -> tuple[int, int]:
        return round(112 + radius * math.sin(2 * math.pi * turn)), round(112 - radius * math.cos(2 * math.pi * turn))

    for hour in range(12):
        text = str(hour or 12)
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 2)
        x, y = at(hour / 12, 68)
        place = (x - width // 2, y + height // 2)
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, black, 2, cv2.LINE_AA)
    for minute in range(60):
        cv2.line(image, at(minute / 60, 80), at(minute / 60, 84), black, 1, cv2.LINE_AA)
    cv2.line(image, centre, at(10.2 / 12, 42), black, 5, cv2.LINE_AA)
    cv2.line(image, centre, at(10 / 60, 62), black, 3, cv2.LINE_AA)
    return image


def _crossword() -> ImageArray:
    image, rng = np.full((224, 224, 3), 255, np.uint8), np.random.default_rng(0)
    for y in range(0, 225, 15):
        for x in range(0, 225, 15):
            if rng.random() < 0.25:
                image[y : y + 15, x : x + 15] = 10
            cv2.rectangle(image, (x, y), (x + 15, y + 15), (0, 0, 0), 1)
    return image


@pytest.mark.parametrize("name", LITE_ARCHITECTURES)
def test_the_head_names_drawn_objects(name: str) -> None:
    network = unfilled(lambda: EfficientNetLite(LITE_ARCHITECTURES[name], num_classes=1000))
    network.load_state_dict(_weights(name))
    fold_batch_norm(network)
    batch = Transform(size=(224, 224)).normalise(np.stack([_clock(), _crossword()]))
    with torch.no_grad():
        assert network(batch).argmax(dim=1).tolist() == [ANALOG_CLOCK, CROSSWORD]


def test_the_record_names_the_package_and_its_licence() -> None:
    record = create_extractor("efficientnet_lite0", ("row3",)).weights
    assert (record.source, record.name, record.licence) == ("package", "imagenet", "Apache-2.0")
    assert record.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@pytest.mark.parametrize(
    ("backbone", "stage", "foreign"),
    [("resnet18", "layer1", "_blocks.0._bn1.weight"), ("efficientnet_lite0", "row1", "layer4.0.conv1.weight")],
)
def test_tensors_of_another_family_are_no_later_stages(backbone: str, stage: str, foreign: str, tmp_path: Path) -> None:
    extractor = create_extractor(backbone, (stage,), "random")
    network = type(extractor).unfilled_network(backbone, [stage])  # type: ignore[attr-defined]
    state = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    save_file(state, tmp_path / "own.safetensors")
    assert create_extractor(backbone, (stage,), tmp_path / "own.safetensors").weights.source == "file"
    save_file({**state, foreign: torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=f"unexpected tensor {foreign}"):
        create_extractor(backbone, (stage,), tmp_path / "other.safetensors")
