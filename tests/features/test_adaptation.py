"""The projection fitted to good images, against closed forms and through the methods that use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from andon.core import AndonError
from andon.data.cache import ArrayCache
from andon.data.images import Images
from andon.data.transform import Transform
from andon.features import andon_features, create_extractor
from andon.features.adaptation import discriminative_projection
from andon.features.pseudo_defects import CHANGED, KINDS, add_pseudo_defect
from andon.methods.registry import create_method

TRANSFORM = Transform(size=(64, 64))
METHODS = {
    "patchcore": {"patch_size": 1, "image_score": "mean_top_k", "top_k": 3, "coreset_ratio": 0.5},
    "padim": {"epsilon": 0.01},
}


def stripes(n: int, seed: int = 0) -> list[np.ndarray]:
    """Images of one scene: stripes at a random phase, with noise."""
    rng = np.random.default_rng(seed)
    x = np.arange(64)[None, :, None]
    out = []
    for _ in range(n):
        wave = 120 + 50 * np.sin(2 * np.pi * (x / 9 + rng.random())) * np.ones((64, 1, 3))
        out.append(np.clip(wave + rng.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.uint8))
    return out


def method(name: str):
    return create_method(
        name,
        {"backbone": "andon-features", "layers": ["cells"], "weights": "embedded", "transform": {"size": (64, 64)}}
        | METHODS[name],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_pseudo_defect_is_local_and_its_mask_covers_it(kind: str) -> None:
    image, other = stripes(2)
    seen = 0
    for seed in range(20):
        changed, mask = add_pseudo_defect(image, other, np.random.default_rng(seed), kind)
        difference = np.abs(changed.astype(int) - image).max(axis=2)
        assert np.array_equal(mask, difference > CHANGED)
        assert mask.mean() < 0.3
        seen += bool(mask.any())
    assert seen >= 12
    again, _ = add_pseudo_defect(image, other, np.random.default_rng(19), kind)
    assert np.array_equal(again, changed)


def test_finds_the_direction_that_changes_take_and_leaves_the_one_that_good_ones_vary_in() -> None:
    rng = np.random.default_rng(0)
    n, c = 6_000, 8
    # Axis 0: large good variation, and changes too. Axis 1: little good variation, and changes. Others: no changes.
    scale = np.array([10.0, 0.1, 1, 1, 1, 1, 1, 1])
    turn = np.linalg.qr(rng.normal(size=(c, c)))[0]
    patches = torch.from_numpy((rng.normal(size=(n, c)) * scale) @ turn).float()
    moves = np.zeros((500, c))
    moves[:, :2] = rng.normal(size=(500, 2))
    projection = discriminative_projection(
        patches, torch.arange(n) // 100, torch.from_numpy(moves @ turn).float(), 2, np.random.default_rng(1)
    )
    first = projection.matrix[:, 0].double().numpy()
    # Sensitivity to axis 1 against that to axis 0, each by a unit step.
    along = turn @ first
    assert abs(along[1]) > 30 * abs(along[0])
    assert abs(along[1]) > 30 * np.abs(along[2:]).max()


def test_does_not_depend_on_the_units_of_the_channels() -> None:
    rng = np.random.default_rng(0)
    patches = torch.from_numpy(rng.normal(size=(2_000, 6))).float()
    changes = torch.from_numpy(rng.normal(size=(300, 6)) * [3, 1, 1, 0.1, 0.1, 0.1]).float()
    units = torch.tensor([1.0, 100.0, 0.01, 1.0, 7.0, 3.0])
    owners = torch.arange(2_000) // 50
    plain = discriminative_projection(patches, owners, changes, 3, np.random.default_rng(0), resolution=1e-9)
    scaled = discriminative_projection(
        patches * units, owners, changes * units, 3, np.random.default_rng(0), resolution=1e-9
    )
    one = torch.cdist((patches - plain.mean) @ plain.matrix, (patches[:5] - plain.mean) @ plain.matrix)
    two = torch.cdist(
        (patches * units - scaled.mean) @ scaled.matrix, (patches[:5] * units - scaled.mean) @ scaled.matrix
    )
    assert torch.allclose(one, two, rtol=0.02, atol=0.02)


def test_adapted_extractor_is_the_projection_of_the_features() -> None:
    base = create_extractor("andon-features", ("cells",))
    adapted = base.adapt(Images(stripes(4)), TRANSFORM)
    batch = TRANSFORM.normalise(np.stack(stripes(2, seed=5)))
    features = base(batch)[0].permute(0, 2, 3, 1)
    expected = (features - adapted.mean) @ adapted.projection
    assert torch.allclose(adapted(batch)[0].permute(0, 2, 3, 1), expected, rtol=1e-3, atol=1e-3)
    assert adapted.channels == (32,)
    assert adapted.strides == base.strides


def test_same_images_same_projection_other_images_another_fingerprint() -> None:
    base = create_extractor("andon-features", ("cells",))
    one, two, other = (base.adapt(Images(stripes(3, seed)), TRANSFORM) for seed in (0, 0, 1))
    assert torch.equal(one.projection, two.projection)
    assert one.fingerprint == two.fingerprint
    assert len({one.fingerprint, other.fingerprint, base.fingerprint}) == 3


@pytest.fixture(scope="module", params=METHODS)
def fitted(request: pytest.FixtureRequest):
    detector = method(request.param).fit(Images(stripes(12)))
    assert any("adapted" in note for note in detector.report.notes)
    assert detector.report.seconds["adaptation"] > 0
    return detector


def test_a_cached_projection_is_the_fitted_one_and_other_images_have_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = create_extractor("andon-features", ("cells",), "embedded")
    transform = Transform(size=(64, 64))
    noise = list(np.random.default_rng(3).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8))
    cache = ArrayCache(tmp_path)
    plain = extractor.adapt(Images(noise[:4]), transform)
    first = extractor.adapt(Images(noise[:4], cache), transform)
    other = extractor.adapt(Images(noise[1:], cache), transform)
    monkeypatch.setattr(andon_features, "fit_projection", lambda *a, **k: pytest.fail("fitted again"))
    again = extractor.adapt(Images(noise[:4], ArrayCache(tmp_path)), transform)
    assert again.fingerprint == first.fingerprint == plain.fingerprint != other.fingerprint
    assert torch.equal(again.projection, plain.projection)


def test_methods_find_a_foreign_body_and_where_it_is(fitted) -> None:
    good, bad = stripes(4, seed=7), stripes(4, seed=8)
    for image in bad:
        image[36:44, 28:36] = [200, 40, 40]
    fine, wrong = fitted.predict(Images(good)), fitted.predict(Images(bad))
    assert wrong.image_scores.min() > 1.5 * fine.image_scores.max()
    # The features of a cell reach far: in so small an image all of it stands out, but the body most.
    inside = wrong.anomaly_maps[:, 36:44, 28:36].mean((1, 2))
    corners = wrong.anomaly_maps[:, [0, 0, -1, -1], [0, -1, 0, -1]].max(1)
    assert (inside > corners).all()


def test_state_brings_the_projection_along(fitted) -> None:
    state = fitted.state_dict()
    assert {"extractor.mean", "extractor.projection"} <= set(state)
    restored = method(fitted.name).restore(state, fitted.report)
    images = Images(stripes(3, seed=9))
    one, two = fitted.predict(images), restored.predict(images)
    assert np.array_equal(one.image_scores, two.image_scores)
    assert np.array_equal(one.anomaly_maps, two.anomaly_maps)


@pytest.mark.parametrize("name", METHODS)
def test_fitting_again_forgets_the_first_images_and_one_is_enough(name: str) -> None:
    recipe = method(name)
    recipe.fit(Images(stripes(2, seed=1)))
    twice = recipe.fit(Images(stripes(1, seed=2)))
    once = method(name).fit(Images(stripes(1, seed=2)))
    for key, tensor in once.state_dict().items():
        assert torch.equal(tensor, twice.state_dict()[key])
    assert np.isfinite(once.predict(Images(stripes(2, seed=3))).image_scores).all()


def test_a_state_that_does_not_fit_is_refused(fitted) -> None:
    state = fitted.state_dict()
    for change, message in (
        ({"extractor.mean": None}, "lacks the tensor extractor.mean"),
        ({"extractor.mean": torch.zeros(3)}, r"extractor.mean .* is \[3\], not \[478\]"),
        ({"extractor.mean": torch.full_like(state["extractor.mean"], torch.nan)}, "extractor.mean .* not finite"),
    ):
        damaged = {k: v for k, v in (state | change).items() if v is not None}
        with pytest.raises(AndonError, match=message):
            method(fitted.name).restore(damaged, fitted.report)


def test_images_without_two_cells_or_without_a_change_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(AndonError, match="too small"):
        discriminative_projection(torch.zeros(1, 4), torch.zeros(1), torch.ones(3, 4), 2, rng)
    with pytest.raises(AndonError, match="no made-up defect"):
        discriminative_projection(torch.randn(9, 4), torch.arange(9), torch.zeros(0, 4), 2, rng)
