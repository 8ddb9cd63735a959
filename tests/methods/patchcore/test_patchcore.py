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

from andon.core import AndonError, FloatArray, ImageArray, Region
from andon.data.cache import ArrayCache
from andon.data.images import Images
from andon.data.transform import Transform
from andon.methods import create_method
from andon.methods.patchcore.method import Patchcore, PatchcoreConfig, reweighted
from andon.methods.patchcore.neighbours import embed
from andon.weights import WeightsRecord

from .test_coreset import textbook

RESNET = {
    "backbone": "resnet18",
    "weights": "random",
    "transform": {"size": (64, 64)},
    "batch_size": 3,
}


class Pyramid:
    """A frozen extractor small enough to reason about: 4-pixel cells with means and contrasts, and cells of 8."""

    fingerprint = "pyramid"
    channels = (6, 3)
    strides = (4, 8)
    weights = WeightsRecord("pyramid", "embedded", "none", "")

    def __init__(self) -> None:
        self.pictures = 0

    def to(self, device: torch.device | str) -> Pyramid:
        return self

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.pictures += len(batch)
        mean = F.avg_pool2d(batch, 4)
        square = F.avg_pool2d(batch.square(), 4)
        return torch.cat([mean, square - mean.square()], dim=1), F.avg_pool2d(batch, 8)


