"""Published data sets as their owners' archives unpack: what is read, what is left out, what is refused by name."""

from __future__ import annotations

import math
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from andon.core import AndonError, Category, DataError, Dataset, Split
from andon.data import Window, category_fingerprint, dataset_info, layout_names, load_dataset, windowed
from andon.data.drawn import ellipse
from andon.data.sets._common import first_share, inside, seeded_share
from andon.data.sets.neu import boxes
from andon.data.sets.severstal import run_lengths
from tests.data.sets import miniatures as mini
from tests.data.sets.miniatures import SIZE, Files, written

Make = Callable[[], Files]


def counts(category: Category) -> tuple[int, int, int, int, int]:
    """(training, defective among them, validation, good test, defective test) images."""
    split = Counter((sample.split, sample.is_defective) for sample in category.samples)
    wanted: list[tuple[Split, bool]] = [
        ("train", False),
        ("train", True),
        ("validation", False),
        ("test", False),
        ("test", True),
    ]
    return tuple(split[key] for key in wanted)  # type: ignore[return-value]


def areas(dataset: Dataset, name: str) -> dict[str, list[tuple[str, int]]]:
    """(defect, area) of each channel by sample."""
    found = {}
    for sample in dataset[name].samples:
        truth = sample.ground_truth()
        if sample.is_defective and truth is not None:
            assert truth.size == SIZE
            found[sample.id] = [(c.defect, int(c.mask.sum())) for c in truth.channels]
            assert all(c.saturation == c.mask.sum() for c in truth.channels)
    return found


CASES: dict[str, tuple[Make, str, dict[str, tuple[int, int, int, int, int]]]] = {
    "dagm": (mini.dagm, "dagm", {"Class1": (3, 1, 0, 3, 1), "Class2": (3, 1, 0, 3, 1)}),
    "dagm twice": (lambda: mini.dagm("x"), "dagm", {"Class1": (3, 1, 0, 3, 1), "Class2": (3, 1, 0, 3, 1)}),
    "dagm for the competition": (mini.dagm_ellipses, "dagm-ellipses", {"Class1": (8, 0, 0, 2, 2)}),
    "neu": (mini.neu_mirror, "neu", {"crazing": (0, 0, 0, 0, 3), "rolled-in_scale": (0, 0, 0, 0, 3)}),
    "neu flat": (mini.neu_flat, "neu", {"inclusion": (0, 0, 0, 0, 2), "rolled-in_scale": (0, 0, 0, 0, 1)}),
    "severstal": (mini.severstal, "severstal", {"set": (8, 0, 0, 2, 2)}),
    "severstal first": (lambda: mini.severstal(first=True), "severstal", {"set": (8, 0, 0, 2, 2)}),
    "ksdd": (mini.ksdd, "ksdd", {"set": (12, 0, 0, 3, 5)}),
    "ksdd2": (mini.ksdd2, "ksdd2", {"set": (3, 1, 0, 3, 1)}),
    "visa": (mini.visa, "visa", {"candle": (4, 0, 0, 2, 3), "pcb1": (4, 0, 0, 2, 3)}),
    "magnetic tile": (mini.magnetic_tile, "magnetic-tile", {"set": (8, 0, 0, 2, 4)}),
    "mvtec ad": (mini.mvtec_ad, "mvtec", {"bottle": (4, 0, 0, 2, 2)}),
    "mvtec ad 2": (mini.mvtec_ad2, "mvtec-ad2", {"can": (4, 0, 2, 2, 2)}),
    "mvtec loco": (mini.mvtec_loco, "autovi", {"breakfast_box": (4, 0, 2, 2, 2)}),
    "autovi": (mini.autovi, "autovi", {"pipe_staple": (4, 0, 0, 2, 2)}),
    "elpv": (mini.elpv, "elpv", {"elpv_mono": (4, 0, 0, 1, 2), "elpv_poly": (4, 0, 0, 1, 1)}),
}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Make, str, dict[str, tuple[int, int, int, int, int]]]:
    return CASES[request.param]


