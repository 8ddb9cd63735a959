from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from andon.data.info import DatasetInfo, Problem, dataset_info
from andon.data.registry import load_dataset

from .images import CONFIG, autovi, encode, gradient, mask, mvtec, png16, save


def info(root: Path) -> DatasetInfo:
    return dataset_info(load_dataset(root))


def found(root: Path) -> list[tuple[str, str, str]]:
    """(severity, kind, file relative to the root) of every problem; each message names its file in one line."""
    problems = info(root).problems
    for problem in problems:
        assert problem.message.startswith(f"{problem.file}: ")
        assert "\n" not in problem.message
    return [(p.severity, p.kind, p.file.relative_to(root).as_posix()) for p in problems]


def message(root: Path, kind: str) -> str:
    (problem,) = [p for p in info(root).problems if p.kind == kind]
    return problem.message


class TestTable:
    def test_rows(self, tmp_path: Path) -> None:
        autovi(tmp_path / "set/a")
        root = autovi(tmp_path / "set/b")
        save(root / "train/good/0009.png", gradient(20, 16, seed=30))
        result = info(tmp_path / "set")
        assert result.columns == ("Category", "Image size", "Train", "Test OK", "Test not-OK", "Total")
        assert result.table_rows() == [
            ("a", "17 × 12", 3, 2, 2, 7),
            ("b", "16–17 × 12–20", 4, 2, 2, 8),
            ("Total", "", 7, 4, 4, 15),
        ]
        assert result.categories[0].defects == {"structural": 2}
        assert result.categories[0].channels == {"cable": 2, "hoop": 1}

    def test_nothing_wrong(self, tmp_path: Path) -> None:
        assert found(autovi(tmp_path / "a")) == []
        assert found(mvtec(tmp_path / "b")) == []

    def test_as_json(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        (root / "x.txt").touch()
        value = json.loads(json.dumps(info(root).as_dict()))
        assert value["categories"][0]["image_size"] == "17 × 12"
        assert value["problems"][0]["kind"] == "no-image"

    def test_no_readable_image(self, tmp_path: Path) -> None:
        (tmp_path / "p").mkdir()
        (tmp_path / "p/1.png").touch()
        assert info(tmp_path / "p").table_rows()[0] == ("p", "–", 1, 0, 0, 1)

    def test_progress(self, tmp_path: Path) -> None:
        calls: list[tuple[str, int, int]] = []
        dataset = load_dataset(autovi(tmp_path / "a"))
        dataset_info(dataset, progress=lambda *call: calls.append(call), threads=2)
        assert calls == [("images", i, 7) for i in range(1, 8)]

    def test_real_images(self) -> None:
        root = Path(__file__).parents[2].parent / "shared/data/mtd"
        if not root.is_dir():
            pytest.skip("the magnetic tiles are not here")
        result = info(root)
        assert result.table_rows()[0] == ("mtd", "103–632 × 222–403", 762, 190, 392, 1344)
        empty = sorted(p.file.name.removesuffix("_mask.png") for p in result.problems if p.kind == "empty-mask")
        assert empty == ["exp3_num_45042", "exp4_num_124690", "exp4_num_352527", "exp4_num_45057"]
        assert result.count("error") == 0


class TestImages:
    def test_unreadable(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        path = root / "train/good/0001.png"
        path.write_bytes(path.read_bytes()[:70])
        (root / "test/good/0000.png").write_bytes(b"")
        assert found(root) == [
            ("error", "unreadable-image", "train/good/0001.png"),
            ("error", "unreadable-image", "test/good/0000.png"),
        ]

    def test_twice(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        save(root / "train/good/0005.png", gradient(seed=0))  # 0000 of training again
        save(root / "test/good/0005.png", gradient(seed=1), kind="BMP")  # 0001 of training, in another format
        save(root / "test/structural/0001.png", gradient(seed=11))  # 0001 of the good test images
        assert found(root) == [
            ("error", "duplicate-across-split", "test/good/0005.png"),
            ("error", "duplicate-across-label", "test/structural/0001.png"),
            ("info", "duplicate", "train/good/0005.png"),
        ]
        assert "train/good/0001.png, which is in train" in message(root, "duplicate-across-split")

    def test_almost_the_same_is_not_the_same(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        array = gradient(seed=1)
        array[0, 0, 0] ^= 1
        save(root / "test/good/0005.png", array)
        save(root / "test/good/0006.png", gradient(seed=1).reshape(17, 12, 3))
        assert [kind for _, kind, _ in found(root)] == ["mixed-sizes"]

    def test_what_looks_alike_at_first_is_compared_pixel_by_pixel(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("andon.data.info._likeness", lambda image: b"alike")
        root = autovi(tmp_path / "a")
        save(root / "train/good/0005.png", gradient(seed=0))
        assert found(root) == [("info", "duplicate", "train/good/0005.png")]

    def test_mixed_sizes(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        save(root / "train/good/0005.png", gradient(20, 30))
        assert "2 sizes; the most frequent, 17 × 12, 7 times" in message(root, "mixed-sizes")

    def test_blank_and_dark(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        save(root / "train/good/0005.png", np.full((12, 17, 3), 80, np.uint8))
        twelve_bits = np.random.default_rng(0).integers(0, 4096, (12, 17), dtype=np.uint16)
        (root / "train/good/0006.png").write_bytes(png16(twelve_bits))
        assert found(root) == [
            ("warning", "blank-image", "train/good/0005.png"),
            ("warning", "dark-image", "train/good/0006.png"),
        ]


class TestMasks:
    @pytest.mark.parametrize(
        ("array", "severity", "kind"),
        [
            (mask(0, 0), "warning", "empty-mask"),
            (mask(254, 17), "error", "full-mask"),
            (mask(254, 3, height=13), "error", "size-mismatch"),
            (mask(253, 3), "error", "unknown-value"),
            (mask(254, 3) + mask(1, 2), "error", "unknown-value"),
            (np.dstack([mask(254, 3), mask(255, 3), mask(0, 0)]), "error", "unreadable-mask"),
        ],
    )
    def test_autovi(self, array: np.ndarray, severity: str, kind: str, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        save(root / "ground_truth/structural/0001/0000.png", array)
        assert found(root) == [(severity, kind, "ground_truth/structural/0001/0000.png")]

    def test_damaged(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        (root / "ground_truth/crack/000_mask.png").write_bytes(encode(mask(255, 3))[:50])
        assert found(root) == [("error", "unreadable-mask", "ground_truth/crack/000_mask.png")]

    def test_grey_levels(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        save(root / "ground_truth/crack/000_mask.png", mask(200, 3) + mask(55, 1))
        assert found(root) == [("warning", "grey-mask", "ground_truth/crack/000_mask.png")]

    def test_missing(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        (root / "ground_truth/crack/001_mask.png").rename(root / "ground_truth/crack/007_mask.png")
        assert found(root) == [
            ("error", "missing-mask", "test/crack/001.png"),
            ("error", "mask-without-image", "ground_truth/crack"),
        ]

    def test_none_at_all_is_one_remark(self, tmp_path: Path) -> None:
        save(tmp_path / "p/good/1.png")
        save(tmp_path / "p/good/2.png", gradient(seed=2))
        save(tmp_path / "p/bad/1.png", gradient(seed=3))
        save(tmp_path / "p/bad/2.png", gradient(seed=4))
        assert ("info", "no-masks", ".") in found(tmp_path / "p")

    def test_a_mask_of_a_good_image(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        save(root / "ground_truth/good/0000/0000.png", mask(254, 3))
        assert found(root) == [("error", "mask-without-image", "ground_truth/good/0000")]

    def test_regions_smaller_than_their_threshold(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a", [{**CONFIG[0], "saturation_threshold": 49}, CONFIG[1]])
        assert found(root) == [("info", "threshold-above-area", "defects_config.json")]
        assert "1 of 1 masks of hoop are smaller than its threshold of 49 pixels" in message(
            root, "threshold-above-area"
        )

    def test_entries_never_used(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a", [*CONFIG, {**CONFIG[0], "defect_name": "clip", "pixel_value": 7}])
        assert found(root) == [("info", "unused-entry", "defects_config.json")]


class TestUnread:
    def test_training_images_in_folders_below(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        save(root / "train/good/monday/000.png", gradient(seed=77))
        assert found(root) == [("error", "unread-training-image", "train/good/monday")]

    def test_training_files_of_an_unknown_kind(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        for name in ("0009", "0010.abc", "notes.txt"):
            (root / "train/good" / name).write_bytes(b"x")
        assert found(root) == [("error", "unread-training-file", "train/good"), ("info", "no-image", "train/good")]
        text = message(root, "unread-training-file")
        assert "2 files of a kind that is not read, .abc, no suffix (0009, 0010.abc); convert to PNG" in text
        assert ".ppm" in text

    def test_test_images_of_a_kind_that_is_not_read(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        (root / "test/good/009.heic").write_bytes(b"x")
        assert found(root) == [("error", "unread-kind", "test/good")]
        assert "not read, .heic (009.heic)" in message(root, "unread-kind")


class TestGroups:
    def test_by_kind_with_the_first_few_named(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        for i in range(1200):
            (root / f"test/good/x{i}.png").write_bytes(b"")
        (root / "a.txt").touch()
        result = info(root)
        groups = result.groups()
        assert [(g.severity, g.kind, len(g.problems)) for g in groups] == [
            ("error", "unreadable-image", 1200),
            ("info", "no-image", 1),
        ]
        lines = groups[0].lines()
        assert len(lines) == 4
        assert lines[-1] == "… and 1,197 more of this kind (unreadable-image)"
        assert len(groups[0].lines(1200)) == 1200
        assert result.as_dict()["counts"] == {"error": 1200, "warning": 0, "info": 1}


class TestCategories:
    def test_defects_without_good_images(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        for path in (root / "test/good").iterdir():
            path.unlink()
        assert ("error", "no-good-test-images", ".") in found(root)

    def test_nothing_to_train_on(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        for path in (root / "train/good").iterdir():
            path.unlink()
        assert found(root)[0] == ("error", "no-training-images", ".")

    def test_nothing_to_find(self, tmp_path: Path) -> None:
        save(tmp_path / "p/good/1.png")
        assert found(tmp_path / "p") == [("warning", "no-defects", ".")]

    def test_files_that_nobody_reads(self, tmp_path: Path) -> None:
        root = autovi(tmp_path / "a")
        save(root / "other/good/000.png")
        save(root / "train/bad/000.png")
        save(root / "stray.png")
        for i in range(12):
            (root / f"train/good/note{i}.txt").touch()
        (root / "test/empty").mkdir()
        assert found(root) == [
            ("warning", "unread-image", "."),
            ("warning", "unread-image", "other/good"),
            ("warning", "unread-image", "train/bad"),
            ("info", "empty-folder", "test/empty"),
            ("info", "no-image", "train/good"),
        ]
        assert "12 files no image: note0.txt, note1.txt" in message(root, "no-image")
        assert message(root, "no-image").endswith("and 4 more")

    def test_folders_beside_the_categories(self, tmp_path: Path) -> None:
        autovi(tmp_path / "set/a")
        save(tmp_path / "set/others/x/1.png")
        (tmp_path / "set/docs").mkdir()
        problems = info(tmp_path / "set").problems
        assert [(p.kind, p.file.name, p.category) for p in problems] == [("no-category", "others", "")]

    def test_errors_come_first(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "a")
        (root / "a.txt").touch()
        save(root / "ground_truth/crack/000_mask.png", mask(0, 0))
        (root / "test/good/000.png").write_bytes(b"x")
        problems: tuple[Problem, ...] = info(root).problems
        assert [p.severity for p in problems] == ["error", "warning", "info"]
        assert [info(root).count(s) for s in ("error", "warning", "info")] == [1, 1, 1]
