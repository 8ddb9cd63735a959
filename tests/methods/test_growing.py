"""Detectors that learn more images: the same as a fit to all where that is promised, the definition where it is not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core import ConfigError, DataError
from andon.data import ArrayCache, Images
from andon.methods import Detector, Grows, Recalls, create_method, detector_with
from andon.methods._gaussians import StreamingGaussian, whitening
from andon.methods.padim.moments import with_vectors
from andon.methods.patchcore import PatchcoreDetector
from andon.methods.patchcore.coreset import continued_k_centre, projection_matrix, to_fixed_point
from andon.methods.patchcore.embedding import embed
from tests.inspection.parts import SMALL, part

SAME: list[tuple[str, dict[str, Any], float]] = [
    ("thumbnail-nn", SMALL["thumbnail-nn"], 0.0),
    ("patchcore", SMALL["patchcore"] | {"coreset": "none"}, 1e-5),
    ("padim", SMALL["padim"], 2e-4),
]
PATCHES = 16 * 16


def images(seeds: range, cache: Path) -> Images:
    return Images([part(seed) for seed in seeds], ArrayCache(cache))


@pytest.mark.parametrize(("name", "config", "tolerance"), SAME)
@pytest.mark.parametrize("cut", [(6, 12), (1, 12), (11, 12), (3, 4, 9, 12)])
def test_it_equals_a_fit_to_all(
    name: str, config: dict[str, Any], tolerance: float, cut: tuple[int, ...], tmp_path: Path
) -> None:
    shown, unseen = images(range(12), tmp_path), Images([part(50), part(51, defect=True), part(3)])
    method = create_method(name, config)
    grown = method.fit(shown.subset(range(cut[0])))
    for start, stop in pairwise(cut):
        more = detector_with(grown, shown.subset(range(start, stop)))
        assert more is not None
        grown = more
    whole = method.fit(shown)
    assert grown.report.n_train == whole.report.n_train == 12
    for got, expected in zip(
        (grown.predict(unseen).image_scores, grown.predict(unseen).anomaly_maps),
        (whole.predict(unseen).image_scores, whole.predict(unseen).anomaly_maps),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
    if isinstance(whole, Recalls):
        assert isinstance(grown, Recalls)
        assert whole.origins is not None
        assert grown.origins is not None
        np.testing.assert_array_equal(grown.origins, whole.origins)
    again = method.restore(grown.state_dict(), grown.report)
    np.testing.assert_array_equal(again.predict(unseen).image_scores, grown.predict(unseen).image_scores)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 5), st.lists(st.integers(1, 12), min_size=2, max_size=4), st.floats(0.01, 1)
)
def test_moments_in_any_split_are_those_of_all(seed: int, d: int, parts: list[int], epsilon: float) -> None:
    """Against NumPy's covariance of all vectors."""
    positions, generator = 3, torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator)
    vectors = torch.einsum("ij,njp->nip", mixing, torch.randn(sum(parts), d, positions, generator=generator)) + 2
    first, *rest = vectors.split(parts)

    def moments(block: torch.Tensor) -> StreamingGaussian:
        found = StreamingGaussian(positions, d, torch.device("cpu"))
        found.update(block)
        return found

    start = moments(first)
    mean = start.mean.float()
    white, n = whitening(start.covariance_(epsilon).double()).float(), len(first)
    for block in rest:
        mean, white = with_vectors(mean, white, n, moments(block), epsilon)
        n += len(block)
    for p in range(positions):
        x = vectors[:, :, p].double().numpy()
        np.testing.assert_allclose(mean[p], x.mean(0), rtol=1e-4, atol=1e-5)
        expected = np.cov(x, rowvar=False).reshape(d, d) + epsilon * np.eye(d)
        # In the metric in which distances are taken: what whitens one whitens the other.
        w = white[p].double().numpy()
        np.testing.assert_allclose(w @ expected @ w.T, np.eye(d), atol=2e-3)


