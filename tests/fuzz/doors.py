"""The doors by which a user's files come in, with valid files for each."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image
from safetensors.torch import save

import andon
from andon.benchmark import GalleryMaps, Store, load_plan
from andon.benchmark._serial import digest
from andon.benchmark.gallery import shrink
from andon.benchmark.record import Failure, StoredPlan
from andon.core import AndonError, FullFrame
from andon.data import category_fingerprint, dataset_info, load_dataset, read_image, read_map, read_mask
from andon.data.autovi import read_defects_config
from andon.methods import create_method
from andon.training import TrainingOptions, train
from andon.weights.state_dicts import read_state_dict
from tests.benchmark.factory import make_arrays, make_record, make_spec
from tests.fuzz.damage import damaged, damaged_text

__all__ = ["DOORS", "Door", "SetAsideError"]

Files = list[tuple[str, bytes]]


class SetAsideError(Exception):
    """Not let in, but set aside as promised, without an error."""


class Door:
    """One way in.

    Attributes:
        name: what the table calls it.
        bound: megabytes that one input may take at most.
    """

    name: str
    bound: int

    def prepare(self, folder: Path) -> None:
        """Makes the valid inputs."""

    def warm(self, folder: Path) -> None:
        """Lets every valid input in."""

    def attempt(self, rng: np.random.Generator, folder: Path) -> None:
        """One damaged input: AndonError or SetAsideError where it is refused; nothing where it is let in."""
        raise NotImplementedError


@dataclass
class FileDoor(Door):
    """A door for one file."""

    name: str
    bound: int
    make: Callable[[], Files]
    open: Callable[[Path], Any]
    damage: Callable[[np.random.Generator, bytes], bytes] = damaged
    seeds: Files = field(default_factory=list)

    def prepare(self, folder: Path) -> None:
        self.seeds = self.make()

    def warm(self, folder: Path) -> None:
        for name, data in self.seeds:
            (folder / name).write_bytes(data)
            self.open(folder / name)

    def attempt(self, rng: np.random.Generator, folder: Path) -> None:
        name, data = self.seeds[int(rng.integers(len(self.seeds)))]
        data = rng.bytes(int(rng.integers(0, 2048))) if rng.random() < 0.02 else self.damage(rng, data)
        (folder / name).write_bytes(data)
        self.open(folder / name)


# --- images, masks, maps ----------------------------------------------------------------------------------------------


def _saved(image: Image.Image, name: str, **options: Any) -> tuple[str, bytes]:
    out = io.BytesIO()
    image.save(out, format={"jpg": "JPEG", "tif": "TIFF"}.get(name.split(".")[-1]) or name.split(".")[-1], **options)
    return name, out.getvalue()


def _pixels(*shape: int, dtype: str = "uint8") -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def _images() -> Files:
    import cv2

    colour, grey = Image.fromarray(_pixels(23, 31, 3)), Image.fromarray(_pixels(23, 31))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = cv2.imencode(".png", _pixels(9, 11, 3, dtype="uint16") * 257)[1].tobytes()
    files = [_saved(colour, f"a.{kind}") for kind in ("png", "jpg", "bmp", "tif", "webp", "gif")]
    files += [_saved(grey, "g.png"), _saved(grey, "g.jpg", exif=exif), _saved(colour.quantize(16), "p.png")]
    files += [_saved(colour.convert("RGBA"), "t.png"), _saved(colour.convert("CMYK"), "c.jpg", progressive=True)]
    files += [
        _saved(colour, "z.tif", compression="tiff_lzw"),
        _saved(Image.fromarray(_pixels(9, 9, dtype="uint16")), "d.png"),
    ]
    return [*files, ("deep.png", deep), _saved(grey.convert("1"), "b.tif", compression="group4")]


def _masks() -> Files:
    values = (_pixels(23, 31) > 200).astype(np.uint8) * 255
    grey = Image.fromarray(values)
    files = [_saved(grey, f"m.{kind}") for kind in ("png", "bmp", "tif", "jpg")]
    files += [_saved(grey.convert(mode), f"{mode}.png") for mode in ("1", "P", "RGB", "LA", "RGBA")]
    return [*files, _saved(Image.fromarray((values > 0).astype(np.uint16) * 65535), "d.png")]


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _tiff(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def _npy_maps() -> Files:
    kinds = ("uint8", "uint16", "float16", "float32", "float64")
    return [(f"{kind}.npy", _npy(_pixels(23, 31, dtype=kind))) for kind in kinds]


def _tiff_maps() -> Files:
    kinds = ("uint8", "uint16", "float16", "float32", "float64")
    files = [(f"{kind}.tif", _tiff(_pixels(23, 31, dtype=kind))) for kind in kinds]
    return [*files, ("z.tiff", _tiff(_pixels(64, 64, dtype="float32"), compression="zlib", tile=(32, 32)))]


def _png_maps() -> Files:
    return [
        _saved(Image.fromarray(_pixels(23, 31)), "a.png"),
        _saved(Image.fromarray(_pixels(9, 9, dtype="uint16")), "d.png"),
    ]


# --- texts ------------------------------------------------------------------------------------------------------------


def _configs() -> Files:
    entries = [
        {"defect_name": f"d{k}", "pixel_value": 255 - k, "saturation_threshold": 1.0 / (k + 1) if k % 2 else 50 + k,
         "relative_saturation": bool(k % 2)}
        for k in range(5)
    ]  # fmt: skip
    return [("defects_config.json", json.dumps(entries, indent=1).encode())]


_PLAN = """name: screws
title: "All of them"
datasets:
  - ../data/mtd
  - {path: /data/autovi, name: autovi, categories: [tank_screw, pipe_clip]}