class TestEverySet:
    def test_layout_and_counts(self, case: tuple[Make, str, dict[str, tuple[int, ...]]], tmp_path: Path) -> None:
        make, layout, expected = case
        dataset = load_dataset(written(tmp_path / "set", make()))
        assert dataset.layout == layout
        assert dataset.rule
        assert {category.name: counts(category) for category in dataset} == expected
        for category in dataset:
            ids = [sample.id for sample in category.samples]
            assert len(ids) == len(set(ids))
            assert all(sample.path.is_file() for sample in category.samples)
        # It is the same when its layout is named.
        named = load_dataset(tmp_path / "set", layout=layout)
        assert named.categories == dataset.categories

    def test_info_finds_no_fault(self, case: tuple[Make, str, dict[str, tuple[int, ...]]], tmp_path: Path) -> None:
        make, layout, expected = case
        found = dataset_info(load_dataset(written(tmp_path / "set", make())), threads=1)
        errors = [p for p in found.problems if p.severity != "info"]
        if layout == "neu":  # and it says what cannot be done
            assert {p.kind for p in errors} == {"no-training-images", "no-good-test-images"}
        else:
            assert errors == []
        assert sum(c.total for c in found.categories) == sum(map(sum, expected.values()))
        assert found.as_dict()["rule"] == found.rule != ""

    def test_samples_go_to_other_processes_and_have_a_fingerprint(
        self, case: tuple[Make, str, dict[str, tuple[int, ...]]], tmp_path: Path
    ) -> None:
        make, _, _ = case
        for category in load_dataset(written(tmp_path / "set", make())):
            there = pickle.loads(pickle.dumps(category))
            assert there == category
            for here, copy in zip(category.samples, there.samples, strict=True):
                np.testing.assert_array_equal(here.image(), copy.image())
                truths = here.ground_truth(), copy.ground_truth()
                assert (truths[0] is None) == (truths[1] is None)
                if truths[0] is not None and truths[1] is not None:
                    np.testing.assert_array_equal(truths[0].union(), truths[1].union())
            assert category_fingerprint(category) == category_fingerprint(there)

    def test_windows_of_it(self, case: tuple[Make, str, dict[str, tuple[int, ...]]], tmp_path: Path) -> None:
        make, _, _ = case
        category = next(iter(load_dataset(written(tmp_path / "set", make()))))
        for sample in windowed(category, Window(size=(8, 8))).samples:
            assert sample.image().shape == (8, 8, 3)
            truth = sample.ground_truth()
            assert truth is None or truth.size == (8, 8)

    def test_zipped_and_tarred_it_is_the_same(
        self, case: tuple[Make, str, dict[str, tuple[int, ...]]], tmp_path: Path
    ) -> None:
        make, layout, expected = case
        for path in (mini.zipped(tmp_path / "set.zip", make()), mini.tarred(tmp_path / "t" / "set.tar.xz", make())):
            dataset = load_dataset(path)
            assert (dataset.name, dataset.layout) == ("set", layout)
            assert {category.name: counts(category) for category in dataset} == expected
            again = load_dataset(path)  # not unpacked twice
            assert again.categories == dataset.categories

    def test_a_folder_around_it_is_entered(
        self, case: tuple[Make, str, dict[str, tuple[int, ...]]], tmp_path: Path
    ) -> None:
        make, layout, expected = case
        written(tmp_path / "downloads/inner/set", make())
        dataset = load_dataset(tmp_path / "downloads")
        assert dataset.layout == layout
        assert {category.name: counts(category) for category in dataset} == expected

    def test_no_other_published_layout_fits(
        self, case: tuple[Make, str, dict[str, tuple[int, ...]]], tmp_path: Path
    ) -> None:
        make, layout, _ = case
        written(tmp_path / "set", make())
        for other in layout_names():
            if other == layout or other in ("autovi", "mvtec", "folder") or other.startswith("visa-"):
                continue
            with pytest.raises(AndonError, match=r"no data set found|no images in it"):
                load_dataset(tmp_path / "set", layout=other)


def test_two_data_sets_in_one_folder_need_a_word(tmp_path: Path) -> None:
    written(tmp_path / "both", {**mini.ksdd(), **mini.magnetic_tile()})
    with pytest.raises(DataError, match=r"both: may be the data set ksdd or magnetic-tile.*--layout ksdd or"):
        load_dataset(tmp_path / "both")
    assert load_dataset(tmp_path / "both", layout="ksdd").layout == "ksdd"
    written(tmp_path / "many/visa", mini.visa())
    written(tmp_path / "many/ksdd", mini.ksdd())
    with pytest.raises(DataError, match=r"many: holds several data sets \(ksdd, visa\)"):
        load_dataset(tmp_path / "many")


