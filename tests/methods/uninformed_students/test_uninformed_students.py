"""Uninformed Students: scores against literal loops, training, state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from andon.data import Images
from andon.methods import FitRun, Fitting, create_method
from andon.methods._patch_teachers import PatchBatch
from andon.methods._teachers import Split
from andon.methods.uninformed_students import UninformedStudents, UninformedStudentsConfig, UninformedStudentsDetector
from andon.methods.uninformed_students.method import error_and_variance
from tests.methods import patch_students as shared
from tests.methods.patch_students import SIDE, images

OF_FEATURES: Mapping[str, Any] = {
    "transform": {"size": (SIDE, SIDE)},
    "teacher": "resnet18",
    "weights": "random",
    "layers": ("layer1", "layer2"),
    "receptive_fields": (17, 33),
    "stride": 4,
    "students": 2,
    "student_width": 0.06,
    "epochs": 4,
    "train_batch_size": 2,
    "learning_rate": 2e-3,
    "validation_share": 0.3,
    "batch_size": 4,
}
OF_PATCHES: Mapping[str, Any] = {
    **OF_FEATURES,
    "teacher": "patch",
    "layers": (),
    "receptive_fields": (33,),
    "stride": 8,
    "padding": "edge",
    "epochs": 1,
}


def method(**options: Any) -> UninformedStudents:
    made = create_method("uninformed-students", {**OF_FEATURES, **options}, preset="paper")
    assert isinstance(made, UninformedStudents)
    return made


@pytest.fixture(scope="module")
def fitted() -> UninformedStudentsDetector:
    detector = method().fit(images())
    assert isinstance(detector, UninformedStudentsDetector)
    return detector


@pytest.fixture(scope="module")
def of_patches() -> UninformedStudentsDetector:
    detector = method(**OF_PATCHES).fit(images(3))
    assert isinstance(detector, UninformedStudentsDetector)
    return detector


def test_error_and_variance_are_the_papers() -> None:
    rng = np.random.default_rng(0)
    said, target = rng.normal(size=(3, 2, 4, 5, 6)), rng.normal(size=(2, 4, 5, 6))
    error, variance = error_and_variance(torch.from_numpy(said), torch.from_numpy(target))
    for b, r, c in np.ndindex(2, 5, 6):
        mean = sum(said[i, b, :, r, c] for i in range(3)) / 3
        assert float(error[b, r, c]) == pytest.approx(np.linalg.norm(mean - target[b, :, r, c]) ** 2)
        spread = sum(np.linalg.norm(said[i, b, :, r, c]) ** 2 for i in range(3)) / 3 - np.linalg.norm(mean) ** 2
        assert float(variance[b, r, c]) == pytest.approx(spread)


def test_the_map_is_the_mean_of_normalised_errors_and_variances(fitted: UninformedStudentsDetector) -> None:
    split = Split.of(Images(images()), 0.3, 0)
    (_, held_out), test = next(iter(split.validation.batches(fitted.transform, 8))), images(2, seed=3)
    shown = fitted.transform.normalise(np.stack(test))
    good, found = (np.concatenate([fitted.raw_maps(x[None]) for x in batch]) for batch in (held_out, shown))
    expected = np.zeros((2, 16, 16))
    for kind in range(4):
        mean, std = good[:, kind].astype(np.float64).mean(), good[:, kind].astype(np.float64).std()
        np.testing.assert_allclose(fitted.moments[kind], [mean, std], rtol=1e-4)
        expected += (found[:, kind] - mean) / std / 2
    large = F.interpolate(torch.from_numpy(expected)[:, None], size=(SIDE, SIDE), mode="bilinear")[:, 0].numpy()
    prediction = fitted.predict(test)
    np.testing.assert_allclose(prediction.anomaly_maps, large, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(prediction.image_scores, large.max((1, 2)), rtol=1e-3)


def test_students_learn_the_normalised_teacher_at_every_place() -> None:
    made = method()
    fitting = Fitting(made, Images(images()), 0, FitRun())
    split, teacher, _ = made.described(fitting)
    outputs = torch.cat([teacher(batch) for _, batch in split.train.batches(made.config.transform, 1)])
    flat = outputs.transpose(0, 1).flatten(1)
    np.testing.assert_allclose(flat.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(flat.std(1, correction=0), 1, atol=1e-3)
    assert (split.train.n_sources, split.validation.n_sources, split.overlaps) == (3, 2, False)
    assert made.shares(teacher) == (64, 128)


def test_the_loss_adds_up_every_students_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from andon.methods.uninformed_students import method as module

    seen: list[tuple[Any, PatchBatch]] = []
    literal = module._Training.losses

    def spied(self: Any, batch: PatchBatch) -> dict[str, torch.Tensor]:
        losses = literal(self, batch)
        if not seen:
            seen.append((self, batch))
            target = self.described(batch.indices, batch.images).split([64, 128], 1)
            for field, ensemble, wanted in zip((17, 33), self.networks, target, strict=True):
                total = 0.0
                for student in ensemble.students:
                    said = student(batch.images).detach()
                    total += float(np.mean(np.sum((said - wanted).numpy() ** 2, axis=1)))
                assert float(losses[f"field {field}"].detach()) == pytest.approx(total, rel=1e-4)
        return losses

    monkeypatch.setattr(module._Training, "losses", spied)
    method(epochs=1).fit(images())
    assert seen


def test_training_lowers_the_loss_and_finds_a_defect() -> None:
    detector = method(epochs=30, learning_rate=5e-3).fit(images(8))
    for field in (17, 33):
        curve = [value for _, value in detector.report.curves[f"field {field}"]]
        assert np.mean(curve[-5:]) < 0.7 * np.mean(curve[:2])
    good, bad = detector.predict(images(4, seed=1)), detector.predict(images(4, seed=2, blot=True))
    assert bad.image_scores.min() > good.image_scores.max()
    assert bad.anomaly_maps is not None
    for anomaly_map in bad.anomaly_maps:
        row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        assert 24 <= row < 58
        assert 6 <= column < 40


def test_the_report_tells_the_teacher_and_what_was_held_out(fitted: UninformedStudentsDetector) -> None:
    report = fitted.report
    assert list(report.seconds) == ["teacher", "training", "normalisation"]
    assert "teacher: features of resnet18, orthogonal, seed 0 (random)" in report.notes
    assert "maps normalised on 2 held-out images" in report.notes
    assert set(report.curves) == {"field 17", "field 33", "loss"}


def test_one_student_has_no_variance() -> None:
    detector = method(students=1, epochs=1).fit(images(3))
    assert detector.state_dict()["moments"][1].tolist() == [0.0, 1.0]
    assert np.isfinite(detector.predict(images(1)).image_scores).all()


def test_patch_teachers_are_a_part_of_the_detector(of_patches: UninformedStudentsDetector) -> None:
    (record,) = of_patches.report.weights
    assert (record.part, record.pretrained) == ("uninformed_students_teacher_33", False)
    assert of_patches.state_dict()["teacher.mean"].shape == (128,)
    assert of_patches.ensembles[0].students[0].channels == 128  # type: ignore[union-attr, index]


def test_the_contract_is_kept() -> None:
    shared.keeps_the_contract("uninformed-students", {**OF_FEATURES, "receptive_fields": (33,), "layers": ("layer1",)})


def test_a_killed_training_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    shared.goes_on_after_a_kill("uninformed-students", {**OF_FEATURES, "epochs": 2}, tmp_path)


@pytest.mark.parametrize("teacher", ["features", "patches"])
def test_round_trips_are_exact(
    teacher: str,
    fitted: UninformedStudentsDetector,
    of_patches: UninformedStudentsDetector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = fitted if teacher == "features" else of_patches
    shared.comes_back_from_a_file(detector, tmp_path, monkeypatch)
    shared.refuses_wrong_states(detector)


@pytest.mark.parametrize("teacher", ["features", "patches"])
def test_it_exports(teacher: str, fitted: UninformedStudentsDetector, of_patches: UninformedStudentsDetector) -> None:
    shared.exports(fitted if teacher == "features" else of_patches)


def test_presets_and_errors_of_the_user() -> None:
    study = create_method("uninformed-students", preset="study").config
    assert isinstance(study, UninformedStudentsConfig)
    assert (study.receptive_fields, study.students, study.stride, study.epochs) == ((17, 33, 65), 3, 1, 100)
    assert (study.train_batch_size, study.learning_rate, study.weight_decay) == (1, 1e-4, 1e-5)
    shared.says_what_is_wrong("uninformed-students")


def test_the_designed_preset_learns_from_adapted_features() -> None:
    detector = create_method("uninformed-students", preset="designed", budget=0.005).fit(images(4))
    assert any("features adapted" in note for note in detector.report.notes)
