"""Miniature data sets laid out as their owners' archives are, with their quirks: files by their path."""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.data.images import encode, gradient, mask

Files = dict[str, bytes]
SIZE = (12, 17)
"""(height, width) of ``gradient`` and ``mask``."""


def written(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".")
    with tarfile.open(path, f"w:{kind if kind in ('gz', 'bz2', 'xz') else ''}") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def image(seed: int, kind: str = "PNG") -> bytes:
    return encode(gradient(*SIZE, seed=seed), kind)


def marked(columns: int, value: int = 255, kind: str = "PNG") -> bytes:
    return encode(mask(value, columns, *SIZE), kind)


def csv_bytes(rows: list[list[str]], newline: str = "\n") -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator=newline).writerows(rows)
    return out.getvalue().encode()


def dagm(inner: str = "") -> Files:
    """Two classes, capital suffixes, ``Labels.txt`` with its lone first line, a thumbnail file of Windows."""
    files: Files = {}
    for name, seed in (("Class1", 0), ("Class2", 100)):
        for half, start in (("Train", 1), ("Test", 576)):
            root = f"{name}/{inner and name + '/'}{half}"
            lines = ["1"]
            for i in range(start, start + 4):
                bad = i == start + 2
                files[f"{root}/{i:04}.PNG"] = image(seed + i)
                lines.append(f"{i}\t{int(bad)}\t{i:04}.PNG\t0\t{f'{i:04}_label.PNG' if bad else 0}")
                if bad:
                    files[f"{root}/Label/{i:04}_label.PNG"] = marked(4)
            files[f"{root}/Label/Labels.txt"] = ("\r\n".join(lines) + "\r\n").encode()
            files[f"{root}/Thumbs.db"] = b"x"
    return files


def dagm_ellipses() -> Files:
    """As for the competition: good images and defective ones apart, ellipses over two lines each."""
    files = {f"Class1/{i}.png": image(i) for i in range(1, 11)}
    files |= {f"Class1_def/{i}.png": image(50 + i) for i in (1, 2)}
    files["Class1_def/labels.txt"] = (
        b"1.png\t\n 5.0e+00 2.0e+00 0.0e+00 8.0e+00 6.0e+00\n2.png\t\n3.01 2.01 1.5708 8 6\n"
    )
    return files


def voc(boxes: list[tuple[str, int, int, int, int]], filename: str = "x") -> bytes:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
        "</bndbox></object>"
        for name, a, b, c, d in boxes
    )
    return f"<annotation><filename>{filename}</filename>{objects}</annotation>".encode()


def neu_mirror() -> Files:
    """The mirror: an image and its boxes in different halves, file names without suffix, a box twice, a stray file."""
    root = "NEU-DET"
    files: Files = {}
    for half, numbers in (("train", (1, 240)), ("validation", (241,))):
        for kind in ("crazing", "rolled-in_scale"):
            for i in numbers:
                files[f"{root}/{half}/images/{kind}/{kind}_{i}.jpg"] = image(i + 500 * (kind != "crazing"), "JPEG")
                place = "validation" if (kind, i) == ("crazing", 240) else half
                found = [(kind, 2, 3, 6, 9), (kind, 2, 3, 6, 9), ("patches", 10, 1, 17, 12)]
                files[f"{root}/{place}/annotations/{kind}_{i}.xml"] = voc(found, f"{kind}_{i}")
    files[f"{root}/train/annotations/.crazing_21.xml.BXARk2LvYS"] = b""
    return files


def neu_flat() -> Files:
    files: Files = {}
    for name in ("inclusion_1", "inclusion_2", "rolled-in_scale_1"):
        files[f"IMAGES/{name}.jpg"] = image(len(files), "JPEG")
        files[f"ANNOTATIONS/{name}.xml"] = voc([(name.rpartition("_")[0], 1, 1, 17, 12)])
    return files