class TestDagm:
    def test_truth(self, tmp_path: Path) -> None:
        dataset = load_dataset(written(tmp_path / "DAGM", mini.dagm()))
        assert areas(dataset, "Class1") == {"train/defect/0003": [("defect", 48)], "test/defect/0578": [("defect", 48)]}
        assert [s.id for s in dataset["Class1"].train] == [f"train/good/000{i}" for i in (1, 2, 4)]

    def test_ellipses(self, tmp_path: Path) -> None:
        dataset = load_dataset(written(tmp_path / "DAGM", mini.dagm_ellipses()))
        first, second = dataset["Class1"].select("test", defective=True)
        truth = first.ground_truth()
        assert truth is not None
        rows, columns = np.nonzero(truth.channels[0].mask)
        # Axes 5 along x and 2 along y about x 8, y 6.
        assert (columns.min(), columns.max(), rows.min(), rows.max()) == (3, 13, 4, 8)
        truth = second.ground_truth()
        assert truth is not None
        rows, columns = np.nonzero(truth.channels[0].mask)
        assert (columns.min(), columns.max(), rows.min(), rows.max()) == (6, 10, 3, 9)  # a quarter turn

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"Label/Labels.txt": b"1\n1\t2\t0001.PNG\t0\t0\n"}, r"Labels\.txt, line 2: expected number, 0 or 1"),
            (
                {"Label/Labels.txt": b"1\n3\t0\t0003.PNG\t0\t0\n"},
                r"Labels\.txt: calls 0003\.PNG good, but .*0003_label",
            ),
            ({"Label/Labels.txt": b"3\t0\t1.PNG\t0\t0\n3\t1\t1.PNG\t0\t0\n"}, r"line 2: 1\.PNG is good in one line"),
            ({"Label/Labels.txt": b"\xff\xfe"}, r"Labels\.txt: not a text in UTF-8"),
        ],
    )
    def test_tables_that_are_wrong(self, change: Files, words: str, tmp_path: Path) -> None:
        root = written(tmp_path / "DAGM", mini.dagm())
        written(root / "Class1/Train", change)
        with pytest.raises(DataError, match=words):
            load_dataset(root)

    def test_what_does_not_fit_together_is_named(self, tmp_path: Path) -> None:
        root = written(tmp_path / "DAGM", mini.dagm())
        half = root / "Class1/Train"
        written(half, {"Label/0009_label.PNG": mini.marked(1), "0010.PNG": mini.image(77)})
        (half / "0001.PNG").unlink()
        (half / "Label/0003_label.PNG").unlink()
        (root / "Class2/Test/Label/Labels.txt").unlink()
        found = dataset_info(load_dataset(root), threads=1)
        kinds = {(p.severity, p.kind, p.category) for p in found.problems}
        assert {
            ("error", "mask-without-image", "Class1"),
            ("error", "missing-image", "Class1"),
            ("warning", "not-in-table", "Class1"),
            ("warning", "no-table", "Class2"),
        } <= kinds
        (test,) = [c for c in found.categories if c.name == "Class2"]
        assert test.test_defective == 1  # by its label image

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"1.png 1 2 3 4", "expected image, two axes"),
            (b"1.png 1 2 0.5 4 x", "expected image, two axes"),
            (b"1.png 0 2 0.5 4 5", "1.png has no ellipse"),
            (b"1.png 1 2 45 4 5", "an angle in radians"),
            (b"1.png 1 2 nan 4 5", "has no ellipse"),
            (b"1.png 1 2 0 4 5\n1.png 1 2 0 4 5", "is there twice"),
        ],
    )
    def test_ellipses_that_are_none(self, text: bytes, words: str, tmp_path: Path) -> None:
        root = written(tmp_path / "DAGM", {**mini.dagm_ellipses(), "Class1_def/labels.txt": text})
        with pytest.raises(DataError, match=words):
            load_dataset(root)

    def test_an_ellipse_outside_of_its_image(self, tmp_path: Path) -> None:
        files = {**mini.dagm_ellipses(), "Class1_def/labels.txt": b"1.png 2 1 0 900 900\n2.png 2 1 0 4 4"}
        found = dataset_info(load_dataset(written(tmp_path / "DAGM", files)), threads=1)
        (problem,) = [p for p in found.problems if p.severity == "error"]
        assert "the ellipse of 1.png lies outside" in problem.message


