"""What tests of trained methods share: good images and defects, and what every training must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

import andon
from andon.core import ImageArray, Prediction
from andon.methods import Detector, FitRun, Method


def good_images(n: int, seed: int = 0, side: int = 32, noise: float = 6.0) -> list[ImageArray]:
    """Images of one smooth ground, each with noise of its own."""
    rng = np.random.default_rng(seed)
    ground = gaussian_filter(np.random.default_rng(99).uniform(0, 255, (side, side, 3)), (side / 16, side / 16, 0))
    ground = (ground - ground.mean()) * 4 + 128
    return [np.clip(ground + rng.normal(0, noise, ground.shape), 0, 255).astype(np.uint8) for _ in range(n)]


def bad_images(n: int, seed: int, side: int = 32) -> tuple[list[ImageArray], np.ndarray[Any, Any]]:
    """Good images with a square of one colour, and where it is, bool ``[n, side, side]``."""
    images, rng = [image.copy() for image in good_images(n, seed, side)], np.random.default_rng(0)
    size, masks = side // 4, np.zeros((n, side, side), bool)
    for image, mask in zip(images, masks, strict=True):
        y, x = rng.integers(2, side - size - 2, 2)
        image[y : y + size, x : x + size] = 255 * rng.integers(0, 2, 3)
        mask[y : y + size, x : x + size] = True
    return images, masks


def smooth_images(n: int, seed: int, size: tuple[int, int]) -> list[ImageArray]:
    """Smooth random images of (height, width) on a common ground, so that positions have statistics worth learning."""
    rng = np.random.default_rng(seed)
    ground = np.random.default_rng(999).uniform(60, 190, (*size, 3))
    return [
        np.clip(ground + gaussian_filter(rng.normal(0, 60, ground.shape), (2, 2, 0)), 0, 255).astype(np.uint8)
        for _ in range(n)
    ]


def detection(detector: Detector, side: int = 32) -> tuple[float, float]:
    """Area under the ROC curve of the image scores, and of the defective images' pixels."""
    bad, masks = bad_images(8, 6, side)
    prediction = detector.predict(good_images(8, 5, side) + bad)
    assert prediction.anomaly_maps is not None
    return (
        float(roc_auc_score([0] * 8 + [1] * 8, prediction.image_scores)),
        float(roc_auc_score(masks.ravel(), prediction.anomaly_maps[8:].ravel())),
    )


def same(a: Detector, b: Detector) -> bool:
    """Whether two detectors hold the same tensors, bit for bit."""
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_seed_decides(method: Method[Any], images: list[ImageArray] | None = None) -> None:
    """The same seed gives the same detector, another seed another, and nobody's random state is touched."""
    images = images or good_images(4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = method.fit(images, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, method.fit(images, seed=3))
    assert not same(first, method.fit(images, seed=4))


def assert_goes_on_after_a_kill(
    method: Method[Any], folder: Path, stage: str, steps: int, images: list[ImageArray] | None = None
) -> Detector:
    """A fit that is killed after ``steps`` steps of a stage ends bit for bit where it would have ended; gives that."""
    images = images or good_images(4)
    whole = method.fit(images, seed=2)

    class KilledError(Exception):
        pass

    def stop(name: str, done: int, total: int) -> None:
        if name.startswith(stage) and done >= steps:
            raise KilledError

    with pytest.raises(KilledError):
        method.fit(images, seed=2, run=FitRun(progress=stop, checkpoints=folder, checkpoint_seconds=0.0))
    resumed = method.fit(images, seed=2, run=FitRun(checkpoints=folder))
    assert same(whole, resumed)
    assert resumed.report.curves == whole.report.curves
    return resumed


def assert_comes_back(detector: Detector, folder: Path, images: list[ImageArray]) -> Prediction:
    """A saved and a restored detector score as the detector does; gives what they say."""
    expected = detector.predict(images)
    assert expected.anomaly_maps is not None
    detector.save(folder / "detector.safetensors")
    restored = detector.method.restore(detector.state_dict(), detector.report)
    for copy in (restored, andon.load(folder / "detector.safetensors")):
        found = copy.predict(images)
        np.testing.assert_array_equal(found.image_scores, expected.image_scores)
        assert found.anomaly_maps is not None
        np.testing.assert_array_equal(found.anomaly_maps, expected.anomaly_maps)
    return expected


def assert_is_saved_and_exported(detector: Detector, folder: Path, side: int = 32) -> None:
    """A saved, a restored and an exported detector score as the detector does, whatever else is in a batch."""
    images = good_images(3, 7, side)
    expected = assert_comes_back(detector, folder, images)
    assert expected.anomaly_maps is not None
    batch = detector.transform.normalise(np.stack(images))
    exported = torch.export.export(detector, (batch[:1],)).module()
    largest = float(np.abs(expected.anomaly_maps).max())
    for row in range(3):
        for scores, maps in (detector(batch[row : row + 1]), exported(batch[row : row + 1])):
            np.testing.assert_allclose(scores[0], expected.image_scores[row], rtol=2e-4)
            np.testing.assert_allclose(maps[0], expected.anomaly_maps[row], atol=1e-4 * largest)
