from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import andon.data.window as window_module
from andon.core import Category, DataError
from andon.data import ArrayCache, Images, Transform, Window, category_fingerprint, load_dataset, placed, windowed
from andon.data import windowed_fingerprint as fingerprint_of
from andon.data.matching import Template, grey_of

SIDES = (150, 210)
PART = np.random.default_rng(9).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def scene(top: int, left: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Smooth clutter with the part at a place."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(80, 170, (6, 8, 3), dtype=np.uint8))
    image = np.array(small.resize(SIDES[::-1], Image.Resampling.BICUBIC))
    image[top : top + 40, left : left + 30] = PART
    return image


PLACES = {"train/good/000": (55, 90), "train/good/001": (20, 10), "test/good/000": (100, 170), "test/bad/000": (3, 141)}


@pytest.fixture(scope="module")
def category(tmp_path_factory: pytest.TempPathFactory) -> Category:
    """AutoVI's layout; the defect's mask covers 10 × 6 pixels of the part, a second one lies outside of it."""
    root = tmp_path_factory.mktemp("line") / "bolt"
    for number, (name, place) in enumerate(PLACES.items()):
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(*place, number)).save(path)
    (top, left), truth = PLACES["test/bad/000"], root / "ground_truth/bad/000"
    truth.mkdir(parents=True)
    inside, outside = np.zeros((2, *SIDES), np.uint8)
    inside[top + 5 : top + 15, left + 2 : left + 8] = 255
    outside[top + 100 : top + 110, :40] = 255
    for name, mask in (("a", inside), ("b", outside)):
        Image.fromarray(mask).save(truth / f"{name}.png")
    entry = {"defect_name": "bad", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True}
    (root / "defects_config.json").write_text(json.dumps([entry]))
    return load_dataset(root.parent, layout="autovi")["bolt"]


TEMPLATE = Window(size=(40, 30), place="template", centre=(55 + 20, 90 + 15))


def test_a_template_window_follows_the_part_in_images_and_masks(category: Category) -> None:
    found = windowed(category, TEMPLATE)
    assert [s.id for s in found.samples] == [s.id for s in category.samples]
    for sample in found.samples:
        np.testing.assert_array_equal(sample.image(), PART, err_msg=sample.id)
        assert sample.size() == (40, 30)
    (bad,) = [s for s in found.samples if s.is_defective]
    truth = bad.ground_truth()
    assert truth is not None
    assert truth.size == (40, 30)
    (channel,) = truth.channels  # the other one lies outside
    rows, columns = np.nonzero(channel.mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 14, 2, 7)
    assert channel.saturation == 30  # half of the 60 pixels


def test_a_region_that_the_window_cuts_saturates_at_the_part_that_is_left(category: Category) -> None:
    (top, left) = PLACES["test/bad/000"]
    # Its middle so that 4 of the 6 columns of the mask are inside.
    cut = Window(size=(40, 30), centre=(top + 20, left + 4 + 15))
    (bad,) = [s for s in windowed(category, cut).samples if s.is_defective]
    truth = bad.ground_truth()
    assert truth is not None
    assert (int(truth.channels[0].mask.sum()), truth.channels[0].saturation) == (40, 20)


