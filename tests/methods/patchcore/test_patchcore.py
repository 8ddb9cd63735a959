"""Patchcore against literal implementations of the paper's and of its published code's formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from sklearn.random_projection import SparseRandomProjection

from andon.core import ConfigError, DetectorError, FloatArray, ImageArray, Region, TrainingError
from andon.data import ArrayCache, Images, Transform
from andon.features import Extractor
from andon.methods import Method, create_method, load
from andon.methods.patchcore import Patchcore, PatchcoreConfig, PatchcoreDetector
from andon.methods.patchcore.embedding import embed, patch_parts
from andon.methods.patchcore.method import reweighted
from andon.weights import WeightsRecord

from .test_coreset import textbook

RESNET = {
    "backbone": "resnet18",
    "weights": "random",
    "transform": {"size": (64, 64)},
    "batch_size": 3,
}


class Pyramid(Extractor):
    """A frozen extractor small enough to reason about: 4-pixel cells with means and contrasts, and cells of 8."""

    fingerprint = "pyramid"
    channels = (6, 3)
    strides = (4, 8)
    weights = WeightsRecord("pyramid", "embedded", "none", "")

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.seen += len(batch)
        mean = F.avg_pool2d(batch, 4)
        square = F.avg_pool2d(batch.square(), 4)
        return torch.cat([mean, square - mean.square()], dim=1), F.avg_pool2d(batch, 8)


def good_images(n: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> list[ImageArray]:
    """Blurred noise on a gradient that is the same in all."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=(n, *size, 3)), (0, 2, 2, 0)) * 120
    gradient = np.linspace(80, 160, size[1])[None, None, :, None]
    return list(np.clip(noise + gradient, 0, 255).astype(np.uint8))


def small(**options: Any) -> tuple[Patchcore, Pyramid]:
    method = create_method("patchcore", {"transform": {"size": (64, 64)}, "sigma": 0, **options}, preset="paper")
    assert isinstance(method, Patchcore)
    method.extractor = extractor = Pyramid()
    return method, extractor


def learned(method: Method[Any], images: Images | list[ImageArray], seed: int = 0) -> PatchcoreDetector:
    detector = method.fit(images, seed=seed)
    assert isinstance(detector, PatchcoreDetector)
    return detector


def small_learned(images: Images | list[ImageArray], seed: int = 0, **options: Any) -> PatchcoreDetector:
    return learned(small(**options)[0], images, seed)


def resnet_learned(images: Images | list[ImageArray], seed: int = 0, **options: Any) -> PatchcoreDetector:
    return learned(create_method("patchcore", RESNET, **options), images, seed)


def bank_of(detector: PatchcoreDetector) -> FloatArray:
    return (detector.bank.centred + detector.bank.mean).numpy()


# Section 3.1: patch features.


def published_embedding(features: Sequence[torch.Tensor], pretrain_dim: int, target_dim: int) -> torch.Tensor:
    """Unfold 3×3, bring to the first layer's grid, pool channels × neighbourhood a layer, pool the layers together."""
    height, width = features[0].shape[-2:]
    layers = []
    for feature in features:
        patches = F.unfold(feature, 3, padding=1).unflatten(2, feature.shape[-2:])
        patches = F.interpolate(patches, size=(height, width), mode="bilinear", align_corners=False)
        rows = patches.permute(0, 2, 3, 1).reshape(-1, 1, patches.shape[1])
        layers.append(F.adaptive_avg_pool1d(rows, pretrain_dim).squeeze(1))
    stacked = torch.stack(layers, dim=1).flatten(1).unsqueeze(1)
    return F.adaptive_avg_pool1d(stacked, target_dim).squeeze(1)


@pytest.mark.parametrize(("pretrain_dim", "target_dim"), [(16, 16), (16, 32), (16, 8), (20, 14), (7, 11)])
def test_pooled_embedding_is_the_published_codes(pretrain_dim: int, target_dim: int) -> None:
    rng = torch.Generator().manual_seed(1)
    features = (torch.randn(2, 12, 8, 10, generator=rng), torch.randn(2, 24, 4, 5, generator=rng))
    method, _ = small(embedding="pooled", pretrain_dim=pretrain_dim, target_dim=target_dim)
    expected = published_embedding(features, pretrain_dim, target_dim)
    torch.testing.assert_close(embed(patch_parts(method.config, features)), expected, rtol=1e-4, atol=1e-5)


