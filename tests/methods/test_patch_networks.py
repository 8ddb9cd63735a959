"""Networks of patches: their tables, and dense output against the network on every patch cut out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from andon.core import WeightsError
from andon.methods._patch_networks import PatchNetwork, grid_size
from andon.methods._patch_teachers import PatchTeacher, load_patch_teacher

SEEN = {17: 17, 33: 32, 65: 60}
"""Side of what is seen of a patch: of 29 and of 61 rows, of 9 rows, the last is in no 2×2 window."""


def network(field: Any, **options: Any) -> PatchNetwork:
    torch.manual_seed(field)
    return PatchNetwork(field, 5, **{"width": 0.05, **options}).double().requires_grad_(False)


def images(*size: int) -> torch.Tensor:
    return torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("field", "sizes", "parameters"),
    [
        (17, [12, 8, 4, 1], [3 * 128 * 36, 128 * 256 * 25, 256 * 256 * 25, 256 * 128 * 16]),
        (33, [29, 10, 4, 1], [3 * 128 * 25, 128 * 256 * 25, 256 * 256 * 4, 256 * 128 * 16]),
        (65, [61, 26, 9, 1, 1], [3 * 128 * 25, 128 * 128 * 25, 128 * 128 * 25, 128 * 256 * 16, 256 * 128]),
    ],
)
def test_sizes_and_parameters_are_those_of_the_papers_tables(
    field: Any, sizes: list[int], parameters: list[int]
) -> None:
    full = PatchNetwork(field)
    assert [layer.weight.numel() for layer in full.layers()] == parameters
    assert full.layers()[-1].out_channels == 128
    small, x, found = PatchNetwork(field, 5, width=0.03), torch.zeros(1, 3, field, field), []
    for layer, pool in zip(small.layers(), small.pools, strict=True):
        x = layer(x)
        found.append(x.shape[2])
        x = F.max_pool2d(x, 2) if pool else x
    assert found == sizes
    assert small.describe(torch.zeros(3, 3, field, field)).shape == (3, 5)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("field", [17, 33, 65])
@pytest.mark.parametrize("padding", ["zeros", "edge"])
def test_dense_output_is_that_of_every_patch(field: Any, stride: int, padding: Any) -> None:
    patches, batch = network(field, stride=stride, padding=padding), images(21, 26)
    found = patches(batch)
    assert found.shape[2:] == grid_size((21, 26), stride)
    before = (SEEN[field] - stride) // 2
    mode = {"zeros": "constant", "edge": "replicate"}[padding]
    wide = F.pad(batch, (before, field + 4, before, field + 4), mode=mode)
    # Any few places, the corners among them.
    rows, columns = found.shape[2], found.shape[3]
    for row, column in ((0, 0), (rows - 1, columns - 1), (rows // 2, 1), (0, columns - 1)):
        y, x = row * stride, column * stride
        alone = patches.describe(wide[:, :, y : y + field, x : x + field])
        np.testing.assert_allclose(found[:, :, row, column], alone, atol=1e-12)


@pytest.mark.parametrize("field", [17, 33, 65])
def test_nothing_outside_of_the_receptive_field_is_seen(field: Any) -> None:
    batch = images(80, 80)[:1].requires_grad_()
    network(field)(batch)[0, :, 40, 40].sum().backward()
    assert batch.grad is not None
    rows = torch.nonzero(batch.grad.abs().sum((0, 1, 3))).flatten()
    first = 40 - (SEEN[field] - 1) // 2
    assert int(rows.min()) >= first
    assert int(rows.max()) < first + SEEN[field]
    assert int(rows.max() - rows.min()) >= SEEN[field] - 4  # a maximum's gradient goes to one of its rows


def test_teachers_side_by_side_are_normalised_once() -> None:
    teacher = PatchTeacher([network(17).float(), network(33).float()])
    batch = images(40, 40).float()
    before = teacher(batch)
    assert before.shape == (2, 10, 40, 40)
    torch.testing.assert_close(before[:, :5], teacher.patch_networks()[0](batch))
    mean, std = torch.arange(10.0), torch.arange(1.0, 11.0)
    teacher.merge_normalisation(mean, std)
    torch.testing.assert_close(teacher(batch), (before - mean[:, None, None]) / std[:, None, None])


def test_teachers_come_from_files(tmp_path: Path) -> None:
    full = PatchNetwork(33)
    save_file(full.state_dict(), tmp_path / "teacher-33.safetensors")
    loaded, record = load_patch_teacher(33, tmp_path / "teacher-{field}.safetensors", stride=2, padding="edge")
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), full.state_dict().values(), strict=True))
    assert (record.part, record.pretrained, loaded.stride) == ("uninformed_students_teacher_33", True, 2)
    with pytest.raises(WeightsError, match="authors publish no teacher"):
        load_patch_teacher(17, "imagenet", stride=1, padding="zeros")
    with pytest.raises(WeightsError, match="no file"):
        load_patch_teacher(17, "elsewhere-{field}.pth", stride=1, padding="zeros")
    with pytest.raises(WeightsError, match="convolutions"):
        load_patch_teacher(65, tmp_path / "teacher-33.safetensors", stride=1, padding="zeros")
