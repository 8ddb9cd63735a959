"""What an exported model says of itself, and the file beside it by which it can be verified anywhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field, ValidationError

from andon._tools.files import read_regular
from andon._tools.models import FrozenModel
from andon._tools.text import first_line
from andon.core import DetectorError, ImageArray
from andon.data import decode_image

__all__ = ["KEY", "ExportMetadata", "ReferenceImage", "Sidecar", "pixel_digest", "read_sidecar", "sidecar_path"]

KEY = "andon"
"""Under this name the metadata, as JSON, is in a model's own (ONNX: metadata_props; OpenVINO: rt_info)."""

_MOST_BYTES = 512 * 2**20


class ExportMetadata(FrozenModel):
    """What an exported model says of itself.

    Attributes:
        version: of this form.
        andon, torch: versions that exported it.
        method: the method's name ("patchcore").
        source: name of the file that it was exported from.
        source_sha256: of that file's content.
        size: (height, width) of the images that it takes, RGB uint8 ``[H, W, 3]``.
        map_size: (height, width) of its anomaly map; None where it gives scores only.
        region: top, left, bottom, right of the part of the image that the map covers, as fractions.
        thresholds: by name ("look", "stop"): a score above it is beyond; empty where the source has none.
        int8: whether it was quantised.
    """

    version: Literal[1] = 1
    andon: str
    torch: str
    method: str
    source: str
    source_sha256: str
    size: tuple[int, int]
    map_size: tuple[int, int] | None
    region: tuple[float, float, float, float]
    thresholds: dict[str, float] = Field(default_factory=dict)
    int8: bool = False


class ReferenceImage(FrozenModel):
    """An image that the exported model was compared on.

    Attributes:
        name: of its file, without folders.
        sha256: of its pixels (`pixel_digest`).
        score: what torch says.
        exported: what the exported model said when it was exported.
        png: the image itself, base64 of a PNG; None where it is not in the file.
    """

    name: str
    sha256: str
    score: float
    exported: float
    png: str | None = None

    def image(self) -> ImageArray | None:
        """The image, RGB uint8 ``[H, W, 3]``; None where it is not in the file.

        Raises:
            DetectorError: not the image that the digest is of.
        """
        if self.png is None:
            return None
        try:
            image = decode_image(base64.b64decode(self.png, validate=True), self.name)
        except ValueError as error:
            raise DetectorError(f"{self.name}: the reference image is damaged ({first_line(error)})") from error
        if pixel_digest(image) != self.sha256:
            raise DetectorError(f"{self.name}: the reference image is not the one that was recorded; export again")
        return image


class Sidecar(FrozenModel):
    """The file beside an exported model.

    Attributes:
        metadata: the model's.
        files: SHA-256 of the model's files by name.
        tolerance: largest relative difference of a score that counts as equal.
        images: that the model was compared on.
    """

    metadata: ExportMetadata
    files: dict[str, str]
    tolerance: float
    images: tuple[ReferenceImage, ...]


def pixel_digest(image: ImageArray) -> str:
    """SHA-256 of an image's shape and pixels, whatever file it came in."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def png_of(image: ImageArray) -> str:
    """An image as base64 of a PNG."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")


def sidecar_path(model: Path) -> Path:
    """Where the sidecar of an exported model is: ``door-seal.onnx.json``."""
    return model.with_name(model.name + ".json")


def read_sidecar(path: Path) -> Sidecar:
    """Reads a sidecar; DetectorError where it is missing, damaged, or of a newer version."""
    content = read_regular(path, _MOST_BYTES, what="a model's reference scores", error=DetectorError)
    try:
        return Sidecar.model_validate(json.loads(content))
    except (ValidationError, ValueError, RecursionError) as error:
        raise DetectorError(
            f"{path}: is not an exported model's sidecar, or is damaged ({first_line(error)})"
        ) from error


def parsed_metadata(text: str, path: Path) -> ExportMetadata:
    """The metadata in a model; DetectorError where it is not readable."""
    try:
        return ExportMetadata.model_validate(json.loads(text))
    except (ValidationError, ValueError, RecursionError) as error:
        raise DetectorError(f"{path}: its metadata is damaged or of a newer version ({first_line(error)})") from error
