"""Small copies of a category's images and anomaly maps, for the report's gallery."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import PositiveInt

from andon._tools.models import FrozenModel
from andon.benchmark._serial import UNREADABLE, damaged, json_bytes, read_bytes
from andon.core import BoolArray, FloatArray, ImageArray, Region

__all__ = ["GalleryImage", "GalleryMaps", "gallery_problem", "read_gallery", "shrink", "write_gallery"]

GALLERY_SIDE = 512
"""Longest side of the gallery's images, pixels."""
_LARGEST_IMAGE = 2**22
"""Bytes of a file of one: uncompressed it has 786,432."""


@dataclass(frozen=True)
class GalleryMaps:
    """Raw anomaly maps of some test images.

    Attributes:
        sample_ids: ``[K]``.
        maps: K float32 ``[h, w]``, raw, higher = more anomalous, at the method's own resolution.
        regions: the part of the image that each map covers.
    """

    sample_ids: tuple[str, ...]
    maps: tuple[FloatArray, ...]
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        if not len(self.sample_ids) == len(self.maps) == len(self.regions):
            raise ValueError(f"{len(self.sample_ids)} samples, {len(self.maps)} maps, {len(self.regions)} regions")

    def __len__(self) -> int:
        return len(self.maps)

    def get(self, sample_id: str) -> tuple[FloatArray, Region] | None:
        """Map and region of a sample; None if it was not kept."""
        try:
            index = self.sample_ids.index(sample_id)
        except ValueError:
            return None
        return self.maps[index], self.regions[index]

    def to_npz(self) -> dict[str, npt.NDArray[Any]]:
        """As plain arrays (no pickles)."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "sample_ids": np.asarray(self.sample_ids, dtype=np.str_),
            "regions": np.asarray([(r.top, r.left, r.bottom, r.right) for r in self.regions]).reshape(-1, 4),
        }
        return arrays | {f"map_{i}": m for i, m in enumerate(self.maps)}

    @classmethod
    def from_npz(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> GalleryMaps:
        """The inverse of ``to_npz``; ValueError or KeyError for anything else."""
        ids = tuple(str(x) for x in arrays["sample_ids"])
        maps = tuple(arrays[f"map_{i}"] for i in range(len(ids)))
        for index, values in enumerate(maps):
            if values.ndim != 2 or values.dtype != np.float32:
                raise ValueError(f"map {index} is {values.dtype} {list(values.shape)}, not float32 [h, w]")
        return cls(ids, maps, tuple(Region(*(float(x) for x in row)) for row in arrays["regions"]))


@dataclass(frozen=True)
class GalleryImage:
    """A test image of the gallery, made small.

    Attributes:
        sample_id: as in ``EvaluationArrays.sample_ids``.
        defect_type: "good" for a good one.
        size: (height, width) of the original.
        image: RGB uint8 ``[h, w, 3]``, longest side at most 512.
        mask: union of the ground-truth channels, bool ``[h, w]``; None for a defective image without ground truth.
    """

    sample_id: str
    defect_type: str
    size: tuple[int, int]
    image: ImageArray = field(repr=False)
    mask: BoolArray | None = field(repr=False)


class _Entry(FrozenModel):
    sample_id: str
    defect_type: str
    size: tuple[PositiveInt, PositiveInt]
    image: str
    mask: str | None


class _Content(FrozenModel):
    """``gallery.json``."""

    dataset: str
    category: str
    pictures: tuple[_Entry, ...]


def shrink(
    sample_id: str, defect_type: str, image: ImageArray, mask: BoolArray | None, side: int = GALLERY_SIDE
) -> GalleryImage:
    """A gallery image from an image RGB uint8 ``[H, W, 3]`` and its mask bool ``[H, W]``.

    A pixel of the small mask is set where any pixel under it is: a defect of one pixel stays visible.
    """
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) if scale < 1 else image
    if mask is not None and scale < 1:
        coverage = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
        mask = np.asarray(coverage) > 0
    return GalleryImage(sample_id, defect_type, (height, width), small, mask)


def write_gallery(folder: Path, dataset: str, category: str, images: Sequence[GalleryImage]) -> None:
    """Writes gallery images to an empty folder."""
    entries = []
    for index, image in enumerate(images):
        filename, mask = f"{index}.jpg", None
        Image.fromarray(image.image).save(folder / filename, quality=92)
        if image.mask is not None:
            mask = f"{index}-mask.png"
            Image.fromarray(image.mask.astype(np.uint8) * 255).save(folder / mask)
        entries.append(
            _Entry(
                sample_id=image.sample_id,
                defect_type=image.defect_type,
                size=image.size,
                image=filename,
                mask=mask,
            )
        )
    content = _Content(dataset=dataset, category=category, pictures=tuple(entries))
    (folder / "gallery.json").write_bytes(json_bytes(content))


def read_gallery(folder: Path) -> list[GalleryImage]:
    """The images of a gallery's folder; any of ``UNREADABLE`` where it is damaged."""
    images = []
    content = _Content.model_validate_json(read_bytes(folder / "gallery.json"))
    files = [name for entry in content.pictures for name in (entry.image, entry.mask) if name is not None]
    if len(set(files)) < len(files):
        raise ValueError("it names a file twice")
    for entry in content.pictures:
        pixels = _read_pixels(folder, entry.image, "RGB")
        mask = None if entry.mask is None else _read_pixels(folder, entry.mask, "L") > 0
        if mask is not None and mask.shape != pixels.shape[:2]:
            raise ValueError(f"{entry.mask} has another size than {entry.image}")
        images.append(GalleryImage(entry.sample_id, entry.defect_type, entry.size, pixels, mask))
    return images


def _read_pixels(folder: Path, name: str, mode: str) -> npt.NDArray[np.uint8]:
    if Path(name).name != name:
        raise ValueError(f"{name!r} is not a file of the gallery")
    # Of the kinds that are written alone: Pillow would start other programs for some.
    with Image.open(io.BytesIO(read_bytes(folder / name, _LARGEST_IMAGE)), formats=("JPEG", "PNG")) as image:
        if max(image.size) > GALLERY_SIDE:
            raise ValueError(f"{name} is larger than a gallery image")
        return np.asarray(image.convert(mode))


def gallery_problem(folder: Path) -> str | None:
    """What is wrong with a gallery's folder; None where nothing is."""
    try:
        read_gallery(folder)
    except UNREADABLE as error:
        return str(damaged(folder, error))
    return None