def severstal(first: bool = False) -> Files:
    """Kaggle's, in the later form of its table or (``first``) in that with four rows an image."""
    names = [f"{letter}0e106d482.jpg" for letter in "abcdefghijkl"]
    files = {f"train_images/{name}": image(i, "JPEG") for i, name in enumerate(names)}
    files |= {"test_images/zz.jpg": image(99, "JPEG")}
    # Down the columns from the image's first pixel: 1 12 is the first column, 14 3 a part of the second.
    found = {(names[10], "1"): "1 12 14 3", (names[11], "3"): "25 12", (names[11], "4"): "193 12"}
    if first:
        rows = [["ImageId_ClassId", "EncodedPixels"]]
        rows += [[f"{name}_{k}", found.get((name, str(k)), "")] for name in names for k in (1, 2, 3, 4)]
    else:
        rows = [["ImageId", "ClassId", "EncodedPixels"], *([a, b, runs] for (a, b), runs in found.items())]
    files["train.csv"] = csv_bytes(rows)
    return files


def ksdd() -> Files:
    files: Files = {}
    for item in range(1, 6):
        for part in range(4):
            place = f"kos{item:02}/Part{part}"
            files[f"{place}.jpg"] = image(10 * item + part, "JPEG")
            files[f"{place}_label.bmp"] = marked(3 if part == item % 4 else 0, kind="BMP")
    return files


def ksdd2() -> Files:
    """With the copy that is in the archive."""
    files: Files = {}
    for half, start in (("train", 10000), ("test", 20000)):
        for i in range(start, start + 4):
            files[f"{half}/{i}.png"] = image(i)
            files[f"{half}/{i}_GT.png"] = marked(2 if i == start + 1 else 0)
    for kind in ("", "_GT"):
        files[f"train/10001{kind} (copy).png"] = files[f"train/10001{kind}.png"]
    return files


def visa() -> Files:
    """Two products, three split files, masks of values 1 and 2, two kinds of defects in one image."""
    files: Files = {"LICENSE-DATASET": b"x"}
    tables: dict[str, list[list[str]]] = {
        name: [["object", "split", "label", "image", "mask"]] for name in ("1cls", "2cls_highshot", "2cls_fewshot")
    }
    for seed, name in enumerate(("candle", "pcb1")):
        notes = [["image", "label", "mask"]]
        for i in range(6):
            path = f"{name}/Data/Images/Normal/{i:04}.JPG"
            files[path] = image(100 * seed + i, "JPEG")
            notes.append([path, "normal", ""])
            tables["1cls"].append([name, "train" if i < 4 else "test", "normal", path, ""])
            tables["2cls_highshot"].append([name, "train" if i < 3 else "test", "normal", path, ""])
            tables["2cls_fewshot"].append([name, "train" if i < 2 else "test", "normal", path, ""])
        for i in range(3):
            path, truth = f"{name}/Data/Images/Anomaly/{i:03}.JPG", f"{name}/Data/Masks/Anomaly/{i:03}.png"
            files[path] = image(100 * seed + 50 + i, "JPEG")
            values = mask(1, 5, *SIZE)
            values[0, 0] = 2
            files[truth] = encode(values)
            notes.append([path, "melt,bent" if i == 0 else "scratch", truth])
            tables["1cls"].append([name, "test", "anomaly", path, truth])
            tables["2cls_highshot"].append([name, "train" if i < 2 else "test", "anomaly", path, truth])
            tables["2cls_fewshot"].append([name, "train" if i < 1 else "test", "anomaly", path, truth])
        files[f"{name}/image_anno.csv"] = csv_bytes(notes, "\r\n")
    for name, rows in tables.items():
        files[f"split_csv/{name}.csv"] = csv_bytes(rows)
    return files


def magnetic_tile(free: int = 10) -> Files:
    """Masks beside the images, grey at their edges; black ones beside the good images."""
    files: Files = {"README.md": b"x"}
    for i in range(free):
        files[f"MT_Free/Imgs/exp1_num_{i}.jpg"] = image(i, "JPEG")
        files[f"MT_Free/Imgs/exp1_num_{i}.png"] = marked(0)
    for kind in ("Blowhole", "Uneven"):
        for i in range(2):
            files[f"MT_{kind}/Imgs/exp2_num_{i}.jpg"] = image(100 + i + 10 * len(kind), "JPEG")
            values = mask(255, 4, *SIZE)
            values[:, 4], values[:, 5] = 200, 90
            files[f"MT_{kind}/Imgs/exp2_num_{i}.png"] = encode(values)
    return files


