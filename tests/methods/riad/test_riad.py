"""RIAD: regions and similarity against literal loops and scipy, the network, training, scores, state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from torch import nn

from andon.core import DetectorError
from andon.data import as_images
from andon.methods import FitRun, Fitting, check_method, create_method
from andon.methods.riad import Riad, RiadConfig, RiadDetector
from andon.methods.riad.network import InpaintingNetwork
from andon.methods.riad.regions import draw_subsets, inpainted, pixel_subsets
from andon.methods.riad.similarity import gms_loss, gradient_magnitude, gradient_similarity, mean_filter, similarity_map
from andon.methods.riad.training import RiadStage
from tests.methods.trainings import (
    assert_goes_on_after_a_kill,
    assert_is_saved_and_exported,
    assert_seed_decides,
    detection,
    good_images,
)

SMALL: dict[str, Any] = {
    "transform": {"size": (32, 32)},
    "region_sizes": (2, 4),
    "width": 2,
    "epochs": 4,
    "train_batch_size": 2,
    "learning_rate": 5e-3,
    "map_window": 5,
}


def make(**options: Any) -> Riad:
    method = create_method("riad", {**SMALL, **options}, preset="paper")
    assert isinstance(method, Riad)
    return method


def random_images(n: int = 2, size: tuple[int, int] = (24, 32), seed: int = 0) -> torch.Tensor:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Configuration


def test_defaults_and_presets() -> None:
    config = RiadConfig()
    assert (config.region_sizes, config.subsets, config.epochs, config.train_batch_size) == ((2, 4, 8, 16), 3, 300, 4)
    assert (config.learning_rate, config.decay, config.transform.size) == (1e-4, 0.1, (256, 256))
    assert [round(300 * part) for part in config.decay_at] == [250]
    for preset in Riad.presets:
        assert create_method("riad", preset=preset).config.transform.normalisation == "unit"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"transform": {"size": (40, 64)}},
        {"transform": {"size": (16, 64)}},
        {"transform": {"size": (64, 64), "normalisation": "imagenet"}},
        {"region_sizes": (4, 4)},
        {"region_sizes": (0,)},
        {"map_window": 4},
        {"transform": {"size": (64, 64)}, "region_sizes": (64,)},
    ],
)
def test_refuses_nonsense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"must be|too few"):
        RiadConfig.model_validate(options)


# Regions


@pytest.mark.parametrize(("size", "side"), [((24, 32), 4), ((20, 33), 8), ((9, 9), 2)])
def test_subsets_are_disjoint_cover_all_and_are_equally_large(size: tuple[int, int], side: int) -> None:
    drawn = draw_subsets(size, side, 3, np.random.default_rng(0))
    assert drawn.shape == (np.ceil(size[0] / side), np.ceil(size[1] / side))
    counts = np.bincount(drawn.numpy().ravel(), minlength=3)
    assert counts.max() - counts.min() <= 1
    wide = pixel_subsets(drawn, side, size)
    assert wide.shape == size
    assert all(wide[y, x] == drawn[y // side, x // side] for y in range(size[0]) for x in range(size[1]))
    assert not np.array_equal(drawn, draw_subsets(size, side, 3, np.random.default_rng(1)))


class Recording(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return torch.arange(len(images), dtype=images.dtype).view(-1, 1, 1, 1).expand_as(images) + images


def test_every_part_is_filled_in_by_a_network_that_did_not_see_it() -> None:
    images, network = random_images() + 0.1, Recording()
    drawn = torch.stack(
        [pixel_subsets(draw_subsets((24, 32), 4, 3, np.random.default_rng(s)), 4, (24, 32)) for s in (0, 1)]
    )
    subsets = drawn[:, None]
    result = inpainted(network, images, subsets, 3)
    for row in range(2):
        for number in range(3):
            hidden = drawn[row] == number
            shown = network.seen[number * 2 + row]
            assert float(shown[:, hidden].abs().max()) == 0
            assert torch.equal(shown[:, ~hidden], images[row][:, ~hidden])
            assert torch.equal(result[row][:, hidden], torch.full_like(result[row][:, hidden], number * 2 + row))


def test_what_is_removed_has_no_influence_on_what_fills_it_in() -> None:
    torch.manual_seed(0)
    network = InpaintingNetwork(2).double().eval()
    images = random_images(1, (32, 32)).requires_grad_()
    subsets = pixel_subsets(draw_subsets((32, 32), 8, 3, np.random.default_rng(0)), 8, (32, 32))
    hidden = (subsets == 1).expand(1, 3, 32, 32)
    inpainted(network, images, subsets[None, None], 3)[hidden].sum().backward()
    assert images.grad is not None
    assert float(images.grad[hidden].abs().max()) == 0
    assert float(images.grad[~hidden].abs().max()) > 0


# Similarity


def test_gradients_are_prewitts() -> None:
    images = random_images()
    literal = np.stack(
        [
            [np.hypot(*(ndimage.prewitt(c, axis, mode="nearest") / 3 for axis in (0, 1))) for c in i]
            for i in images.numpy()
        ]
    )
    np.testing.assert_allclose(gradient_magnitude(images), literal, atol=1e-6)


def literal_similarity(x: Any, y: Any, constant: float) -> Any:
    gx, gy = (
        np.hypot(ndimage.prewitt(i, 0, mode="nearest") / 3, ndimage.prewitt(i, 1, mode="nearest") / 3) for i in (x, y)
    )
    return (2 * gx * gy + constant) / (gx**2 + gy**2 + constant)


@pytest.mark.parametrize("gradients", ["grey", "colours"])
def test_the_map_and_the_loss_are_the_mean_over_scales(gradients: str) -> None:
    x, y = random_images(seed=1), random_images(seed=2)
    maps, losses = [], []
    for one, two in zip(x.numpy(), y.numpy(), strict=True):
        pairs = [(one.mean(0), two.mean(0))] if gradients == "grey" else list(zip(one, two, strict=True))
        wide, means = [], []
        for a, b in pairs:
            for scale in range(3):
                if scale:
                    a, b = (i.reshape(i.shape[0] // 2, 2, i.shape[1] // 2, 2).mean((1, 3)) for i in (a, b))
                found = literal_similarity(a, b, 0.0026)
                wide.append(cv2.resize(found, (32, 24), interpolation=cv2.INTER_LINEAR))
                means.append(1 - found.mean())
        maps.append(np.mean(wide, axis=0))
        losses.append(np.mean(means))
    np.testing.assert_allclose(similarity_map(x, y, 3, 0.0026, gradients)[:, 0], np.stack(maps), atol=1e-5)
    assert float(gms_loss(x, y, 3, 0.0026, gradients)) == pytest.approx(np.mean(losses), abs=1e-5)


def test_alike_is_one_and_even_images_have_a_gradient() -> None:
    x = random_images()
    torch.testing.assert_close(gradient_similarity(x, x, 0.0026), torch.ones_like(x))
    even = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    gms_loss(even, random_images(1, (8, 8)).float(), 2, 0.0026, "grey").backward()
    assert even.grad is not None
    assert bool(even.grad.isfinite().all())


def test_gradient_of_the_loss_is_that_of_differences() -> None:
    x, y = random_images(1, (8, 8), 1).requires_grad_(), random_images(1, (8, 8), 2)
    assert torch.autograd.gradcheck(lambda image: gms_loss(image, y, 2, 0.0026, "colours"), (x,))


def test_the_mean_at_an_edge_is_over_what_there_is() -> None:
    maps = random_images(1, (9, 11))[:, :1]
    found = mean_filter(maps, 5)[0, 0]
    for y, x in ((0, 0), (1, 10), (4, 5), (8, 3)):
        part = maps[0, 0, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        assert float(found[y, x]) == pytest.approx(float(part.mean()))


# The network


def test_the_network_has_five_levels_and_four_skips() -> None:
    w = 64
    layers = [
        (3, w),
        (w, w),
        (w, 2 * w),
        (2 * w, 2 * w),
        (2 * w, 4 * w),
        (4 * w, 4 * w),
        (4 * w, 8 * w),
        (8 * w, 8 * w),
    ]
    layers += [(8 * w, 8 * w)] * 2
    for below, outputs in ((8, 8), (8, 4), (4, 2), (2, 1)):
        layers += [(below * w, outputs * w), (2 * outputs * w, outputs * w), (outputs * w, outputs * w)]
    expected = sum(9 * i * o + 3 * o for i, o in layers) + 9 * w * 3 + 3
    with torch.device("meta"):
        network = InpaintingNetwork()
        assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)
    assert sum(p.numel() for p in network.parameters()) == expected == 22_729_155


# Training


def stage_of(n: int = 6, seed: int = 0, **options: Any) -> RiadStage:
    return RiadStage(Fitting(make(**options), as_images(good_images(n)), seed, FitRun()), InpaintingNetwork(2))


def test_batches_are_a_function_of_seed_and_step() -> None:
    first, second = stage_of(), stage_of()
    reference = [first.batch(step) for step in (3, 0)]
    for ours, theirs in zip(reference, [second.batch(3), second.batch(0)], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    batch = reference[0]
    assert (batch.images.shape, batch.subsets.shape) == ((2, 3, 32, 32), (2, 1, 32, 32))
    assert batch.subsets.unique().tolist() == [0, 1, 2]
    assert not torch.equal(batch.subsets[0], batch.subsets[1])
    assert not torch.equal(batch.images, stage_of(seed=1).batch(3).images)


def test_a_step_removes_regions_of_one_of_the_sizes() -> None:
    stage, sides = stage_of(), set[int]()
    for step in range(8):
        subsets = stage.batch(step).subsets[0, 0]
        fitting = [k for k in (4, 2) if torch.equal(subsets, pixel_subsets(subsets[::k, ::k], k, (32, 32)))]
        sides.add(fitting[0])
    assert sides == {2, 4}


def test_the_losses_are_weighted_and_compare_what_was_filled_in() -> None:
    stage = stage_of(gms_weight=2.0, ssim_weight=0.5)
    batch = stage.batch(0)
    losses = {name: loss.detach() for name, loss in stage.losses(batch).items()}
    with torch.no_grad():
        given = inpainted(stage.networks, batch.images, batch.subsets, 3)
    assert float(losses["l2"]) == pytest.approx(float(((given - batch.images) ** 2).mean()), rel=1e-4)
    gms = gms_loss(given, batch.images, 4, 0.0026, "grey")
    assert float(losses["gms"]) == pytest.approx(2 * float(gms), rel=1e-4)
    assert 0 < float(losses["ssim"]) < 0.5 * 2
    assert stage.full_steps == 4 * 6 // 2
    assert [stage.schedule()(step) for step in (0, 9, 10, 11)] == pytest.approx([1, 1, 0.1, 0.1])


@pytest.fixture(scope="module")
def trained() -> RiadDetector:
    detector = make(width=6, epochs=60, map_window=3, gradients="colours").fit(good_images(8), seed=2)
    assert isinstance(detector, RiadDetector)
    return detector


def test_training_lowers_the_losses_and_finds_defects(trained: RiadDetector) -> None:
    curves = trained.report.curves
    assert set(curves) == {"l2", "gms", "ssim", "loss"}
    for name in ("l2", "gms", "ssim"):
        values = [value for _, value in curves[name]]
        assert np.mean(values[-10:]) < 0.8 * np.mean(values[:5]), name
    images, pixels = detection(trained)
    assert images > 0.9
    assert pixels > 0.8


def test_the_map_is_one_less_the_smoothed_similarity_over_all_sizes(trained: RiadDetector) -> None:
    images = good_images(2, 5)
    prediction = trained.predict(images)
    batch = trained.transform.normalise(np.stack(images))
    expected = []
    with torch.no_grad():
        for side in (2, 4):
            drawn = pixel_subsets(trained.get_buffer(f"subsets_{side}"), side, (32, 32))
            given = torch.zeros_like(batch)
            for number in range(3):
                given += trained.network(batch * (drawn != number)) * (drawn == number)
            similar = similarity_map(given, batch, 4, 0.0026, "colours")
            expected.append(mean_filter(1 - similar, 3)[:, 0].numpy())
    mean = np.mean(expected, axis=0)
    np.testing.assert_allclose(prediction.anomaly_maps, mean, atol=1e-4)
    np.testing.assert_allclose(prediction.image_scores, mean.max((1, 2)), atol=1e-4)


# The contract


def test_a_saved_and_an_exported_detector_score_the_same(trained: RiadDetector, tmp_path: Path) -> None:
    assert_is_saved_and_exported(trained, tmp_path)
    state = trained.state_dict()
    with pytest.raises(DetectorError, match="subsets_4"):
        make(width=6).restore({**state, "subsets_4": torch.full((8, 8), 3, dtype=torch.uint8)}, trained.report)
    with pytest.raises(DetectorError, match="network"):
        make(width=4).restore(state, trained.report)


def test_the_seed_decides() -> None:
    assert_seed_decides(make())


def test_goes_on_bit_for_bit_after_being_killed(tmp_path: Path) -> None:
    assert_goes_on_after_a_kill(make(), tmp_path, "training", 3)


def test_the_contract_is_kept() -> None:
    report = check_method("riad", {**SMALL, "epochs": 1}, preset="paper")
    assert [item for item in report.items if item.outcome == "broken"] == []
