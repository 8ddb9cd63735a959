"""The AutoVI layout (Carvalho et al. 2024), which is also that of MVTec LOCO AD (Bergmann et al. 2022).

    <category>/train/good/*.png
    <category>/validation/good/*.png                        MVTec LOCO's: neither learnt nor judged
    <category>/test/good/*.png
    <category>/test/<defect type>/*.png
    <category>/ground_truth/<defect type>/<image>/*.png     one file = one channel = one region
    <category>/defects_config.json                            what a mask's positive value stands for

A region is not split into connected components.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from andon._tools.files import read_regular
from andon.core import GOOD, AndonError, Category, Channel, DataError, DefectConfig, Sample, listed
from andon.data.files import FileReader, list_folder, make_samples, without_suffix
from andon.data.layout import Layout, ReadOptions
from andon.data.mask import value_counts
from andon.data.mvtec import good_samples, training_samples
from andon.data.truth import Kind, folder_named, is_good, split_truth, truth_folders

__all__ = ["LAYOUT", "AutoVIReader", "read_defects_config"]

CONFIG_NAME = "defects_config.json"
_MAX_CONFIG_BYTES = 2**20


@dataclass(frozen=True)
class AutoVIReader(FileReader):
    """Reads masks whose one positive value selects an entry of ``defects_config.json``."""

    defects: tuple[DefectConfig, ...]

    def channel(self, sample: Sample, path: Path, values: npt.NDArray[np.uint8]) -> Channel:
        counts = value_counts(values)
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
    data = read_regular(path, _MAX_CONFIG_BYTES, what="a configuration")
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
    if folder_named(folder, "train") is None and folder_named(folder, "test") is None:
        return False
    if _config_file(folder) is not None:
        return True
    return any(list_folder(t / kind).folders for t in truth_folders(folder) for kind in list_folder(t).folders)


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    config = _config_file(folder)
    regions: dict[str, dict[str, tuple[Path, ...]]] = {}
    for truth in truth_folders(folder):
        for defect_type in list_folder(truth).folders:
            found = _channel_files(truth / defect_type)
            if found and regions.setdefault(defect_type.casefold(), found) != found:
                raise DataError(f"{truth / defect_type}: another folder holds such masks too; move them into one")
    defects: tuple[DefectConfig, ...] = ()
    if config is not None:
        defects = read_defects_config(config)
    elif any(regions.values()):
        raise DataError(
            f"{folder}: {CONFIG_NAME} is missing; without it nobody knows what the values in ground_truth/ stand for"
        )
    reader = AutoVIReader(defects)
    samples = training_samples(folder, reader) + good_samples(folder, "validation", reader)
    test = folder_named(folder, "test")
    names, unsure = ([], []) if test is None else split_truth(test, list_folder(test).folders)
    kinds = [] if test is None else [Kind(test / kind, deep=False) for kind in names]
    misplaced = [kind.folder / mask for kind in kinds if not is_good(kind.name) for mask in kind.beside[kind.folder]]
    misplaced += [inner for kind in kinds for inner in kind.inner]
    misplaced += [] if test is None else [test / truth for truth in unsure]
    if misplaced:
        raise DataError(
            f"{misplaced[0]}: is called as masks are; in this layout they are "
            "ground_truth/<defect type>/<image>/*.png: move them there, or rename it where it is no mask"
        )
    for kind in kinds:
        (listing,) = kind.listings
        known = {} if is_good(kind.name) else regions.get(kind.name.casefold(), {})
        images = kind.names(listing)
        own = {stem: known[stem.casefold()] for stem in map(without_suffix, images) if stem.casefold() in known}
        samples += make_samples(kind.folder, images, "test", GOOD if is_good(kind.name) else kind.name, reader, own)
    return Category(name, dataset, folder, tuple(samples), defects)


def _config_file(folder: Path) -> Path | None:
    """``defects_config.json``, in any case; DataError where there are two."""
    found = [name for name in list_folder(folder).others if name.casefold() == CONFIG_NAME]
    if len(found) > 1:
        raise DataError(f"{folder}: {' and '.join(found)} are the same name but for the case; remove one")
    return folder / found[0] if found else None


def _channel_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Files of ``ground_truth/<defect type>/<image>/`` by image, casefolded; images with none are left out."""
    found: dict[str, tuple[Path, ...]] = {}
    for image in list_folder(folder).folders:
        listing = list_folder(folder / image)
        if listing.images:
            if image.casefold() in found:
                raise DataError(f"{folder / image}: another folder has this name but for the case; move them into one")
            found[image.casefold()] = tuple(listing.folder / name for name in listing.images)
    return found


LAYOUT = Layout(
    name="autovi",
    expects="train/good/*.png, test/<defect>/*.png, ground_truth/<defect>/<image>/*.png and defects_config.json",
    recognise=recognise,
    read=read,
    rule="the owner's train and test; validation, where there is one, is neither learnt nor judged",
)