methods:
  - thumbnail-nn
  - {method: patchcore, label: Patchcore R18, config: {backbone: resnet18}, seeds: [3, 4]}
  - {method: patchcore, label: few, protocol: {shots: 10}}
seeds: 3
protocol: {calibration_folds: 3, fpr_limits: [0.05, 0.3]}
exclude: [{category: pipe_clip, method: padim}]
keep_maps: gallery
timeout: 3600
"""

# --- learned parts ----------------------------------------------------------------------------------------------------


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 3))
    return network.state_dict()


def _torch_file(value: object, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def _legacy(value: object) -> bytes:
    return _torch_file(value, _use_new_zipfile_serialization=False)


def _zipped() -> Files:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models/readme.txt", "weights")
        archive.writestr("models/weights.pth", _torch_file(_state()))
    return [("w.zip", out.getvalue())]


def _go_on(checkpoint: Path) -> int:
    """Resumes a training of two steps; the step from which it went on."""
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 2)
    report = train(
        lambda number, batch: {"loss": network(batch).square().mean()},
        lambda number: torch.ones(2, 4),
        steps=2,
        modules={"network": network},
        optimiser=torch.optim.Adam(network.parameters()),
        generators={"numpy": np.random.default_rng(0), "torch": torch.Generator()},
        options=TrainingOptions(checkpoint=checkpoint, prefetch=False),
    )
    return report.resumed_at


def _resume(checkpoint: Path) -> None:
    try:
        resumed = _go_on(checkpoint)
    finally:
        for path in checkpoint.parent.iterdir():
            if path != checkpoint:
                path.unlink()
    if not resumed:
        raise SetAsideError


def _checkpoints() -> Files:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.pt"
        _go_on(path)
        return [("c.pt", path.read_bytes())]


def _detectors() -> Files:
    images = [_pixels(32, 32, 3) // k for k in (1, 2, 3)]
    return [("d.safetensors", create_method("thumbnail-nn", {}).fit(images).to_bytes())]


# --- stores -----------------------------------------------------------------------------------------------------------


@dataclass
class StoreDoor(Door):
    """A store one of whose files was damaged; half of the time with a manifest that fits what is there."""

    name: str
    bound: int
    suffix: str

    def prepare(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        store = Store(folder / "whole", create=True)
        maps = GalleryMaps(("test/x/0000",), (rng.random((5, 7), dtype=np.float32),), (FullFrame,))
        specs = [make_spec(seed=seed) for seed in (0, 1, 2)]
        for spec in specs[:2]:
            store.write_experiment(make_record(spec), make_arrays(), maps=maps, detector=b"x" * 99, log="fine\n")
        failure = {"kind": "error", "reason": "no room", "started": "2026-01-01T00:00:00+00:00", "seconds": 1.0}
        store.write_failure(Failure(id=specs[2].id, spec=specs[2], **failure))
        plan = {"name": "plan", "title": "", "source": "", "content": {}, "base": "/", "seeds": (0, 1, 2)}
        store.write_plan(StoredPlan(**plan, datasets=(), specs=tuple(specs)))
        mask = _pixels(8, 9) > 99
        store.write_gallery("tiny", "bolt", "f" * 32, [shrink("test/x/0000", "x", _pixels(8, 9, 3), mask)])

    def warm(self, folder: Path) -> None:
        _use(Store(folder / "whole"))

    def attempt(self, rng: np.random.Generator, folder: Path) -> None:
        root = folder / "store"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(folder / "whole", root)
        paths = sorted(p for p in root.rglob(f"*{self.suffix}") if p.is_file())
        path = paths[int(rng.integers(len(paths)))]
        content = (damaged if self.suffix == ".npz" else damaged_text)(rng, path.read_bytes())
        path.write_bytes(content)
        manifest = path.parent / "manifest.json"
        if manifest.is_file() and path != manifest and rng.random() < 0.7:
            files = json.loads(manifest.read_bytes())
            _enter(files, path.name, content)
            manifest.write_text(json.dumps(files))
        store = Store(root)
        _use(store)
        store.repair()
        _use(Store(root))
        if store.problems:
            raise SetAsideError


def _enter(manifest: Any, name: str, content: bytes) -> None:
    """Size and hash of a changed file, wherever the manifest keeps them."""
    entry = manifest.get(name) or manifest.get("files", {}).get(name)
    for key, value in entry.items():
        entry[key] = len(content) if isinstance(value, int) else digest(content)


def _use(store: Store) -> None:
    store.plans(), store.specs(), store.records(everything=True), store.failures(), len(store)
    store.gallery("tiny", "bolt", "f" * 32)
    for experiment_id in store.ids():
        for read in (store.record, store.arrays, store.maps, store.model_path, store.log):
            try:
                read(experiment_id)
            except AndonError as error:
                store.problems.append(str(error))


# --- folders ----------------------------------------------------------------------------------------------------------

_ODD = (
    "a\nb.png", "é.png", "e\u0301.png", "-rf.png", ".hidden.png", "x.PNG", "x.png.png", "😀.png", "x" * 250 + ".png",
    "\udcff.png", "a b.png", "000_mask.png", "x.ppm", "x.txt", "x.", "[red].png", "..png", "\x1b[31m.png", "Thumbs.db",
    "000.jpg",
)  # fmt: skip
_FOLDERS = ("good", "Good", "mask", "masks", "gt", "labels", "Ground_Truth", "train", "Test", "x.png", "\udcfe", "000")


@dataclass
class FolderDoor(Door):
    """A data set's folder with what does not belong there."""

    name: str = "data folders"
    bound: int = 256
    image: bytes = b""
    mask: bytes = b""

    def prepare(self, folder: Path) -> None:
        self.image = _saved(Image.fromarray(_pixels(8, 9, 3)), "a.png")[1]
        self.mask = _saved(Image.fromarray((_pixels(8, 9) > 200).astype(np.uint8) * 255), "a.png")[1]

    def warm(self, folder: Path) -> None:
        self._build(np.random.default_rng(0), folder / "warm", changes=0)
        _read_dataset(folder / "warm")

    def attempt(self, rng: np.random.Generator, folder: Path) -> None:
        root = folder / f"set{rng.integers(10)}"
        shutil.rmtree(root, ignore_errors=True)
        self._build(rng, root, changes=int(rng.integers(1, 7)))
        _read_dataset(root)

    def _build(self, rng: np.random.Generator, root: Path, changes: int) -> None:
        layout = int(rng.integers(3))
        files = {f"train/good/{k}.png": self.image for k in range(3)}
        files |= {f"test/{kind}/{k}.png": self.image for kind in ("good", "dent") for k in range(2)}
        if layout == 0:
            files |= {f"ground_truth/dent/{k}_mask.png": self.mask for k in range(2)}
        elif layout == 1:
            files |= {f"ground_truth/dent/{k}/0.png": self.mask for k in range(2)}
            files["defects_config.json"] = _configs()[0][1]
        else:
            files = {f"{kind}/{k}.png": self.image for kind in ("good", "dent") for k in range(3)}
        if rng.random() < 0.3:
            files = {f"part/{name}": data for name, data in files.items()}
        for name, data in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for _ in range(changes):
            with suppress(OSError, ValueError):  # a change that an earlier one has made impossible
                self._change(rng, root)

    def _change(self, rng: np.random.Generator, root: Path) -> None:
        everything = [root, *(Path(at) / name for at, folders, names in os.walk(root) for name in (*folders, *names))]
        folders = [p for p in everything if p.is_dir() and not p.is_symlink()]
        folder, anything = (group[int(rng.integers(len(group)))] for group in (folders, everything))
        new = folder / _ODD[int(rng.integers(len(_ODD)))]
        kind = int(rng.integers(11))
        if os.path.lexists(new):  # it may be a pipe, or a link out of here
            return
        if kind == 0:
            new.write_bytes(self.image)
        elif kind == 1:
            new.write_bytes(b"")
        elif kind == 2:
            new.write_bytes(damaged(rng, self.image))
        elif kind == 3:
            targets = (
                root,
                folder,
                new,
                Path("nowhere"),
                anything,
                Path("/dev/zero"),
                Path("/dev/null"),
            )
            new.symlink_to(targets[int(rng.integers(len(targets)))])
        elif kind == 4:
            deep = folder.joinpath(*["deep"] * int(rng.integers(1, 200)))
            deep.mkdir(parents=True)
            (deep / "x.png").write_bytes(self.image)
        elif kind == 5:
            os.mkfifo(new)
        elif kind == 6:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(new))
        elif kind == 7 and anything != root:
            anything.rename(anything.with_name(_FOLDERS[int(rng.integers(len(_FOLDERS)))]))
        elif kind == 8 and anything != root:
            shutil.rmtree(anything) if anything.is_dir() and not anything.is_symlink() else anything.unlink()
        elif kind == 9:
            (folder / _FOLDERS[int(rng.integers(len(_FOLDERS)))]).mkdir()
        elif anything.is_file() and not anything.is_symlink():
            anything.write_bytes(damaged(rng, anything.read_bytes()))


