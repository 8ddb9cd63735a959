"""How patch teachers learn: the losses against numpy, the patches against the paper's geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from andon.core import no_progress
from andon.methods._patch_teachers import load_patch_teacher
from andon.methods.uninformed_students.pretraining import (
    PatchTeacherRecipe,
    _PatchTeacherStage,
    compactness,
    pretrain_patch_teacher,
    triplet_loss,
)
from andon.training import RecipeRun

SMALL: dict[str, Any] = {
    "receptive_field": 17,
    "batch_size": 4,
    "extractor": "andon-features",
    "layers": ("cells",),
    "held_out": 3,
}


def stage(tmp_path: Path, **options: Any) -> _PatchTeacherStage:
    recipe = PatchTeacherRecipe(**{**SMALL, **options})
    return _PatchTeacherStage(RecipeRun(recipe, tmp_path / "t.safetensors", torch.device("cpu"), no_progress))


def test_compactness_is_the_squared_correlation_of_different_dimensions() -> None:
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(20, 5)) @ rng.normal(size=(5, 5)) + 3
    correlation = np.corrcoef(descriptors, rowvar=False)
    expected = np.sum(correlation[~np.eye(5, dtype=bool)] ** 2)
    assert float(compactness(torch.from_numpy(descriptors))) == pytest.approx(expected)
    whitened = np.linalg.qr(descriptors - descriptors.mean(0))[0]
    assert float(compactness(torch.from_numpy(whitened))) == pytest.approx(0, abs=1e-9)


def test_triplets_by_hand() -> None:
    anchor = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    positive = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    negative = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    # distances to the positive 1 and 4; nearest negatives: of the positive, 4 and 1
    assert float(triplet_loss(anchor, positive, negative, 1.0)) == pytest.approx((0 + (1 + 4 - 1)) / 2)
    assert float(triplet_loss(anchor, positive, negative, 5.0)) == pytest.approx(((5 + 1 - 4) + (5 + 4 - 1)) / 2)


def test_patches_are_near_each_other_or_of_another_image(tmp_path: Path) -> None:
    training = stage(tmp_path, noise=0.0, grey=0.0, batch_size=6)
    anchor, positive, negative = training.batch(3)
    assert anchor.shape == positive.shape == negative.shape == (6, 3, 17, 17)
    assert torch.equal(training.batch(3).positive, positive), "a pure function of the step"
    for one, near in zip(anchor.numpy(), positive.numpy(), strict=True):
        found = [
            np.array_equal(
                one[:, max(dy, 0) : 17 + dy, max(dx, 0) : 17 + dx],
                near[:, max(-dy, 0) : 17 - dy, max(-dx, 0) : 17 - dx],
            )
            for dy in range(-4, 5)
            for dx in range(-4, 5)
        ]
        assert any(found), "translated by at most a quarter of a patch"
    noisy = stage(tmp_path, noise=0.1, grey=0.0).batch(0)
    assert not torch.equal(noisy.anchor, noisy.positive)
    grey = stage(tmp_path, noise=0.0, grey=1.0).batch(0)
    pixels = (
        grey.anchor * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        + torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    )
    torch.testing.assert_close(pixels[:, 0], pixels[:, 2], atol=1e-5, rtol=0)


def test_losses_are_weighted_and_left_out_at_0(tmp_path: Path) -> None:
    batch = stage(tmp_path).batch(0)
    assert list(stage(tmp_path).losses(batch)) == ["distillation", "compactness"]
    training = stage(tmp_path, distillation=0.0, metric=2.0, compact=0.5)
    losses = training.losses(batch)
    describe = training.network.teacher.describe
    parts = [describe(part) for part in batch]
    assert float(losses["metric"].detach()) == pytest.approx(2 * float(triplet_loss(*parts, 1.0).detach()))
    assert float(losses["compactness"].detach()) == pytest.approx(0.5 * float(compactness(parts[0]).detach()))
    assert list(losses) == ["metric", "compactness"]


def test_a_targets_descriptor_is_the_mean_over_positions(tmp_path: Path) -> None:
    training = stage(tmp_path, enlarge=2)
    patches = training.batch(0).anchor
    large = torch.nn.functional.interpolate(patches, size=(34, 34), mode="bilinear", align_corners=False)
    expected = training.extractor(large)[0].flatten(2).mean(2)
    torch.testing.assert_close(training.targets(patches), expected)


def test_what_is_written_is_a_teacher(tmp_path: Path) -> None:
    report = pretrain_patch_teacher(PatchTeacherRecipe(**SMALL, steps=2), tmp_path / "t-17.safetensors")
    assert report.figures["explained variance"] <= 1
    teacher, record = load_patch_teacher(17, tmp_path / "t-{field}.safetensors", stride=4, padding="edge")
    assert record.sha256 == report.sha256
    assert teacher(torch.zeros(1, 3, 64, 64)).shape == (1, 128, 16, 16)