def test_concatenated_embedding_averages_neighbourhoods_with_zero_padding() -> None:
    rng = torch.Generator().manual_seed(1)
    fine, coarse = torch.randn(1, 2, 4, 6, generator=rng), torch.randn(1, 3, 2, 3, generator=rng)
    method, _ = small()
    rows = embed(patch_parts(method.config, (fine, coarse))).view(4, 6, 5)
    torch.testing.assert_close(rows[1, 2, :2], fine[0, :, 0:3, 1:4].mean((1, 2)))
    torch.testing.assert_close(rows[0, 0, :2], fine[0, :, :2, :2].sum((1, 2)) / 9)
    # The fine position (1, 1) lies at (1/4, 1/4) between the centres of the coarse cells (0, 0) and (1, 1).
    averaged = F.avg_pool2d(coarse, 3, stride=1, padding=1)[0]
    weights = torch.tensor([3 / 4, 1 / 4])
    torch.testing.assert_close(rows[1, 1, 2:], torch.einsum("cij,i,j->c", averaged[:, :2, :2], weights, weights))


@pytest.mark.parametrize(
    "layers", [("layer2", "layer3"), ("layer3", "layer2"), ("layer1",), ("layer1", "layer2", "layer3")]
)
def test_layers_in_any_order_and_number(layers: tuple[str, ...]) -> None:
    train = good_images(2)
    detector = resnet_learned(train, layers=layers, coreset="none")
    prediction = detector.predict(train)
    # A bank of every patch holds the training images' own: their distances are zero up to rounding.
    assert prediction.anomaly_maps is not None
    scale = float(detector.bank.centred.norm(dim=1).mean())
    assert prediction.anomaly_maps.max() < 1e-3 * scale


# Section 3.2: the memory bank.


def test_bank_is_the_textbook_coreset_of_scikit_learns_projection() -> None:
    train = good_images(9)
    detector = resnet_learned(train, seed=4, projection_eps=0.99)
    report = detector.report
    batch = detector.transform.normalise(np.stack(train))
    rows = torch.cat([embed(detector.parts(detector.extractor(b))) for b in batch.split(3)])
    assert rows.shape == (9 * 64, 384)
    projection = SparseRandomProjection("auto", eps=0.99, random_state=4, dense_output=True).fit(rows.numpy())
    matrix = torch.from_numpy(projection.components_.toarray().T).float()
    start = int(torch.randint(576, (1,), generator=torch.Generator().manual_seed(4)))
    projected = torch.cat([part @ matrix for part in rows.split(3 * 64)])
    picks, radii = textbook(projected, 57, start)
    np.testing.assert_allclose(bank_of(detector), rows[picks].numpy(), rtol=1e-4, atol=1e-5)
    (note,) = report.notes
    assert note == (
        f"coreset: 57 of 576 patches, greedy k-centre on a projection from 384 to {matrix.shape[1]} dimensions, "
        f"covering radius {radii[-1]:.4g}"
    )
    assert set(report.seconds) == {"features", "coreset", "memory bank"}
    assert report.n_train == 9
    assert [w.source for w in report.weights] == ["random"]


def test_same_seed_same_bank_and_another_seed_another() -> None:
    banks = [small_learned(good_images(4), seed=seed).bank.centred for seed in (1, 1, 2)]
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


def test_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    small_learned(good_images(2), seed=1, coreset="random")
    assert torch.equal(torch.get_rng_state(), before)


def test_random_coreset_keeps_patches_of_the_training_images() -> None:
    everything = small_learned(good_images(5), coreset="none")
    some = small_learned(good_images(5), seed=3, coreset="random", coreset_size=100, batch_size=2)
    chosen = torch.randperm(5 * 256, generator=torch.Generator().manual_seed(3))[:100]
    np.testing.assert_allclose(bank_of(some), bank_of(everything)[chosen.numpy()], rtol=1e-5, atol=1e-6)
    assert some.report.notes == ("coreset: 100 of 1,280 patches at random",)


def test_sizes() -> None:
    for options, expected in (
        ({"coreset_ratio": 0.1}, 51),
        ({"coreset_ratio": 1e-6}, 1),
        ({"coreset_ratio": 1.0}, 512),
        ({"coreset_size": 9000}, 512),
        ({"coreset_size": 7, "coreset_ratio": 0.9}, 7),
        ({"coreset": "none", "coreset_size": 7}, 512),
    ):
        assert len(small_learned(good_images(2), **options).bank) == expected


def test_equal_images_give_no_duplicates_in_the_bank() -> None:
    detector = small_learned(good_images(1) * 4, coreset_ratio=0.5)
    assert len(detector.bank) <= 256
    assert len(np.unique(bank_of(detector), axis=0)) == len(detector.bank)
    assert any("512 were asked for, but there are only" in note for note in detector.report.notes)
    assert detector.predict(good_images(1)).image_scores[0] == pytest.approx(0, abs=1e-4)


