"""The AutoVI layout (Carvalho et al. 2024), which is also that of MVTec LOCO AD (Bergmann et al. 2022).

    <category>/train/good/*.png
    <category>/test/good/*.png
    <category>/test/<defect type>/*.png
    <category>/ground_truth/<defect type>/<image>/*.png     one file = one channel = one region
    <category>/defects_config.json                            what a mask's positive value stands for

A region is not split into connected components. MVTec LOCO's ``validation/`` is not read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import GOOD, AndonError, Category, Channel, DefectConfig, Sample, listed
from andon.data.files import FileReader, list_folder, make_samples
from andon.data.layout import Layout, ReadOptions

__all__ = ["LAYOUT", "AutoVIReader", "read_defects_config"]

CONFIG_NAME = "defects_config.json"
_MAX_CONFIG_BYTES = 2**20


@dataclass(frozen=True)
class AutoVIReader(FileReader):
    """Reads masks whose one positive value selects an entry of ``defects_config.json``."""

    defects: tuple[DefectConfig, ...]

    def channel(self, sample: Sample, path: Path, values: npt.NDArray[np.uint8]) -> Channel:
        counts = np.bincount(values.ravel(), minlength=256)
        present = [int(value) for value in np.flatnonzero(counts[1:]) + 1]
        if len(present) > 1:
            raise AndonError(
                f"{path}: the mask has {len(present)} different positive values ({listed(map(str, present))}); "
                "a mask is one region and may have one"
            )
        if not present:
            # No value, hence no entry: the folder's name stands in. Evaluation leaves empty channels out.
            return Channel(values > 0, sample.defect_type, 0)
        entry = next((d for d in self.defects if d.pixel_value == present[0]), None)
        if entry is None:
            known = listed(f"{d.pixel_value} ({d.name})" for d in self.defects)
            raise AndonError(f"{path}: pixel value {present[0]} is not in {CONFIG_NAME}, which has {known or 'none'}")
        return Channel(values > 0, entry.name, entry.saturation(int(counts[present[0]])))


def read_defects_config(path: Path) -> tuple[DefectConfig, ...]:
    """The entries of ``defects_config.json``, in the file's order.

    Unlike the official evaluator's, a relative threshold may be written ``1`` and an absolute one ``50.0``; but two
    entries with one pixel value are refused unless they are the same.

    Raises:
        AndonError: names the file, the entry and the field.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise AndonError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) > _MAX_CONFIG_BYTES:
        raise AndonError(f"{path}: too large for a configuration (limit {_MAX_CONFIG_BYTES:,} bytes)")
    try:
        entries = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise AndonError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(entries, list):
        raise AndonError(f"{path}: must be a list of entries, not {_kind(entries)}")
    configs: dict[int, DefectConfig] = {}
    for number, entry in enumerate(entries, start=1):
        config = _parse_entry(entry, f"{path}: entry {number}")
        known = configs.setdefault(config.pixel_value, config)
        if known != config:
            raise AndonError(
                f"{path}: entry {number} ({config.name}): pixel_value {config.pixel_value} is that of {known.name} too"
            )
    return tuple(configs.values())


def _parse_entry(entry: object, where: str) -> DefectConfig:
    if not isinstance(entry, dict):
        raise AndonError(f"{where} must be an object with defect_name, pixel_value, …, not {_kind(entry)}")
    fields = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")
    missing = [field for field in fields if field not in entry]
    if missing:
        raise AndonError(f"{where} has no {' and no '.join(missing)}")
    name, pixel_value, threshold, relative = (entry[field] for field in fields)
    if not isinstance(name, str) or not name.strip():
        raise AndonError(f"{where}: defect_name must be a text, not {_shown(name)}")
    where = f"{where} ({name})"
    if not _is_whole(pixel_value) or not 1 <= pixel_value <= 255:
        raise AndonError(f"{where}: pixel_value must be a whole number 1..255, not {_shown(pixel_value)}")
    if not isinstance(relative, bool):
        raise AndonError(f"{where}: relative_saturation must be true or false, not {_shown(relative)}")
    if relative and not (_is_number(threshold) and 0 < threshold <= 1):
        raise AndonError(
            f"{where}: a relative saturation_threshold must be above 0 and at most 1, not {_shown(threshold)}"
        )
    if not relative and not (_is_whole(threshold) and threshold >= 1):
        raise AndonError(
            f"{where}: an absolute saturation_threshold must be a whole number of pixels, at least 1, "
            f"not {_shown(threshold)}"
        )
    return DefectConfig(name, int(pixel_value), float(threshold), relative)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return _is_number(value) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _kind(value: object) -> str:
    names: dict[type[Any], str] = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return "nothing" if value is None else names.get(type(value), "a number")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 40 else text[:37] + "…"


def recognise(folder: Path) -> bool:
    if not ((folder / "train").is_dir() or (folder / "test").is_dir()):
        return False
    if (folder / CONFIG_NAME).is_file():
        return True
    truth = folder / "ground_truth"
    return any(list_folder(truth / kind).folders for kind in list_folder(truth).folders)


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    truth = folder / "ground_truth"
    masks = {kind: _channel_files(truth / kind) for kind in list_folder(truth).folders}
    config = folder / CONFIG_NAME
    defects: tuple[DefectConfig, ...] = ()
    if config.exists():
        defects = read_defects_config(config)
    elif any(masks.values()):
        raise AndonError(
            f"{folder}: {CONFIG_NAME} is missing; without it nobody knows what the values in ground_truth/ stand for"
        )
    reader = AutoVIReader(defects)
    train = list_folder(folder / "train" / GOOD)
    samples = make_samples(train.folder, train.images, "train", GOOD, reader)
    for kind in list_folder(folder / "test").folders:
        images = list_folder(folder / "test" / kind)
        regions = masks.get(kind) if kind != GOOD else None
        samples += make_samples(images.folder, images.images, "test", kind, reader, regions)
    return Category(name, dataset, folder, tuple(samples), defects)


def _channel_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Files of ``ground_truth/<defect type>/<image>/`` by image; images with none are left out."""
    found = {}
    for image in list_folder(folder).folders:
        listing = list_folder(folder / image)
        if listing.images:
            found[image] = tuple(listing.folder / name for name in listing.images)
    return found


LAYOUT = Layout(
    name="autovi",
    expects="train/good/*.png, test/<defect>/*.png, ground_truth/<defect>/<image>/*.png and defects_config.json",
    recognise=recognise,
    read=read,
)
