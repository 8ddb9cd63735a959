"""More good images for an inspector: what it says it would change is what changes, and the way back is there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from andon.core import ConfigError, DataError, DetectorError
from andon.data import ArrayCache, Images
from andon.inspection import (
    Inspector,
    InspectorFile,
    accept_update,
    cross_fitted,
    earlier_versions,
    explain,
    load_inspector,
    propose_update,
    roll_back,
    train_inspector,
)
from andon.methods import Detector, Fitting, Method, MethodConfig, create_method
from tests.inspection.parts import SMALL, TEST_METHODS, part, save_parts

GOOD = [part(seed) for seed in range(20)]
NEW = [part(seed) for seed in range(100, 110)]


def trained(method: str = "thumbnail-nn", **options: object) -> Inspector:
    return train_inspector(GOOD, method, config=SMALL[method], **({"rate": 0.1, "look": 0.2} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def thumbnails() -> Inspector:
    return trained()


@pytest.fixture
def file(thumbnails: Inspector, tmp_path: Path) -> Path:
    thumbnails.save(tmp_path / "part.andon")
    return tmp_path / "part.andon"


@pytest.mark.parametrize("method", TEST_METHODS)
def test_the_new_images_are_learned_and_scored_before_that(method: str, tmp_path: Path) -> None:
    inspector = trained(method)
    proposal = propose_update(inspector, NEW)
    new = proposal.inspector
    assert new.detector.report.n_train == 30
    before = [inspector.inspect(image) for image in NEW]
    np.testing.assert_allclose(new.calibration.scores[:20], inspector.calibration.scores)
    np.testing.assert_allclose(new.calibration.scores[20:], [v.score for v in before], rtol=1e-5)
    np.testing.assert_allclose(
        new.calibration.map_maxima[20:], [v.anomaly_map.max() for v in before if v.anomaly_map is not None], rtol=1e-5
    )
    assert [(a.name, a.verdict) for a in proposal.added] == [(f"image {i}", v.verdict) for i, v in enumerate(before)]
    after = [new.inspect(image) for image in NEW]
    np.testing.assert_allclose([a.new_score for a in proposal.added], [v.score for v in after], rtol=1e-5, atol=1e-6)
    assert np.median([v.score for v in after]) < np.median([v.score for v in before])
    # The rate stays: the same share of good images is above the threshold.
    assert new.thresholds == new.calibration.thresholds(2 / 21, 4 / 21)
    new.save(tmp_path / "new.andon")
    again = load_inspector(tmp_path / "new.andon")
    assert again.provenance == new.provenance
    assert again.inspect(NEW[0]).score == new.inspect(NEW[0]).score
    assert inspector.detector.report.n_train == 20  # the earlier one is as it was


def test_an_explanation_names_the_new_images(tmp_path: Path) -> None:
    save_parts(tmp_path / "new", range(100, 104))
    new = propose_update(trained("patchcore"), sorted((tmp_path / "new").iterdir())).inspector
    new.save(tmp_path / "new.andon")
    found = explain(load_inspector(tmp_path / "new.andon"), part(102))
    assert {name for name, _ in found.nearest_images} & {f"{seed:04d}.png" for seed in range(100, 104)}


@pytest.mark.parametrize("method", TEST_METHODS)
def test_the_earlier_images_are_scored_again_where_they_are_given(method: str, tmp_path: Path) -> None:
    """By what the other blocks and the new images give: by hand, a fit to all, cross-fitted."""
    options = {"coreset": "none"} if method == "patchcore" else {}
    config = SMALL[method] | options
    inspector = train_inspector(GOOD, method, config=config, rate=0.1)
    found = propose_update(inspector, NEW, training=[*NEW, *reversed(GOOD)])
    scores = found.inspector.calibration.scores
    recipe, everything = create_method(method, config), Images([*GOOD, *NEW], ArrayCache(tmp_path))
    for block in (range(2), range(18, 20)):
        rest = [i for i in range(30) if i not in block]
        by_hand = recipe.fit(everything.subset(rest)).predict(everything.subset(block)).image_scores
        np.testing.assert_allclose(scores[block.start : block.stop], by_hand, rtol=1e-3)
    assert [c.new_score for c in found.calibration] == scores[:20].tolist()
    kept = propose_update(inspector, NEW)
    np.testing.assert_allclose(scores[20:], kept.inspector.calibration.scores[20:])
    assert any("--training DIR scores them again" in note for note in kept.notes)
    assert not found.notes
    with pytest.raises(DataError, match="2 of the 20 images that were learned from are not among"):
        propose_update(inspector, NEW, training=GOOD[2:])


def test_a_coreset_is_scored_again_by_growing_each_blocks_own() -> None:
    inspector = trained("patchcore")
    found = propose_update(inspector, NEW[:3], training=GOOD).inspector
    fresh = cross_fitted(inspector.detector.method, inspector.detector, Images(GOOD))
    np.testing.assert_allclose(fresh.scores, inspector.calibration.scores)
    ratio = found.calibration.scores[:20] / inspector.calibration.scores
    assert ratio.max() < 1.02  # what the memory gained can only be nearer, but for another selection
    assert ratio.min() < 0.999


def test_thresholds_by_value_and_kept(thumbnails: Inspector) -> None:
    by_value = thumbnails.with_thresholds(5.5, 1000.0)
    new = propose_update(by_value, NEW)
    assert (new.inspector.thresholds.look, new.inspector.thresholds.stop) == (5.5, 1000.0)
    assert any("look and stop: the threshold keeps its value" in note for note in new.notes)
    kept = propose_update(thumbnails, NEW, keep_thresholds=True).inspector
    assert kept.thresholds == thumbnails.thresholds
    off = propose_update(thumbnails.with_thresholds(thumbnails.thresholds.stop, thumbnails.thresholds.stop), NEW)
    assert off.inspector.thresholds.look == off.inspector.thresholds.stop


def test_a_rate_is_not_rounded_away_update_by_update() -> None:
    inspector = trained(rate=0.1, look=0.1)  # 2 of 21
    for start in range(0, 6, 2):
        inspector = propose_update(inspector, NEW[start : start + 2]).inspector
    assert len(inspector.calibration) == 26
    assert inspector.thresholds.stop == inspector.calibration.threshold(2 / 21)
    assert inspector.calibration.alarms(inspector.thresholds.stop) == 1


def test_what_is_left_out_is_named(thumbnails: Inspector) -> None:
    images = [GOOD[3], NEW[0], NEW[0], np.full((72, 96, 3), 9, np.uint8), part(200, defect=True)]
    names = ["known", "new", "twice", "dead", "defect"]
    found = propose_update(thumbnails, images, names=names)
    assert [image.name for image in found.added] == ["new"]
    reasons = dict(found.left_out)
    assert set(reasons) == {"known", "twice", "dead", "defect"}
    assert "in the file already" in reasons["known"]
    assert "the same as new" in reasons["twice"]
    assert "of one colour" in reasons["dead"]
    assert "far above all good ones" in reasons["defect"]
    assert found.inspector.provenance.updates[-1].images[0].name == "new"
    with pytest.raises(DataError, match=r"no image is left to add: defect: its score .*include-outliers"):
        propose_update(thumbnails, images[4:], names=names[4:])
    with pytest.raises(DataError, match=r"no image is left to add: known: .*, and 2 more"):
        propose_update(thumbnails, [GOOD[3], GOOD[4], images[3]], names=["known", "b", "c"])
    with pytest.raises(DataError, match="another shape"):
        propose_update(thumbnails, [np.zeros((50, 90, 3), np.uint8)])
    with pytest.raises(ValueError, match="1 names for 2 images"):
        propose_update(thumbnails, NEW[:2], names=["a"])
    with pytest.raises(DataError, match="no new images"):
        propose_update(thumbnails, [])


def test_parts_that_are_not_found_are_left_out_and_others_aligned() -> None:
    inspector = trained("patchcore", align=(20, 15, 56, 42))
    noise = np.random.default_rng(0).integers(0, 255, (72, 96, 3)).astype(np.uint8)
    moved = part(300, angle=4, shift=(2, -1))
    found = propose_update(inspector, [noise, moved], training=GOOD, include_outliers=True)
    assert [reason.name for reason in found.left_out] == ["image 0"]
    assert "part not found" in found.left_out[0].reason
    assert found.added[0].score == pytest.approx(inspector.inspect(moved).score, rel=1e-5)
    assert found.inspector.inspect(moved).score < inspector.inspect(moved).score


def test_regions_count_in_an_update_too() -> None:
    inspector = trained("padim", roi="5,5,40,60")
    found = propose_update(inspector, NEW).inspector
    np.testing.assert_allclose(found.calibration.scores, found.calibration.map_maxima)
    assert found.calibration.scores[-1] == pytest.approx(inspector.inspect(NEW[-1]).score, rel=1e-5)


@pytest.mark.parametrize("method", ["thumbnail-nn", "patchcore"])
def test_a_wrong_label_among_them_is_shown_by_recorded_defects(method: str) -> None:
    inspector = trained(method)
    defects = [part(seed, defect=True) for seed in range(200, 203)]
    safe = propose_update(inspector, NEW, defective=defects)
    assert [d.verdict for d in safe.defects] == ["stop"] * 3
    assert not safe.let_through
    assert not safe.warnings()
    bad = propose_update(inspector, [*NEW, part(203, defect=True)], defective=defects, include_outliers=True)
    # The like of what was learned as good is nearly as good from now on.
    assert all(d.new_score < 0.7 * d.score for d in bad.defects)
    assert bool(bad.let_through) == (method == "thumbnail-nn")
    assert all("would PASS" in warning for warning in bad.warnings())
    assert bad.sentences()[len(bad.sentences()) - len(bad.warnings()) :] == bad.warnings()


def test_the_effect_on_the_earlier_images_is_shown(thumbnails: Inspector) -> None:
    low = thumbnails.with_thresholds(*sorted(float(s) for s in np.sort(thumbnails.calibration.scores)[[5, 12]]))
    found = propose_update(low, NEW)
    for image, score in zip(found.calibration, thumbnails.calibration.scores, strict=True):
        assert image.verdict == low.thresholds.decide(score)
        assert image.new_verdict == found.inspector.thresholds.decide(image.new_score)
    assert found.changed == tuple(i for i in found.calibration if i.verdict != i.new_verdict)
    text = "\n".join(found.sentences())
    assert "10 good images added; 0 left out" in text
    assert "earlier good images (20): 7 stop, 6 look, 7 pass → " in text
    assert f"threshold of stop: {low.thresholds.stop:.4g} → {found.inspector.thresholds.stop:.4g}, promises" in text
    assert "of your 30 good parts would have stopped" in text


def test_recalibration_moves_thresholds_only(thumbnails: Inspector) -> None:
    day = thumbnails.with_second_day("tuesday", Images(NEW[:2]))
    found = propose_update(day, NEW, recalibrate=True).inspector
    assert found.detector is day.detector
    assert len(found.calibration) == 30
    assert found.second_day == day.second_day
    assert not found.provenance.updates[-1].learned
    assert len(found.provenance.learned) == 20
    assert len(found.provenance.calibrated) == 30
    # What only calibrated is scored, but not learned, when the earlier images are scored again.
    later = propose_update(found, [part(120)], training=GOOD).inspector
    np.testing.assert_allclose(later.calibration.scores[20:30], found.calibration.scores[20:30])
    assert later.detector.report.n_train == 21
    assert later.second_day is None
    with pytest.raises(ConfigError, match="of no use"):
        propose_update(day, NEW, recalibrate=True, training=GOOD)


class Dark(Detector):
    """Knows how bright good images are; cannot learn more."""

    def __init__(self, config: MethodConfig, mean: torch.Tensor) -> None:
        super().__init__(config)
        self.register_buffer("mean", mean)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, None]:
        return (batch.mean((1, 2, 3)) - self.mean).abs(), None


class DarkMethod(Method[MethodConfig]):
    name, title, Config, trained = "dark", "Dark", MethodConfig, True

    def learn(self, fitting: Fitting) -> Dark:
        (batch,) = (batch for _, batch in fitting.images.batches(self.config.transform, 100))
        return Dark(self.config, batch.mean())


def test_a_method_that_must_be_trained_again_says_how() -> None:
    config = MethodConfig.model_validate({"batch_size": 3, "transform": {"size": [32, 32]}})
    inspector = train_inspector(GOOD, DarkMethod(config), rate=0.1, seed=4)
    with pytest.raises(ConfigError) as refused:
        propose_update(inspector, NEW)
    assert "andon train DIR --method dark --seed 4" in str(refused.value)
    assert "--set 'transform.size=[32, 32]' --set batch_size=3 --out FILE" in str(refused.value)
    found = propose_update(inspector, NEW, recalibrate=True)
    assert found.inspector.detector is inspector.detector
    assert len(found.inspector.calibration) == 30
    assert not len(found.inspector.calibration.map_maxima)
    assert found.sentences()[0] == "10 good images scored, not learned; 0 left out"


def test_versions_of_images_are_not_guessed(thumbnails: Inspector) -> None:
    detector = thumbnails.detector.method.fit(Images(GOOD[:5]))
    with pytest.raises(ConfigError, match="does not say how many images"):
        propose_update(replace(thumbnails, detector=detector), NEW)


# The file and its versions


def test_the_chain_is_in_the_file(file: Path, thumbnails: Inspector) -> None:
    first = InspectorFile.read(file)
    assert first.fingerprint == thumbnails.file().fingerprint
    assert '"updates"' not in first.content.model_dump_json()  # as before there were updates: fingerprints stay
    kept = accept_update(file, propose_update(load_inspector(file), NEW[:4]))
    assert kept == file.with_name("part.andon.versions") / f"0001-{first.fingerprint}.andon"
    second = InspectorFile.read(file)
    accept_update(file, propose_update(load_inspector(file), NEW[4:]))
    updates = InspectorFile.read(file).content.provenance.updates
    assert [update.parent for update in updates] == [first.fingerprint, second.fingerprint]
    assert [len(update.images) for update in updates] == [4, 6]
    assert updates[0].images[0].fingerprint == Images(NEW).fingerprint(0)
    assert all(update.learned and update.at for update in updates)
    assert [version.fingerprint for version in earlier_versions(file)] == [first.fingerprint, second.fingerprint]


def test_going_back_is_byte_for_byte(file: Path) -> None:
    first = file.read_bytes()
    accept_update(file, propose_update(load_inspector(file), NEW))
    second = file.read_bytes()
    # A threshold that was moved since then does not break the chain.
    moved = load_inspector(file).moved(rate=0.3)
    moved.save(file)
    third = file.read_bytes()
    assert roll_back(file).path.read_bytes() == file.read_bytes() == first
    assert [v.path.read_bytes() for v in earlier_versions(file)] == [first, third]
    assert roll_back(file, moved.file().fingerprint).number == 2
    assert file.read_bytes() == third != second
    assert roll_back(file).number == 1
    assert len(earlier_versions(file)) == 2  # what is kept already is not kept twice
    with pytest.raises(DetectorError, match="was never updated"):
        roll_back(file)
    with pytest.raises(DetectorError, match="no version 0123456789ab is kept"):
        roll_back(file, "0123456789ab")


def test_a_file_that_changed_meanwhile_is_not_overwritten(file: Path) -> None:
    proposal = propose_update(load_inspector(file), NEW)
    load_inspector(file).moved(rate=0.3).save(file)
    before = file.read_bytes()
    with pytest.raises(DetectorError, match="propose it again"):
        accept_update(file, proposal)
    assert file.read_bytes() == before
    assert not earlier_versions(file)


def test_a_damaged_version_is_not_put_back(file: Path) -> None:
    kept = accept_update(file, propose_update(load_inspector(file), NEW))
    present = file.read_bytes()
    kept.write_bytes(kept.read_bytes()[:-5])
    with pytest.raises(DetectorError, match="damaged"):
        roll_back(file)
    kept.write_bytes(present)
    with pytest.raises(DetectorError, match="not that of its name"):
        roll_back(file)
    assert file.read_bytes() == present


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupt_between_two_writes_loses_nothing(at: int, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, proposal = file.read_bytes(), propose_update(load_inspector(file), NEW)
    replaced, count = Path.replace, 0

    def cut(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        accept_update(file, proposal)
    monkeypatch.undo()
    assert file.read_bytes() == first
    assert not list(file.parent.glob(".*"))
    accept_update(file, proposal)
    assert [version.path.read_bytes() for version in earlier_versions(file)] == [first]


_LOOP = """
import sys
from andon.inspection import accept_update, load_inspector, propose_update, roll_back
from tests.inspection.test_updating import NEW
path = sys.argv[1]
proposal = propose_update(load_inspector(path), NEW)
print(proposal.inspector.file().fingerprint, flush=True)
while True:
    accept_update(path, proposal)
    roll_back(path)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
@pytest.mark.parametrize("delay", [0.01, 0.14, 0.38])
def test_killed_at_any_moment_it_is_the_old_or_the_new_file(delay: float, file: Path) -> None:
    first = file.read_bytes()
    old = InspectorFile.read(file).fingerprint
    with subprocess.Popen(
        [sys.executable, "-c", _LOOP, str(file)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        new = process.stdout.readline().strip()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    present = InspectorFile.read(file).fingerprint
    assert present in (old, new)
    versions = {version.fingerprint: version.path.read_bytes() for version in earlier_versions(file)}
    if present == new:
        assert versions[old] == first
        assert roll_back(file).fingerprint == old
    assert file.read_bytes() == first
