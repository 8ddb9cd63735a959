"""Where the part is: known turns and shifts come back, and what is no part is not found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.core import ConfigError, DataError
from andon.data import Images
from andon.inspection import Alignment, train_inspector
from andon.inspection.alignment import aligned_samples, make_alignment
from tests.inspection.parts import SIZE, SMALL, part

BOX = (22, 17, 52, 38)
MOVES = [(0.0, (0.0, 0.0)), (5.0, (2.0, -1.5)), (-11.0, (-3.25, 2.0)), (14.0, (0.5, 3.0))]


def expected_place(point: tuple[float, float], angle: float, shift: tuple[float, float]) -> np.ndarray:
    """Where a point of the upright part is: turned counter-clockwise (y points down) about the middle, then shifted."""
    height, width = SIZE
    middle = np.asarray([(width - 1) / 2, (height - 1) / 2])
    a = np.radians(angle)
    turn = np.asarray([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    return turn @ (np.asarray(point) - middle) + middle + shift


@pytest.mark.parametrize(("angle", "shift"), MOVES)
def test_known_moves_come_back_to_a_fraction_of_a_pixel(angle: float, shift: tuple[float, float]) -> None:
    alignment = Alignment(part(0), BOX)
    located = alignment.locate(part(1, angle=angle, shift=shift))
    assert alignment.found(located)
    assert located.angle == pytest.approx(angle, abs=0.1)
    for point in ((25.0, 20.0), (70.0, 50.0), (48.0, 36.0)):
        found = located.matrix @ [*point, 1]
        assert np.abs(found - expected_place(point, angle, shift)).max() < 0.1


def test_what_is_warped_looks_like_the_reference() -> None:
    alignment, moved = Alignment(part(0), BOX), part(1, angle=9, shift=(2.5, -2))
    frame = alignment.warp(moved, alignment.locate(moved)).astype(float)
    inner = slice(20, 52), slice(26, 70)
    before, after = (np.abs(x[inner] - part(0)[inner].astype(float)).mean() for x in (moved.astype(float), frame))
    assert after < 8 < before


def test_large_images_are_located_on_small_copies() -> None:
    def large(image: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize((SIZE[1] * 8, SIZE[0] * 8), Image.Resampling.BILINEAR))

    alignment = Alignment(large(part(0)), tuple(8 * v for v in BOX))  # type: ignore[arg-type]
    located = alignment.locate(large(part(1, angle=6, shift=(2, 1))))
    found = located.matrix @ [8 * 30 + 3.5, 8 * 30 + 3.5, 1]
    assert np.abs(found - (8 * expected_place((30, 30), 6, (2, 1)) + 3.5)).max() < 2.5


def test_no_part_is_not_found() -> None:
    alignment, _ = make_alignment(Images([part(seed) for seed in range(4)]), BOX)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    empty = (np.full((*SIZE, 3), 90) + rng.normal(0, 4, (*SIZE, 3))).astype(np.uint8)
    for image in (noise, empty, np.zeros((*SIZE, 3), np.uint8), part(1)[::-1].copy()):
        assert not alignment.found(alignment.locate(image))
    assert alignment.found(alignment.locate(part(9, defect=True)))  # a defect is not for the alignment to judge


def test_it_is_a_verdict_of_its_own(tmp_path: Path) -> None:
    images = [part(seed, angle=(seed % 5) * 3 - 6, shift=(seed % 3 - 1, 0)) for seed in range(9)]
    inspector = train_inspector(images, "thumbnail-nn", align=BOX)
    lost = inspector.inspect(np.full((*SIZE, 3), 90, np.uint8))
    assert lost.verdict == "part not found"
    assert np.isnan(lost.score)
    assert "correlation" in lost.reason
    assert inspector.inspect(part(77, angle=8, shift=(1, 1))).verdict != "part not found"
    assert inspector.inspect(part(78, angle=4, defect=True)).verdict == "stop"


def test_moved_parts_score_like_parts_that_did_not_move() -> None:
    upright = train_inspector([part(seed) for seed in range(8)], "thumbnail-nn", config=SMALL["thumbnail-nn"])
    aligned = train_inspector([part(seed) for seed in range(8)], "thumbnail-nn", align=BOX)
    moved = part(60, angle=7, shift=(2, 2))
    assert upright.inspect(moved).score > 2 * upright.thresholds.stop
    assert aligned.inspect(moved).score < 1.6 * aligned.thresholds.stop


def test_files_are_aligned_when_they_are_read(tmp_path: Path) -> None:
    paths = []
    for seed, (angle, shift) in enumerate(MOVES):
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(part(seed, angle=angle, shift=shift)).save(paths[-1])
    images = Images(paths)
    plain = [images.fingerprint(i) for i in range(len(images))]
    alignment, located = make_alignment(images, BOX)
    aligned = aligned_samples(images, alignment, located)
    for index in range(1, len(paths)):
        np.testing.assert_array_equal(aligned.image(index), alignment.warp(images.image(index), located[index]))
        assert aligned.fingerprint(index) != plain[index]  # no cache takes one for the other


def test_what_cannot_be_aligned_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image 1: the part of image 0 is not found"):
        make_alignment(Images([part(0), np.full((*SIZE, 3), 9, np.uint8)]), BOX)
    with pytest.raises(DataError, match="image 1: the image is 50 × 40"):
        make_alignment(Images([part(0), np.zeros((40, 50, 3), np.uint8)]), BOX)
    with pytest.raises(ConfigError, match="not in the reference"):
        Alignment(part(0), (0, 0, 500, 10))
    with pytest.raises(ConfigError, match="not within 0 to 180"):
        Alignment(part(0), BOX, rotation=200)
