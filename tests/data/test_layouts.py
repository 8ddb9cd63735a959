"""The three general layouts, and how ``load_dataset`` tells them apart."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from andon.core import AndonError, Category, DataError, DefectConfig
from andon.data import registry, truth
from andon.data.autovi import read_defects_config
from andon.data.layout import Layout
from andon.data.registry import layout_names, load_dataset, register_layout

from .images import CONFIG, autovi, gradient, mask, mvtec, png16, save


def ids(category: Category) -> list[str]:
    return [sample.id for sample in category.samples]


class TestAutoVI:
    def test_samples(self, tmp_path: Path) -> None:
        dataset = load_dataset(autovi(tmp_path / "wiring"))
        assert (dataset.name, dataset.layout, list(dataset.categories)) == ("wiring", "autovi", ["wiring"])
        category = dataset["wiring"]
        assert ids(category) == [
            "train/good/0000",
            "train/good/0001",
            "train/good/0002",
            "test/good/0000",
            "test/good/0001",
            "test/structural/0000",
            "test/structural/0001",
        ]
        assert category.defect_types == ("structural",)
        assert category.defects == (DefectConfig("hoop", 255, 40, False), DefectConfig("cable", 254, 0.7, True))
        np.testing.assert_array_equal(category.test[2].image(), gradient(seed=20))
        assert category.test[2].size() == (12, 17)

    def test_every_channel_with_its_own_saturation(self, tmp_path: Path) -> None:
        category = load_dataset(autovi(tmp_path / "wiring"))["wiring"]
        truth = category.test[2].ground_truth()
        assert truth is not None
        assert truth.size == (12, 17)
        # 4 columns of 12 are 48 pixels, 40 are enough; 10 are 120, of which 0.7 is 84.
        assert [(c.defect, c.saturation, int(c.mask.sum())) for c in truth.channels] == [
            ("hoop", 40, 48),
            ("cable", 84, 120),
        ]
        np.testing.assert_array_equal(truth.channels[1].mask, mask(1, 10) > 0)
        good = category.test[0].ground_truth()
        assert good is not None
        assert good.channels == ()

    def test_channels_are_counted_beyond_ten(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "wiring")
        for i in range(12):
            save(root / f"ground_truth/structural/0001/{i}.png", mask(254, i + 1))
        sample = load_dataset(root)["wiring"].test[3]
        assert [path.name for path in sample.mask_paths] == ["0.png", "0000.png", *(f"{i}.png" for i in range(1, 12))]

    def test_mask_formats(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "wiring")
        values = mask(254, 10)
        for array in (np.dstack([values] * 3), np.dstack([values] * 3 + [mask(7, 17)])):
            save(root / "ground_truth/structural/0001/0000.png", array)
            truth = load_dataset(root)["wiring"].test[3].ground_truth()
            assert truth is not None
            assert (truth.channels[0].defect, truth.channels[0].saturation) == ("cable", 84)

    @pytest.mark.parametrize(
        ("array", "words"),
        [
            (mask(253, 3), "pixel value 253 is not in defects_config.json, which has 255 (hoop), 254 (cable)"),
            (mask(254, 3) + mask(1, 1), "2 different positive values (254, 255)"),
            (mask(254, 3, height=11), "the mask is 17 × 11 pixels, its image"),
        ],
    )
    def test_bad_masks_are_named(self, array: np.ndarray, words: str, tmp_path: Path) -> None:
        root = autovi(tmp_path / "wiring")
        path = save(root / "ground_truth/structural/0001/0000.png", array)
        with pytest.raises(AndonError) as caught:
            load_dataset(root)["wiring"].test[3].ground_truth()
        assert str(caught.value).startswith(f"{path}: ")
        assert words in str(caught.value)

    def test_a_damaged_mask(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "wiring")
        (root / "ground_truth/structural/0001/0000.png").write_bytes(b"nothing")
        with pytest.raises(AndonError, match=r"structural/0001/0000\.png: not an image"):
            load_dataset(root)["wiring"].test[3].ground_truth()

    def test_an_empty_mask_is_an_empty_channel(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "wiring")
        save(root / "ground_truth/structural/0001/0000.png", mask(0, 1))
        truth = load_dataset(root)["wiring"].test[3].ground_truth()
        assert truth is not None
        assert [(c.defect, c.saturation, c.mask.any()) for c in truth.channels] == [("structural", 0, False)]

    def test_no_mask_is_no_ground_truth(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "wiring")
        shutil.rmtree(root / "ground_truth/structural/0001")
        sample = load_dataset(root)["wiring"].test[3]
        assert sample.mask_paths == ()
        assert sample.ground_truth() is None

    def test_loco_with_its_two_kinds_of_defects(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "loco")
        save(root / "validation/good/000.png")
        save(root / "test/logical_anomalies/000.png")
        save(root / "ground_truth/logical_anomalies/000/000.png", mask(255, 2))
        category = load_dataset(root)["loco"]
        assert category.defect_types == ("logical_anomalies", "structural")
        assert len(category.train) == 3
        assert [sample.id for sample in category.select("validation")] == ["validation/good/000"]

    def test_without_a_configuration(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "wiring")
        (root / "defects_config.json").unlink()
        with pytest.raises(AndonError, match=r"wiring: defects_config\.json is missing"):
            load_dataset(root)

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ("{", "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            ("{}", "must be a list of entries, not an object"),
            ("[1]", "entry 1 must be an object"),
            (
                '[{"defect_name": "a", "pixel_value": 1}]',
                "entry 1 has no saturation_threshold and no relative_saturation",
            ),
            ([{**CONFIG[0], "defect_name": 3}], "defect_name must be a text, not 3"),
            ([{**CONFIG[0], "defect_name": " "}], "defect_name must be a text"),
            ([{**CONFIG[0], "pixel_value": 0}], "entry 1 (hoop): pixel_value must be a whole number 1..255, not 0"),
            ([{**CONFIG[0], "pixel_value": 256}], "not 256"),
            ([{**CONFIG[0], "pixel_value": "255"}], 'not "255"'),
            ([{**CONFIG[0], "pixel_value": True}], "not true"),
            ([{**CONFIG[0], "relative_saturation": 1}], "relative_saturation must be true or false, not 1"),
            ([{**CONFIG[0], "saturation_threshold": 0}], "at least 1, not 0"),
            ([{**CONFIG[0], "saturation_threshold": 1.5}], "not 1.5"),
            ([{**CONFIG[0], "saturation_threshold": None}], "not null"),
            ([CONFIG[0], {**CONFIG[1], "saturation_threshold": 1.01}], "entry 2 (cable): a relative"),
            ([CONFIG[0], {**CONFIG[1], "saturation_threshold": float("nan")}], "not NaN"),
            ([CONFIG[0], {**CONFIG[1], "pixel_value": 255}], "entry 2 (cable): pixel_value 255 is that of hoop too"),
        ],
    )
    def test_bad_configurations_field_by_field(self, config: Any, words: str, tmp_path: Path) -> None:
        path = tmp_path / "defects_config.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        with pytest.raises(AndonError) as caught:
            read_defects_config(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert words in str(caught.value)

    def test_reasonable_configurations_are_accepted(self, tmp_path: Path) -> None:
        path = tmp_path / "defects_config.json"
        entries = [
            {**CONFIG[1], "saturation_threshold": 1},
            {**CONFIG[0], "saturation_threshold": 40.0, "comment": "x"},
            {**CONFIG[0]},
        ]
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(entries).encode())
        assert read_defects_config(path) == (DefectConfig("cable", 254, 1, True), DefectConfig("hoop", 255, 40, False))
        path.write_text("[]")
        assert read_defects_config(path) == ()

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CONFIG[0], "other"]), inner, max_size=5)
            ),
            max_leaves=12,
        )
    )
    def test_any_json(self, tmp_path: Path, value: Any) -> None:
        path = tmp_path / "defects_config.json"
        path.write_text(json.dumps(value))
        try:
            entries = read_defects_config(path)
        except AndonError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 (either way is right)
        else:
            assert len({entry.pixel_value for entry in entries}) == len(entries)


class TestMVTec:
    def test_samples_and_masks(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "bottle")
        save(root / "test/crack/002.png")
        save(root / "ground_truth/crack/002.png", np.dstack([mask(9, 2), mask(0, 0), mask(0, 0)]))
        dataset = load_dataset(root)
        assert dataset.layout == "mvtec"
        category = dataset["bottle"]
        assert len(category.train) == 3
        assert [sample.id for sample in category.test] == [
            *("test/crack/000", "test/crack/001", "test/crack/002"),
            *("test/good/000", "test/good/001"),
        ]
        truths = [sample.ground_truth() for sample in category.test]
        # Saturation = area: columns of 12 pixels.
        assert [[(c.defect, c.saturation) for c in t.channels] for t in truths if t is not None] == [
            [("crack", 36)],
            [("crack", 48)],
            [("crack", 24)],
            [],
            [],
        ]

    def test_empty_mask(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "bottle")
        save(root / "ground_truth/crack/000_mask.png", mask(0, 0))
        truth = load_dataset(root)["bottle"].test[0].ground_truth()
        assert truth is not None
        assert truth.channels[0].saturation == 0

    def test_two_masks_of_an_image(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "bottle")
        save(root / "ground_truth/crack/000.png", mask(255, 1))
        with pytest.raises(AndonError, match=r"000_mask\.png.*000\.png|000\.png.*000_mask\.png"):
            load_dataset(root)

    def test_no_training_folder_and_no_defects(self, tmp_path: Path) -> None:
        save(tmp_path / "a" / "test/good/1.png")
        assert ids(load_dataset(tmp_path / "a")["a"]) == ["test/good/1"]
        save(tmp_path / "b" / "train/good/1.png")
        assert ids(load_dataset(tmp_path / "b")["b"]) == ["train/good/1"]

    def test_real_images(self) -> None:
        root = Path(__file__).parents[2].parent / "shared/data/mtd"
        if not root.is_dir():
            pytest.skip("the magnetic tiles are not here")
        category = load_dataset(root)["mtd"]
        assert (len(category.train), len(category.select("test", defective=False))) == (762, 190)
        counts = {kind: sum(s.defect_type == kind for s in category.test) for kind in category.defect_types}
        assert counts == {"blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
        truths = [sample.ground_truth() for sample in category.select("test", defective=True)[::5]]
        assert all(truth is not None and len(truth.channels) == 1 for truth in truths)


class TestFolder:
    def test_good_images_are_split_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        root = tmp_path / "parts"
        for i in range(11):
            save(root / f"good/img{i}.jpg")
        save(root / "scratch/a.png")
        category = load_dataset(root)["parts"]
        assert ids(category) == [
            *(f"train/good/img{i}" for i in range(9)),  # 0.8 · 11, rounded up
            "test/good/img9",
            "test/good/img10",
            "test/scratch/a",
        ]
        assert [s.split for s in category.samples] == ["train"] * 9 + ["test"] * 3
        assert len(load_dataset(root, train_fraction=0.5)["parts"].train) == 6
        assert len(load_dataset(root, train_fraction=1)["parts"].train) == 11
        for fraction in (0, -1, 1.1, float("nan")):
            with pytest.raises(AndonError, match="train_fraction"):
                load_dataset(root, train_fraction=fraction)

    def test_without_defects_all_are_for_training(self, tmp_path: Path) -> None:
        for i in range(5):
            save(tmp_path / f"parts/good/{i}.png")
            save(tmp_path / f"bare/{i}.png")
        assert len(load_dataset(tmp_path / "parts")["parts"].train) == 5
        bare = load_dataset(tmp_path / "bare")
        assert bare.layout == "folder"
        assert ids(bare["bare"]) == [f"train/good/{i}" for i in range(5)]

    def test_masks_in_a_folder_beside_or_nowhere(self, tmp_path: Path) -> None:
        root = tmp_path / "parts"
        save(root / "good/0.png")
        for name in ("a", "b", "c", "d"):
            save(root / f"scratch/{name}.png")
        save(root / "scratch/a_mask.png", mask(255, 1))
        save(root / "ground_truth/scratch/b.png", mask(255, 2))
        save(root / "ground_truth/scratch/c_mask.png", mask(255, 3))
        category = load_dataset(root)["parts"]
        assert ids(category) == ["train/good/0", *(f"test/scratch/{name}" for name in "abcd")]
        truths = [sample.ground_truth() for sample in category.test]
        assert [t.channels[0].saturation if t else None for t in truths] == [12, 24, 36, None]
        save(root / "ground_truth/scratch/a.png", mask(255, 1))
        with pytest.raises(AndonError, match=r"a_mask\.png is a mask of the same image"):
            load_dataset(root)

    def test_an_image_called_mask_is_an_image(self, tmp_path: Path) -> None:
        save(tmp_path / "p/good/0.png")
        save(tmp_path / "p/face_mask/gas_mask.png")
        assert ids(load_dataset(tmp_path / "p")["p"])[-1] == "test/face_mask/gas_mask"

    def test_folders_below(self, tmp_path: Path) -> None:
        root = tmp_path / "parts"
        save(root / "good/monday/1.png")
        save(root / "good/tuesday/1.png")
        save(root / "dent/monday/1.png")
        save(root / "ground_truth/dent/monday/1.png", mask(255, 1))
        category = load_dataset(root)["parts"]
        assert ids(category) == ["train/good/monday/1", "test/good/tuesday/1", "test/dent/monday/1"]
        assert category.test[0].ground_truth() is not None

    def test_a_link_to_a_folder_above(self, tmp_path: Path) -> None:
        root = tmp_path / "parts"
        save(root / "good/1.png")
        (root / "good/loop").symlink_to(root / "good")
        with pytest.raises(AndonError, match=r"good/loop: a link to a folder that it lies in"):
            load_dataset(root)

    @pytest.mark.parametrize("place", ["", "parts", "parts/good", "parts/dent/monday", "parts/ground_truth"])
    @pytest.mark.parametrize("target", ["/proc/self/root", ".", "..", "the data set"])
    def test_a_link_that_leads_in_a_circle_is_named_at_once(self, place: str, target: str, tmp_path: Path) -> None:
        root = tmp_path / "set"
        save(root / "parts/good/1.png")
        save(root / "parts/good/2.png")
        save(root / "parts/dent/monday/1.png")
        link = root / place / "x"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(root if target == "the data set" else target)
        began = time.monotonic()
        with pytest.raises(DataError, match=f"{link}: a link to a folder that it lies in .*remove it"):
            load_dataset(root)
        assert time.monotonic() - began < 2

    def test_links_to_one_another(self, tmp_path: Path) -> None:
        root = tmp_path / "parts"
        save(root / "good/1.png")
        save(root / "dent/1.png")
        (tmp_path / "other").mkdir()
        (root / "dent/a").symlink_to(tmp_path / "other")
        (tmp_path / "other/b").symlink_to(root / "dent")
        with pytest.raises(DataError, match=r"dent/a/b: a link to a folder that it lies in"):
            load_dataset(root)

    def test_few_folders_that_links_make_millions_of(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(truth, "MAX_FOLDERS", 500)
        root = tmp_path / "parts"
        save(root / "good/1.png")
        for k in range(14):
            (tmp_path / f"d{k}").mkdir()
            for name in "abc":
                (tmp_path / f"d{k}" / name).symlink_to(tmp_path / f"d{k + 1}")
        (tmp_path / "d14").mkdir()
        (root / "dent").symlink_to(tmp_path / "d0")
        with pytest.raises(DataError, match=r"parts/dent: more than 500 folders below it"):
            load_dataset(root)

    def test_a_linked_folder_is_read(self, tmp_path: Path) -> None:
        save(tmp_path / "elsewhere/1.png")
        save(tmp_path / "parts/good/1.png")
        (tmp_path / "parts/dent").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "parts/good/more").symlink_to(tmp_path / "elsewhere")
        assert len(load_dataset(tmp_path / "parts")["parts"].samples) == 3

    def test_images_beside_folders_of_images(self, tmp_path: Path) -> None:
        save(tmp_path / "p/1.png")
        save(tmp_path / "p/scratch/1.png")
        with pytest.raises(AndonError, match=r"directly in it and in scratch/.*a folder named good"):
            load_dataset(tmp_path / "p")


class TestLoadDataset:
    def test_several_categories(self, tmp_path: Path) -> None:
        for name in ("c10", "c2", "c1"):
            autovi(tmp_path / "set" / name)
        (tmp_path / "set/README.txt").write_text("x")
        (tmp_path / "set/docs").mkdir()
        dataset = load_dataset(tmp_path / "set")
        assert list(dataset.categories) == ["c1", "c2", "c10"]
        assert (dataset.name, len(dataset)) == ("set", 3)
        assert {category.dataset for category in dataset} == {"set"}
        assert load_dataset(tmp_path / "set", name="autovi")["c2"].dataset == "autovi"
        chosen = load_dataset(str(tmp_path / "set"), categories=["c10", "c1", "c10"])
        assert list(chosen.categories) == ["c10", "c1"]
        with pytest.raises(AndonError, match=r"no category 'c3'; there are: c1, c2, c10"):
            load_dataset(tmp_path / "set", categories=["c1", "c3"])
        with pytest.raises(AndonError, match="has no category 'x'; it has: c1, c2, c10"):
            dataset["x"]

    def test_a_category_that_is_none(self, tmp_path: Path) -> None:
        autovi(tmp_path / "set/c1")
        with pytest.raises(AndonError, match=r"no category 'zzz'; there are: c1"):
            load_dataset(tmp_path / "set", categories=["zzz"])
        with pytest.raises(AndonError, match=r"no category 'zzz'; there are: c1"):
            load_dataset(tmp_path / "set/c1", categories=["zzz"])
        assert list(load_dataset(tmp_path / "set/c1", categories=["c1"]).categories) == ["c1"]

    def test_mixed_layouts_need_a_word(self, tmp_path: Path) -> None:
        autovi(tmp_path / "set/a")
        mvtec(tmp_path / "set/b")
        with pytest.raises(AndonError, match=r"a is autovi, b is mvtec"):
            load_dataset(tmp_path / "set")
        assert list(load_dataset(tmp_path / "set", categories=["b"]).categories) == ["b"]
        assert load_dataset(tmp_path / "set", layout="autovi")["a"].defects

    def test_a_link_is_called_what_the_user_called_it(self, tmp_path: Path) -> None:
        (tmp_path / "autovi").symlink_to(mvtec(tmp_path / "disk7"))
        assert load_dataset(tmp_path / "autovi").name == "autovi"

    def test_the_name_of_the_folder_that_we_are_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(mvtec(tmp_path / "bottle"))
        assert list(load_dataset(".").categories) == ["bottle"]

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(AndonError, match="there is no such folder"):
            load_dataset(tmp_path / "none")
        path = save(tmp_path / "a.png")
        with pytest.raises(AndonError, match="a file; a data set is a folder"):
            load_dataset(path)
        (tmp_path / "empty").mkdir()
        with pytest.raises(AndonError, match=r"empty: no data set found; expected .*train/good/\*\.png"):
            load_dataset(tmp_path / "empty")
        (tmp_path / "hollow/train/good").mkdir(parents=True)
        with pytest.raises(AndonError, match="hollow: no images in it; expected train/good"):
            load_dataset(tmp_path / "hollow")
        with pytest.raises(AndonError, match=r"unknown layout 'coco'; known: dagm, .*, autovi, mvtec, folder"):
            load_dataset(tmp_path, layout="coco")

    def test_no_image_is_opened(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "bottle")
        for path in root.rglob("*.png"):
            path.write_bytes(b"")
        assert len(load_dataset(root)["bottle"].samples) == 7

    def test_samples_go_to_other_processes(self, tmp_path: Path) -> None:
        for category in (
            load_dataset(autovi(tmp_path / "a"))["a"],
            load_dataset(mvtec(tmp_path / "b"))["b"],
        ):
            there = pickle.loads(pickle.dumps(category))
            assert there == category
            for here, copy in zip(category.test, there.test, strict=True):
                np.testing.assert_array_equal(here.image(), copy.image())
                truths = here.ground_truth(), copy.ground_truth()
                assert truths[0] is not None
                assert truths[1] is not None
                np.testing.assert_array_equal(truths[0].union(), truths[1].union())

    def test_a_layout_of_ones_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "_LAYOUTS", list(registry._LAYOUTS))

        def read(folder: Path, name: str, dataset: str, options: Any) -> Category:
            return registry.folder.read(folder / "ok", name, dataset, options)

        mine = Layout("mine", "ok/*.png", lambda folder: (folder / "ok").is_dir(), read)
        register_layout(mine)
        register_layout(mine)
        names = layout_names()
        assert (names[0], names[-3:]) == ("mine", ("autovi", "mvtec", "folder"))
        save(tmp_path / "p/ok/1.png")
        assert load_dataset(tmp_path / "p").layout == "mine"
        with pytest.raises(AndonError, match="two layouts"):
            register_layout(Layout("folder", "", lambda folder: False, read))


def test_sixteen_bit_masks_in_every_layout(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "b")
    (root / "ground_truth/crack/000_mask.png").write_bytes(png16(mask(1, 2).astype(np.uint16) * 65535))
    truth = load_dataset(root)["b"].test[0].ground_truth()
    assert truth is not None
    assert truth.channels[0].saturation == 24