def _read_dataset(root: Path) -> None:
    dataset = load_dataset(root)
    info = dataset_info(dataset, threads=1)
    json.dumps(info.as_dict())
    refused: list[AndonError] = []
    for category in dataset:
        for read in _readings(category):
            try:
                read()
            except AndonError as error:
                refused.append(error)
    if refused:
        raise refused[0]


def _readings(category: Any) -> Iterator[Callable[[], Any]]:
    yield lambda: category_fingerprint(category)
    for sample in category.samples:
        yield from (sample.image, sample.size, sample.ground_truth)


DOORS: Sequence[Door] = (
    FileDoor("images", 400, _images, read_image),
    FileDoor("masks", 400, _masks, read_mask),
    FileDoor("defects configurations", 64, _configs, read_defects_config, damaged_text),
    FileDoor("plans", 64, lambda: [("p.yaml", _PLAN.encode())], load_plan, damaged_text),
    FileDoor("weights .safetensors", 256, lambda: [("w.safetensors", save(_state()))], read_state_dict),
    FileDoor("weights .pth, zip", 256, lambda: [("w.pth", _torch_file(_state()))], read_state_dict),
    FileDoor("weights .pth, legacy", 256, lambda: [("w.pth", _legacy(_state()))], read_state_dict),
    FileDoor("weights .zip", 256, _zipped, lambda path: read_state_dict(path, "weights.pth")),
    FileDoor("training checkpoints", 256, _checkpoints, _resume),
    FileDoor("maps .png", 600, _png_maps, read_map),
    FileDoor("maps .tif", 600, _tiff_maps, read_map),
    FileDoor("maps .npy", 600, _npy_maps, read_map),
    StoreDoor("stores, JSON", 256, ".json"),
    StoreDoor("stores, NPZ", 256, ".npz"),
    FileDoor("detectors", 256, _detectors, andon.load),
    FolderDoor(),
)
