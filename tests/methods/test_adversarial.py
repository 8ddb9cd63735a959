"""What GANomaly and f-AnoGAN share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from andon.data import as_images
from andon.methods import FitRun, Fitting, create_method
from andon.methods._adversarial import PatchConfig, PatchStage, frozen, patches_of, put_together
from tests.methods.trainings import good_images


def test_patches_lie_side_by_side_and_are_put_together_again() -> None:
    batch = torch.rand(2, 3, 32, 48)
    patches = patches_of(batch, 16)
    assert patches.shape == (12, 3, 16, 16)
    for image in range(2):
        for row in range(2):
            for column in range(3):
                expected = batch[image, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
                assert torch.equal(patches[6 * image + 3 * row + column], expected)
    assert torch.equal(put_together(patches[:, 1], (32, 48)), batch[:, 1])


def test_a_frozen_network_passes_a_gradient_and_takes_none() -> None:
    network, x = nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    with frozen(network):
        loss = network(x).sum()
    loss.backward()
    assert network.weight.grad is None
    assert x.grad is not None
    assert torch.equal(x.grad, network.weight.detach())
    assert network.weight.requires_grad


@pytest.mark.parametrize(
    "options",
    [
        {"patch": 48, "transform": {"size": (96, 96)}},
        {"transform": {"size": (64, 96)}},
        {"transform": {"size": (64, 64), "normalisation": "imagenet"}},
        {"transform": {"size": (40, 64)}, "patch": 16},
    ],
)
def test_refuses_nonsense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must be"):
        PatchConfig.model_validate(options)


class Stage(PatchStage[torch.Tensor]):
    name = "any"
    batch = losses = modules = optimiser = None  # type: ignore[assignment]


def stage(**options: Any) -> Any:
    config = {"transform": {"size": (32, 32)}, "patch": 16, "train_batch_size": 8, **options}
    method = create_method("ganomaly", config, preset="paper")
    Stage.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    return Stage(Fitting(method, as_images(good_images(4, noise=40)), 0, FitRun()))


def test_patches_of_a_step_are_cut_from_anywhere_and_mirrored() -> None:
    images = [torch.from_numpy(i).permute(2, 0, 1) / 127.5 - 1 for i in good_images(4, noise=40)]
    training, places, mirrored = stage(flip_probability=0.5), set(), 0
    for step in range(3):
        patches = training.patches(step)
        assert torch.equal(patches, training.patches(step))
        for index, patch in zip(training.order(step), patches, strict=True):
            windows = images[index].unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4)
            near = [
                (flipped, *np.argwhere(((windows - each).abs().amax((2, 3, 4)) < 1e-5).numpy()).tolist())
                for flipped, each in enumerate((patch, patch.flip(-1)))
            ]
            found = [(flipped, *place) for flipped, *all_places in near for place in all_places]
            assert len(found) == 1
            mirrored += found[0][0]
            places.add(found[0][1:])
    assert len(places) > 15
    assert 4 < mirrored < 20


def test_an_image_of_a_patchs_size_is_the_patch() -> None:
    training = stage(patch=32)
    expected = torch.stack([torch.from_numpy(good_images(4, noise=40)[i]).permute(2, 0, 1) for i in training.order(0)])
    torch.testing.assert_close(training.patches(0), expected / 127.5 - 1)
