"""The inspector's file, ``.andon``: all that is needed to run, in one file without pickle.

=====================  =================================================================================================
SHA256SUMS             of all other members
inspector.json         format, thresholds, calibration, regions, alignment, provenance
detector.safetensors   what was learned, the extractor included (``Detector.to_bytes``)
thumbnail.png          a good part, small
counted.png            which pixels count, where not all do
reference.png          the frame that parts are aligned to, where they are
origins.bin            of a memory bank's rows, which patch of which training image each was: int32, little-endian
=====================  =================================================================================================

The sums find what disks and networks do to a file. They are no signature: who can write the file can write new ones.
``fingerprint`` names a file's content, to be compared with what the one who trained it wrote down.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from andon._tools.models import FrozenModel, first_fault
from andon._tools.text import first_line
from andon.core import AndonError, DataError, DetectorError, ImageArray
from andon.data import decode_image
from andon.inspection.alignment import Alignment
from andon.inspection.calibration import ConformalCalibration, Thresholds
from andon.inspection.container import content_digest, read_container, write_container
from andon.inspection.regions import Regions

__all__ = ["FORMAT", "Content", "InspectorFile", "Provenance", "SecondDay", "TrainingImage", "Update", "png_bytes"]

FORMAT = 1
SETTINGS, DETECTOR, THUMBNAIL = "inspector.json", "detector.safetensors", "thumbnail.png"
COUNTED, REFERENCE, ORIGINS = "counted.png", "reference.png", "origins.bin"
_KNOWN = (SETTINGS, DETECTOR, THUMBNAIL, COUNTED, REFERENCE, ORIGINS)
_MOST_SETTINGS = 2**26

Finite = Annotated[float, Field(allow_inf_nan=False)]


class TrainingImage(FrozenModel):
    """One of the images that were learned from: its name, and the hash of its content."""

    name: str
    fingerprint: str


class Update(FrozenModel):
    """One ``andon update``.

    Attributes:
        parent: fingerprint of the file that was updated.
        images: good ones that were added, in shooting order.
        learned: whether the detector learned from them; otherwise they only moved thresholds.
        rates: false-alarm rates of look and stop that the thresholds were to keep; None for one by value.
        at: date and time, UTC, ISO 8601.
    """

    parent: str
    images: tuple[TrainingImage, ...]
    learned: bool
    rates: tuple[Finite | None, Finite | None] = (None, None)
    at: str


class Provenance(FrozenModel):
    """Where an inspector is from.

    Attributes:
        method: name of the method, title in tables.
        config: its options.
        seed: of everything random.
        images: that were learned from when it was trained, in shooting order.
        size: (height, width) of the images, where all have one; None otherwise.
        weights: learned parts, each with source, hash and licence (``WeightsRecord``).
        notes: of the fit.
        versions: of Andon and of what it stands on.
        created: date and time, UTC, ISO 8601.
        seconds: that training and calibration took.
        updates: since then, the oldest first.
    """

    method: str
    title: str
    config: dict[str, Any]
    seed: int
    images: tuple[TrainingImage, ...]
    size: tuple[int, int] | None
    weights: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    created: str = ""
    seconds: Finite = 0.0
    updates: tuple[Update, ...] = ()

    @property
    def learned(self) -> tuple[TrainingImage, ...]:
        """All images that were learned from, those of updates too."""
        return self.images + tuple(image for update in self.updates if update.learned for image in update.images)

    @property
    def calibrated(self) -> tuple[TrainingImage, ...]:
        """The image of each score of the calibration."""
        return self.images + tuple(image for update in self.updates for image in update.images)

    @model_serializer(mode="wrap")
    def _without_updates(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A file that was never updated reads as before there were updates: its fingerprint stays."""
        fields: dict[str, Any] = handler(self)
        return fields if self.updates else {name: value for name, value in fields.items() if name != "updates"}


