"""Verification: does an exported model, here and now, say what its reference says?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from andon._tools.files import sha256_of_file
from andon.core import ConfigError, DataError, DetectorError, ImageArray, ProgressCallback, no_progress
from andon.data import Images
from andon.inspection.export.agreement import Agreement, compare
from andon.inspection.export.metadata import Sidecar, pixel_digest, read_sidecar, sidecar_path
from andon.inspection.export.runtimes import Outcome, Runtime, RuntimeName, TorchRuntime, open_runtime
from andon.inspection.export.sources import load_any, named_images

__all__ = ["Verification", "verify_export"]

_SIDECAR = ".json"


@dataclass(frozen=True)
class Verification:
    """What verifying an exported model found.

    Attributes:
        runtime: that ran the model, its name for people.
        reference: what it was compared with.
        agreement: of the scores.
        notes: what else a reader has to know.
        same_files: whether the model's files are those that were exported, byte for byte; None where there is no
            sidecar to know it from.
    """

    runtime: str
    reference: str
    agreement: Agreement
    notes: tuple[str, ...]
    same_files: bool | None

    @property
    def passed(self) -> bool:
        """Whether it says the same, and is the file that was exported."""
        return self.agreement.agrees and self.same_files is not False


def verify_export(
    model: Path,
    reference: Path | None = None,
    images: Images | None = None,
    *,
    runtime: RuntimeName | None = None,
    threads: int | None = None,
    progress: ProgressCallback = no_progress,
) -> Verification:
    """Runs an exported model and compares its scores with a reference's.

    Args:
        model: the .onnx or .xml file.
        reference: the detector's or inspector's file, which torch then runs on the same images; or a sidecar, whose
            recorded scores then count. The sidecar beside the model otherwise.
        images: to compare on; those in the sidecar otherwise.
        runtime: that of the model's format otherwise.

    Raises:
        ConfigError: no images, or a runtime that does not read the model or is not installed.
        DataError: an image that cannot be read, is of another size, or is not in the sidecar that is the reference.
        DetectorError: a file that is missing, damaged, or not exported by Andon.
    """
    beside = sidecar_path(model)
    recorded = reference is None or reference.suffix.lower() == _SIDECAR
    sidecar = read_sidecar(reference or beside) if recorded else read_sidecar(beside) if beside.exists() else None
    running = open_runtime(model, runtime, threads)
    metadata = running.metadata
    notes = []
    shown = _images(images, metadata.size, sidecar, model)
    if recorded:
        assert sidecar is not None
        known: Runtime = _Recorded(sidecar)
        thresholds, what = sidecar.metadata.thresholds, f"the scores in {(reference or beside).name}"
    else:
        assert reference is not None
        source = load_any(reference)
        known, what = TorchRuntime(source), f"{source.name} in torch"
        thresholds = dict(source.thresholds) or metadata.thresholds
        if source.sha256 != metadata.source_sha256:
            notes.append(f"{model.name} was exported from another file ({metadata.source}) than {source.name}")
    if thresholds != metadata.thresholds:
        notes.append("the reference has other thresholds than the model was exported with; the reference's count")
    if metadata.int8:
        notes.append("the model is quantised to int8: it was written whatever it lost")
    agreement = compare(known, running, shown, thresholds, progress=progress)
    same = None if sidecar is None else _same_files(model, sidecar)
    if same is False:
        notes.append(f"{model.name} is not the file that was exported: its SHA-256 is another")
    return Verification(running.title, what, agreement, tuple(notes), same)


class _Recorded(Runtime):
    """Torch's scores as a sidecar holds them, by the pixels of an image."""

    name = "torch"
    title = "recorded"

    def __init__(self, sidecar: Sidecar) -> None:
        self._scores = {image.sha256: image.score for image in sidecar.images}

    def run(self, image: ImageArray) -> Outcome:
        try:
            return Outcome(self._scores[pixel_digest(image)], None)
        except KeyError:
            raise DataError(
                "an image whose score is not recorded in the sidecar; give those that the model was exported with, or "
                "the detector's file as the reference"
            ) from None


def _images(
    images: Images | None, size: tuple[int, int], sidecar: Sidecar | None, model: Path
) -> Iterator[tuple[str, ImageArray]]:
    if images is not None:
        yield from named_images(images, size)
        return
    embedded = [] if sidecar is None else [(i.name, i.image()) for i in sidecar.images if i.png is not None]
    if not embedded:
        raise ConfigError(f"{model}: there are no reference images beside it; give --images")
    for name, image in embedded:
        assert image is not None
        if image.shape[:2] != size:
            raise DetectorError(f"{sidecar_path(model)}: its images are not of the model's size; it is another model's")
        yield name, image


def _same_files(model: Path, sidecar: Sidecar) -> bool:
    found: Sequence[Path] = [model.with_name(Path(name).name) for name in sidecar.files]
    if model.name not in sidecar.files or not all(path.is_file() for path in found):
        return False
    return all(sha256_of_file(path) == sidecar.files[path.name] for path in found)
