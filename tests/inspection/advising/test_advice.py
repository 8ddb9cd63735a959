"""``advise`` as a whole: scores of images that were not seen, costs, the choice, and what it says of the images."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from andon.core import ConfigError, DataError
from andon.data import Images
from andon.inspection import Advice, advise, blocks, parse_candidate
from andon.inspection.advising import advice as room
from andon.inspection.advising.candidates import Content
from andon.inspection.advising.measuring import BLOCKS, OverBudgetError, make_trial, measure
from andon.methods import create_method
from tests.inspection.parts import part

GOOD = [part(i) for i in range(14)]
BAD = [part(100 + i, defect=True) for i in range(9)]
WHOLE = Content(0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def advice() -> Advice:
    return advise(GOOD, BAD, candidates=[parse_candidate("thumbnail-nn")], seed=3)


def _without_costs(found: Any) -> Any:
    if isinstance(found, dict):
        return {k: _without_costs(v) for k, v in found.items() if k not in ("costs", "seconds", "notes")}
    return [_without_costs(v) for v in found] if isinstance(found, list) else found


def test_all_of_it_is_there_and_is_json(advice: Advice) -> None:
    found = json.loads(json.dumps(advice.as_dict(), allow_nan=False))
    assert [row["candidate"] for row in found["candidates"]] == ["patchcore", "thumbnail-nn"]
    assert found["images"] == {
        "good": 14,
        "measured_on": 14,
        "defective": 9,
        "synthetic": 42,
        "content_box": advice.content._asdict(),
    }
    names = [figure["name"] for figure in found["character"]]
    assert len(names) == len(set(names)) == 10
    for row in found["candidates"]:
        assert len(row["scores_good"]) == 14
        assert len(row["scores_synthetic"]) == 42
        assert len(row["scores_real"]) == 9
        assert set(row["auroc_synthetic_by_kind"]) == {defect["kind"] for defect in found["synthetic_defects"]}
        assert row["costs"]["file_bytes"] > 1000
        assert row["costs"]["milliseconds"] > 0
    assert found["recommended"]["candidate"] == "patchcore"
    assert found["recommended"]["arguments"] == ""


def test_the_same_seed_gives_the_same(advice: Advice) -> None:
    again = advise(GOOD, BAD, candidates=[parse_candidate("thumbnail-nn")], seed=3)
    assert _without_costs(again.as_dict()) == _without_costs(advice.as_dict())


def test_scores_are_of_detectors_that_did_not_see_the_image_nor_its_defects(tmp_path: Path) -> None:
    trial = make_trial(GOOD, BAD, 0)
    found = measure(parse_candidate("thumbnail-nn"), WHOLE, trial, tmp_path, progress=lambda *_: None)
    assert found.real is not None
    for block in blocks(len(GOOD), BLOCKS):
        others = create_method("thumbnail-nn").fit([GOOD[i] for i in range(len(GOOD)) if i not in block])
        np.testing.assert_allclose(found.good[block], others.predict([GOOD[i] for i in block]).image_scores)
        mine = np.flatnonzero(np.isin(trial.base, block))
        pasted = others.predict([trial.synthetic[j].image for j in mine]).image_scores
        np.testing.assert_allclose(found.synthetic[mine], pasted)
        for i in block:
            np.testing.assert_allclose(found.real[i], others.predict(BAD).image_scores)


def test_every_kind_of_defect_takes_its_turn() -> None:
    trial = make_trial(GOOD, (), 1)
    assert len(trial.synthetic) == 42
    assert np.bincount(trial.base).tolist() == [3] * 14
    kinds = [defect.kind for defect in trial.synthetic]
    assert {kinds.count(kind) for kind in set(kinds)} <= {5, 6, 7}
    assert len(set(kinds)) == 7


def test_what_so_many_images_can_promise(advice: Advice) -> None:
    assert advice.notes[0] == "14 good images can promise a false-alarm rate down to 6.7 %; 1 % needs 99"
    assert "drift" in advice.notes[1]


def test_real_defects_choose_what_alone_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # A grey patch in white noise is nearer to every thumbnail than noise is; patches of noise are far from it.
    monkeypatch.setattr(room, "DEFAULT", parse_candidate("thumbnail-nn"))
    noise = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8) for i in range(30)]
    for image in noise[20:]:
        image[20:36, 20:36] = 128
    patchcore = parse_candidate("patchcore@64")
    found = advise(noise[:20], noise[20:], candidates=[patchcore])
    assert (found.candidate, found.choice.changed, found.evidence.kind) == (patchcore, True, "real")
    few = advise(noise[:20], noise[20:27], candidates=[patchcore])
    assert (few.candidate.label, few.choice.best) == ("thumbnail-nn", "patchcore@64")
    assert few.choice.reasons[0].startswith("7 real defects are too few")
    assert found.worth_trying is None, "what is chosen needs no hint"


def test_what_synthetic_defects_point_to_is_worth_trying_but_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    # Thumbnails of noise see nothing of what is pasted into it.
    monkeypatch.setattr(room, "DEFAULT", parse_candidate("thumbnail-nn"))
    rng = np.random.default_rng(0)
    ground = np.full((96, 96, 3), 120.0)
    shots = [(ground + 60 * (i % 2) + rng.normal(0, 3, ground.shape)).astype(np.uint8) for i in range(40)]
    for image in shots:
        image[40:60, 40:60] = rng.integers(0, 2) * 200
    found = advise(shots, candidates=[parse_candidate("patchcore@128")])
    assert found.candidate.label == "thumbnail-nn"
    hinted = found.choice.margins["patchcore@128"].low > 0
    assert (found.worth_trying is not None) == hinted
    assert hinted, "Patchcore finds more of what is pasted into a bare scene than thumbnails do"
    assert found.arguments(found.worth_trying).startswith("--set 'transform.size=[128,128]'")
    assert found.arguments() == "--method thumbnail-nn"


def test_what_is_not_done_when_the_time_is_up_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "DEFAULT", parse_candidate("thumbnail-nn"))
    found = advise(GOOD, candidates=[parse_candidate("padim")], budget=1e-9)
    assert [m.candidate.label for m in found.measured] == ["thumbnail-nn"]
    assert found.skipped == (("padim", "was not begun when the time was up"),)


def test_a_fit_is_ended_when_the_time_is_up(tmp_path: Path) -> None:
    trial = make_trial(GOOD, (), 0)
    with pytest.raises(OverBudgetError, match="was not done"):
        measure(
            parse_candidate("thumbnail-nn"),
            WHOLE,
            trial,
            tmp_path,
            deadline=time.monotonic() - 1,
            progress=lambda *_: None,
        )


def test_a_training_that_would_take_too_long_is_not_begun(tmp_path: Path) -> None:
    trial = make_trial(GOOD, (), 0)
    with pytest.raises(OverBudgetError, match="minutes for 6 trainings"):
        measure(
            parse_candidate("cflow@64"),
            WHOLE,
            trial,
            tmp_path,
            deadline=time.monotonic() + 0.5,
            progress=lambda *_: None,
        )


def test_a_candidate_that_cannot_be_fitted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "DEFAULT", parse_candidate("thumbnail-nn"))
    whole = room.measure

    def measured(candidate: Any, *args: Any, **options: Any) -> Any:
        if candidate.label == "padim":
            raise DataError("its weights are not there")
        return whole(candidate, *args, **options)

    monkeypatch.setattr(room, "measure", measured)
    found = advise(GOOD, candidates=[parse_candidate("padim"), parse_candidate("thumbnail-nn@64")])
    assert found.skipped == (("padim", "its weights are not there"),)
    assert [m.candidate.label for m in found.measured] == ["thumbnail-nn", "thumbnail-nn@64"]


def test_of_many_images_some_are_drawn_in_their_order() -> None:
    images = Images([np.full((16, 16, 3), i, np.uint8) for i in range(250)])
    drawn = room.drawn_images(images, 100, 0, "good")
    values = [int(drawn.image(i)[0, 0, 0]) for i in range(100)]
    assert values == sorted(set(values))
    again = room.drawn_images(images, 100, 0, "good")
    assert [int(again.image(i)[0, 0, 0]) for i in range(100)] == values
    assert room.drawn_images(images, 250, 0, "good") is images


def test_large_images_are_made_smaller_before_defects_are_pasted() -> None:
    found, sizes = room.read_images(Images([np.zeros((600, 2048, 3), np.uint8)]), 1024, lambda *_: None, "")
    assert found[0].shape == (300, 1024, 3)
    assert sizes == [(600, 2048)]


def test_too_few_or_too_small_images() -> None:
    with pytest.raises(DataError, match="9 good images are too few to advise on; 10 are the least"):
        advise(GOOD[:9])
    with pytest.raises(DataError, match="12 × 12 pixels are too few"):
        advise([np.zeros((12, 12, 3), np.uint8)] * 10)
    with pytest.raises(ConfigError, match="budget 0"):
        advise(GOOD, budget=0)