@given(st.floats(1, 30), st.floats(0.3, 1), st.floats(-math.pi, math.pi), st.floats(5, 60), st.floats(5, 60))
def test_an_ellipse_is_what_its_equation_says(a: float, ratio: float, angle: float, x: float, y: float) -> None:
    mask = ellipse((64, 70), a, a * ratio, angle, x, y)
    for row, column in [(0, 0), (31, 20), (round(y), round(x)), (63, 69), (40, 33)]:
        turned = complex(column - x, y - row) * complex(math.cos(angle), -math.sin(angle))
        value = (turned.real / a) ** 2 + (turned.imag / (a * ratio)) ** 2
        if abs(value - 1) > 1e-9:
            assert mask[row, column] == (value < 1)


class TestNeu:
    def test_boxes_are_brought_together_over_the_halves_and_counted_once(self, tmp_path: Path) -> None:
        dataset = load_dataset(written(tmp_path / "neu", mini.neu_mirror()))
        found = areas(dataset, "crazing")
        assert set(found) == {f"test/crazing/crazing_{i}" for i in (1, 240, 241)}
        # x 2 to 6 and y 3 to 9, both ends included: 5 by 7; x 10 to 17 by all 12 rows.
        assert all(channels == [("crazing", 35), ("patches", 96)] for channels in found.values())
        truth = dataset["crazing"].test[0].ground_truth()
        assert truth is not None
        rows, columns = np.nonzero(truth.channels[0].mask)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 8, 1, 5)

    def test_what_can_be_done_is_said(self, tmp_path: Path) -> None:
        dataset = load_dataset(written(tmp_path / "neu", mini.neu_flat()))
        assert "no good image" in dataset.rule
        assert areas(dataset, "rolled-in_scale") == {
            "test/rolled-in_scale/rolled-in_scale_1": [("rolled-in_scale", 204)]
        }

    @pytest.mark.parametrize(
        ("xml", "words"),
        [
            (b"<a", "not valid XML"),
            (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "definitions of its own"),
            (b"<annotation></annotation>", "has no box"),
            (mini.voc([("", 1, 1, 2, 2)]), "box 1 has no name"),
            (mini.voc([("crazing", 5, 1, 2, 2)]), "does not fit the image of 17 × 12"),
            (mini.voc([("crazing", 1, 1, 2, 40)]), "y 1 to 40, does not fit"),
            (mini.voc([("crazing", 1, 1, 2, 2)]).replace(b"<ymax>2", b"<ymax>two"), "has no four numbers"),
            (b"<" * 2_000_000, "too many for boxes"),
        ],
    )
    def test_xml_that_is_none(self, xml: bytes, words: str, tmp_path: Path) -> None:
        path = tmp_path / "crazing_1.xml"
        path.write_bytes(xml)
        with pytest.raises(DataError, match=words) as caught:
            boxes(path, SIZE)
        assert str(caught.value).startswith(str(path))

    def test_boxes_without_an_image_and_images_without_boxes(self, tmp_path: Path) -> None:
        files = mini.neu_flat()
        del files["IMAGES/inclusion_1.jpg"], files["ANNOTATIONS/inclusion_2.xml"]
        found = dataset_info(load_dataset(written(tmp_path / "neu", files)), threads=1)
        messages = [p.message for p in found.problems if p.severity == "error"]
        assert any("1 XML without an image: inclusion_1.xml" in m for m in messages)
        assert any("inclusion has no masks" in p.message for p in found.problems)


