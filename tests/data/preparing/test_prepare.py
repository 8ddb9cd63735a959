from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from andon.core import ConfigError, DataError
from andon.data import (
    Preparation,
    PrepareOptions,
    Saturation,
    TemplateBox,
    dataset_info,
    evaluator_faults,
    load_dataset,
    parse_saturation,
    parse_template,
    plan_preparation,
    write_prepared,
    write_sheets,
)
from andon.data.preparing import writing
from tests.data.preparing.scenes import SIDE, digest, save, scene

N = 24


def place(number: int) -> tuple[float, float]:
    """The middle of the part in an image."""
    rng = np.random.default_rng(900 + number)
    return float(rng.uniform(70, 170)), float(rng.uniform(60, 120))


def angle(number: int) -> float:
    return float(np.random.default_rng(300 + number).uniform(-6, 6)) if number else 0.0


def is_defective(number: int) -> bool:
    return number % 4 == 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 raw scenes in shooting order by name, a quarter of them with a spot; good/ and stain/; masks beside them."""
    root = tmp_path_factory.mktemp("line")
    annotations: dict[str, Any] = {"images": [], "categories": [{"id": 1, "name": "stain"}], "annotations": []}
    for number in range(N):
        kind = "stain" if is_defective(number) else "good"
        (x, y), turn = place(number), angle(number)
        image = scene(number, x, y, angle=turn, spot=is_defective(number))
        save(root / "raw" / kind / f"img{number}.png", image)
        if is_defective(number):
            c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
            dx, dy = 20 - 31.5, 44 - 31.5
            # Pixel centres are at halves in annotations.
            px, py = x + c * dx + s * dy + 0.5, y - s * dx + c * dy + 0.5
            square = [px - 6, py - 6, px + 6, py - 6, px + 6, py + 6, px - 6, py + 6]
            annotations["images"].append({"id": number, "file_name": f"img{number}.png", "width": 240, "height": 180})
            annotations["annotations"].append(
                {"id": number, "image_id": number, "category_id": 1, "segmentation": [square]}
            )
    (root / "masks.json").write_text(json.dumps(annotations))
    return root


def options(source: Path, **more: object) -> PrepareOptions:
    x, y = place(0)
    box = (round(x - 31.5), round(y - 31.5), SIDE, SIDE)
    usual = {
        "templates": (TemplateBox(file="img0.png", box=box),),
        "crop": (80, 80),
        "masks": source / "masks.json",
        "saturation": {"stain": Saturation(threshold=0.7)},
    }
    return PrepareOptions.model_validate({**usual, **more})


@pytest.fixture(scope="module")
def planned(source: Path) -> Preparation:
    return plan_preparation(source / "raw", options(source))


def test_parts_are_found_within_a_pixel_and_the_first_good_ones_are_for_training(planned: Preparation) -> None:
    assert [image.raw.path.name for image in planned.images] == [f"img{number}.png" for number in range(N)]
    for image in planned.images:
        assert image.rejected is None
        assert image.place is not None
        assert image.place[:2] == pytest.approx(place(image.number), abs=1.0)
        assert image.place.angle == pytest.approx(angle(image.number), abs=1.0)
    good = [image for image in planned.images if image.raw.label == "good"]
    assert [image.split for image in good] == ["train"] * 9 + ["test"] * 9
    assert {image.split for image in planned.images if image.raw.label == "stain"} == {"test"}


def official_ground_truth(folder: Path, entries: list[dict[str, Any]]) -> int:
    """What the study's evaluator asserts of one image's masks, in its own words; how many channels there are."""
    channels = 0
    by_value = {entry["pixel_value"]: entry for entry in entries}
    for path in sorted(folder.glob("*.png")):
        array = np.array(Image.open(path))[:, :, 0:3]
        assert np.issubdtype(array.dtype, np.integer)
        unique = sorted(np.unique(array))
        assert len(unique) in (1, 2)
        assert len(unique) == 1 or unique[0] == 0
        entry = by_value[int(unique[-1])]
        mask = array.astype(np.bool_)[:, :, 0].squeeze()
        assert mask.ndim == 2
        threshold = entry["saturation_threshold"]
        if entry["relative_saturation"]:
            assert isinstance(threshold, float)
            assert 0 < threshold <= 1
            assert int(threshold * mask.sum()) > 0
        else:
            assert isinstance(threshold, int)
        channels += 1
    assert channels > 0
    return channels


@pytest.mark.parametrize("resize", [None, (40, 40)])
def test_the_set_is_what_autovi_reads_and_the_official_evaluator_takes(
    source: Path, tmp_path: Path, resize: tuple[int, int] | None
) -> None:
    before = digest(source)
    made = plan_preparation(source / "raw", options(source, resize=resize))
    target = tmp_path / "sets" / "clip"
    assert write_prepared(made, target) == []
    assert digest(source) == before
    assert [path.name for path in target.parent.iterdir()] == ["clip"]
    info = dataset_info(load_dataset(target, layout="autovi"))
    assert info.problems == () or all(problem.severity == "info" for problem in info.problems)
    (row,) = info.categories
    assert (row.train, row.test_good, row.test_defective, row.channels) == (9, 9, 6, {"stain": 6})
    entries = json.loads((target / "defects_config.json").read_text())
    assert entries == [
        {"defect_name": "stain", "pixel_value": 255, "saturation_threshold": 0.7, "relative_saturation": True}
    ]
    truth = list((target / "ground_truth").glob("*/*"))
    assert sum(official_ground_truth(folder, entries) for folder in truth) == 6
    assert {f"{p.parent.name}/{p.name}" for p in truth} == {
        f"{p.parent.name}/{p.stem}" for p in (target / "test" / "stain").iterdir()
    }
    size = resize or (80, 80)
    defective = [s for s in next(iter(load_dataset(target))).test if s.is_defective]
    for sample in defective:
        image, found = sample.image(), sample.ground_truth()
        assert image.shape[:2] == size
        assert found is not None
        red = (image[..., 0].astype(int) - image[..., 2]) > 80
        # The region is a square around the spot; nothing red lies outside it by more than an edge.
        assert red[found.union()].sum() >= 0.9 * red.sum()
        assert red.sum() >= 0.4 * found.union().sum()
    manifest = json.loads((target / "prepare.json").read_text())
    assert manifest["images"][0]["prepared"] == "train/good/0000.png"
    assert len(manifest["images"]) == N


def test_upright_crops_show_the_part_as_the_template_does(source: Path, tmp_path: Path) -> None:
    made = plan_preparation(source / "raw", options(source, upright=True, crop=(SIDE, SIDE)))
    write_prepared(made, tmp_path / "set")
    images = [np.asarray(Image.open(p).convert("L"), float) for p in sorted((tmp_path / "set/train/good").iterdir())]
    plain = tmp_path / "plain"
    write_prepared(plan_preparation(source / "raw", options(source, crop=(SIDE, SIDE))), plain)
    turned = [np.asarray(Image.open(p).convert("L"), float) for p in sorted((plain / "train/good").iterdir())]
    upright = [np.corrcoef(images[0].ravel(), image.ravel())[0, 1] for image in images[1:]]
    as_they_are = [np.corrcoef(turned[0].ravel(), image.ravel())[0, 1] for image in turned[1:]]
    assert min(upright) > 0.97
    assert np.mean(upright) > np.mean(as_they_are)


def test_a_dry_run_writes_contact_sheets_alone(source: Path, planned: Preparation, tmp_path: Path) -> None:
    before = digest(source)
    written = write_sheets(planned, tmp_path / "sheets")
    assert [path.name for path in written] == ["worst-matches.png", "regions.png"]
    assert all(Image.open(path).size[0] > 500 for path in written)
    assert [path.name for path in tmp_path.iterdir()] == ["sheets"]
    assert digest(source) == before
    with pytest.raises(ConfigError, match="lies in the source"):
        write_sheets(planned, source / "raw" / "sheets")


def test_a_target_is_empty_and_not_in_the_source(source: Path, planned: Preparation, tmp_path: Path) -> None:
    save(tmp_path / "full" / "a.png", np.zeros((20, 20, 3), np.uint8))
    for target, said in (
        (tmp_path / "full", "not empty"),
        (tmp_path / "full" / "a.png", "is a file"),
        (source / "raw" / "new", "lies in the source"),
    ):
        with pytest.raises(ConfigError, match=said):
            write_prepared(planned, target)


def test_an_interrupted_run_leaves_nothing_and_a_killed_ones_remains_are_cleared(
    planned: Preparation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, written = tmp_path / "set", writing._write_one

    def stop(preparation: Preparation, image: Any, category: Path) -> None:
        if image.number == 7:
            raise KeyboardInterrupt
        written(preparation, image, category)

    monkeypatch.setattr(writing, "_write_one", stop)
    with pytest.raises(KeyboardInterrupt):
        write_prepared(planned, target)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(writing, "_write_one", written)
    save(tmp_path / ".set.partial" / "set" / "train" / "good" / "0099.png", np.zeros((20, 20, 3), np.uint8))
    write_prepared(planned, target)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert not (target / "train" / "good" / "0099.png").exists()


def test_two_preparations_of_one_target_do_not_meet(planned: Preparation, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".set.lock").acquire(timeout=0),
        pytest.raises(ConfigError, match="another process"),
    ):
        write_prepared(planned, tmp_path / "set")


def spoiled(source: Path, folder: Path) -> Path:
    """A copy of the raw images with a blurred one, one without the part, a copy, a broken file, one at the edge."""
    for path in (source / "raw").rglob("*.png"):
        if path.name == "img9.png":
            image = Image.open(path)
            save(folder / "good" / "img9.png", np.asarray(image.resize((96, 72)).resize((240, 180))))
        else:
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    save(folder / "good" / "img24.png", scene(50, 0, 0, missing=True))
    Image.open(folder / "good" / "img1.png").convert("RGB").save(folder / "good" / "img25.jpg", quality=92)
    (folder / "good" / "img26.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    save(folder / "good" / "img27.png", scene(51, 33, 90))
    save(folder / "good" / "img28.png", scene(52, 172, 122))
    return folder


def test_what_is_no_good_image_is_rejected_with_its_reason(source: Path, tmp_path: Path) -> None:
    folder = spoiled(source, tmp_path / "raw")
    made = plan_preparation(folder, options(source))
    reasons = {image.raw.path.name: image.rejected for image in made.rejected}
    assert {name: found.kind for name, found in reasons.items() if found} == {
        "img9.png": "blurred",
        "img24.png": "not found",
        "img26.png": "unreadable",
        "img27.png": "off the edge",
    }
    assert reasons["img9.png"] is not None
    assert "median" in reasons["img9.png"].reason
    pairs = [(made.images[p.first].raw.path.name, made.images[p.second].raw.path.name) for p in made.duplicates]
    assert pairs == [("img1.png", "img25.jpg")]
    assert len(made.leaks) == 1
    dropped = plan_preparation(folder, options(source, duplicates="drop"))
    assert [i.raw.path.name for i in dropped.rejected if i.rejected and i.rejected.kind == "duplicate"] == ["img25.jpg"]
    assert dropped.leaks == ()
    near = plan_preparation(folder, options(source, displacement=40))
    away = [i.raw.path.name for i in near.rejected if i.rejected and i.rejected.kind == "displaced"]
    assert "img28.png" in away
    kept = plan_preparation(folder, options(source, blur=0))
    assert "img9.png" not in [image.raw.path.name for image in kept.rejected]


def test_a_mask_on_a_good_image_and_a_defective_image_without_one(source: Path, tmp_path: Path) -> None:
    content = json.loads((source / "masks.json").read_text())
    content["images"][0]["file_name"] = "img0.png"
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(content))
    with pytest.raises(DataError, match="labelled good: good/img0"):
        plan_preparation(source / "raw", options(source, masks=wrong))
    content["images"][0]["file_name"] = "elsewhere.png"
    wrong.write_text(json.dumps(content))
    made = plan_preparation(source / "raw", options(source, masks=wrong))
    assert any("1 defective images have no region: stain/img3.png" in note for note in made.notes)
    assert any("elsewhere.png" in note for note in made.notes)
    with pytest.raises(DataError, match=r"evaluator would not take it.*have no masks"):
        write_prepared(made, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    faults = write_prepared(made, tmp_path / "set", anyway=True)
    assert len(faults) == 1
    assert str(tmp_path / "set" / "test" / "stain") in faults[0]


def test_images_alone_are_labelled_by_their_masks(source: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (source / "raw").rglob("*.png"):
        (flat / path.name).write_bytes(path.read_bytes())
    made = plan_preparation(flat, options(source))
    assert {image.raw.label for image in made.images if is_defective(image.number)} == {"stain"}
    assert made.count("train", good=True) == 9


def test_lists_say_labels_and_order(source: Path, tmp_path: Path) -> None:
    names = [p.relative_to(source / "raw").as_posix() for p in (source / "raw").rglob("*.png")]
    labels, order = tmp_path / "labels.csv", tmp_path / "order.txt"
    rows = [f"{name},{'skip' if name.endswith('img5.png') else name.split('/')[0].title()}" for name in names]
    labels.write_text("\ufefffile, label\n" + "\n".join(rows).replace("Good", "GOOD"), encoding="utf-8")
    backwards = sorted(names, key=lambda name: -int("".join(filter(str.isdigit, name.split("/")[1]))))
    order.write_text("\n".join(backwards))
    made = plan_preparation(source / "raw", options(source, labels=labels, order=str(order)))
    assert [image.raw.name for image in made.images] == [n for n in backwards if not n.endswith("img5.png")]
    assert {image.raw.label for image in made.images} == {"good", "Stain"}
    labels.write_text("\n".join(["file,label", *rows[1:]]))
    with pytest.raises(DataError, match="lacks 1 images"):
        plan_preparation(source / "raw", options(source, labels=labels))
    labels.write_text("\n".join(["file,label", *rows, "good/nothing.png,good"]))
    with pytest.raises(DataError, match=r"not below .*good/nothing.png"):
        plan_preparation(source / "raw", options(source, labels=labels))
    labels.write_text("file,label\ngood/img0.png,../up\n")
    with pytest.raises(DataError, match="line 2"):
        plan_preparation(source / "raw", options(source, labels=labels))
    with pytest.raises(DataError, match="no EXIF time"):
        plan_preparation(source / "raw", options(source, order="exif"))


def test_exif_times_order_images(tmp_path: Path) -> None:
    for number, (second, fraction) in enumerate(((5, "50"), (5, "25"), (4, "90"))):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"2024:05:17 08:12:0{second}"
        exif.get_ifd(0x8769)[0x9291] = fraction
        path = tmp_path / "raw" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(scene(number, 100, 80)).save(path, exif=exif)
    made = plan_preparation(tmp_path / "raw", PrepareOptions(order="exif"))
    assert [image.raw.name for image in made.images] == ["2.jpg", "1.jpg", "0.jpg"]


def test_thresholds_and_templates_are_read_from_texts() -> None:
    assert parse_template("good/a:b.png:1,2,30,40") == TemplateBox(file="good/a:b.png", box=(1, 2, 30, 40))
    assert parse_template("1,2,30,40").file is None
    assert parse_saturation("blue hoop=420px") == ("blue hoop", Saturation(threshold=420, relative=False))
    assert parse_saturation("screw=0.7") == ("screw", Saturation(threshold=0.7))
    for wrong in ("screw", "screw=2", "screw=0", "screw=1.5px", "=0.5"):
        with pytest.raises(ConfigError, match="--saturation"):
            parse_saturation(wrong)
    for wrong in ("a.png", "1,2,3", "1,2,8,40", "-1,2,30,40"):
        with pytest.raises(ConfigError, match="--template"):
            parse_template(wrong)


def test_broken_rules_are_named(source: Path, planned: Preparation, tmp_path: Path) -> None:
    target = tmp_path / "set"
    write_prepared(planned, target)
    folder = sorted((target / "ground_truth" / "stain").iterdir())[0]
    mask = folder / "0000.png"
    good = np.asarray(Image.open(mask))

    def faults(values: np.ndarray) -> str:
        Image.fromarray(values).save(mask)
        (found,) = evaluator_faults(target)
        return found

    assert "grey" in faults(good[..., 0])
    assert "0 different" in faults(np.zeros_like(good))
    assert "not in defects_config" in faults(good // 255 * 7)
    assert "pixels, maps" in faults(good[:-1])
    mixed = good.copy()
    mixed[..., 0] = 0
    assert "first alone" in faults(mixed)
    one = np.zeros_like(good)
    one[5, 5] = 255
    assert "divides by it" in faults(one)
    Image.fromarray(good).save(mask)
    assert evaluator_faults(target) == []
    (target / "ground_truth" / "note.txt").write_text("hello")
    assert "only folders" in evaluator_faults(target)[0]
    (target / "ground_truth" / "note.txt").unlink()
    entries = json.loads((target / "defects_config.json").read_text())
    for threshold, relative, said in ((1, True, "point"), (5.0, False, "whole number")):
        entries[0] |= {"saturation_threshold": threshold, "relative_saturation": relative}
        (target / "defects_config.json").write_text(json.dumps(entries))
        assert said in evaluator_faults(target)[0]
