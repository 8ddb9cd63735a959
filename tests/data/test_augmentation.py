from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy import stats

from andon.core import Sample
from andon.data import ArrayCache, Augmentation, Images, Transform, augmented
from andon.data.files import WholeMaskReader

STILL = {"rotation_probability": 0.0, "noise_probability": 0.0}
GREY = Transform(size=(64, 48), normalisation="unit")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    found = []
    for number in range(4):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(60, 190, (64, 48, 3), dtype=np.uint8)).save(path)
        found.append(Sample(f"train/good/{number}", path, "train", "good", WholeMaskReader()))
    return found


def test_the_defaults_are_those_of_section_6_1() -> None:
    study = Augmentation()
    assert (study.rotation, study.rotation_probability) == (15, 0.5)
    assert (study.noise_variance, study.noise_probability) == ((10, 120), 0.5)


def test_draws_have_the_distribution_of_the_study() -> None:
    draws = [Augmentation().draw(3, f"image {i}", 0) for i in range(4000)]
    angles = np.array([d.angle for d in draws])
    variances = np.array([d.variance for d in draws])
    for values in (angles, variances):
        assert stats.binomtest(int((values != 0).sum()), len(values), 0.5).pvalue > 1e-3
    assert stats.kstest(angles[angles != 0], stats.uniform(-15, 30).cdf).pvalue > 1e-3
    assert stats.kstest(variances[variances != 0], stats.uniform(10, 110).cdf).pvalue > 1e-3
    table = [[((angles != 0) & (variances != 0)).sum(), ((angles != 0) & (variances == 0)).sum()],
             [((angles == 0) & (variances != 0)).sum(), ((angles == 0) & (variances == 0)).sum()]]  # fmt: skip
    assert stats.chi2_contingency(table).pvalue > 1e-3  # independent


def test_noise_has_the_variance_that_was_drawn_whatever_the_image_was_resized_by(tmp_path: Path) -> None:
    path = tmp_path / "even.png"
    Image.fromarray(np.full((300, 200, 3), 128, np.uint8)).save(path)
    even = Sample("train/good/0", path, "train", "good", WholeMaskReader())
    only_noise = Augmentation(rotation_probability=0, noise_probability=1)
    (version,) = augmented([even], only_noise.model_copy(update={"versions": 1}), seed=5, trained=True)
    variance = only_noise.draw(5, even.id, 0).variance
    for size in ((64, 64), (300, 200)):
        pixels = Images([version]).resized(0, Transform(size=size)).astype(float)
        n = pixels.size
        # Rounding to whole numbers adds a twelfth; the variance of n normal draws has relative deviation √(2/n).
        assert abs(pixels.var() / (variance + 1 / 12) - 1) < 5 * np.sqrt(2 / n)
        assert abs(pixels.mean() - 128) < 5 * np.sqrt(variance / n)
        channels = pixels.reshape(-1, 3).T
        assert abs(np.corrcoef(channels)[0, 1]) < 5 / np.sqrt(n / 3)  # each channel has its own