def gib(n_bytes: float) -> float:
    return n_bytes / 2**30


def test_without_room_for_embeddings_a_second_pass_gives_the_same_bank() -> None:
    # 9 × 64 patches: 576·4·384 bytes of embeddings do not fit, 576·(4·P + 28) of projections do.
    plenty = resnet_learned(good_images(9), seed=1, projection_eps=0.99)
    tight = resnet_learned(good_images(9), seed=1, projection_eps=0.99, memory_limit=gib(900_000))
    assert any("second pass" in note for note in tight.report.notes)
    assert not any("not exactly" in note for note in tight.report.notes)
    assert torch.equal(tight.bank.centred, plenty.bank.centred)


def test_the_second_pass_reads_the_feature_cache(tmp_path: Path) -> None:
    # 6·256 patches of 9 channels, not projected: 36 bytes for the points, 28 for the selection, 36 for the embeddings.
    method, extractor = small(coreset_size=50, memory_limit=gib(1536 * 80 + 50 * 144))
    report = method.fit(Images(good_images(6), cache=ArrayCache(tmp_path))).report
    assert any("second pass" in note for note in report.notes)
    assert extractor.seen == 6 + 1, "every image once; the last is the one that the detector is tried with"


def test_where_not_even_projections_fit_they_are_thinned_and_the_report_says_so() -> None:
    exact = small_learned(good_images(8), seed=2, coreset_size=40)
    thinned = small_learned(good_images(8), seed=2, coreset_size=40, memory_limit=gib(40 * 144 + 600 * 136))
    assert len(thinned.bank) == 40
    assert any("not exactly greedy, as at most 600 of 2,048 patches" in note for note in thinned.report.notes)
    batch = thinned.transform.normalise(np.stack(good_images(8)))
    rows = torch.cat([embed(thinned.parts(thinned.extractor(one))) for one in batch.split(1)])
    radius = cdist(rows, bank_of(thinned)).min(axis=1).max()
    assert radius <= 1.5 * cdist(rows, bank_of(exact)).min(axis=1).max()


