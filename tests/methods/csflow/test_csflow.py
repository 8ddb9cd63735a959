"""CS-Flow: the flow against autograd's Jacobian and literal loops, training, scores, state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from andon.core import ConfigError, DetectorError, WeightsError
from andon.data import ArrayCache, Images
from andon.features import create_extractor
from andon.methods import FitRun, Fitting, check_method, create_method, load
from andon.methods.csflow import Csflow, CsflowConfig, CsflowDetector
from andon.methods.csflow.flow import CrossScaleBlock, CrossScaleFlow, CrossScaleNetwork
from andon.methods.csflow.pyramid import PyramidExtractor
from andon.methods.csflow.training import CsflowStage, negative_log_likelihood
from tests.methods.trainings import assert_goes_on_after_a_kill, smooth_images

SMALL: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layers": ("layer2",),
    "transform": {"size": (64, 96)},
    "kernels": (3, 5),
    "hidden": 8,
    "epochs": 4,
    "train_batch_size": 3,
    "learning_rate": 1e-3,
}
Image = np.ndarray[Any, Any]


def good_images(n: int, seed: int) -> list[Image]:
    return smooth_images(n, seed, (64, 96))


def make(**options: Any) -> Csflow:
    method = create_method("csflow", {**SMALL, **options}, preset="paper")
    assert isinstance(method, Csflow)
    return method


def fitted(n: int = 6, seed: int = 0, run: FitRun | None = None, **options: Any) -> CsflowDetector:
    detector = make(**options).fit(good_images(n, 0), seed=seed, run=run)
    assert isinstance(detector, CsflowDetector)
    return detector


def far_flow(channels: int = 5, **options: Any) -> CrossScaleFlow:
    """A flow far from the identity, in float64, as after a training."""
    config = CsflowConfig(hidden=4, kernels=(3, 5), **options)
    flow = CrossScaleFlow.initialised(config, channels, 0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if name.endswith("gain"):
                parameter.copy_(2 + torch.rand(parameter.shape, generator=generator))
    if flow.affine_input:
        for scale in range(config.scales):
            mean = torch.randn(channels, generator=generator)
            flow.set_input(scale, mean, torch.eye(channels) + 0.3 * torch.rand((channels,) * 2, generator=generator))
    return flow


def random_maps(
    batch: int = 2, channels: int = 5, top: tuple[int, int] = (4, 4), scales: int = 3
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    sizes = [(-(-top[0] // 2**s), -(-top[1] // 2**s)) for s in range(scales)]
    return [torch.randn((batch, channels, *size), generator=generator, dtype=torch.float64) for size in sizes]


# The flow


@pytest.mark.parametrize("standardise", ["none", "whiten"])
@pytest.mark.parametrize("clamping", ["arctan", "tanh"])
def test_the_log_determinant_is_that_of_autograds_jacobian(standardise: str, clamping: str) -> None:
    flow = far_flow(channels=3, standardise=standardise, clamping=clamping)
    maps = random_maps(1, 3, (4, 4))
    sizes = [m.numel() for m in maps]

    def flat(x: torch.Tensor) -> torch.Tensor:
        parts = [part.view_as(m) for part, m in zip(x.split(sizes), maps, strict=True)]
        return torch.cat([z.flatten() for z in flow(parts)[0]])

    jacobian = torch.autograd.functional.jacobian(flat, torch.cat([m.flatten() for m in maps]))
    assert isinstance(jacobian, torch.Tensor)
    found = float(flow(maps)[1].detach()[0])
    assert abs(found) > 0.3
    assert found == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet), rel=1e-6)


@pytest.mark.parametrize("standardise", ["none", "whiten"])
@pytest.mark.parametrize("top", [(4, 8), (3, 5)])
def test_the_inverse_undoes_the_flow(standardise: str, top: tuple[int, int]) -> None:
    flow, maps = far_flow(standardise=standardise), random_maps(top=top)
    z, _ = flow(maps)
    assert float((z[0] - maps[0]).detach().abs().mean()) > 0.3
    for back, original in zip(flow.inverse(z), maps, strict=True):
        np.testing.assert_allclose(back.detach(), original, atol=1e-8)


def test_a_fresh_flow_permutes_and_nothing_else() -> None:
    flow = CrossScaleFlow.initialised(CsflowConfig(hidden=4), 6, 0).double()
    maps = random_maps(channels=6)
    z, log_det = flow(maps)
    assert float(log_det.detach().abs().max()) == 0
    for found, original in zip(z, maps, strict=True):
        assert not torch.equal(found, original)
        assert torch.equal(found.detach().sort(dim=1).values, original.sort(dim=1).values)


def literal_network(network: CrossScaleNetwork, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """The three scales written out."""
    x0, x1, x2 = maps

    def conv(layer: Any, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        return F.conv2d(x, layer.weight, layer.bias, stride=stride, padding=layer.weight.shape[-1] // 2)

    def up(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    h0, h1, h2 = (
        torch.where(y > 0, y, 0.1 * y)
        for y in (conv(layer, x) for layer, x in zip(network.first, (x0, x1, x2), strict=True))
    )
    n = network
    y0 = conv(n.same[0], h0) + conv(n.from_coarser[0], up(h1))
    y1 = conv(n.same[1], h1) + conv(n.from_finer[0], h0, 2) + conv(n.from_coarser[1], up(h2))
    y2 = conv(n.same[2], h2) + conv(n.from_finer[1], h1, 2)
    return [n.gain[0] * y0, n.gain[1] * y1, n.gain[2] * y2]


def test_a_block_equals_its_formula() -> None:
    flow = far_flow()
    block = flow.coupling_blocks()[1]
    maps = random_maps(top=(4, 8))
    ones = [m[:, block.orders[s]][:, :2] for s, m in enumerate(maps)]
    twos = [m[:, block.orders[s]][:, 2:] for s, m in enumerate(maps)]
    total: Any = 0.0
    said = [y.chunk(2, 1) for y in literal_network(block.of_second, twos)]
    scales = [3 * 2 / np.pi * torch.atan(s / 3) for s, _ in said]
    ones = [x * torch.exp(s) + t for x, s, (_, t) in zip(ones, scales, said, strict=True)]
    total += sum(s.sum((1, 2, 3)) for s in scales)
    said = [y.chunk(2, 1) for y in literal_network(block.of_first, ones)]
    scales = [3 * 2 / np.pi * torch.atan(s / 3) for s, _ in said]
    twos = [x * torch.exp(s) + t for x, s, (_, t) in zip(twos, scales, said, strict=True)]
    total += sum(s.sum((1, 2, 3)) for s in scales)
    found, log_det = block(maps)
    for scale in range(3):
        expected = torch.cat([ones[scale], twos[scale]], 1)
        np.testing.assert_allclose(found[scale].detach(), expected.detach(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(log_det.detach(), total.detach(), rtol=1e-9)


def test_gradients_are_those_of_differences() -> None:
    flow, maps = far_flow(channels=2), random_maps(1, 2, (2, 2))
    block = flow.coupling_blocks()[0]
    inputs = [m.requires_grad_() for m in maps]
    assert torch.autograd.gradcheck(lambda *x: (*block(x)[0], block(x)[1]), inputs)


def test_the_papers_flow_has_275_million_parameters() -> None:
    config = CsflowConfig()
    with torch.device("meta"):
        flow = CrossScaleFlow(config, 304)
    expected = 0
    for k in config.kernels:
        for inputs, outputs in ((152, 304), (152, 304)):
            expected += 3 * (inputs * k * k + 1) * 1024 + 7 * (1024 * k * k + 1) * outputs + 3
    assert sum(p.numel() for p in flow.parameters()) == expected
    assert round(expected / 1e6) == 275


def test_scales_hear_of_their_neighbours_only() -> None:
    network = far_flow().coupling_blocks()[0].of_first
    maps = [m.requires_grad_() for m in random_maps(channels=2)]
    network(maps)[0].sum().backward()
    grads = [m.grad for m in maps]
    assert grads[0] is not None
    assert grads[1] is not None
    assert float(grads[0].abs().sum()) > 0
    assert float(grads[1].abs().sum()) > 0
    assert grads[2] is None


def test_an_odd_number_of_channels_is_split() -> None:
    block = CrossScaleBlock(5, 3, CsflowConfig(hidden=4))
    assert (block.of_second.first[0].in_channels, block.of_second.same[0].out_channels) == (3, 4)
    assert (block.of_first.first[0].in_channels, block.of_first.same[0].out_channels) == (2, 6)


# Features


@pytest.mark.parametrize("downscaling", ["nearest", "area"])
def test_the_pyramid_is_the_extractor_at_smaller_images(downscaling: Any) -> None:
    base = create_extractor("resnet18", ("layer2",), "random")
    pyramid = PyramidExtractor(base, 3, downscaling)
    batch = torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    mode = {"nearest": "nearest", "area": "area"}[downscaling]
    for scale, maps in enumerate(pyramid(batch)):
        small = batch if scale == 0 else F.interpolate(batch, size=(64 >> scale, 96 >> scale), mode=mode)
        torch.testing.assert_close(maps, base(small)[0])
        assert maps.shape == (2, 128, 8 >> scale, 12 >> scale)
    assert (pyramid.channels, pyramid.strides) == ((128,) * 3, (8, 16, 32))
    others = [PyramidExtractor(base, 2, downscaling), PyramidExtractor(base, 3, "area")]
    assert pyramid.fingerprint != others[0].fingerprint != base.fingerprint
    assert (pyramid.fingerprint == others[1].fingerprint) == (downscaling == "area")


# Scores


@pytest.mark.parametrize("options", [{}, {"map_scales": "all", "image_score": "max", "sigma": 2.0}])
def test_scores_are_those_of_z(options: dict[str, Any]) -> None:
    detector = fitted(standardise="whiten", **options)
    test = good_images(3, 1)
    found = detector.predict(test)
    batch = detector.transform.normalise(np.stack(test))
    with torch.no_grad():
        z, _ = detector.flow(detector.extractor(batch))
    energies = [F.interpolate((m**2).mean(1, keepdim=True), size=(64, 96), mode="bilinear")[:, 0].numpy() for m in z]
    expected = np.mean(energies, axis=0) if options else energies[0]
    if options:
        expected = np.stack([gaussian_filter(one, 2.0) for one in expected])
    np.testing.assert_allclose(found.anomaly_maps, expected, rtol=1e-3, atol=1e-4)
    flat = torch.cat([m.flatten(1) for m in z], 1).numpy()
    scores = expected.max((1, 2)) if options else (flat**2 / 2).mean(1)
    np.testing.assert_allclose(found.image_scores, scores, rtol=1e-3)


def test_training_lowers_the_loss_and_finds_a_defect() -> None:
    detector = fitted(n=10, epochs=30, standardise="whiten", learning_rate=2e-3, image_score="max")
    curve = [value for _, value in detector.report.curves["nll"]]
    assert np.mean(curve[-5:]) < np.mean(curve[:3]) - 0.2
    assert set(detector.report.seconds) == {"features", "whitening", "training"}
    good, bad = good_images(5, 1), good_images(5, 2)
    for image in bad:
        image[20:34, 40:56] = (250, 20, 20)
    scores = detector.predict(good).image_scores
    prediction = detector.predict(bad)
    assert prediction.anomaly_maps is not None
    assert prediction.image_scores.min() > scores.max()
    for anomaly_map in prediction.anomaly_maps:
        row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        assert 12 <= row < 42
        assert 32 <= column < 64


# Training


def stage(images: Images | None = None, **options: Any) -> CsflowStage:
    method = make(**options)
    fitting = Fitting(method, images or Images(good_images(6, 0)), 0, FitRun())
    return CsflowStage(fitting, method.config, fitting.adapted(method.extractor))


def test_the_loss_is_the_negative_log_likelihood_a_dimension() -> None:
    z, log_det = [torch.full((2, 3, 2, 2), 2.0), torch.full((2, 3, 1, 1), -1.0)], torch.tensor([4.0, 8.0])
    assert float(negative_log_likelihood(z, log_det)) == pytest.approx((0.5 * (12 * 4 + 3) - 6) / 15)


def test_whitened_inputs_have_unit_covariance() -> None:
    training = stage(standardise="whiten")
    z, log_det = training.flow(training.features(range(6)))
    rows = z[0].detach().permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    variances = np.linalg.eigvalsh(np.cov(rows, rowvar=False, bias=True))
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-3)
    assert variances.max() < 1.01
    assert np.isfinite(log_det.detach().numpy()).all()


def test_the_step_is_the_authors() -> None:
    training = stage()
    group = training.optimiser().param_groups[0]
    assert (group["eps"], group["weight_decay"], training.clip_norm) == (1e-4, 1e-5, 1.0)
    assert training.full_steps == 4 * 6 // 3
    first = training.batch(0)
    assert [m.shape for m in first] == [(3, 128, 8, 12), (3, 128, 4, 6), (3, 128, 2, 3)]
    assert all(torch.equal(a, b) for a, b in zip(first, training.batch(0), strict=True))


def test_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    original = torch.nn.utils.clip_grad_norm_

    def clip(parameters: Any, limit: float) -> torch.Tensor:
        limits.append(limit)
        return original(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    fitted(epochs=1, clip_norm=0.5)
    assert limits == [0.5, 0.5]


def test_features_that_do_not_fit_in_memory_change_nothing(tmp_path: Path) -> None:
    whole = fitted()
    for cache, how in ((None, "computed again"), (ArrayCache(tmp_path), "read from the cache")):
        detector = make(memory_limit=0.0).fit(Images(good_images(6, 0), cache))
        assert detector.report.notes == (f"features exceed memory_limit: {how} at every step",)
        for name, tensor in detector.state_dict().items():
            np.testing.assert_allclose(tensor, whole.state_dict()[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    resumed = assert_goes_on_after_a_kill(make(budget=0.5), tmp_path, "training", 4, good_images(6, 0))
    assert resumed.report.notes == ("shortened training: 4 steps instead of 8 (budget 0.5)",)


# The contract


def test_the_contract_is_kept() -> None:
    report = check_method("csflow", {**SMALL, "transform": {"size": (64, 64)}, "epochs": 2}, preset="paper")
    assert [item for item in report.items if item.outcome == "broken"] == []


def test_a_saved_detector_gives_the_same_scores(tmp_path: Path) -> None:
    detector = fitted(standardise="whiten")
    detector.save(tmp_path / "csflow.andon")
    expected = detector.predict(good_images(2, 1))
    restored = detector.method.restore(detector.state_dict(), detector.report)
    for again in (restored, load(tmp_path / "csflow.andon")):
        found = again.predict(good_images(2, 1))
        assert np.array_equal(found.image_scores, expected.image_scores)
        assert np.array_equal(found.anomaly_maps, expected.anomaly_maps)


def test_states_that_do_not_fit() -> None:
    detector = fitted()
    changes: list[tuple[dict[str, torch.Tensor], str]] = [
        ({"surplus": torch.zeros(1)}, "unknown tensor surplus"),
        ({"flow.blocks.1.of_first.gain": torch.zeros(2)}, r"flow.blocks.1.of_first.gain .* is \[2\], not \[3\]"),
        ({"flow.blocks.1.orders": torch.zeros((3, 128), dtype=torch.int64)}, "flow.blocks.1.orders .* permutations"),
    ]
    for change, message in changes:
        with pytest.raises(DetectorError, match=message):
            detector.method.restore({**detector.state_dict(), **change}, detector.report)


def test_it_exports() -> None:
    detector = fitted(n=2, epochs=1, standardise="whiten", map_scales="all", sigma=2.0)
    batch = detector.transform.normalise(np.stack(good_images(1, 1)))
    program = torch.export.export(detector, (batch,))
    torch.testing.assert_close(program.module()(batch), detector(batch), rtol=1e-4, atol=1e-5)


def test_presets_and_errors_of_the_user() -> None:
    study = create_method("csflow", preset="study").config
    assert isinstance(study, CsflowConfig)
    assert (study.backbone, study.layers, study.transform.size) == (
        "timm:tf_efficientnet_b5",
        ("blocks.5",),
        (768, 768),
    )
    assert (study.kernels, study.hidden, study.clamp, study.epochs) == ((3, 3, 3, 5), 1024, 3.0, 240)
    with pytest.raises(WeightsError, match=r"tf_efficientnet_b5.*name the file"):
        create_method("csflow", preset="study").fit(good_images(2, 0))
    for options, message in (
        ({"layers": ("layer1", "layer2")}, "must be one stage"),
        ({"kernels": (3, 4)}, "must be odd"),
        ({"transform": {"size": (66, 64)}}, "multiples of 4"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(**options)


def test_the_designed_preset_learns_from_adapted_features() -> None:
    method = create_method("csflow", preset="designed", transform={"size": (64, 64)}, budget=0.02)
    detector = method.fit(good_images(4, 0))
    assert any("features adapted" in note for note in detector.report.notes)
    again = method.restore(detector.state_dict(), detector.report)
    assert np.array_equal(
        detector.predict(good_images(1, 1)).anomaly_maps, again.predict(good_images(1, 1)).anomaly_maps
    )