def pictures(n: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> list[ImageArray]:
    """Blurred noise on a gradient that is the same in all."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=(n, *size, 3)), (0, 2, 2, 0)) * 120
    gradient = np.linspace(80, 160, size[1])[None, None, :, None]
    return list(np.clip(noise + gradient, 0, 255).astype(np.uint8))


def small(**options: Any) -> tuple[Patchcore, Pyramid]:
    method = create_method("patchcore", {"transform": {"size": (64, 64)}, "sigma": 0, **options})
    assert isinstance(method, Patchcore)
    method._extractor = extractor = Pyramid()
    return method, extractor


def bank_of(method: Patchcore) -> FloatArray:
    state = method.state_dict()
    return (state["bank"] + state["mean"]).numpy()


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
    torch.testing.assert_close(embed(method.parts(features)), expected, rtol=1e-4, atol=1e-5)


def test_concatenated_embedding_averages_neighbourhoods_with_zero_padding() -> None:
    rng = torch.Generator().manual_seed(1)
    fine, coarse = torch.randn(1, 2, 4, 6, generator=rng), torch.randn(1, 3, 2, 3, generator=rng)
    method, _ = small()
    rows = embed(method.parts((fine, coarse))).view(4, 6, 5)
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
    method = create_method("patchcore", RESNET, layers=layers, coreset="none")
    train = pictures(2)
    method.fit(train)
    prediction = method.predict(train)
    # A bank of every patch holds the training images' own: their distances are zero up to rounding.
    assert prediction.anomaly_maps is not None
    scale = float(method.state_dict()["bank"].norm(dim=1).mean())
    assert prediction.anomaly_maps.max() < 1e-3 * scale


# Section 3.2: the memory bank.


def test_bank_is_the_textbook_coreset_of_scikit_learns_projection() -> None:
    method = create_method("patchcore", RESNET, projection_eps=0.99)
    assert isinstance(method, Patchcore)
    train = pictures(9)
    report = method.fit(train, seed=4)
    batch = method.transform.normalise(np.stack(train))
    rows = torch.cat([embed(method.parts(method.extractor(b))) for b in batch.split(3)])
    assert rows.shape == (9 * 64, 384)
    projection = SparseRandomProjection("auto", eps=0.99, random_state=4, dense_output=True).fit(rows.numpy())
    matrix = torch.from_numpy(projection.components_.toarray().T).float()
    start = int(torch.randint(576, (1,), generator=torch.Generator().manual_seed(4)))
    projected = torch.cat([part @ matrix for part in rows.split(3 * 64)])
    picks, radii = textbook(projected, 57, start)
    np.testing.assert_allclose(bank_of(method), rows[picks].numpy(), rtol=1e-4, atol=1e-5)
    (note,) = report.notes
    assert note == (
        f"coreset: 57 of 576 patches, greedy k-centre on a projection from 384 to {matrix.shape[1]} dimensions, "
        f"covering radius {radii[-1]:.4g}"
    )
    assert set(report.seconds) == {"features", "coreset", "memory bank"}
    assert report.n_train == 9
    assert [w.source for w in report.weights] == ["random"]


def test_same_seed_same_bank_and_another_seed_another() -> None:
    states = []
    for seed in (1, 1, 2):
        method, _ = small()
        method.fit(pictures(4), seed=seed)
        states.append(method.state_dict()["bank"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    method, _ = small(coreset="random")
    method.fit(pictures(2), seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_coreset_keeps_patches_of_the_training_images() -> None:
    everything, _ = small(coreset="none")
    everything.fit(pictures(5))
    some, _ = small(coreset="random", coreset_size=100, batch_size=2)
    report = some.fit(pictures(5), seed=3)
    chosen = torch.randperm(5 * 256, generator=torch.Generator().manual_seed(3))[:100]
    np.testing.assert_allclose(bank_of(some), bank_of(everything)[chosen.numpy()], rtol=1e-5, atol=1e-6)
    assert report.notes == ("coreset: 100 of 1,280 patches at random",)


def test_sizes() -> None:
    for options, expected in (
        ({"coreset_ratio": 0.1}, 51),
        ({"coreset_ratio": 1e-6}, 1),
        ({"coreset_ratio": 1.0}, 512),
        ({"coreset_size": 9000}, 512),
        ({"coreset_size": 7, "coreset_ratio": 0.9}, 7),
        ({"coreset": "none", "coreset_size": 7}, 512),
    ):
        method, _ = small(**options)
        method.fit(pictures(2))
        assert len(method.bank) == expected


def test_equal_images_give_no_duplicates_in_the_bank() -> None:
    method, _ = small(coreset_ratio=0.5)
    report = method.fit(pictures(1) * 4)
    assert len(method.bank) <= 256
    assert len(np.unique(bank_of(method), axis=0)) == len(method.bank)
    assert "512 were asked for, but there are only" in report.notes[-1]
    assert method.predict(pictures(1)).image_scores[0] == pytest.approx(0, abs=1e-4)


def gib(n_bytes: float) -> float:
    return n_bytes / 2**30


def test_without_room_for_embeddings_a_second_pass_gives_the_same_bank() -> None:
    # 9 × 64 patches: 576·4·384 bytes of embeddings do not fit, 576·(4·P + 28) of projections do.
    plenty = create_method("patchcore", RESNET, projection_eps=0.99)
    plenty.fit(pictures(9), seed=1)
    tight = create_method("patchcore", RESNET, projection_eps=0.99, memory_limit=gib(900_000))
    report = tight.fit(pictures(9), seed=1)
    assert any("second pass" in note for note in report.notes)
    assert not any("not exactly" in note for note in report.notes)
    assert torch.equal(tight.state_dict()["bank"], plenty.state_dict()["bank"])


def test_the_second_pass_reads_the_feature_cache(tmp_path: Path) -> None:
    # 6·256 patches of 9 channels, not projected: 36 bytes for the points, 28 for the selection, 36 for the embeddings.
    method, extractor = small(coreset_size=50, memory_limit=gib(1536 * 80 + 50 * 144))
    report = method.fit(Images(pictures(6), cache=ArrayCache(tmp_path)))
    assert any("second pass" in note for note in report.notes)
    assert extractor.pictures == 6


def test_where_not_even_projections_fit_they_are_thinned_and_the_report_says_so() -> None:
    exact, _ = small(coreset_size=40)
    exact.fit(pictures(8), seed=2)
    method, _ = small(coreset_size=40, memory_limit=gib(40 * 144 + 600 * 136))
    report = method.fit(pictures(8), seed=2)
    assert len(method.bank) == 40
    assert any("not exactly greedy, as at most 600 of 2,048 patches" in note for note in report.notes)
    rows = torch.cat(
        [embed(method.parts(method.extractor(b))) for b in method.transform.normalise(np.stack(pictures(8))).split(1)]
    )
    radius = cdist(rows, bank_of(method)).min(axis=1).max()
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
    with pytest.raises(AndonError, match=message):
        method.fit(pictures(4))
    assert extractor.pictures == 1


# Section 3.3: scores.


def test_scores_and_maps_are_the_literal_ones() -> None:
    method = create_method("patchcore", RESNET, coreset_ratio=0.2, transform={"size": (72, 96), "crop": (64, 80)})
    assert isinstance(method, Patchcore)
    method.fit(pictures(4, (72, 96)), seed=1)
    test = pictures(3, (72, 96), seed=9)
    prediction = method.predict(test)

    bank = bank_of(method).astype(np.float64)
    among_bank = cdist(bank, bank)
    batch = method.transform.normalise(np.stack([method.transform.resize(t) for t in test]))
    features = method.extractor(batch)
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
    test = pictures(2, seed=9)
    predictions = {}
    for score in ("max", "mean_top_k", "reweighted"):
        method, _ = small(image_score=score, top_k=5)
        method.fit(pictures(4))
        predictions[score] = method.predict(test).image_scores
        with torch.no_grad():
            distances = method.bank.nearest(method.parts(Pyramid()(method.transform.normalise(np.stack(test)))))[0]
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
        method, _ = small(**options)
        method.fit(pictures(3))
        plain, _ = small(**options, image_score="max")
        plain.fit(pictures(3))
        test = pictures(2, seed=5)
        expected = plain.predict(test).image_scores
        assert (expected > 0).all()
        np.testing.assert_array_equal(method.predict(test).image_scores, expected)


def test_an_image_scores_the_same_in_any_batch() -> None:
    method = create_method("patchcore", RESNET)
    method.fit(pictures(4))
    test = pictures(5, seed=3)
    together = method.predict(test)
    strange = [np.full((64, 64, 3), 255, np.uint8), test[2], np.zeros((64, 64, 3), np.uint8)]
    among_others, alone = method.predict(strange), method.predict([test[2]])
    assert together.anomaly_maps is not None
    for other, i in ((among_others, 1), (alone, 0)):
        assert other.anomaly_maps is not None
        np.testing.assert_allclose(other.image_scores[i], together.image_scores[2], rtol=1e-4)
        np.testing.assert_allclose(other.anomaly_maps[i], together.anomaly_maps[2], rtol=1e-3)


@pytest.mark.parametrize("crop", [None, (64, 64)])
def test_a_defect_is_found_where_it_is(crop: tuple[int, int] | None) -> None:
    method, _ = small(transform={"size": (80, 96), "crop": crop}, sigma=2)
    method.fit(pictures(6, (160, 192)))
    broken = pictures(1, (160, 192), seed=7)[0].copy()
    broken[100:116, 120:136] = (255, 0, 0)
    prediction = method.predict([broken])
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
    good = method.predict(pictures(4, (160, 192), seed=8))
    assert prediction.image_scores[0] > 2 * good.image_scores.max()


def test_study_defaults() -> None:
    config = PatchcoreConfig()
    assert (config.backbone, config.layers, config.weights) == ("wide_resnet50_2", ("layer2", "layer3"), "imagenet")
    assert config.transform == Transform(size=(256, 256), crop=(224, 224), normalisation="imagenet")
    assert (config.coreset, config.coreset_ratio, config.projection_eps) == ("greedy", 0.1, 0.9)
    assert (config.image_score, config.n_neighbours, config.sigma, config.patch_size) == ("reweighted", 9, 4.0, 3)


# What can go wrong.


def test_state_round_trip() -> None:
    method = create_method("patchcore", RESNET)
    method.fit(pictures(3))
    again = create_method("patchcore", RESNET)
    again.load_state_dict(method.state_dict())
    test = pictures(2, seed=4)
    first, second = method.predict(test), again.predict(test)
    np.testing.assert_array_equal(first.image_scores, second.image_scores)
    assert first.anomaly_maps is not None
    assert second.anomaly_maps is not None
    np.testing.assert_array_equal(first.anomaly_maps, second.anomaly_maps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bank": None}, "lacks the tensor bank"),
        ({"mean": None}, "lacks the tensor mean"),
        ({"more": torch.zeros(1)}, "unknown tensor more"),
        ({"bank": torch.zeros(5, 8)}, r"tensor bank .*\[5, 8\], not "),
        ({"bank": torch.zeros(0, 9)}, r"tensor bank .*\[0, 9\]"),
        ({"bank": torch.zeros(5, 9).double()}, "tensor bank .* is torch.float64"),
        ({"bank": torch.full((5, 9), torch.nan)}, "bank .* not finite"),
        ({"mean": torch.zeros(1, 9)}, r"tensor mean .*\[1, 9\], not \[9\]"),
    ],
)
def test_states_that_do_not_fit(change: dict[str, torch.Tensor | None], message: str) -> None:
    method, _ = small()
    state = {"bank": torch.zeros(5, 9), "mean": torch.zeros(9), **change}
    with pytest.raises(AndonError, match=message):
        method.load_state_dict({name: tensor for name, tensor in state.items() if tensor is not None})


def test_nothing_learned_and_nothing_to_learn_from() -> None:
    method, _ = small()
    for use in (lambda: method.predict(pictures(1)), method.state_dict):
        with pytest.raises(AndonError, match="learned nothing yet"):
            use()
    with pytest.raises(AndonError, match="no images to learn from"):
        method.fit([])


def test_features_that_are_not_finite_name_the_image() -> None:
    class Broken(Pyramid):
        def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
            first, second = super().__call__(batch)
            first[2, 0, 3, 3] = torch.nan
            return first, second

    method, _ = small()
    method._extractor = Broken()
    with pytest.raises(AndonError, match="features of image 2 are not finite"):
        method.fit(pictures(4))


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
    with pytest.raises(AndonError, match=message):
        create_method("patchcore", options)


def test_one_image_is_enough() -> None:
    method, _ = small()
    report = method.fit(pictures(1))
    assert report.n_train == 1
    assert np.isfinite(method.predict(pictures(2, seed=1)).image_scores).all()


def test_published_form_end_to_end() -> None:
    method = create_method("patchcore", RESNET, embedding="pooled", pretrain_dim=64, target_dim=64, image_score="max")
    method.fit(pictures(3))
    assert isinstance(method, Patchcore)
    assert method.state_dict()["bank"].shape == (19, 64)
    test = pictures(2, seed=6)
    features = method.extractor(method.transform.normalise(np.stack(test)))
    expected = cdist(published_embedding(features, 64, 64).double(), bank_of(method)).min(axis=1).reshape(2, -1)
    np.testing.assert_allclose(method.predict(test).image_scores, expected.max(axis=1), rtol=1e-4)