def mvtec_ad(name: str = "bottle") -> Files:
    files = {f"{name}/train/good/{i:03}.png": image(i) for i in range(4)}
    files |= {f"{name}/test/good/{i:03}.png": image(10 + i) for i in range(2)}
    files |= {f"{name}/test/broken_large/{i:03}.png": image(20 + i) for i in range(2)}
    files |= {f"{name}/ground_truth/broken_large/{i:03}_mask.png": marked(3 + i) for i in range(2)}
    return {**files, f"{name}/readme.txt": b"x", f"{name}/license.txt": b"x"}


def mvtec_ad2(name: str = "can") -> Files:
    files = {f"{name}/train/good/{i:03}_regular.png": image(i) for i in range(4)}
    files |= {f"{name}/validation/good/{i:03}_regular.png": image(10 + i) for i in range(2)}
    files |= {f"{name}/test_public/good/{i:03}_overexposed.png": image(20 + i) for i in range(2)}
    files |= {f"{name}/test_public/bad/{i:03}_shift_1.png": image(30 + i) for i in range(2)}
    files |= {f"{name}/test_public/ground_truth/bad/{i:03}_shift_1_mask.png": marked(3 + i) for i in range(2)}
    files |= {f"{name}/test_private/{i:03}_regular.png": image(40 + i) for i in range(3)}
    return {**files, f"{name}/test_private_mixed/000_mixed.png": image(50)}


LOCO_CONFIG = (
    b'[{"defect_name": "missing_almonds", "pixel_value": 255, "saturation_threshold": 24,'
    b' "relative_saturation": false},'
    b' {"defect_name": "compartments_swapped", "pixel_value": 254, "saturation_threshold": 1.0,'
    b' "relative_saturation": true}]'
)


def mvtec_loco(name: str = "breakfast_box") -> Files:
    """One folder of masks an image; two regions in one."""
    files = {f"{name}/train/good/{i:03}.png": image(i) for i in range(4)}
    files |= {f"{name}/validation/good/{i:03}.png": image(10 + i) for i in range(2)}
    files |= {f"{name}/test/good/{i:03}.png": image(20 + i) for i in range(2)}
    files |= {
        f"{name}/test/logical_anomalies/000.png": image(30),
        f"{name}/test/structural_anomalies/000.png": image(31),
    }
    files |= {f"{name}/ground_truth/logical_anomalies/000/000.png": marked(4)}
    files |= {f"{name}/ground_truth/logical_anomalies/000/001.png": marked(6, 254)}
    files |= {f"{name}/ground_truth/structural_anomalies/000/000.png": marked(1)}
    return {**files, f"{name}/defects_config.json": LOCO_CONFIG}


AUTOVI_CONFIG = (
    b'[{"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 10, "relative_saturation": false}]'
)


def autovi(name: str = "pipe_staple", defective: int = 2) -> Files:
    """As one of the six archives unpacks, with what its owners put beside; masks as RGB."""
    files = {f"{name}/train/good/{i:04}.png": image(i) for i in range(4)}
    files |= {f"{name}/test/good/{i:04}.png": image(10 + i) for i in range(2)}
    for i in range(defective):
        files[f"{name}/test/missing/{i:04}.png"] = image(20 + i)
        files[f"{name}/ground_truth/missing/{i:04}/0000.png"] = encode(np.dstack([mask(255, 3 + i, *SIZE)] * 3))
    extra = {
        "defects_config.json": AUTOVI_CONFIG,
        "defect_example.png": image(99),
        "readme.md": b"x",
        "license.txt": b"x",
    }
    return {**files, **{f"{name}/{file}": data for file, data in extra.items()}}


def elpv() -> Files:
    files: Files = {}
    lines = []
    kinds = [("mono", "0.0")] * 5 + [("mono", "1.0")] * 2 + [("poly", "0.0")] * 5
    for i, (kind, p) in enumerate([*kinds, ("poly", "0.3333333333333333"), ("poly", "1.0")], start=1):
        files[f"images/cell{i:04}.png"] = image(i)
        lines.append(f"images/cell{i:04}.png  {p}                 {kind}")
    files["labels.csv"] = ("\n".join(lines) + "\n").encode()
    return files
