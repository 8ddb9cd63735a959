"""Where the part is: each image is brought into the frame of a reference before it is looked at.

Two steps, both on small grey copies. Template matching (normalised correlation, OpenCV) finds the reference's part in
the image, turned by every angle of the range in steps; ECC maximisation (Evangelidis & Psarakis, PAMI 2008) then
refines rotation and shift to a fraction of a pixel. The correlation after that says whether it is the part: where it is
too low the part was not found, which is a verdict of its own and never a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from andon.core import ConfigError, DataError, ImageArray, Sample, SampleReader
from andon.data import DerivedReader, ImageLike, Images, read_image

__all__ = ["AlignedReader", "Alignment", "Located", "aligned_samples", "make_alignment"]

SIDE = 256
"""Longest side of the grey copies, pixels."""
DEFAULT_ROTATION = 15.0
"""Largest rotation that is looked for, degrees."""
_STEP = 3.0
"""Degrees between two rotations that are tried."""
_MARGIN = 0.6
"""Of the lowest correlation of the good images that is still taken for the part."""
_LEAST = 0.3
_ITERATIONS, _PRECISION = 100, 1e-5

_Matrix = npt.NDArray[np.float64]
_Grey = npt.NDArray[np.float32]


class Located(NamedTuple):
    """Where the part is in an image.

    Attributes:
        matrix: float64 ``[2, 3]``: a place (x, y, 1) of the reference frame to its place in the image, in pixels.
        correlation: of the grey values with the reference's, −1..1.
        angle: degrees that the part is turned by against the reference, counter-clockwise.
        shift: (x, y) pixels that the centre of the part's box has moved.
    """

    matrix: _Matrix
    correlation: float
    angle: float
    shift: tuple[float, float]


@dataclass(frozen=True)
class Alignment:
    """A reference to bring images into the frame of.

    Attributes:
        reference: RGB uint8 ``[H, W, 3]``, an image of a good part.
        box: (x, y, width, height) of what is looked for in it, pixels.
        rotation: largest rotation that is looked for, degrees.
        least_correlation: below it the part was not found.
    """

    reference: ImageArray = field(repr=False)
    box: tuple[int, int, int, int]
    rotation: float = DEFAULT_ROTATION
    least_correlation: float = _LEAST

    def __post_init__(self) -> None:
        height, width = self.reference.shape[:2]
        x, y, w, h = self.box
        if min(x, y) < 0 or min(w, h) < 8 or x + w > width or y + h > height:
            raise ConfigError(f"align: the box {x},{y},{w},{h} is not in the reference, or smaller than 8 pixels")
        if not 0 <= self.rotation <= 180:
            raise ConfigError(f"align: a rotation of {self.rotation:g}° is not within 0 to 180")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        return self.reference.shape[0], self.reference.shape[1]

    def locate(self, image: ImageArray) -> Located:
        """The best place for the part in RGB uint8 ``[H, W, 3]`` of the reference's size.

        Raises:
            DataError: an image of another size.
        """
        if image.shape != self.reference.shape:
            raise DataError(
                f"the image is {image.shape[1]} × {image.shape[0]} pixels, the reference that it is to be aligned to "
                f"{self.reference.shape[1]} × {self.reference.shape[0]}"
            )
        scale = min(1.0, SIDE / max(self.size))
        reference, scene = _grey(self.reference, scale), _grey(image, scale)
        box = _scaled_box(self.box, scale, (reference.shape[0], reference.shape[1]))
        matrix = self._coarse(reference, scene, box)
        matrix, correlation = _refined(reference, scene, box, matrix)
        return _in_pixels(matrix, scale, correlation, self.box)

    def found(self, located: Located) -> bool:
        """Whether what was located is the part."""
        return located.correlation >= self.least_correlation

    def warp(self, image: ImageArray, located: Located) -> ImageArray:
        """The image in the reference's frame; what lies outside of it continues its edge."""
        height, width = self.size
        return np.asarray(
            cv2.warpAffine(
                image,
                located.matrix,
                (width, height),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            dtype=np.uint8,
        )

    def _coarse(self, reference: _Grey, scene: _Grey, box: tuple[int, int, int, int]) -> _Matrix:
        """The best of the rotations and shifts that are tried, as a matrix of the grey copies' pixels."""
        x, y, width, height = box
        template = reference[y : y + height, x : x + width]
        centre = ((scene.shape[1] - 1) / 2, (scene.shape[0] - 1) / 2)
        steps = int(self.rotation // _STEP) + (self.rotation % _STEP > 0)
        angles = np.linspace(-self.rotation, self.rotation, 2 * steps + 1) if steps else np.zeros(1)
        best, matrix = -np.inf, np.eye(2, 3)
        for angle in sorted(angles, key=abs):
            # The scene is turned, not the template: so no corners of the template are empty.
            turn = cv2.getRotationMatrix2D(centre, float(angle), 1.0)
            turned = cv2.warpAffine(scene, turn, scene.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
            response = cv2.matchTemplate(turned, template, cv2.TM_CCOEFF_NORMED)
            _, value, _, (left, top) = cv2.minMaxLoc(np.nan_to_num(response, nan=-1, posinf=-1, neginf=-1))
            if value > best + 1e-6:
                back = cv2.invertAffineTransform(turn)
                shift = np.asarray([left - x, top - y], dtype=np.float64)
                best, matrix = value, np.column_stack([back[:, :2], back[:, :2] @ shift + back[:, 2]])
        return matrix


def _grey(image: ImageArray, scale: float) -> _Grey:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        height, width = image.shape[:2]
        size = (max(8, round(width * scale)), max(8, round(height * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, dtype=np.float32)


def _scaled_box(box: tuple[int, int, int, int], scale: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top = (min(int(v * scale), n - 4) for v, n in zip(box[:2], size[::-1], strict=True))
    width = max(4, min(round(box[2] * scale), size[1] - left))
    return left, top, width, max(4, min(round(box[3] * scale), size[0] - top))


def _refined(reference: _Grey, scene: _Grey, box: tuple[int, int, int, int], matrix: _Matrix) -> tuple[_Matrix, float]:
    """ECC from a first guess, in the box alone; the guess and its own correlation where ECC does not converge."""
    x, y, width, height = box
    template = np.ascontiguousarray(reference[y : y + height, x : x + width])
    to_box = np.vstack([np.column_stack([np.eye(2), [x, y]]), [0, 0, 1]])
    start = (np.vstack([matrix, [0, 0, 1]]) @ to_box)[:2]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, _PRECISION)
    before = _correlation(template, scene, start)
    try:
        _, warp = cv2.findTransformECC(
            template,
            scene,
            start.astype(np.float32),
            cv2.MOTION_EUCLIDEAN,
            criteria,
            np.ones(scene.shape, np.uint8),
            5,
        )
        after = _correlation(template, scene, np.asarray(warp, dtype=np.float64))
    except cv2.error:  # it does not converge: nothing there is like the template
        return matrix, before
    if after < before:
        return matrix, before
    back = np.vstack([np.asarray(warp, dtype=np.float64), [0, 0, 1]]) @ np.linalg.inv(to_box)
    return back[:2], after


def _correlation(template: _Grey, scene: _Grey, warp: _Matrix) -> float:
    """Pearson's, over the pixels of the template in the scene; −1 where half of them are not, or one is flat."""
    height, width = template.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(scene, warp, (width, height), flags=flags)
    inside = cv2.warpAffine(np.ones_like(scene), warp, (width, height), flags=flags) > 0.99
    if np.count_nonzero(inside) < inside.size / 2:
        return -1.0
    a, b = template[inside].astype(np.float64), seen[inside].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-6 * len(a) else -1.0


def _in_pixels(matrix: _Matrix, scale: float, correlation: float, box: tuple[int, int, int, int]) -> Located:
    """From the grey copies' pixels to the image's, pixel centres at whole numbers in both."""
    half = (1 / scale - 1) / 2
    linear = matrix[:, :2]
    shift = (matrix[:, 2] + linear @ np.full(2, -half * scale)) / scale + half
    full = np.column_stack([linear, shift])
    centre = np.asarray([box[0] + (box[2] - 1) / 2, box[1] + (box[3] - 1) / 2])
    moved = linear @ centre + shift - centre
    angle = float(np.degrees(np.arctan2(-linear[1, 0], linear[0, 0])))
    return Located(full, correlation, angle, (float(moved[0]), float(moved[1])))


def make_alignment(
    images: Images, box: tuple[int, int, int, int] | None, rotation: float = DEFAULT_ROTATION
) -> tuple[Alignment, list[Located]]:
    """An alignment to the first of the good images, and where the part is in each.

    Args:
        images: good ones of one size.
        box: of the part in the first image; None for its middle, a fifth of each side left out all round.
        rotation: largest that is looked for, degrees.

    Raises:
        DataError: an image of another size, or one in which the part of the first is not found (it is named).
    """
    reference = images.image(0)
    height, width = reference.shape[:2]
    if box is None:
        box = (width // 5, height // 5, width - 2 * (width // 5), height - 2 * (height // 5))
    alignment = Alignment(reference, box, rotation)
    located = []
    for index in range(len(images)):
        try:
            place = alignment.locate(images.image(index))
        except DataError as error:
            raise DataError(f"{images.name(index)}: {error}") from error
        if not alignment.found(place):
            raise DataError(
                f"{images.name(index)}: the part of {images.name(0)} is not found in it (correlation "
                f"{place.correlation:.2f}); give its box in the first image with --align x,y,width,height, or leave "
                "the image out"
            )
        located.append(place)
    least = max(_LEAST, _MARGIN * min(place.correlation for place in located))
    return Alignment(reference, box, rotation, least), located


@dataclass(frozen=True)
class AlignedReader(DerivedReader):
    """Reads a file's image into an alignment's frame.

    Attributes:
        matrix: of ``Located``, its rows in a row.
    """

    inner: SampleReader
    alignment: Alignment
    matrix: tuple[float, ...]

    def variant(self, sample: Sample) -> str:
        return f"aligned 1 {self.alignment.size} {self.matrix}"

    def image(self, sample: Sample) -> ImageArray:
        matrix = np.asarray(self.matrix, dtype=np.float64).reshape(2, 3)
        return self.alignment.warp(self.inner.image(sample), Located(matrix, 1.0, 0.0, (0.0, 0.0)))


class _ImageReader(SampleReader):
    """Reads a file that is no data set's."""

    def image(self, sample: Sample) -> ImageArray:
        return read_image(sample.path)

    def size(self, sample: Sample) -> tuple[int, int]:
        raise NotImplementedError

    def ground_truth(self, sample: Sample) -> None:
        return None


def aligned_samples(images: Images, alignment: Alignment, located: list[Located]) -> Images:
    """The images in the alignment's frame: files are warped when they are read, arrays here."""
    items: list[ImageLike] = []
    for index, (item, place) in enumerate(zip(images.items, located, strict=True)):
        if isinstance(item, np.ndarray):
            items.append(alignment.warp(item, place))
            continue
        sample = item if isinstance(item, Sample) else None
        reader: SampleReader = _ImageReader() if sample is None else sample.reader
        path = images.name(index)
        aligned = AlignedReader(reader, alignment, tuple(float(v) for v in place.matrix.ravel()))
        items.append(_with_reader(path, sample, aligned))
    return Images(items, images.cache)


def _with_reader(path: str, sample: Sample | None, reader: AlignedReader) -> Sample:
    if sample is not None:
        return replace(sample, reader=reader)
    return Sample(Path(path).stem, Path(path), "train", "good", reader)