class SecondDay(FrozenModel):
    """Scores of good images of another day; they move no threshold.

    Attributes:
        name: of their folder.
        scores: in shooting order.
        not_found: images in which the part was not found.
    """

    name: str
    scores: tuple[Finite, ...]
    not_found: int = 0


class _Calibration(FrozenModel):
    how: str
    scores: tuple[Finite, ...] = Field(min_length=1)
    map_maxima: tuple[Finite, ...] = ()
    map_medians: tuple[Finite, ...] = ()


class _Thresholds(FrozenModel):
    look: Finite
    stop: Finite


class _Alignment(FrozenModel):
    box: tuple[int, int, int, int]
    rotation: Finite
    least_correlation: Finite


class Content(FrozenModel):
    """``inspector.json``."""

    format: Literal[1] = 1
    thresholds: _Thresholds
    calibration: _Calibration
    alignment: _Alignment | None = None
    regions: bool = False
    second_day: SecondDay | None = None
    provenance: Provenance


class InspectorFile:
    """A file's parts; the detector in it is not opened.

    Attributes:
        name: of the file, for messages.
        content: what ``inspector.json`` says.
        members: by name.
    """

    def __init__(self, name: str, content: Content, members: Mapping[str, bytes | memoryview]) -> None:
        self.name, self.content, self.members = name, content, dict(members)

    @classmethod
    def read(cls, path: str | Path) -> InspectorFile:
        """Opens a file and checks all of it but the detector.

        Raises:
            DetectorError: none, damaged, changed, or of a newer version.
        """
        name, members = str(path), read_container(Path(path))
        if strangers := [member for member in members if member not in _KNOWN]:
            raise DetectorError(f"{name}: has the unknown member {strangers[0]}; is it of a newer version of Andon?")
        for needed in (SETTINGS, DETECTOR):
            if needed not in members:
                raise DetectorError(f"{name}: has no {needed}")
        file = cls(name, _settings(name, members[SETTINGS]), members)
        file.check()
        return file

    @classmethod
    def of(
        cls,
        *,
        detector: bytes,
        thresholds: Thresholds,
        calibration: ConformalCalibration,
        regions: Regions,
        alignment: Alignment | None,
        provenance: Provenance,
        second_day: SecondDay | None,
        thumbnail: ImageArray,
        origins: npt.NDArray[np.int32] | None,
    ) -> InspectorFile:
        """The parts of a new file."""
        content = Content(
            thresholds=_Thresholds(look=thresholds.look, stop=thresholds.stop),
            calibration=_Calibration(
                how=calibration.how,
                scores=tuple(calibration.scores.tolist()),
                map_maxima=tuple(calibration.map_maxima.tolist()),
                map_medians=tuple(calibration.map_medians.tolist()),
            ),
            alignment=None
            if alignment is None
            else _Alignment(
                box=alignment.box, rotation=alignment.rotation, least_correlation=alignment.least_correlation
            ),
            regions=regions.mask is not None,
            second_day=second_day,
            provenance=provenance,
        )
        members = {DETECTOR: detector, THUMBNAIL: png_bytes(thumbnail)}
        if regions.mask is not None:
            members[COUNTED] = png_bytes(regions.mask.astype(np.uint8) * 255)
        if alignment is not None:
            members[REFERENCE] = png_bytes(alignment.reference)
        if origins is not None:
            members[ORIGINS] = origins.astype("<i4").tobytes()
        return cls(provenance.method, content, members)

    def write(self, path: str | Path) -> None:
        """Writes the file; it appears whole or not at all. DetectorError where it cannot be written."""
        write_container(Path(path), self._complete())

    @property
    def fingerprint(self) -> str:
        """Of everything in it, 12 hexadecimal digits."""
        return content_digest(self._complete())

    def with_content(self, **changed: Any) -> InspectorFile:
        """The same with other settings, checked."""
        content = Content.model_validate({**self.content.model_dump(), **changed})
        return InspectorFile(self.name, content, self.members)

    def _complete(self) -> dict[str, bytes]:
        settings = self.content.model_dump_json(indent=1).encode()
        rest = {name: bytes(self.members[name]) for name in _KNOWN if name in self.members and name != SETTINGS}
        return {SETTINGS: settings, **rest}

    def check(self) -> None:
        """DetectorError where the parts do not fit together."""
        try:
            _, calibration, regions, alignment = self.thresholds, self.calibration, self.regions, self.alignment
        except DetectorError:
            raise
        except (ValueError, AndonError) as error:
            raise DetectorError(f"{self.name}: is damaged ({first_line(error)})") from error
        if alignment is not None and regions.mask is not None and regions.mask.shape != alignment.size:
            raise DetectorError(f"{self.name}: {COUNTED} is not of the size of {REFERENCE}")
        if regions.mask is not None and not len(calibration.map_maxima):
            raise DetectorError(f"{self.name}: has {COUNTED}, but no maps were calibrated")

    @property
    def thresholds(self) -> Thresholds:
        """Of look and stop."""
        return Thresholds(self.content.thresholds.look, self.content.thresholds.stop)

    @property
    def calibration(self) -> ConformalCalibration:
        """What the thresholds stand on."""
        kept = self.content.calibration
        arrays = (np.asarray(v, dtype=np.float64) for v in (kept.scores, kept.map_maxima, kept.map_medians))
        scores, maxima, medians = arrays
        return ConformalCalibration(scores, maxima, medians, kept.how)

    @property
    def regions(self) -> Regions:
        """Which pixels count."""
        if self.content.regions != (COUNTED in self.members):
            raise DetectorError(f"{self.name}: {COUNTED} is missing, or not expected")
        return Regions(self._image(COUNTED)[..., 0] > 127) if self.content.regions else Regions()

    @property
    def alignment(self) -> Alignment | None:
        """The frame that parts are aligned to."""
        kept = self.content.alignment
        if (kept is not None) != (REFERENCE in self.members):
            raise DetectorError(f"{self.name}: {REFERENCE} is missing, or not expected")
        if kept is None:
            return None
        return Alignment(self._image(REFERENCE), kept.box, kept.rotation, kept.least_correlation)

    @property
    def thumbnail(self) -> ImageArray | None:
        """A good part, small."""
        return self._image(THUMBNAIL) if THUMBNAIL in self.members else None

    @property
    def origins(self) -> npt.NDArray[np.int32] | None:
        """Of the memory's rows, which patch of which training image each was."""
        content = self.members.get(ORIGINS)
        if content is None:
            return None
        if len(content) % 4:
            raise DetectorError(f"{self.name}: {ORIGINS} is damaged")
        return np.frombuffer(content, dtype="<i4").astype(np.int32)

    def _image(self, member: str) -> ImageArray:
        try:
            return decode_image(bytes(self.members[member]), f"{self.name}: {member}")
        except DataError as error:
            raise DetectorError(str(error)) from error


def png_bytes(image: npt.NDArray[np.uint8]) -> bytes:
    """RGB or grey uint8 as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG", compress_level=6)
    return out.getvalue()


def _settings(name: str, data: bytes | memoryview) -> Content:
    if len(data) > _MOST_SETTINGS:
        raise DetectorError(f"{name}: {SETTINGS} is larger than {_MOST_SETTINGS:,} bytes")
    try:
        return Content.model_validate_json(bytes(data))
    except ValidationError as error:
        if any(fault["loc"] == ("format",) for fault in error.errors()):
            raise DetectorError(
                f"{name}: is of another format than {FORMAT}, which this version of Andon reads; update Andon"
            ) from error
        raise DetectorError(f"{name}: {SETTINGS} is damaged ({first_fault(error, what='entry')[:200]})") from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise DetectorError(f"{name}: {SETTINGS} is damaged ({first_line(error)})") from error
