"""The rules of the study's evaluator, checked on files.

They are those that its code (https://github.com/phcarval/autovi_evaluation_code, ``src/image.py`` and
``evaluate_experiment.py``) asserts, or needs without asserting: what breaks one ends in a traceback there, or in a
figure that means nothing. Andon's own reader is more lenient.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from andon.core import GOOD, AndonError, listed
from andon.data.decode import read_size
from andon.data.files import list_folder, without_suffix

__all__ = ["OFFICIAL_SIZES", "evaluator_faults"]

OFFICIAL_SIZES = {
    "engine_wiring": (400, 400),
    "pipe_clip": (400, 400),
    "pipe_staple": (400, 400),
    "tank_screw": (750, 1000),
    "underbody_pipes": (750, 1000),
    "underbody_screw": (750, 1000),
}
"""(height, width) that the evaluator brings anomaly maps to, by category; others are taken as they are."""
_RESERVED = ("logical_anomalies", "structural_anomalies")


def evaluator_faults(category: Path) -> list[str]:
    """What the study's evaluator would not take of a category's folder, one line each; empty where it takes all.

    Args:
        category: holds ``test/``, ``ground_truth/`` and ``defects_config.json``; its name counts.
    """
    config = category / "defects_config.json"
    try:
        entries = json.loads(config.read_bytes())
    except (OSError, ValueError) as error:
        return [f"{config}: cannot be read ({error})"]
    faults = list(_config_faults(config, entries))
    if faults:
        return faults
    by_value = {entry["pixel_value"]: entry for entry in entries}
    return [*_tree_faults(category), *_mask_faults(category, by_value)]


def _config_faults(path: Path, entries: Any) -> Iterator[str]:
    if not isinstance(entries, list):
        yield f"{path}: must be a list"
        return
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: entry {number}"
        fields = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")
        missing = [name for name in fields if not isinstance(entry, dict) or name not in entry]
        if missing:
            yield f"{where}: has no {listed(missing)}"
            continue
        threshold, relative, value = (entry[name] for name in (fields[2], fields[3], fields[1]))
        if not isinstance(value, int) or not 1 <= value <= 255:
            yield f"{where}: pixel_value must be 1..255"
        if relative and not (isinstance(threshold, float) and 0 < threshold <= 1):
            yield f"{where}: a relative saturation_threshold must be written with a point, above 0 and at most 1.0"
        if not relative and (not isinstance(threshold, int) or threshold < 1):
            yield f"{where}: an absolute saturation_threshold must be a whole number, at least 1"
    values = [entry["pixel_value"] for entry in entries if isinstance(entry, dict) and "pixel_value" in entry]
    if len(set(values)) < len(values):
        yield f"{path}: two entries have one pixel_value; the last one would be taken for both"


def _tree_faults(category: Path) -> Iterator[str]:
    """Folders and names: every defective test image has a folder of masks, and every such folder its image."""
    truth, test = category / "ground_truth", category / "test"
    if not truth.is_dir():
        yield f"{truth}: is missing"
        return
    top = list_folder(truth)
    for name in (*top.images, *top.others):
        yield f"{truth / name}: only folders may lie here"
    images: dict[str, set[str]] = {}
    for kind in list_folder(test).folders:
        names = [without_suffix(name) for name in list_folder(test / kind).images]
        images[kind] = set(names)
        if len(images[kind]) < len(names):
            yield f"{test / kind}: two images have the same name but for the suffix"
    for kind in top.folders:
        if kind in _RESERVED:
            yield f"{truth / kind}: the evaluator refuses this name"
        inside = list_folder(truth / kind)
        for name in (*inside.images, *inside.others):
            yield f"{truth / kind / name}: must lie in a folder called as its image is"
        for name in inside.folders:
            if not any((truth / kind / name).glob("*.png")):
                yield f"{truth / kind / name}: holds no *.png"
            if name not in images.get(kind, set()):
                yield f"{truth / kind / name}: there is no such image in {test / kind}"
    for kind, stems in images.items():
        lost = sorted(stems - set(list_folder(truth / kind).folders)) if kind != GOOD else []
        if lost:
            yield f"{test / kind}: {len(lost)} images have no masks: {listed(lost, 3)}"


def _mask_faults(category: Path, by_value: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    truth = category / "ground_truth"
    wanted = OFFICIAL_SIZES.get(category.name)
    for kind in list_folder(truth).folders:
        test = category / "test" / kind
        files = {without_suffix(name): test / name for name in reversed(list_folder(test).images)}
        for image in list_folder(truth / kind).folders:
            size = wanted or (read_size(files[image]) if image in files else None)
            for path in sorted((truth / kind / image).glob("*.png")):
                fault = _mask_fault(path, size, by_value)
                if fault:
                    yield f"{path}: {fault}"


def _mask_fault(path: Path, size: tuple[int, int] | None, by_value: Mapping[int, Mapping[str, Any]]) -> str:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            # As the evaluator reads it: the array as Pillow gives it, whatever the mode.
            values = np.asarray(image)
    except (OSError, ValueError, SyntaxError, AndonError, Image.DecompressionBombError) as error:
        return f"cannot be read ({error})"
    if values.ndim != 3:
        return "is grey; it must be RGB"
    values = values[:, :, :3]
    if size is not None and values.shape[:2] != size:
        return f"is {values.shape[1]} × {values.shape[0]} pixels, maps would be {size[1]} × {size[0]}"
    present = [int(value) for value in np.unique(values)]
    positive = [value for value in present if value > 0]
    if len(positive) != 1:
        return f"has {len(positive)} different positive values; it must have one"
    if any(not np.array_equal(values[:, :, 0] > 0, values[:, :, k] > 0) for k in range(1, values.shape[2])):
        return "its channels differ, and the first alone would count"
    entry = by_value.get(positive[0])
    if entry is None:
        return f"value {positive[0]} is not in defects_config.json"
    area = int(np.count_nonzero(values[:, :, 0]))
    if entry["relative_saturation"] and int(entry["saturation_threshold"] * area) == 0:
        return f"its saturation is 0 pixels ({entry['saturation_threshold']} of {area}): the evaluator divides by it"
    return ""