class TestSeverstal:
    def test_runs_go_down_the_columns(self, tmp_path: Path) -> None:
        for first in (False, True):
            dataset = load_dataset(written(tmp_path / str(first), mini.severstal(first)))
            (category,) = dataset
            bad = category.select("test", defective=True)
            assert [s.defect_type for s in bad] == ["class_1", "class_3+class_4"]
            truth = bad[0].ground_truth()
            assert truth is not None
            expected = np.zeros(SIZE, bool)
            expected[:, 0] = True
            expected[1:4, 1] = True
            np.testing.assert_array_equal(truth.channels[0].mask, expected)
            truth = bad[1].ground_truth()
            assert truth is not None
            columns = [np.flatnonzero(channel.mask.any(axis=0)).tolist() for channel in truth.channels]
            assert columns == [[2], [16]]

    def test_what_is_left_out_is_named(self, tmp_path: Path) -> None:
        found = dataset_info(load_dataset(written(tmp_path / "steel", mini.severstal())), threads=1)
        (note,) = [p for p in found.problems if p.kind == "left-out"]
        assert "test_images: 1 images whose masks were never published" in note.message

    @given(st.lists(st.booleans(), min_size=6 * 7, max_size=6 * 7))
    def test_run_lengths_back_and_forth(self, pixels: list[bool]) -> None:
        mask = np.array(pixels).reshape(6, 7)
        flat = np.concatenate([[False], mask.T.ravel(), [False]])
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        runs = " ".join(f"{a} {b - a}" for a, b in zip(edges[::2], edges[1::2], strict=True))
        if runs:
            np.testing.assert_array_equal(run_lengths(runs, (6, 7), "x"), mask)

    @pytest.mark.parametrize(
        ("runs", "words"),
        [
            ("1", "1 numbers are no pairs"),
            ("a 3", "no whole numbers"),
            ("0 3", "the run 0 3 does not fit the image of 17 × 12"),
            ("200 6", "does not fit"),
            ("1 0", "does not fit"),
            ("1 5 4 2", "has pixels of another one"),
        ],
    )
    def test_runs_that_are_wrong_are_named(self, runs: str, words: str, tmp_path: Path) -> None:
        files = mini.severstal()
        files["train.csv"] = mini.csv_bytes([["ImageId", "ClassId", "EncodedPixels"], ["a0e106d482.jpg", "2", runs]])
        dataset = load_dataset(written(tmp_path / "steel", files))
        with pytest.raises(DataError, match=rf"train\.csv: a0e106d482\.jpg, class_2: .*{words}"):
            dataset["steel"].select("test", defective=True)[0].ground_truth()
        errors = [p for p in dataset_info(dataset, threads=1).problems if p.severity == "error"]
        assert [p.kind for p in errors] == ["unreadable-mask"]

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            (b"Image,Class\n", "the columns must be ImageId,ClassId,EncodedPixels"),
            (b"ImageId,ClassId,EncodedPixels\na.jpg,1\n", "line 2: 2 cells, not 3"),
            (b"ImageId,ClassId,EncodedPixels\na.jpg,x,1 2\n", "line 2: expected an image and a class"),
            ("ImageId,ClassId,EncodedPixels\na.jpg,\u00b2,1 2\n".encode(), "line 2: expected an image and a class"),
            (b"ImageId,ClassId,EncodedPixels\na.jpg,1,1 2\na.jpg,1,3 1\n", "line 3: a.jpg has two rows of class 1"),
            (b'ImageId,ClassId,EncodedPixels\na.jpg,1,"' + b"1 " * 200_000, "field larger than"),
        ],
    )
    def test_tables_that_are_wrong(self, table: bytes, words: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=words):
            load_dataset(written(tmp_path / "steel", {**mini.severstal(), "train.csv": table}))

    def test_rows_of_images_that_are_not_there(self, tmp_path: Path) -> None:
        root = written(tmp_path / "steel", mini.severstal())
        (root / "train_images/k0e106d482.jpg").unlink()
        errors = [p.message for p in dataset_info(load_dataset(root), threads=1).problems if p.severity == "error"]
        assert errors == [f"{root / 'train.csv'}: 1 images with a defect are not in train_images: k0e106d482.jpg"]