@pytest.mark.parametrize(
    ("options", "limit", "message"),
    [
        ({"coreset": "none"}, 10_000, "memory bank of 1,024 patches of 9 channels .* coreset_size to at most 138"),
        ({"coreset_size": 500}, 20_000, "memory bank of 500 patches"),
        ({"coreset_size": 500}, 100_000, "500 out of 1,024 patches cannot be selected .* lower coreset_ratio"),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_tried(options: dict[str, Any], limit: int, message: str) -> None:
    method, extractor = small(**options, memory_limit=gib(limit), batch_size=1)
    with pytest.raises(ConfigError, match=message):
        method.fit(good_images(4))
    assert extractor.seen == 1


# Section 3.3: scores.


def test_scores_and_maps_are_the_literal_ones() -> None:
    transform = {"size": (72, 96), "crop": (64, 80)}
    detector = resnet_learned(good_images(4, (72, 96)), seed=1, coreset_ratio=0.2, transform=transform)
    test = good_images(3, (72, 96), seed=9)
    prediction = detector.predict(test)

    bank = bank_of(detector).astype(np.float64)
    among_bank = cdist(bank, bank)
    batch = detector.transform.normalise(np.stack([detector.transform.resize(t) for t in test]))
    features = detector.extractor(batch)
    averaged = [F.avg_pool2d(f, 3, 1, 1) for f in features]
    coarse = F.interpolate(averaged[1], size=averaged[0].shape[-2:], mode="bilinear", align_corners=False)
    embedding = torch.cat([averaged[0], coarse], dim=1)
    for i in range(3):
        patches = embedding[i].flatten(1).T.double().numpy()
        distances = cdist(patches, bank)
        nearest = distances.min(axis=1)
        worst = int(nearest.argmax())
        memory = int(distances[worst].argmin())
        around = np.argsort(among_bank[memory])[:9]
        weight = 1 - np.exp(nearest[worst]) / np.exp(distances[worst, around]).sum()
        assert memory in around
        assert prediction.image_scores[i] == pytest.approx(weight * nearest[worst], rel=1e-4)
        grid = torch.from_numpy(nearest).view(1, 1, 8, 10)
        expected = F.interpolate(grid, size=(64, 80), mode="bilinear", align_corners=False)[0, 0].numpy()
        assert prediction.anomaly_maps is not None
        np.testing.assert_allclose(prediction.anomaly_maps[i], gaussian_filter(expected, 4), rtol=1e-4)


def test_other_image_scores() -> None:
    test = good_images(2, seed=9)
    predictions = {}
    for score in ("max", "mean_top_k", "reweighted"):
        detector = small_learned(good_images(4), image_score=score, top_k=5)
        predictions[score] = detector.predict(test).image_scores
        features = detector.extractor(detector.transform.normalise(np.stack(test)))
        distances = detector.bank.nearest(detector.parts(features))[0]
    np.testing.assert_allclose(predictions["max"], distances.amax(1), rtol=1e-6)
    np.testing.assert_allclose(predictions["mean_top_k"], distances.sort(dim=1).values[:, -5:].mean(1), rtol=1e-6)
    assert (predictions["reweighted"] < predictions["max"]).all()


def test_reweighting_known_values() -> None:
    # Three memories at equal distance: each has a third of the sum.
    assert reweighted(torch.full((3,), 6.0)).item() == pytest.approx(4.0)
    distances = torch.tensor([1.0, 2.0, 3.0])
    expected = (1 - math.e / (math.e + math.e**2 + math.e**3)) * 1
    assert reweighted(distances).item() == pytest.approx(expected, rel=1e-6)


def test_reweighting_does_not_overflow_nor_cancel() -> None:
    assert reweighted(torch.tensor([500.0, 500.0])).item() == pytest.approx(250.0)
    # Other memories much farther than m*: its quotient vanishes; much nearer: the weight is tiny but not lost.
    assert reweighted(torch.tensor([100.0, 400.0])).item() == pytest.approx(100.0)
    assert reweighted(torch.tensor([100.0, 60.0])).item() == pytest.approx(100 * math.exp(-40), rel=1e-5)


def test_one_neighbour_or_one_memory_gives_the_plain_maximum() -> None:
    for options in ({"n_neighbours": 1}, {"coreset_size": 1}):
        detector = small_learned(good_images(3), **options)
        plain = small_learned(good_images(3), **options, image_score="max")
        test = good_images(2, seed=5)
        expected = plain.predict(test).image_scores
        assert (expected > 0).all()
        np.testing.assert_array_equal(detector.predict(test).image_scores, expected)


def test_an_image_scores_the_same_in_any_batch() -> None:
    detector = resnet_learned(good_images(4))
    test = good_images(5, seed=3)
    together = detector.predict(test)
    strange = [np.full((64, 64, 3), 255, np.uint8), test[2], np.zeros((64, 64, 3), np.uint8)]
    among_others, alone = detector.predict(strange), detector.predict([test[2]])
    assert together.anomaly_maps is not None
    for other, i in ((among_others, 1), (alone, 0)):
        assert other.anomaly_maps is not None
        np.testing.assert_allclose(other.image_scores[i], together.image_scores[2], rtol=1e-4)
        np.testing.assert_allclose(other.anomaly_maps[i], together.anomaly_maps[2], rtol=1e-3)


@pytest.mark.parametrize("crop", [None, (64, 64)])
def test_a_defect_is_found_where_it_is(crop: tuple[int, int] | None) -> None:
    detector = small_learned(good_images(6, (160, 192)), transform={"size": (80, 96), "crop": crop}, sigma=2)
    broken = good_images(1, (160, 192), seed=7)[0].copy()
    broken[100:116, 120:136] = (255, 0, 0)
    prediction = detector.predict([broken])
    region = prediction.region
    assert region == (Region() if crop is None else Region(8 / 80, 16 / 96, 72 / 80, 80 / 96))
    assert prediction.anomaly_maps is not None
    (anomaly_map,) = prediction.anomaly_maps
    assert anomaly_map.shape == (crop or (80, 96))
    row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    y = region.top + (row + 0.5) / anomaly_map.shape[0] * (region.bottom - region.top)
    x = region.left + (column + 0.5) / anomaly_map.shape[1] * (region.right - region.left)
    assert y * 160 == pytest.approx(108, abs=6)
    assert x * 192 == pytest.approx(128, abs=6)
    good = detector.predict(good_images(4, (160, 192), seed=8))
    assert prediction.image_scores[0] > 2 * good.image_scores.max()


def test_study_defaults() -> None:
    config = PatchcoreConfig()
    assert (config.backbone, config.layers, config.weights) == ("wide_resnet50_2", ("layer2", "layer3"), "imagenet")
    assert config.transform == Transform(size=(256, 256), crop=(224, 224), normalisation="imagenet")
    assert (config.coreset, config.coreset_ratio, config.projection_eps) == ("greedy", 0.1, 0.9)
    assert (config.image_score, config.n_neighbours, config.sigma, config.patch_size) == ("reweighted", 9, 4.0, 3)


# What can go wrong.


def test_a_saved_detector_gives_the_same_scores(tmp_path: Path) -> None:
    detector = resnet_learned(good_images(3))
    restored = detector.method.restore(detector.state_dict(), detector.report)
    detector.save(tmp_path / "patchcore.andon")
    test = good_images(2, seed=4)
    expected = detector.predict(test)
    assert expected.anomaly_maps is not None
    for again in (restored, load(tmp_path / "patchcore.andon")):
        found = again.predict(test)
        np.testing.assert_array_equal(found.image_scores, expected.image_scores)
        assert found.anomaly_maps is not None
        np.testing.assert_array_equal(found.anomaly_maps, expected.anomaly_maps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bank.centred": None}, "lacks the tensor bank.centred"),
        ({"bank.mean": None}, "lacks the tensor bank.mean"),
        ({"more": torch.zeros(1)}, "unknown tensor more"),
        ({"bank.centred": torch.zeros(5, 8)}, r"tensor bank.centred .*\[5, 8\], not "),
        ({"bank.centred": torch.zeros(0, 384)}, r"tensor bank.centred .*\[0, 384\]"),
        ({"bank.centred": torch.zeros(())}, r"tensor bank.centred .*\[\], not \[1, 384\]"),
        ({"bank.centred": torch.zeros(5, 384).double()}, "tensor bank.centred .* is torch.float64"),
        ({"bank.centred": torch.full((5, 384), torch.nan)}, "bank.centred .* not finite"),
        ({"bank.mean": torch.zeros(1, 384)}, r"tensor bank.mean .*\[1, 384\], not \[384\]"),
    ],
)
def test_states_that_do_not_fit(change: dict[str, torch.Tensor | None], message: str) -> None:
    detector = resnet_learned(good_images(1))
    state = {**detector.state_dict(), **change}
    with pytest.raises(DetectorError, match=message):
        detector.method.restore({n: tensor for n, tensor in state.items() if tensor is not None}, detector.report)


@pytest.mark.parametrize("options", [{}, {"image_score": "mean_top_k"}, {"coreset": "none"}])
def test_it_exports(options: dict[str, Any]) -> None:
    """Also where more than one slice of the bank has a candidate for a patch: a bank of every patch, thrice."""
    train = good_images(6) * 3 if options.get("coreset") else good_images(3)
    detector = resnet_learned(train, layers=("layer1", "layer2"), **options)
    batch = detector.transform.normalise(np.stack(train[:1] if options.get("coreset") else good_images(1, seed=2)))
    program = torch.export.export(detector, (batch,))
    scores, maps = program.module()(batch)
    expected = detector(batch)
    # The graph convolves by another routine: features differ by rounding, and distances near 0 by as much.
    torch.testing.assert_close((scores, maps), expected, rtol=1e-5, atol=2e-5)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(TrainingError, match="no images to learn from"):
        small()[0].fit([])


def test_features_that_are_not_finite_name_the_image() -> None:
    class Broken(Pyramid):
        def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
            first, second = super().forward(batch)
            if self.seen == 3:
                first[0, 0, 3, 3] = torch.nan
            return first, second

    method, _ = small()
    method.extractor = Broken()
    with pytest.raises(TrainingError, match="features of image 2 are not finite"):
        method.fit(good_images(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 4}, "patch_size.*must be odd"),
        ({"coreset_ratio": 0}, "coreset_ratio"),
        ({"projection_eps": 1.0}, "projection_eps"),
        ({"layers": ()}, "layers"),
        ({"embedding": "pooled", "target_dim": 4096}, "target_dim 4096 is more than"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_method("patchcore", options, preset="paper")


def test_one_image_is_enough() -> None:
    detector = small_learned(good_images(1))
    assert detector.report.n_train == 1
    assert np.isfinite(detector.predict(good_images(2, seed=1)).image_scores).all()


def test_published_form_end_to_end() -> None:
    options = {"embedding": "pooled", "pretrain_dim": 64, "target_dim": 64, "image_score": "max"}
    detector = resnet_learned(good_images(3), **options)
    assert detector.bank.centred.shape == (19, 64)
    test = good_images(2, seed=6)
    features = detector.extractor(detector.transform.normalise(np.stack(test)))
    expected = cdist(published_embedding(features, 64, 64).double(), bank_of(detector)).min(axis=1).reshape(2, -1)
    np.testing.assert_allclose(detector.predict(test).image_scores, expected.max(axis=1), rtol=1e-4)