def textbook(points: np.ndarray, chosen: list[int], k: int) -> list[int]:
    """Greedy k-centre from given picks: time after time the point that is farthest from all of them."""
    chosen = list(chosen)
    while len(chosen) < k:
        nearest = ((points[:, None] - points[chosen][None]) ** 2).sum(2).min(1)
        best = int(nearest.argmax())
        if nearest[best] == 0:
            break
        chosen.append(best)
    return chosen


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_selection_that_goes_on_is_the_textbooks(data: st.DataObject) -> None:
    """On small integers, so that ties and duplicates are many."""
    n, d = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 3))
    values = data.draw(st.lists(st.integers(-4, 4), min_size=n * d, max_size=n * d))
    points = np.array(values, np.float32).reshape(n, d)
    chosen = data.draw(st.integers(1, n))
    k = data.draw(st.integers(chosen, n))
    found = continued_k_centre(torch.from_numpy(points), chosen, k)
    expected = textbook(points.astype(np.float64), list(range(chosen)), k)
    assert found.indices.tolist() == expected[chosen:]
    for i, radius in enumerate(found.radii.tolist()[: len(found.indices)]):
        picks = points[expected[: chosen + i + 1]].astype(np.float64)
        assert radius == pytest.approx(np.sqrt(((points[:, None] - picks[None]) ** 2).sum(2).min(1).max()))


def test_a_selection_of_many_goes_on(tmp_path: Path) -> None:
    """More points than the outer set holds."""
    points = torch.randn(6000, 4, generator=torch.Generator().manual_seed(0))
    grid, _ = to_fixed_point(points)
    found = continued_k_centre(points, 5, 40)
    assert found.indices.tolist() == textbook(grid.double().numpy(), list(range(5)), 40)[5:]


def test_picks_that_cannot_be() -> None:
    for chosen, k in ((0, 2), (3, 2), (2, 5)):
        with pytest.raises(ValueError, match="cannot become"):
            continued_k_centre(torch.zeros(4, 2), chosen, k)


def bank_of(detector: Any) -> torch.Tensor:
    assert isinstance(detector, PatchcoreDetector)
    return detector.bank.centred + detector.bank.mean


def patches(detector: Any, shown: Images) -> torch.Tensor:
    batch = torch.cat([batch for _, batch in shown.batches(detector.transform, 8)])
    with torch.inference_mode():
        return embed(detector.parts(detector.extractor(batch)))


@pytest.mark.parametrize(("layer", "each"), [("layer1", PATCHES), ("layer3", 16)])
def test_a_coreset_goes_on_by_the_definition(layer: str, each: int, tmp_path: Path) -> None:
    shown, method = images(range(8), tmp_path), create_method("patchcore", SMALL["patchcore"] | {"layers": [layer]})
    detector = method.fit(shown.subset(range(6)), seed=3)
    grown = detector_with(detector, shown.subset([6, 7]), seed=3)
    before, after = bank_of(detector), bank_of(grown)
    assert len(before) == 6 * each // 10
    assert len(after) == 8 * each // 10  # the share of all patches
    assert isinstance(grown, PatchcoreDetector)
    assert torch.equal(grown.bank.centred[: len(before)], detector.bank.centred)  # nothing is lost, bit for bit
    # From the bank over the new images' patches, in the projection for as many patches as there are.
    new = patches(detector, shown.subset([6, 7]))
    points = torch.cat([detector.bank.centred, new - detector.bank.mean]) + detector.bank.mean
    projection = projection_matrix(8 * each, points.shape[1], eps=0.9, seed=3)
    assert (projection is None) == (layer == "layer1")
    grid, _ = to_fixed_point(points if projection is None else points @ projection)
    picks = textbook(grid.double().numpy(), list(range(len(before))), len(after))[len(before) :]
    torch.testing.assert_close(after[len(before) :], points[picks], rtol=1e-5, atol=1e-5)
    assert grown.origins is not None
    assert grown.origins[len(before) :].tolist() == [6 * each + i - len(before) for i in picks]
    assert "patches of 2 more images" in grown.report.notes[-1]


