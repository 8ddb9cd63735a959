"""Training an inspector, its verdicts, results and explanations."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from andon.core import ConfigError, DataError, TrainingError
from andon.data import Images
from andon.inspection import (
    Frame,
    Inspector,
    ResultFiles,
    explain,
    find_inputs,
    frames,
    inspect_all,
    overlay_image,
    train_inspector,
    watched,
)
from andon.inspection.overlay import heat
from tests.inspection.parts import SIZE, SMALL, TEST_METHODS, part, save_parts


@pytest.fixture(scope="module")
def thumbnails() -> Inspector:
    return train_inspector([part(seed) for seed in range(20)], "thumbnail-nn")


@pytest.mark.parametrize("name", TEST_METHODS)
def test_good_parts_pass_and_bad_ones_stop(name: str) -> None:
    inspector = train_inspector([part(seed) for seed in range(20)], name, config=SMALL[name], rate=0.1, look=0.2)
    assert inspector.thresholds.look < inspector.thresholds.stop
    good = [inspector.inspect(part(seed)) for seed in range(100, 112)]
    assert sum(v.verdict == "stop" for v in good) <= 4
    bad = inspector.inspect(part(200, defect=True))
    assert bad.verdict == "stop"
    assert bad.p_value == 1 / 21
    assert bad.area > 0
    box = bad.boxes[0]
    assert box.x <= 190 / 4 <= box.x + box.width
    assert box.y <= 110 / 4 <= box.y + box.height
    for verdict in (*good, bad):
        assert verdict.p_value == inspector.calibration.p_value(verdict.score)
        assert verdict.verdict == inspector.thresholds.decide(verdict.score)


def test_so_few_images_promise_what_they_can() -> None:
    images = [part(seed) for seed in range(12)]
    with pytest.raises(ConfigError, match=r"12 good images cannot promise less than 1/13 .*99 would do"):
        train_inspector(images, "thumbnail-nn", rate=0.01)
    inspector = train_inspector(images, "thumbnail-nn")
    assert inspector.thresholds.stop == inspector.calibration.scores.max()
    assert "0 of your 12 good parts would have stopped (between 0 % and 26 %" in inspector.promise()[0]
    with pytest.raises(TrainingError, match="too few"):
        train_inspector(images[:2], "thumbnail-nn")


def test_thresholds_move_without_training(thumbnails: Inspector) -> None:
    moved = thumbnails.moved(rate=0.2, look=0.4)
    scores = np.sort(thumbnails.calibration.scores)
    assert (moved.thresholds.look, moved.thresholds.stop) == (scores[-8], scores[-4])
    assert moved.detector is thumbnails.detector
    assert thumbnails.with_thresholds(0.0, 1e9).inspect(part(300, defect=True)).verdict == "look"


def test_another_day_stands_beside(thumbnails: Inspector) -> None:
    darker = Images([(part(seed) * 0.5).astype(np.uint8)[::-1].copy() for seed in range(400, 405)])
    inspector = thumbnails.with_second_day("tuesday", darker)
    assert inspector.thresholds == thumbnails.thresholds
    assert inspector.second_day is not None
    assert len(inspector.second_day.scores) == 5
    assert (
        "another day (tuesday): at this threshold 5 of its 5 good parts would have stopped" in inspector.promise()[-1]
    )


def test_a_dead_camera_never_passes(thumbnails: Inspector) -> None:
    regions = train_inspector([part(seed) for seed in range(12)], "thumbnail-nn", roi="20,10,40,40")
    for inspector in (thumbnails, regions):
        verdict = inspector.with_thresholds(1e9, 1e9).inspect(np.zeros((*SIZE, 3), np.uint8))
        assert verdict.verdict == "stop"
        assert "one colour" in verdict.reason


def test_an_image_of_another_shape_is_refused(thumbnails: Inspector) -> None:
    with pytest.raises(DataError, match="50 × 72 pixels, another shape than the training images' 96 × 72"):
        thumbnails.inspect(part(0)[:, :50].copy())
    assert thumbnails.inspect(part(0).repeat(2, 0).repeat(2, 1)).size == (144, 192)


def test_images_of_several_sizes_need_no_regions() -> None:
    images = [*(part(seed) for seed in range(4)), part(5)[:60].copy()]
    assert train_inspector(images, "thumbnail-nn").provenance.size is None
    with pytest.raises(ConfigError, match="of several sizes"):
        train_inspector(images, "thumbnail-nn", roi="1,1,20,20")
    with pytest.raises(DataError, match="of several sizes"):
        train_inspector(images, "thumbnail-nn", align=True)


def test_the_scale_is_anchored_at_the_threshold() -> None:
    values = np.asarray([[1.0, 3.0, 5.0, 7.0, 9.0, 99.0]], np.float32)
    assert heat(values, 3.0, 7.0).tolist() == [[0.0, 0.0, 0.5, 1.0, 1.5, 2.0]]
    assert heat(values, 7.0, 7.0).tolist() == [[0.0, 0.0, 0.0, 0.0, 2.0, 2.0]]


def test_good_parts_do_not_look_red() -> None:
    inspector = train_inspector([part(seed) for seed in range(20)], "padim", config=SMALL["padim"])
    changes = {}
    for what, image in (("good", part(100)), ("bad", part(200, defect=True))):
        drawn = overlay_image(inspector, inspector.inspect(image), image)
        assert drawn.shape == (SIZE[0] + 22, 160, 3)
        changes[what] = np.abs(drawn[22:, : SIZE[1]].astype(int) - image)
    assert changes["good"].mean() < 12
    assert changes["bad"][20:36, 40:56].mean() > 3 * changes["good"][20:36, 40:56].mean()


def test_results_are_written_as_they_come(thumbnails: Inspector, tmp_path: Path) -> None:
    save_parts(tmp_path / "in", range(100, 102))
    save_parts(tmp_path / "in" / "bad", range(200, 201), defect=True)
    (tmp_path / "in" / "broken.png").write_bytes(b"nothing")
    with ResultFiles(tmp_path / "out", thumbnails) as files:
        for result in inspect_all(thumbnails, find_inputs([str(tmp_path / "in")])):
            files.add(result)
    assert files.counts["error"] == 1
    assert files.exit_code == 2
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [line["image"] for line in lines]
    by_name = {Path(row["image"]).name: row for row in rows}
    assert by_name["0200.png"]["verdict"] == "stop"
    assert "not an image" in by_name["broken.png"]["reason"]
    scored = {Path(line["image"]).name: line["score"] for line in lines if "score" in line}
    for name, path in (("0100.png", "in/0100.png"), ("0200.png", "in/bad/0200.png")):
        assert scored[name] == thumbnails.inspect(tmp_path / path).score
        assert (tmp_path / "out" / by_name[name]["overlay"]).is_file()


def test_exit_codes(thumbnails: Inspector, tmp_path: Path) -> None:
    expected = {(): 0, ("pass",): 0, ("pass", "look"): 1, ("stop",): 1, ("part not found",): 1, ("pass", "error"): 2}
    for verdicts, code in expected.items():
        files = ResultFiles(tmp_path, thumbnails)
        files.counts.update(verdicts)
        assert files.exit_code == code


def test_inputs_are_found_in_natural_order(tmp_path: Path) -> None:
    save_parts(tmp_path / "b", range(2))
    for name in ("img10.png", "img2.png"):
        (tmp_path / name).write_bytes(b"")
    for name in ("notes.txt", "._img2.png", "Thumbs.db"):  # a system's litter is no image
        (tmp_path / name).write_text("")
    found = [Path(f.name).relative_to(tmp_path).as_posix() for f in find_inputs([str(tmp_path)])]
    assert found == ["img2.png", "img10.png", "b/0000.png", "b/0001.png"]
    assert len(list(find_inputs([str(tmp_path / "img*.png"), str(tmp_path / "img2.png")]))) == 2
    (tmp_path / "none").mkdir()
    for name, match in (("none", "no images"), ("x*.png", "no such image")):
        with pytest.raises(DataError, match=match):
            find_inputs([str(tmp_path / name)])


def test_a_watched_folder_gives_each_new_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_parts(tmp_path, range(1))
    looks: list[int] = []
    clock = iter(range(1000))
    monkeypatch.setattr("andon.inspection.sources.time.monotonic", lambda: float(next(clock)))

    def sleep(_: float) -> None:
        looks.append(1)
        if len(looks) == 1:
            save_parts(tmp_path, range(5, 7))

    found = [f.name for f in watched(tmp_path, sleep=sleep, stop=lambda: len(looks) > 6)]
    assert [Path(name).name for name in found] == ["0005.png", "0006.png"]
    with pytest.raises(DataError, match="no such folder"):
        next(watched(tmp_path / "none"))


def test_frames_of_a_video(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (SIZE[1], SIZE[0]))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for seed in range(4):
        writer.write(part(seed)[..., ::-1].copy())
    writer.release()
    found = list(frames(str(tmp_path / "v.avi"), every=2))
    assert [f.name.rpartition("#")[2] for f in found] == ["0", "2"]
    assert isinstance(found[0].image, np.ndarray)
    assert np.abs(found[0].image.astype(int) - part(0)).mean() < 12  # RGB, but for the compression
    with pytest.raises(DataError, match="cannot be opened"):
        next(frames(str(tmp_path / "none.avi")))


def test_memories_know_where_they_are_from() -> None:
    images = [part(seed) for seed in range(6)]
    inspector = train_inspector(images, "patchcore", config=SMALL["patchcore"] | {"coreset": "none"})
    assert inspector.origins is not None
    np.testing.assert_array_equal(inspector.origins, np.arange(6 * 16 * 16))
    found = explain(inspector, images[3])
    assert found.nearest_images[0] == ("image 3", 256)
    bad = explain(inspector, part(200, defect=True))
    strangest = bad.patches[0]
    assert np.hypot(strangest.x - 190 / 4, strangest.y - 110 / 4) < 10
    assert sum(count for _, count in bad.nearest_images) <= 256
    assert strangest.distance == max(patch.distance for patch in bad.patches)


def test_nearest_thumbnails_are_explained(thumbnails: Inspector) -> None:
    found = explain(thumbnails, part(7))
    assert found.nearest_images == (("image 7", 48 * 48),)


def test_without_a_memory_the_places_are_shown() -> None:
    inspector = train_inspector([part(seed) for seed in range(12)], "padim", config=SMALL["padim"])
    found = explain(inspector, part(200, defect=True))
    assert found.patches == ()
    assert found.places
    assert found.places[0].peak == max(box.peak for box in found.verdict.boxes)


def test_arrays_are_inspected_like_files(thumbnails: Inspector, tmp_path: Path) -> None:
    (path,) = save_parts(tmp_path, range(100, 101))
    by_file, by_array = (thumbnails.inspect(image) for image in (path, part(100)))
    assert by_file.score == by_array.score
    assert [r.verdict is not None for r in inspect_all(thumbnails, [Frame("a", part(1))])] == [True]