@given(st.integers(0, SIDES[0] - 40), st.integers(0, SIDES[1] - 30), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_part_is_found_wherever_it_is(top: int, left: int, seed: int) -> None:
    grey = grey_of(scene(top, left, seed))
    template = Template(grey_of(PART), (0, 0))
    assert template.find(grey, None)[:2] == (top, left)


def test_a_large_image_is_searched_coarsely_first_and_finds_the_same_place() -> None:
    rng = np.random.default_rng(1)
    base = Image.fromarray(rng.integers(60, 200, (130, 170), dtype=np.uint8))
    image = np.array(base.resize((2590, 1942), Image.Resampling.BICUBIC))
    part = image[901:1301, 1203:1603]
    template = Template(part, (901, 1203))
    noisy = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    moved = np.roll(noisy, (-37, 51), (0, 1))
    assert template.find(noisy, None)[:2] == (901, 1203)
    assert template.find(moved, None)[:2] == (864, 1254)
    assert template.find(moved, 100)[:2] == (864, 1254)


def test_a_search_does_not_leave_its_bounds() -> None:
    grey = grey_of(scene(100, 170, 0))
    template = Template(grey_of(PART), (55, 90))
    row, column = template.find(grey, 10)[:2]
    assert abs(row - 55) <= 10
    assert abs(column - 90) <= 10


def test_a_fixed_window_is_a_part_of_the_array(category: Category) -> None:
    for centre, corner in ((None, (55, 85)), ((30, 25), (10, 5))):
        found = windowed(category, Window(size=(40, 40), centre=centre))
        for sample, whole in zip(found.samples, category.samples, strict=True):
            part = whole.image()[corner[0] : corner[0] + 40, corner[1] : corner[1] + 40]
            np.testing.assert_array_equal(sample.image(), part)
    resized = Images([found.samples[0]]).resized(0, Transform(size=(20, 20)))
    np.testing.assert_array_equal(resized, Transform(size=(20, 20)).resize(found.samples[0].image()))


def test_no_cache_takes_a_window_for_the_image_or_another_window(tmp_path: Path, category: Category) -> None:
    cache, transform = ArrayCache(tmp_path), Transform(size=(16, 16))
    windows = [Window(size=(40, 40)), Window(size=(60, 60)), TEMPLATE]
    shown = [Images(windowed(category, w).samples, cache) for w in windows] + [Images(category.samples, cache)]
    assert len({images.fingerprint(0) for images in shown}) == 4
    first = [images.resized(0, transform).tobytes() for images in shown]
    assert len(set(first)) == 4
    fresh = [Images(windowed(category, w).samples, ArrayCache(tmp_path)).resized(0, transform) for w in windows]
    assert [image.tobytes() for image in fresh] == first[:3]


def test_places_are_found_once_and_kept(tmp_path: Path, category: Category, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ArrayCache(tmp_path)
    shown = windowed(category, TEMPLATE)
    assert placed(shown, cache) is shown
    monkeypatch.setattr(window_module, "_known", {})
    monkeypatch.setattr(Template, "find", lambda *_: pytest.fail("searched again"))
    for sample in placed(windowed(category, TEMPLATE), cache).samples:
        np.testing.assert_array_equal(sample.image(), PART)


def test_windows_are_other_data(category: Category) -> None:
    whole = category_fingerprint(category)
    prints = {fingerprint_of(whole, w) for w in (TEMPLATE, Window(size=(40, 40)), Window(size=(40, 41)))}
    assert len(prints | {whole}) == 4


@pytest.mark.parametrize("window", [Window(size=(160, 20)), Window(size=(20, 20), centre=(5, 100))])
def test_a_window_that_does_not_fit_is_refused(category: Category, window: Window) -> None:
    for place in ("fixed", "template"):
        shown = windowed(category, window.model_copy(update={"place": place}))
        with pytest.raises(DataError, match=r"window of .* does not fit|larger than the image"):
            shown.samples[0].image()


def test_a_template_of_one_colour_is_refused(tmp_path: Path) -> None:
    for split, kind in (("train", "good"), ("test", "bad")):
        path = tmp_path / "even" / split / kind / "0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((50, 50, 3), 7, np.uint8)).save(path)
    even = load_dataset(tmp_path, layout="mvtec")["even"]
    with pytest.raises(DataError, match="one colour"):
        windowed(even, Window(size=(20, 20), place="template")).samples[0].image()


def test_a_template_may_be_larger_or_smaller_than_the_window(category: Category) -> None:
    """Of PART's middle the window, found by all of PART, and all of PART by its middle."""
    centre = (55 + 20, 90 + 15)
    inner = Window(size=(10, 12), place="template", template=(40, 30), centre=centre)
    for sample in windowed(category, inner).samples:
        np.testing.assert_array_equal(sample.image(), PART[15:25, 9:21], err_msg=sample.id)
    outer = Window(size=(40, 30), place="template", template=(20, 20), centre=centre)
    for sample in windowed(category, outer).samples:
        np.testing.assert_array_equal(sample.image(), PART, err_msg=sample.id)


def test_a_window_stays_in_the_image_where_its_template_is_at_the_edge(category: Category) -> None:
    # The part of test/bad/000 begins at row 3: a window of 60 rows about it would begin at row -7.
    large = Window(size=(60, 30), place="template", template=(40, 30), centre=(55 + 20, 90 + 15))
    (bad,) = [s for s in windowed(category, large).samples if s.is_defective]
    image = bad.image()
    assert image.shape == (60, 30, 3)
    np.testing.assert_array_equal(image[3:43], PART)
    truth = bad.ground_truth()
    assert truth is not None
    assert np.nonzero(truth.channels[0].mask)[0].min() == 3 + 5


def test_a_template_larger_than_the_image_is_cut(category: Category) -> None:
    huge = Window(size=(40, 30), place="template", template=(1000, 1000), centre=(55 + 20, 90 + 15))
    first = windowed(category, huge).samples[0]
    np.testing.assert_array_equal(first.image(), PART)


@pytest.mark.parametrize("bad", [{"template": (9, 9)}, {"search": 3}, {"place": "template", "template": (2, 9)}])
def test_options_that_make_no_sense_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"place: template|8\.\.8192"):
        Window.model_validate({"size": (20, 20), **bad})