class TestKolektor:
    def test_items_stay_together(self, tmp_path: Path) -> None:
        (category,) = load_dataset(written(tmp_path / "KolektorSDD", mini.ksdd()))
        assert {s.path.parent.name for s in category.train} == {"kos01", "kos02", "kos03", "kos04"}
        assert {s.path.parent.name for s in category.select("test", defective=False)} == {"kos05"}
        assert "test/crack/kos03/Part3" in {s.id for s in category.test}

    def test_an_image_without_a_label_is_named(self, tmp_path: Path) -> None:
        root = written(tmp_path / "k", mini.ksdd())
        (root / "kos02/Part1_label.bmp").unlink()
        with pytest.raises(DataError, match=r"kos02/Part1\.jpg: has no label"):
            load_dataset(root)
        (root / "kos02/Part1.jpg").unlink()
        (root / "kos02/Part2.jpg").unlink()
        with pytest.raises(DataError, match=r"kos02/Part2_label\.bmp: a label of no image"):
            load_dataset(root)

    def test_a_copy_is_left_out_and_named(self, tmp_path: Path) -> None:
        root = written(tmp_path / "KolektorSDD2", mini.ksdd2())
        dataset = load_dataset(root)
        notes = [note.message for note in dataset["KolektorSDD2"].notes]
        assert notes == [
            f"{root}/train/10001 (copy).png: the same file as 10001.png, left out",
            f"{root}/train/10001_GT (copy).png: the same file as 10001_GT.png, left out",
        ]
        assert [s.id for s in dataset["KolektorSDD2"].select("train", defective=True)] == ["train/defect/10001"]
        (root / "train/10001 (copy).png").write_bytes(mini.image(5))
        with pytest.raises(DataError, match=r"10001 \(copy\)\.png: is called a copy of 10001\.png but is another file"):
            load_dataset(root)

    def test_labels_that_miss(self, tmp_path: Path) -> None:
        root = written(tmp_path / "k", mini.ksdd2())
        (root / "test/20002_GT.png").unlink()
        with pytest.raises(DataError, match=r"20002\.png: has no label"):
            load_dataset(root)
        (root / "test/20002.png").unlink()
        (root / "test/20003.png").unlink()
        with pytest.raises(DataError, match=r"20003_GT\.png: a label of no image"):
            load_dataset(root)


class TestVisa:
    def test_values_of_a_mask_are_one_region(self, tmp_path: Path) -> None:
        dataset = load_dataset(written(tmp_path / "VisA", mini.visa()))
        assert areas(dataset, "pcb1") == {
            "test/bent+melt/000": [("bent+melt", 60)],
            "test/scratch/001": [("scratch", 60)],
            "test/scratch/002": [("scratch", 60)],
        }

    def test_the_other_splits_by_name(self, tmp_path: Path) -> None:
        root = written(tmp_path / "VisA", mini.visa())
        high = load_dataset(root, layout="visa-2cls-highshot")
        few = load_dataset(root, layout="visa-2cls-fewshot")
        assert counts(high["candle"]) == (3, 2, 0, 3, 1)
        assert counts(few["candle"]) == (2, 1, 0, 4, 2)
        columns = dataset_info(high, threads=1).columns
        assert columns == ("Category", "Image size", "Train", "Train not-OK", "Test OK", "Test not-OK", "Total")
        (root / "split_csv/1cls.csv").unlink()
        with pytest.raises(
            DataError, match=r"split_csv/1cls.csv is missing.*--layout visa-2cls-fewshot or visa-2cls-high"
        ):
            load_dataset(root)

    def test_the_folder_of_one_product(self, tmp_path: Path) -> None:
        root = written(tmp_path / "VisA", mini.visa())
        dataset = load_dataset(root / "pcb1")
        assert list(dataset.categories) == ["pcb1"]
        assert counts(dataset["pcb1"]) == (4, 0, 0, 2, 3)

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            ("pcb1,train,normal,../x.JPG,", "line 2: '../x.JPG' is no path inside"),
            ("pcb1,train,normal,/etc/passwd,", "no path inside"),
            ("pcb1,train,normal,C:\\x.JPG,", "no path inside"),
            ("pcb1,val,normal,pcb1/x.JPG,", "line 2: expected train or test"),
            ("pcb1,train,good,pcb1/x.JPG,", "expected train or test, and normal or anomaly"),
            ("pcb1,train,normal,a.JPG,\npcb1,test,normal,a.JPG,", "line 3: a.JPG has two rows"),
        ],
    )
    def test_rows_that_are_wrong(self, row: str, words: str, tmp_path: Path) -> None:
        root = written(tmp_path / "VisA", mini.visa())
        (root / "split_csv/1cls.csv").write_text(f"object,split,label,image,mask\n{row}\n")
        with pytest.raises(DataError, match=words):
            load_dataset(root)

    def test_images_that_no_row_names_and_rows_without_an_image(self, tmp_path: Path) -> None:
        root = written(tmp_path / "VisA", {**mini.visa(), "pcb1/Data/Images/Normal/9999.JPG": mini.image(9, "JPEG")})
        (root / "candle/Data/Images/Normal/0005.JPG").unlink()
        problems = {p.kind: p.message for p in dataset_info(load_dataset(root), threads=1).problems}
        assert "candle/Data/Images/Normal/0005.JPG" in problems["missing-image"]
        assert problems["unread-image"].endswith("9999.JPG")