@pytest.mark.parametrize(
    "options", [{"coreset_size": 50}, {"coreset": "random"}, {"coreset": "random", "coreset_size": 50}]
)
def test_other_banks_keep_their_size(options: dict[str, Any], tmp_path: Path) -> None:
    shown = images(range(8), tmp_path)
    method = create_method("patchcore", SMALL["patchcore"] | options)
    grown = detector_with(method.fit(shown.subset(range(6))), shown.subset([6, 7]))
    assert isinstance(grown, PatchcoreDetector)
    assert len(grown.bank) == (50 if "coreset_size" in options else 8 * PATCHES // 10)
    everything = patches(grown, shown)
    assert grown.origins is not None
    torch.testing.assert_close(bank_of(grown), everything[grown.origins], rtol=1e-4, atol=1e-4)
    assert int((grown.origins >= 6 * PATCHES).sum()) > 0
    assert len(set(grown.origins.tolist())) == len(grown.bank)


def test_a_bank_at_its_limit_is_selected_again_by_the_definition(tmp_path: Path) -> None:
    shown = images(range(5), tmp_path)
    method = create_method("patchcore", SMALL["patchcore"] | {"coreset_size": 40, "projection_eps": None})
    detector = method.fit(shown.subset(range(4)))
    grown = detector_with(detector, shown.subset([4]))
    new = patches(detector, shown.subset([4]))
    points = torch.cat([detector.bank.centred, new - detector.bank.mean]) + detector.bank.mean
    expected = textbook(to_fixed_point(points)[0].double().numpy(), [0], 40)
    torch.testing.assert_close(bank_of(grown), points[expected], rtol=1e-5, atol=1e-5)


def test_a_limit_of_memory_is_named(tmp_path: Path) -> None:
    shown = images(range(4), tmp_path)
    method = create_method("patchcore", SMALL["patchcore"] | {"coreset_size": 20})
    detector = method.fit(shown.subset([0]))
    detector.config = detector.config.model_copy(update={"memory_limit": 1e-4})
    with pytest.raises(ConfigError, match="add fewer images at a time"):
        detector_with(detector, shown.subset([1, 2, 3]))


@pytest.mark.parametrize(
    "options", [{}, {"coreset": "random"}, {"coreset": "none"}, {"memory_limit": 7e-4}, {"memory_limit": 4e-4}]
)
def test_origins_are_known_from_the_selection(options: dict[str, Any], tmp_path: Path) -> None:
    """As a search tells them: the training patch that is nearest to each row, at no distance."""
    shown = images(range(6), tmp_path)
    detector = create_method("patchcore", SMALL["patchcore"] | options).fit(shown)
    notes = " ".join(detector.report.notes)
    assert ("second pass" in notes) == ("memory_limit" in options)
    assert ("not exactly greedy" in notes) == (options.get("memory_limit") == 4e-4)
    found: dict[int, tuple[float, int]] = {}
    assert isinstance(detector, Recalls)
    for index in range(len(shown)):
        for _, batch in shown.subset([index]).batches(detector.transform, 1):
            with torch.inference_mode():
                distances, rows = detector.recall(batch)
        for place, (row, far) in enumerate(zip(rows.flatten().tolist(), distances.flatten().tolist(), strict=True)):
            if far < found.get(row, (np.inf, 0))[0]:
                found[row] = far, index * PATCHES + place
    assert detector.origins is not None
    assert detector.origins.tolist() == [found[row][1] for row in range(len(detector.origins))]


def test_images_of_one_colour_are_counted(tmp_path: Path) -> None:
    detector = create_method("thumbnail-nn").fit(images(range(3), tmp_path))
    grown = detector_with(detector, Images([np.full((72, 96, 3), 7, np.uint8)]))
    assert grown is not None
    assert (detector.report.n_constant, grown.report.n_constant) == (0, 1)


def test_what_is_trained_does_not_grow(tmp_path: Path) -> None:
    detector = create_method("thumbnail-nn").fit(images(range(3), tmp_path))
    assert isinstance(detector, Grows)
    with pytest.raises(DataError, match="no images to learn from"):
        detector_with(detector, Images([]))

    class Other(Detector):
        pass

    assert detector_with(Other(detector.config), images(range(1), tmp_path)) is None
