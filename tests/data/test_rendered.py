"""Rendered images, and folders that take their place."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.core import AndonError
from andon.data.rendered import FolderImages, RenderedImages, image_source, rendered_image


def test_an_image_is_a_function_of_seed_index_and_size() -> None:
    first = rendered_image(1, 2, 64)
    assert first.dtype == np.uint8
    assert first.shape == (64, 64, 3)
    rendered_image(9, 9, 64)
    np.testing.assert_array_equal(rendered_image(1, 2, 64), first)
    assert not np.array_equal(rendered_image(1, 3, 64), first)
    assert not np.array_equal(rendered_image(2, 2, 64), first)


def test_images_differ_and_are_not_flat() -> None:
    small = np.stack([rendered_image(0, index, 48) for index in range(60)]).astype(float)
    assert np.median(small.std(axis=(1, 2)).mean(axis=1)) > 15, "most have contrast"
    means = small.mean(axis=(1, 2))
    assert means.std(axis=0).min() > 25, "colours vary from image to image"
    flat = (small - means[:, None, None]).reshape(60, -1)
    correlation = np.corrcoef(flat)[np.triu_indices(60, 1)]
    assert np.abs(correlation).mean() < 0.2, "no common layout"


@pytest.mark.parametrize("size", [16, 33, 250])
def test_any_size(size: int) -> None:
    for index in range(12):
        assert rendered_image(5, index, size).shape == (size, size, 3)


def test_spectrum_falls_as_natural_ones_do() -> None:
    window = np.hanning(128)[:, None] * np.hanning(128)
    power = np.zeros((128, 65))
    for index in range(40):
        grey = rendered_image(3, index, 128).mean(axis=2)
        power += np.abs(np.fft.rfft2((grey - grey.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
    bands = np.array([power[(radius >= r) & (radius < 2 * r)].mean() for r in (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)])
    slopes = np.diff(np.log2(bands))
    # Power 1/f² falls by 2 an octave; natural images lie between about 1.2 and 3.2.
    assert -3.5 < slopes.mean() < -1


def test_sources() -> None:
    source = image_source("rendered:4")
    assert source == RenderedImages(4)
    assert source.count is None
    assert source.name == "rendered, seed 4"
    assert image_source("rendered") == RenderedImages(0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).image(7, 32), rendered_image(4, 7, 32))
    with pytest.raises(AndonError, match=r"images 'rendered:x': the seed must be a whole number"):
        image_source("rendered:x")


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name, tone in (("2.png", 2), ("10.png", 10), ("b/1.jpg", 100), ("b/deep/0.png", 200)):
        Image.new("RGB", (40, 30), (tone, tone, tone)).save(tmp_path / name, quality=95)
    (tmp_path / "notes.txt").write_text("no image")
    source = image_source(tmp_path)
    assert isinstance(source, FolderImages)
    assert source.count == 4
    assert source.name == f"folder {tmp_path.name}, 4 images"
    tones = [int(source.image(index, 16)[0, 0, 0]) for index in range(6)]
    assert np.abs(np.array(tones) - [2, 10, 100, 200, 2, 10]).max() <= 2
    assert source.image(0, 16).shape == (16, 16, 3)


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(AndonError, match="there is no such folder of images"):
        image_source(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AndonError, match="no images in it or below"):
        image_source(tmp_path / "empty")
    (tmp_path / "empty" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(AndonError, match=r"broken\.png"):
        image_source(tmp_path / "empty").image(0, 16)
