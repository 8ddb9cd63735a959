"""A preparation on disk: the data set, whole or not at all, and its contact sheets."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout

from andon._tools.parallel import ordered_map
from andon.core import GOOD, ConfigError, DataError, ImageArray, ProgressCallback, listed, no_progress
from andon.data.decode import read_image
from andon.data.preparing.planning import PlannedImage, Preparation
from andon.data.preparing.rules import evaluator_faults
from andon.data.preparing.sheets import Tile, contact_sheet, outlined

__all__ = ["MANIFEST", "check_target", "write_prepared", "write_sheets"]

MANIFEST = "prepare.json"
"""What every prepared image was made of."""
_ON_A_SHEET = 30
_UNRULY = 3


def write_prepared(
    preparation: Preparation,
    target: Path,
    *,
    anyway: bool = False,
    progress: ProgressCallback = no_progress,
) -> list[str]:
    """Writes the data set: a category in AutoVI's layout.

    It is written beside ``target`` and takes its name when it is whole. What a killed run left there is removed first.

    Args:
        preparation: of ``plan_preparation``.
        target: the category's folder; must not exist, or be empty. Its name is the category's.
        anyway: keep it even where the study's evaluator would not take it.
        progress: called with ("prepared images", done, total).

    Returns:
        What the study's evaluator would not take, one line each.

    Raises:
        ConfigError: the target is not empty, is a file, or lies in the source.
        DataError: rules are broken and not ``anyway``; a raw file changed meanwhile; a full disk. Nothing is kept then.
    """
    check_target(preparation.source, target)
    target = Path(os.path.abspath(target))
    with _aside(target) as aside:
        category = aside / target.name  # the evaluator's rules depend on a category's name
        try:
            _write_frame(preparation, category)
            taken = preparation.taken
            for done, _ in enumerate(ordered_map(lambda image: _write_one(preparation, image, category), taken), 1):
                progress("prepared images", done, len(taken))
            # Without masks there is nothing that it could take, which is said already.
            found = [] if preparation.annotations is None else evaluator_faults(category)
            faults = [fault.replace(str(category), str(target)) for fault in found]
            if faults and not anyway:
                raise DataError(
                    f"{target}: the study's evaluator would not take it, so it was not written: "
                    f"{listed(faults, _UNRULY)}; mend that, or allow it with --anyway"
                )
            if target.is_dir():
                target.rmdir()  # empty, see above; os.replace takes an empty folder's place on POSIX alone
            os.replace(category, target)
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror or error}); nothing was kept") from error
    return faults


def check_target(source: Path, target: Path) -> None:
    """ConfigError unless a data set can be made there: the folder is empty or not there, and not in the source."""
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target}: is a file; name a folder")
    if target.is_dir() and any(target.iterdir()):
        raise ConfigError(f"{target}: is not empty; name another folder")
    _refuse_inside(source, target)


def _refuse_inside(source: Path, target: Path) -> None:
    whole = source.resolve()
    if target.resolve() == whole or whole in target.resolve().parents:
        raise ConfigError(f"{target}: lies in the source {source}, which is never changed; name another folder")


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, this process's own, which is gone at the end."""
    aside = target.parent / f".{target.name}.partial"
    lock = FileLock(aside.with_suffix(".lock"))
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        with lock.acquire(timeout=0):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            try:
                yield aside
            finally:
                shutil.rmtree(aside, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise ConfigError(f"{target}: is being prepared by another process") from None
    except PermissionError as error:
        raise ConfigError(f"{target}: cannot be written there ({error.strerror})") from error


def _write_frame(preparation: Preparation, category: Path) -> None:
    for folder in {str(Path(image.target).parent) for image in preparation.taken} | {"ground_truth"}:
        (category / folder).mkdir(parents=True, exist_ok=True)
    entries = [
        {
            "defect_name": name,
            "pixel_value": value,
            # The evaluator takes a fraction written with a point and pixels without one, nothing else.
            "saturation_threshold": float(s.threshold) if s.relative else int(s.threshold),
            "relative_saturation": s.relative,
        }
        for name, (value, s) in _pixel_values(preparation).items()
    ]
    (category / "defects_config.json").write_text(_json(entries), encoding="utf-8")
    (category / MANIFEST).write_text(_json(preparation.as_dict()), encoding="utf-8")


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


def _pixel_values(preparation: Preparation) -> dict[str, tuple[int, Any]]:
    return {name: (255 - k, s) for k, (name, s) in enumerate(preparation.saturation.items())}


def _write_one(preparation: Preparation, image: PlannedImage, category: Path) -> None:
    assert image.place is not None
    raw = read_image(image.raw.path)
    _write_png(category / image.target, preparation.cutter.image(raw, image.place))
    if preparation.annotations is None or image.raw.label == GOOD:
        return
    values = _pixel_values(preparation)
    folder = category / "ground_truth" / image.raw.label / f"{image.number:04d}"
    number = 0
    for region in preparation.annotations.regions.get(image.raw.name, ()):
        mask = preparation.cutter.mask(region.draw((raw.shape[0], raw.shape[1])), image.place)
        if mask.any():
            folder.mkdir(parents=True, exist_ok=True)
            # Three equal channels: the evaluator indexes the third dimension.
            value = np.uint8(values[region.defect][0])
            _write_png(folder / f"{number:04d}.png", np.repeat(mask.astype(np.uint8)[..., None] * value, 3, axis=2))
            number += 1


def _write_png(path: Path, image: ImageArray) -> None:
    ok, code = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not ok:
        raise OSError(f"{path.name} cannot be encoded")
    path.write_bytes(code.tobytes())


# Contact sheets


def write_sheets(preparation: Preparation, folder: Path) -> list[Path]:
    """Writes the contact sheets that have something on them: the worst matches, what is rejected, near duplicates, and
    regions on their images. Sheets of an earlier run are replaced.

    Raises:
        ConfigError: they cannot be written, or lie in the source.
    """
    _refuse_inside(preparation.source, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [path for write in (_worst, _rejected, _alike, _regions) if (path := write(preparation, folder))]
        for name in {"worst-matches", "rejected", "near-duplicates", "regions"} - {path.stem for path in written}:
            (folder / f"{name}.png").unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: contact sheets cannot be written ({error.strerror or error})") from error
    return written


def _worst(preparation: Preparation, folder: Path) -> Path | None:
    if not preparation.cutter.templates:
        return None
    found = [i for i in preparation.taken if i.place is not None]
    ranked = sorted(found, key=lambda image: image.place.score if image.place else 0)[:_ON_A_SHEET]
    tiles = [
        Tile(_prepared(preparation, image), f"{image.place.score:.3f}  {image.place.angle:+.1f}°\n{image.raw.name}")
        for image in ranked
        if image.place
    ]
    least = preparation.options.confidence
    note = f"correlation and angle of the {len(tiles)} worst of {len(found)}; below {least:g} none is taken"
    return contact_sheet(folder / "worst-matches.png", "Worst matches that are taken", note, tiles) if tiles else None


def _rejected(preparation: Preparation, folder: Path) -> Path | None:
    shown = [i for i in preparation.rejected if i.rejected and i.rejected.kind != "unreadable"]
    tiles = [
        Tile(_prepared(preparation, image), f"{image.rejected.kind}\n{image.raw.name}")
        for image in shown[:_ON_A_SHEET]
        if image.rejected
    ]
    note = f"{len(tiles)} of {len(preparation.rejected)}; the manifest has every reason"
    return contact_sheet(folder / "rejected.png", "Rejected images", note, tiles) if tiles else None


def _alike(preparation: Preparation, folder: Path) -> Path | None:
    images, leaks = preparation.images, set(preparation.leaks)
    pairs = sorted(preparation.duplicates, key=lambda pair: (pair not in leaks, -pair.correlation))[: _ON_A_SHEET // 2]
    tiles = []
    for pair in pairs:
        for number in pair[:2]:
            said = "LEAK" if pair in leaks else "same split"
            caption = f"{pair.correlation:.3f}  {said}, {images[number].split}\n{images[number].raw.name}"
            tiles.append(Tile(_prepared(preparation, images[number]), caption))
    note = f"{len(pairs)} of {len(preparation.duplicates)} pairs, side by side; {len(leaks)} between training and test"
    return contact_sheet(folder / "near-duplicates.png", "Near duplicates", note, tiles, columns=4) if tiles else None


def _regions(preparation: Preparation, folder: Path) -> Path | None:
    if preparation.annotations is None:
        return None
    regions = preparation.annotations.regions
    shown = [i for i in preparation.taken if i.raw.name in regions and i.place is not None]
    step = max(1, len(shown) // _ON_A_SHEET)
    tiles = []
    for image in shown[::step][:_ON_A_SHEET]:
        raw = read_image(image.raw.path)
        assert image.place is not None
        size = (raw.shape[0], raw.shape[1])
        masks = [preparation.cutter.mask(r.draw(size), image.place) for r in regions[image.raw.name]]
        names = listed(dict.fromkeys(r.defect for r in regions[image.raw.name]), 2)
        drawn = outlined(preparation.cutter.image(raw, image.place), masks)
        tiles.append(Tile(drawn, f"{len(masks)} × {names}\n{image.raw.name}"))
    note = f"{len(tiles)} of {len(shown)} defective images"
    return contact_sheet(folder / "regions.png", "Regions", note, tiles) if tiles else None


def _prepared(preparation: Preparation, image: PlannedImage) -> ImageArray:
    """The prepared image; the raw one where it could not be cut."""
    raw = read_image(image.raw.path)
    if image.place is None:
        return raw
    try:
        return preparation.cutter.image(raw, image.place)
    except DataError:
        return raw
