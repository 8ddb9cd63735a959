"""GCAD: networks, branches against literal computations, training, state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from andon.benchmark import evaluate
from andon.core import ConfigError, ImageArray
from andon.data import Images, load_dataset
from andon.methods import branch_scores, create_method
from andon.methods._patch_networks import PatchNetwork
from andon.methods._teachers import Split
from andon.methods.gcad import Gcad, GcadConfig, GcadDetector
from andon.methods.gcad.networks import FieldNetworks, RegressionNetwork, UpsamplingNetwork
from tests.methods import patch_students as shared
from tests.methods.patch_students import SIDE, images

SMALL: Mapping[str, Any] = {
    "transform": {"size": (SIDE, SIDE)},
    "teacher": "resnet18",
    "weights": "random",
    "layers": ("layer1", "layer2"),
    "receptive_fields": (17, 33),
    "stride": 8,
    "latent": 4,
    "encoder_width": 6,
    "regression_width": 4,
    "epochs": 4,
    "train_batch_size": 2,
    "learning_rate": 2e-3,
    "validation_share": 0.3,
    "batch_size": 4,
}
ONE_FIELD: Mapping[str, Any] = {**SMALL, "receptive_fields": (33,), "layers": ("layer1",)}


def fit(shown: list[ImageArray], **options: Any) -> GcadDetector:
    made = create_method("gcad", {**SMALL, **options}, preset="paper")
    assert isinstance(made, Gcad)
    detector = made.fit(shown)
    assert isinstance(detector, GcadDetector)
    return detector


@pytest.fixture(scope="module")
def fitted() -> GcadDetector:
    return fit(images())


# Networks


@pytest.mark.parametrize("stride", [1, 2, 8])
@pytest.mark.parametrize("size", [(64, 64), (70, 97)])
def test_a_regression_network_answers_on_the_grid(stride: int, size: tuple[int, int]) -> None:
    network = RegressionNetwork(5, 3, 4, stride)
    found = network(torch.zeros(2, 3, *size))
    assert found.shape == (2, 5, -(-size[0] // stride), -(-size[1] // stride))
    widths = [3, 6, 12, 24, 24]
    count = 0
    for before, after in zip([3, *widths], widths, strict=False):
        count += 9 * before * after + after + 9 * after * after + after
    for level in range(int(np.log2(stride)), 4):
        inputs, after = widths[level] + widths[level + 1], widths[level]
        count += 9 * inputs * after + after + 9 * after * after + after
    count += widths[int(np.log2(stride))] * 5 + 5
    assert sum(p.numel() for p in network.parameters()) == count


def test_a_regression_network_equals_a_literal_u_net() -> None:
    torch.manual_seed(0)
    network = RegressionNetwork(5, 3, 2, 2).double()
    batch = torch.rand(1, 3, 12, 14, dtype=torch.float64)

    def level(block: Any, x: torch.Tensor) -> torch.Tensor:
        for layer in (block[0], block[2]):
            x = F.conv2d(x, layer.weight, layer.bias, padding=1)
            x = torch.maximum(x, 0.005 * x)
        return x

    top = level(network.down[0], batch)
    middle = level(network.down[1], F.max_pool2d(top, 2))
    bottom = level(network.down[2], F.max_pool2d(middle, 2, ceil_mode=True))
    up = F.interpolate(bottom, size=middle.shape[2:], mode="bilinear", align_corners=False)
    merged = level(network.up[0], torch.cat([up, middle], 1))
    expected = F.conv2d(merged, network.last.weight, network.last.bias)
    torch.testing.assert_close(network(batch), expected)


def test_everything_global_goes_through_one_vector() -> None:
    config = GcadConfig(**{**ONE_FIELD, "global_channels": 1})
    networks = FieldNetworks(config, 64).double()
    batch = torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64)
    assert networks.global_encoder.encoder(batch).shape == (1, 4, 1, 1)
    assert networks.global_encoder(batch).shape == (1, 1, 8, 8)
    # At a fixed input the output varies with it in at most as many directions as the bottleneck has channels.
    rows = torch.autograd.functional.jacobian(networks.global_encoder, batch)
    assert isinstance(rows, torch.Tensor)
    assert int(torch.linalg.matrix_rank(rows.reshape(64, -1), rtol=1e-9)) <= 4


def test_the_upsampling_network_knows_no_neighbours() -> None:
    network = UpsamplingNetwork(3, 5)
    maps = torch.rand(1, 3, 4, 4, requires_grad=True)
    found = network(maps)
    assert found.shape == (1, 5, 4, 4)
    found[0, :, 1, 2].sum().backward()
    assert maps.grad is not None
    assert torch.nonzero(maps.grad.abs().sum((0, 1))).tolist() == [[1, 2]]


def test_losses_are_squared_distances_at_a_place() -> None:
    networks = FieldNetworks(GcadConfig(**ONE_FIELD), 64)
    batch, target = torch.rand(2, 3, SIDE, SIDE), torch.rand(2, 64, 8, 8)
    losses = networks(batch, target)
    assert list(losses) == ["local", "distillation", "global"]
    seen = networks.global_encoder(batch)
    pairs = {
        "local": (networks.local_regression(batch), target),
        "distillation": (networks.upsampling(seen), target),
        "global": (networks.global_regression(batch), seen),
    }
    for name, (one, other) in pairs.items():
        distances = np.linalg.norm((one - other).detach().numpy(), axis=1) ** 2
        assert float(losses[name].detach()) == pytest.approx(distances.mean(), rel=1e-4)


# Scores


def test_branches_come_out_separately_and_add_up(fitted: GcadDetector) -> None:
    split = Split.of(Images(images()), 0.3, 0)
    (_, held_out), test = next(iter(split.validation.batches(fitted.transform, 8))), images(2, seed=3)
    batch = fitted.transform.normalise(np.stack(test))
    good, found = (np.concatenate([fitted.raw_maps(x[None]) for x in part]) for part in (held_out, batch))
    branches = fitted.branches(batch)
    assert list(branches) == ["structural", "logical"]
    expected = []
    for number, (scores, maps) in enumerate(branches.values()):
        alone = np.zeros((2, 8, 8))
        for field in range(2):
            kind = 2 * field + number
            mean, std = good[:, kind].astype(np.float64).mean(), good[:, kind].astype(np.float64).std()
            alone += (found[:, kind] - mean) / std / 2
        large = F.interpolate(torch.from_numpy(alone)[:, None], size=(SIDE, SIDE), mode="bilinear")[:, 0].numpy()
        np.testing.assert_allclose(maps, large, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(scores, large.max((1, 2)), rtol=1e-3)
        expected.append(large)
    prediction = fitted.predict(test)
    np.testing.assert_allclose(prediction.anomaly_maps, sum(expected), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(prediction.image_scores, sum(expected).max((1, 2)), rtol=1e-3)


def test_raw_maps_are_the_branches_distances(fitted: GcadDetector) -> None:
    batch = fitted.transform.normalise(np.stack(images(1, seed=4)))
    found = fitted.raw_maps(batch)
    target = fitted.teacher(batch).split([64, 128], 1)
    for field, networks in enumerate(fitted.fields):
        assert isinstance(networks, FieldNetworks)
        local = (networks.local_regression(batch) - target[field]).square().sum(1)
        disagreement = (networks.global_regression(batch) - networks.global_encoder(batch)).square().sum(1)
        torch.testing.assert_close(found[:, 2 * field], local)
        torch.testing.assert_close(found[:, 2 * field + 1], disagreement)


def test_training_lowers_the_losses_and_finds_a_defect() -> None:
    detector = fit(images(8), **{**ONE_FIELD, "epochs": 40, "learning_rate": 5e-3})
    curves = detector.report.curves
    assert set(curves) == {"local 33", "distillation 33", "global 33", "loss"}
    for name in ("local 33", "distillation 33"):
        values = [value for _, value in curves[name]]
        assert np.mean(values[-5:]) < 0.8 * np.mean(values[:2])
    good, bad = images(4, seed=1), images(4, seed=2, blot=True)
    assert detector.predict(bad).image_scores.min() > detector.predict(good).image_scores.max()


def test_the_contract_is_kept() -> None:
    shared.keeps_the_contract("gcad", dict(ONE_FIELD))


def test_a_killed_training_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    shared.goes_on_after_a_kill("gcad", {**ONE_FIELD, "epochs": 2}, tmp_path)


def test_round_trips_are_exact(fitted: GcadDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.comes_back_from_a_file(fitted, tmp_path, monkeypatch)
    shared.refuses_wrong_states(fitted)


def test_it_exports(fitted: GcadDetector) -> None:
    shared.exports(fitted)


def test_the_report_has_figures_of_each_branch(fitted: GcadDetector, tmp_path: Path) -> None:
    for kind, blot in (("good", False), ("dent", True), ("missing", True)):
        (tmp_path / "part/test" / kind).mkdir(parents=True)
        for number, image in enumerate(images(3, seed=len(kind), blot=blot)):
            Image.fromarray(image).save(tmp_path / "part/test" / kind / f"{number}.png")
    (tmp_path / "part/train/good").mkdir(parents=True)
    Image.fromarray(images(1)[0]).save(tmp_path / "part/train/good/0.png")
    category = load_dataset(tmp_path)["part"]
    found = branch_scores(fitted, Images(category.test))
    assert list(found) == ["structural", "logical"]
    notes = evaluate(fitted, category).evaluation.notes
    kinds = np.array([sample.defect_type for sample in category.test])
    for name, scores in found.items():
        (note,) = [n for n in notes if n.startswith(f"{name} branch alone: image AUROC")]
        for kind in ("all defects", "dent", "missing"):
            chosen = kinds == kinds if kind == "all defects" else (kinds == kind) | (kinds == "good")
            expected = roc_auc_score(kinds[chosen] != "good", scores[chosen])
            assert f"{kind} {100 * expected:.1f} %" in note
    assert branch_scores(create_method("thumbnail-nn").fit(images(2)), Images(category.test)) == {}


def test_it_learns_from_patch_teachers(tmp_path: Path) -> None:
    save_file(PatchNetwork(33).state_dict(), tmp_path / "teacher-33.safetensors")
    files = {"teacher": "patch", "layers": (), "weights": str(tmp_path / "teacher-{field}.safetensors")}
    detector = fit(images(2), **{**ONE_FIELD, **files, "epochs": 1})
    assert [w.part for w in detector.report.weights] == ["uninformed_students_teacher_33"]
    assert np.isfinite(detector.predict(images(1)).image_scores).all()


def test_presets_and_errors_of_the_user() -> None:
    study = create_method("gcad", preset="study").config
    assert isinstance(study, GcadConfig)
    assert (study.receptive_fields, study.latent, study.epochs, study.stride) == ((17, 33), 32, 500, 1)
    shared.says_what_is_wrong("gcad")
    for options, message in (({"stride": 3}, "power of two"), ({"transform": {"size": (48, 64)}}, "at least 64")):
        with pytest.raises(ConfigError, match=message):
            create_method("gcad", options, preset="paper")


def test_the_designed_preset_learns_from_adapted_features() -> None:
    detector = create_method("gcad", preset="designed", budget=0.005).fit(images(4))
    assert any("features adapted" in note for note in detector.report.notes)