class TestMagneticTile:
    def test_edges_are_marked_from_128_on(self, tmp_path: Path) -> None:
        dataset = load_dataset(written(tmp_path / "MTD", mini.magnetic_tile()))
        assert areas(dataset, "MTD")["test/blowhole/exp2_num_0"] == [("blowhole", 60)]  # five columns of 12

    def test_the_draw_is_that_of_the_conversion_that_others_use(self, tmp_path: Path) -> None:
        shared = Path(__file__).parents[4] / "shared/data/mtd/train_filenames.txt"
        order = [f"exp{i % 6}_num_{i * 37 % 1009}" for i in range(40)]
        if shared.is_file():
            train = {line.strip() for line in shared.read_text().splitlines() if line.strip()}
            names = sorted(p.name for split in ("train", "test") for p in (shared.parent / split / "good").iterdir())
            random.Random(0).shuffle(names)
            assert set(names[: first_share(len(names), 0.8)]) == {Path(name).name for name in train}
        files = {f"MT_Free/Imgs/{name}.jpg": mini.image(1, "JPEG") for name in order}
        (category,) = load_dataset(written(tmp_path / "MTD", {**mini.magnetic_tile(0), **files}))
        expected = sorted(f"{name}.jpg" for name in order)
        random.Random(0).shuffle(expected)
        assert {s.path.name for s in category.train} == set(expected[:32])

    def test_a_mask_without_an_image(self, tmp_path: Path) -> None:
        root = written(tmp_path / "MTD", mini.magnetic_tile())
        (root / "MT_Uneven/Imgs/exp2_num_1.jpg").unlink()
        errors = [p.message for p in dataset_info(load_dataset(root), threads=1).problems if p.severity == "error"]
        assert errors == [f"{root}/MT_Uneven/Imgs: 1 masks of no image: exp2_num_1.png"]


class TestMVTec:
    def test_loco_has_a_validation_split_and_its_saturations(self, tmp_path: Path) -> None:
        category = load_dataset(written(tmp_path / "loco", mini.mvtec_loco()))["breakfast_box"]
        assert [s.id for s in category.select("validation")] == ["validation/good/000", "validation/good/001"]
        assert all(s.split != "validation" for s in (*category.train, *category.test))
        truth = next(s for s in category.test if s.defect_type == "logical_anomalies").ground_truth()
        assert truth is not None
        assert [(c.defect, c.saturation) for c in truth.channels] == [
            ("missing_almonds", 24),
            ("compartments_swapped", 72),
        ]
        info = dataset_info(load_dataset(tmp_path / "loco"), threads=1)
        assert info.columns == ("Category", "Image size", "Train", "Validation", "Test OK", "Test not-OK", "Total")
        assert info.table_rows()[0][2:] == (4, 2, 2, 2, 10)

    def test_ad2_leaves_the_private_tests_out_and_says_so(self, tmp_path: Path) -> None:
        dataset = load_dataset(written(tmp_path / "ad2", mini.mvtec_ad2()))
        assert areas(dataset, "can") == {"test/bad/000_shift_1": [("bad", 36)], "test/bad/001_shift_1": [("bad", 48)]}
        assert [note.kind for note in dataset["can"].notes] == ["left-out", "left-out"]
        (tmp_path / "ad2/can/test_public/ground_truth/bad/000_shift_1_mask.png").unlink()
        errors = [
            p.kind for p in dataset_info(load_dataset(tmp_path / "ad2"), threads=1).problems if p.severity == "error"
        ]
        assert errors == ["missing-mask"]

    def test_autovi_examples_are_no_fault(self, tmp_path: Path) -> None:
        found = dataset_info(load_dataset(written(tmp_path / "autovi", mini.autovi())), threads=1)
        assert not any("defect_example" in p.message for p in found.problems)