def test_a_rotation_turns_about_the_centre_and_leaves_no_black_corner(tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    pixels = np.full((101, 101, 3), 90, np.uint8)
    pixels[48:53] = 250  # a horizontal bar through the centre
    Image.fromarray(pixels).save(path)
    line = Sample("train/good/0", path, "train", "good", WholeMaskReader())
    turn = Augmentation(rotation=15, rotation_probability=1, noise_probability=0, versions=1)
    (version,) = augmented([line], turn, seed=1, trained=True)
    angle = turn.draw(1, line.id, 0).angle
    turned = version.image()
    assert turned.min() >= 90
    assert turned.shape == (101, 101, 3)
    rows = (turned[..., 0].astype(float) - 90) > 80
    heights = [np.flatnonzero(rows[:, x]).mean() for x in range(20, 81)]
    slope = np.polyfit(np.arange(20, 81), heights, 1)[0]
    assert np.degrees(np.arctan(-slope)) == pytest.approx(angle, abs=0.3)  # rows run downwards
    assert heights[30] == pytest.approx(50, abs=0.6)


def test_versions_do_not_hang_on_order_batches_threads_or_subsets(samples: list[Sample]) -> None:
    versions = Images(augmented(samples, Augmentation(versions=3), seed=7, trained=True))
    alone = [versions.resized(i, GREY).copy() for i in range(len(versions))]
    backwards = Images(list(reversed(augmented(samples, Augmentation(versions=3), seed=7, trained=True))))
    batched = [b for indices, batch in pickle.loads(pickle.dumps(versions)).batches(GREY, 5) for b in batch]
    for i, image in enumerate(alone):
        np.testing.assert_array_equal(image, backwards.resized(len(alone) - 1 - i, GREY))
        np.testing.assert_allclose(batched[i].numpy(), image.transpose(2, 0, 1) / np.float32(255), rtol=1e-6)
    part = Images(augmented(samples[2:], Augmentation(versions=3), seed=7, trained=True))
    np.testing.assert_array_equal(part.resized(0, GREY), alone[2])
    other = Images(augmented(samples, Augmentation(versions=3), seed=8, trained=True))
    assert any(not np.array_equal(other.resized(i, GREY), alone[i]) for i in range(len(alone)))


def test_a_crop_is_cut_from_the_turned_image(samples: list[Sample]) -> None:
    turn = Augmentation(rotation_probability=1, noise_probability=0, versions=1)
    versions = Images(augmented(samples, turn, seed=0, trained=True))
    whole = versions.resized(0, Transform(size=(64, 48)))
    cropped = versions.resized(0, Transform(size=(64, 48), crop=(48, 32)))
    np.testing.assert_array_equal(cropped, whole[8:56, 8:40])


def test_trained_methods_get_versions_and_others_the_images_and_extra_passes(samples: list[Sample]) -> None:
    many = augmented(samples, Augmentation(versions=5), seed=0, trained=True)
    beside = augmented(samples, Augmentation(extra_passes=2), seed=0, trained=False)
    assert (len(many), len(beside)) == (20, 12)
    assert beside[:4] == tuple(samples)
    assert all(a.reader is b.reader for a, b in zip(beside, samples, strict=False))
    for versions in (many, beside):
        images = Images(versions)
        assert images.n_sources == 4
        assert images.sources == tuple(range(4)) * (len(versions) // 4)
        assert images.subset([1, 5, 2]).sources == (0, 0, 1)
    assert Images(samples).sources == Images(samples * 2).sources[:4]
    assert Images(samples * 2).n_sources == 8


def test_no_cache_takes_a_version_for_the_image_or_for_another_version(tmp_path: Path, samples: list[Sample]) -> None:
    cache = ArrayCache(tmp_path / "cache")
    noisy = Augmentation(noise_probability=1, versions=2)
    plain, versions = Images(samples, cache), Images(augmented(samples, noisy, seed=0, trained=True), cache)
    before = plain.resized(0, GREY)
    first, second = versions.resized(0, GREY), versions.resized(4, GREY)
    assert not np.array_equal(first, before)
    assert not np.array_equal(first, second)
    prints = {plain.fingerprint(0), versions.fingerprint(0), versions.fingerprint(4)}
    assert len(prints) == 3
    assert all(len(p) == 32 for p in prints)
    again = Images(augmented(samples, noisy, seed=0, trained=True), ArrayCache(tmp_path / "cache"))
    assert again.fingerprint(4) == versions.fingerprint(4)
    np.testing.assert_array_equal(again.resized(4, GREY), second)
    still = Images(augmented(samples, Augmentation(**STILL), seed=0, trained=True))
    np.testing.assert_array_equal(still.resized(0, GREY), before)


@given(st.integers(0, 2**32 - 1), st.text(max_size=20), st.integers(0, 500))
@settings(max_examples=50, deadline=None)
def test_a_draw_is_within_its_bounds_and_the_same_every_time(seed: int, name: str, number: int) -> None:
    draw, again = (Augmentation().draw(seed, name, number) for _ in range(2))
    assert (draw.angle, draw.variance) == (again.angle, again.variance)
    assert -15 <= draw.angle <= 15
    assert draw.variance == 0 or 10 <= draw.variance <= 120


@pytest.mark.parametrize("bad", [{"noise_variance": (5, 1)}, {"rotation": 200}, {"versions": 0}, {"noise": 1}])
def test_impossible_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Augmentation.model_validate(bad)


def test_a_sample_s_own_size_does_not_change(samples: list[Sample]) -> None:
    (version, *_) = augmented(samples, Augmentation(), seed=0, trained=True)
    assert version.size() == (64, 48) == version.image().shape[:2]
    assert replace(version, reader=samples[0].reader) == samples[0]
    truth = version.ground_truth()
    assert truth is not None
    assert truth.channels == ()
