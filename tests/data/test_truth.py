"""Masks are never counted as images, whatever they and their folders are called, in whatever case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from andon.core import Category, DataError
from andon.data.info import dataset_info
from andon.data.registry import load_dataset
from andon.data.truth import is_truth_folder

from .images import CONFIG, autovi, encode, gradient, mask, mvtec, save

TRUTH = (
    "ground_truth",
    "Ground_Truth",
    "groundtruth",
    "mask",
    "masks",
    "Masks",
    "gt",
    "GT",
    "label",
    "labels",
    "LABELS",
)
ENDINGS = ("_mask", "_Mask", "_MASK", "_gt", "_GT", "-mask", "_label", "_ground_truth", " mask", ".mask")


def folder_layout(root: Path, *, good: int = 5, defective: int = 4) -> Path:
    for i in range(good):
        save(root / f"good/g{i:03}.png", gradient(seed=i))
    for i in range(defective):
        save(root / f"scratch/{i:03}.png", gradient(seed=100 + i))
    return root


def areas(category: Category) -> list[int | None]:
    """Pixels of the mask of each defective test image; None where it has none."""
    truths = [sample.ground_truth() for sample in category.select("test", defective=True)]
    return [None if truth is None else int(truth.union().sum()) for truth in truths]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return folder_layout(tmp_path / "parts")


def read(root: Path) -> Category:
    return next(iter(load_dataset(root)))


class TestFolder:
    @pytest.mark.parametrize("truth", TRUTH)
    @pytest.mark.parametrize("place", ["{}", "{}/scratch", "{}/Scratch", "scratch/{}"])
    @pytest.mark.parametrize("ending", ["", "_mask"])
    def test_a_folder_of_masks(self, parts: Path, truth: str, place: str, ending: str) -> None:
        for i in range(4):
            save(parts / place.format(truth) / f"{i:03}{ending}.png", mask(255, i + 1))
        category = read(parts)
        assert areas(category) == [12, 24, 36, 48]
        assert category.defect_types == ("scratch",)
        assert len(category.samples) == 9
        assert dataset_info(load_dataset(parts)).count("error") == 0

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_masks_beside_their_images(self, parts: Path, ending: str) -> None:
        for i in range(4):
            save(parts / f"scratch/{i:03}{ending}.PNG", mask(255, i + 1))
        assert areas(read(parts)) == [12, 24, 36, 48]

    def test_a_word_before_the_name(self, parts: Path) -> None:
        for i in range(4):
            save(parts / f"scratch/mask_{i:03}.png", mask(255, i + 1))
        assert areas(read(parts)) == [12, 24, 36, 48]

    def test_a_folder_called_after_the_defect(self, parts: Path) -> None:
        for i in range(4):
            save(parts / f"scratch_mask/{i:03}.png", mask(255, i + 1))
        assert areas(read(parts)) == [12, 24, 36, 48]

    def test_the_defect_type_before_the_name(self, parts: Path) -> None:
        save(parts / "dent/000.png", gradient(seed=200))
        for i in range(4):
            save(parts / f"masks/Scratch_{i:03}.png", mask(255, i + 1))
        assert areas(read(parts)) == [None, 12, 24, 36, 48]

    def test_one_mask_for_two_images(self, parts: Path) -> None:
        save(parts / "dent/000.png", gradient(seed=200))
        save(parts / "masks/000.png", mask(255, 1))
        with pytest.raises(DataError, match=r"masks: 000\.png may be the mask of .*dent/000\.png, .*scratch/000\.png"):
            read(parts)

    @pytest.mark.parametrize("name", ["label", "Mask", "gt"])
    def test_a_folder_that_may_be_a_defect_type(self, parts: Path, name: str) -> None:
        for i in range(3):
            save(parts / name / f"other{i}.png", gradient(seed=300 + i))
        with pytest.raises(DataError, match=rf"{name}: is called as a folder of masks .* rename the folder"):
            read(parts)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @pytest.mark.parametrize("grey", [True, False])
    def test_photographs_that_have_the_names_of_images(self, parts: Path, kind: str, grey: bool) -> None:
        for i in range(4):
            array = gradient(40, 40, seed=300 + i)
            save(parts / f"label/{i:03}.png", array[..., 0] if grey else array, kind=kind)
        with pytest.raises(DataError, match=r"label: is called as a folder of masks"):
            read(parts)

    def test_a_mask_without_image_beside_others(self, parts: Path) -> None:
        save(parts / "scratch/000_mask.png", mask(255, 1))
        save(parts / "scratch/009_mask.png", mask(255, 1))
        with pytest.raises(DataError, match=r"scratch/009_mask\.png: is called as a mask is, but there is no image"):
            read(parts)

    def test_masks_alone_in_a_folder(self, parts: Path) -> None:
        for i in range(4):
            save(parts / f"other/{i:03}_mask.png", mask(255, 1))
        with pytest.raises(DataError, match=r"other: 000_mask\.png is called as a mask of another folder's image"):
            read(parts)

    def test_images_that_differ_in_case_have_their_own_masks(self, tmp_path: Path) -> None:
        root = folder_layout(tmp_path / "p", defective=0)
        for column, name in enumerate("aA", start=1):
            save(root / f"scratch/{name}.png", gradient(seed=column + 50))
            save(root / f"masks/scratch/{name}_MASK.png", mask(255, column))
        found = {s.path.stem: s.mask_paths[0].stem for s in read(root).select("test", defective=True)}
        assert found == {"a": "a_MASK", "A": "A_MASK"}

    def test_good_in_any_case(self, tmp_path: Path) -> None:
        for name in ("Good", "GOOD"):
            root = tmp_path / name / "p"
            for i in range(5):
                save(root / name / f"{i}.png", gradient(seed=i))
            save(root / "dent/0.png", gradient(seed=9))
            category = read(root)
            assert (len(category.train), len(category.test), category.defect_types) == (4, 2, ("dent",))

    def test_two_folders_but_for_the_case(self, parts: Path) -> None:
        save(parts / "Good/1.png")
        with pytest.raises(DataError, match=r"the same name but for the case"):
            read(parts)

    def test_good_images_with_black_masks(self, parts: Path) -> None:
        for i in range(5):
            save(parts / f"good/g{i:03}_mask.png", mask(0, 1))
        category = read(parts)
        assert len(category.train) + len(category.select("test", defective=False)) == 5
        assert [p.kind for p in dataset_info(load_dataset(parts)).problems if p.severity != "info"] == []
        save(parts / "good/g000_mask.png", mask(255, 3))
        assert next(p.kind for p in dataset_info(load_dataset(parts)).problems) == "mask-without-image"

    @pytest.mark.parametrize("masks", ["masks/000.png", "ground_truth/x/000.png", "000_mask.png"])
    def test_masks_where_all_images_are_good(self, tmp_path: Path, masks: str) -> None:
        save(tmp_path / "p/000.png")
        save(tmp_path / "p" / masks, mask(255, 1))
        with pytest.raises(DataError, match="holds masks; move the good images"):
            read(tmp_path / "p")

    @pytest.mark.parametrize(("good", "train"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (11, 9)])
    def test_a_good_image_is_left_for_the_test(self, tmp_path: Path, good: int, train: int) -> None:
        assert len(read(folder_layout(tmp_path / "p", good=good)).train) == train

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        truth=st.sampled_from(TRUTH),
        below=st.booleans(),
        ending=st.sampled_from(["", *ENDINGS]),
        names=st.lists(st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True), min_size=1, max_size=4, unique=True),
        upper=st.booleans(),
    )
    def test_as_many_defective_images_as_there_are(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        truth: str,
        below: bool,
        ending: str,
        names: list[str],
        upper: bool,
    ) -> None:
        root = tmp_path_factory.mktemp("t") / "p"
        save(root / "good/0.png")
        for number, name in enumerate(names):
            save(root / f"dent/{name}.png", gradient(seed=number))
            spelt = f"{name}{ending}".upper() if upper else f"{name}{ending}"
            save(root / truth / ("dent" if below else "") / f"{spelt}.png", mask(255, 1 + number))
        category = read(root)
        found = {s.path.stem: int(s.ground_truth().union().sum()) for s in category.test}  # type: ignore[union-attr]
        assert found == {name: 12 * (1 + number) for number, name in enumerate(names)}


class TestMVTec:
    @pytest.mark.parametrize("truth", TRUTH)
    def test_truth_folders(self, tmp_path: Path, truth: str) -> None:
        root = mvtec(tmp_path / "b")
        (root / "ground_truth").rename(root / truth)
        assert areas(read(root)) == [36, 48]

    def test_case_decides_nothing(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "b")
        for path, name in (
            ("ground_truth/crack/000_mask.png", "000_MASK.PNG"),
            ("ground_truth/crack", "CRACK"),
            ("train/good", "GOOD"),
            ("train", "Train"),
            ("test/good", "Good"),
            ("test", "TEST"),
        ):
            (root / path).rename((root / path).with_name(name))
        category = read(root)
        assert areas(category) == [36, 48]
        assert (len(category.train), len(category.select("test", defective=False))) == (3, 2)
        assert category.defect_types == ("crack",)

    @pytest.mark.parametrize("place", ["test/crack/{}_Mask.png", "test/crack/{}_gt.png", "test/crack/mask/{}.png"])
    def test_masks_among_the_images(self, tmp_path: Path, place: str) -> None:
        root = mvtec(tmp_path / "b")
        for i in range(2):
            (root / f"ground_truth/crack/{i:03}_mask.png").unlink()
            save(root / place.format(f"{i:03}"), mask(255, 1 + i))
        assert areas(read(root)) == [12, 24]

    @pytest.mark.parametrize("name", ["masks", "crack_mask", "gt"])
    def test_masks_among_the_defect_types(self, tmp_path: Path, name: str) -> None:
        root = mvtec(tmp_path / "b")
        for i in range(2):
            (root / f"ground_truth/crack/{i:03}_mask.png").rename(save(root / f"test/{name}/{i:03}.png"))
        assert areas(read(root)) == [36, 48]

    def test_masks_of_training_images_are_no_images(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "b")
        save(root / "train/good/000_mask.png", mask(0, 1))
        assert len(read(root).train) == 3

    def test_an_image_that_is_called_mask_finds_its_own(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "b")
        save(root / "test/face_mask/gas_mask.png", gradient(seed=70))
        save(root / "ground_truth/face_mask/gas_mask.png", mask(255, 7))
        assert areas(read(root)) == [36, 48, 84]


class TestAutoVI:
    def test_case_decides_nothing(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        for path, name in (
            ("defects_config.json", "Defects_Config.JSON"),
            ("ground_truth/structural", "Structural"),
            ("ground_truth", "Ground_Truth"),
            ("train/good", "Good"),
            ("test/good", "GOOD"),
            ("test", "Test"),
            ("train", "Train"),
        ):
            (root / path).rename((root / path).with_name(name))
        dataset = load_dataset(root)
        assert dataset.layout == "autovi"
        category = dataset["a"]
        assert [len(s.mask_paths) for s in category.test] == [0, 0, 2, 1]
        assert len(category.defects) == len(CONFIG)
        assert dataset_info(dataset).problems == ()

    @pytest.mark.parametrize(
        "place", ["test/masks/0000.png", "test/structural/0000_mask.png", "test/structural/gt/0.png"]
    )
    def test_masks_in_places_that_the_layout_does_not_know(self, tmp_path: Path, place: str) -> None:
        root = autovi(tmp_path / "a")
        save(root / place, mask(255, 1))
        with pytest.raises(DataError, match=r"is called as masks are; in this layout they are ground_truth/"):
            load_dataset(root)


def test_names_of_folders() -> None:
    assert all(map(is_truth_folder, (*TRUTH, "ground-truth", "Ground Truth", "annotations", "gt_masks")))
    assert not any(map(is_truth_folder, ("good", "face_mask", "masking", "labelled", "gtx", "scratch", "test")))


def test_formats_of_training_images_that_are_not_read(tmp_path: Path) -> None:
    layouts = (folder_layout(tmp_path / "f"), mvtec(tmp_path / "m"), autovi(tmp_path / "a"))
    for root, good in zip(layouts, ("good", "train/good", "train/good"), strict=True):
        (root / good / "x1.TGA").write_bytes(b"x")
        (root / good / "x2.heic").write_bytes(b"x")
        with pytest.raises(DataError, match=r"good: 2 files are of a kind that is not read, \.heic, \.tga .*\.png"):
            load_dataset(root)
        (root / good / "x1.TGA").unlink()
        (root / good / "x2.heic").rename(root / good / next((root / good).glob("*.png")).with_suffix(".dng").name)
        load_dataset(root)  # a raw image beside its readable copy


def test_formats_that_are_read(tmp_path: Path) -> None:
    import cv2

    root = folder_layout(tmp_path / "f", good=0)
    image = gradient(20, 30)
    for suffix, kind in ((".ppm", "PPM"), (".jp2", "JPEG2000")):
        save(root / f"good/a{suffix}", image, kind=kind)
    (root / "good/b.pgm").write_bytes(cv2.imencode(".pgm", image[..., 0])[1].tobytes())
    (root / "good/c.J2K").write_bytes(encode(image, "JPEG2000", no_jp2=True))
    with pytest.raises(Exception, match="same name but for the suffix"):
        load_dataset(root)
    (root / "good/a.ppm").rename(root / "good/d.ppm")
    found = {s.path.name: s.image() for s in read(root).samples if not s.is_defective}
    assert sorted(found) == ["a.jp2", "b.pgm", "c.J2K", "d.ppm"]
    for name, array in found.items():
        expected = np.repeat(image[..., :1], 3, 2) if name == "b.pgm" else image
        np.testing.assert_array_equal(array, expected)