def test_elpv_is_split_as_its_writer_does(tmp_path: Path) -> None:
    from andon.data import write_elpv

    source = written(tmp_path / "source", mini.elpv())
    write_elpv(source, tmp_path / "copy")
    copied, read = load_dataset(tmp_path / "copy"), load_dataset(source)
    for name in ("elpv_mono", "elpv_poly"):
        here = {(s.split, s.path.name) for s in read[name].samples}
        assert here == {(s.split, s.path.name) for s in copied[name].samples}


@given(st.integers(0, 300), st.floats(0.01, 1))
def test_shares(count: int, fraction: float) -> None:
    drawn = seeded_share(count, fraction)
    assert len(drawn) == first_share(count, fraction)
    assert drawn <= set(range(count))
    if count > 1:
        assert 1 <= len(drawn) <= count - (fraction < 1)


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../../b", "c:/a", "..\\a"])
def test_paths_of_tables_stay_inside(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no path inside"):
        inside(tmp_path, name, "table, line 2")
    assert inside(tmp_path, "a/b.png", "") == tmp_path / "a/b.png"


def test_train_fraction_is_that_of_the_sets_without_a_split(tmp_path: Path) -> None:
    root = written(tmp_path / "steel", mini.severstal())
    assert len(load_dataset(root, train_fraction=0.5)["steel"].train) == 5
    with pytest.raises(AndonError, match="train_fraction must be above 0"):
        load_dataset(root, train_fraction=0)


def test_tables_and_boxes_of_other_data_sets_are_not_taken_for_these(tmp_path: Path) -> None:
    own = {"images/a.png": mini.image(1), "labels.csv": b"file,label\nimages/a.png,good\n"}
    with pytest.raises(AndonError, match="no data set found"):
        load_dataset(written(tmp_path / "own", own))
    written(tmp_path / "own", {"labels.csv": b"\xff\xfe\x00"})
    with pytest.raises(AndonError, match="no data set found"):
        load_dataset(tmp_path / "own")
    voc = {"images/dog_1.jpg": mini.image(1, "JPEG"), "annotations/dog_1.xml": mini.voc([("dog", 1, 1, 2, 2)])}
    with pytest.raises(AndonError, match="no data set found"):
        load_dataset(written(tmp_path / "voc", voc))


TABLES: dict[str, tuple[Make, str]] = {
    "Labels.txt": (mini.dagm, "Class1/Train/Label/Labels.txt"),
    "labels.txt": (mini.dagm_ellipses, "Class1_def/labels.txt"),
    "xml": (mini.neu_flat, "ANNOTATIONS/inclusion_1.xml"),
    "train.csv": (mini.severstal, "train.csv"),
    "1cls.csv": (mini.visa, "split_csv/1cls.csv"),
    "image_anno.csv": (mini.visa, "pcb1/image_anno.csv"),
    "labels.csv": (mini.elpv, "labels.csv"),
    "label": (mini.ksdd, "kos01/Part1_label.bmp"),
}


@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    at=st.integers(0, 10**6),
    inserted=st.binary(max_size=8) | st.text(max_size=8).map(str.encode),
    cut=st.integers(0, 9),
)
def test_a_damaged_table_is_an_error_of_ours_or_none(
    table: str, at: int, inserted: bytes, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    make, name = TABLES[table]
    files = make()
    data = files[name]
    at %= len(data)
    files[name] = data[:at] + inserted + data[at + cut :]
    root = written(tmp_path_factory.mktemp("damaged") / "set", files)
    with suppress(AndonError):
        dataset_info(load_dataset(root), threads=1)
    shutil.rmtree(root.parent)
