"""Export: the whole chain as an ONNX or OpenVINO model, written only where it says the same as torch."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from andon import __version__
from andon._tools.files import sha256_of_file, written_atomically
from andon._tools.text import first_line
from andon.core import ConfigError, DataError, DetectorError, ImageArray, ProgressCallback, no_progress
from andon.data import ImageLike, Images, as_images
from andon.inspection.export._chain import MAP, SCORE, Chain
from andon.inspection.export._quantisation import quantise
from andon.inspection.export.agreement import TOLERANCE, Agreement, compare
from andon.inspection.export.metadata import (
    KEY,
    ExportMetadata,
    ReferenceImage,
    Sidecar,
    pixel_digest,
    png_of,
    sidecar_path,
)
from andon.inspection.export.runtimes import TorchRuntime, last_line, needed, open_runtime
from andon.inspection.export.sources import Source, named_images

__all__ = ["ExportFormat", "ExportReport", "export_model", "write_graph"]

ExportFormat = Literal["onnx", "openvino"]
_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how well it agrees.

    Attributes:
        files: the model's files and, last, its sidecar.
        metadata: what the model says of itself.
        agreement: with torch, on the images given.
    """

    files: tuple[Path, ...]
    metadata: ExportMetadata
    agreement: Agreement


def export_model(
    source: Source,
    out: Path,
    images: Images | Sequence[ImageLike] = (),
    *,
    format: ExportFormat = "onnx",
    size: tuple[int, int] | None = None,
    int8: bool = False,
    embedded_images: int = 4,
    progress: ProgressCallback = no_progress,
) -> ExportReport:
    """Writes a detector with its transform as one graph: RGB uint8 ``[H, W, 3]`` to score and map.

    The graph is compared with torch before anything is at ``out``: the same decisions, and scores within 1e-3 relative.
    One that is quantised to int8 is written whatever the comparison says: the report says what was lost.

    Args:
        source: what is exported.
        out: the model's file, ``.onnx`` or ``.xml``.
        images: good images that the model has to agree on; int8 is calibrated on them too. Without any an inspector's
            thumbnail stands in, which shows less; a detector's file needs some.
        size: (height, width) of the camera's images; that of the first of ``images``, or of the inspector's own,
            otherwise.
        embedded_images: how many of the images go into the sidecar, so that ``verify_export`` needs no others.

    Raises:
        ConfigError: an option that does not fit, or packages that are not installed.
        DataError: images that cannot be read, or are of another size.
        DetectorError: an operator that cannot be exported, or a graph that does not say what torch says.
    """
    _check_out(out, format)
    size, images = _images(source, as_images(images), size)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as temporary:
            model = Path(temporary) / out.name
            metadata = write_graph(source, size, model, int8_images=images if int8 else None)
            runtime = open_runtime(model)
            agreement = compare(
                TorchRuntime(source),
                runtime,
                named_images(images, size),
                source.thresholds,
                progress=progress,
                total=len(images),
            )
            if not (agreement.agrees or int8):
                raise DetectorError(
                    f"{out}: not written, because {runtime.title} does not say what torch says: "
                    f"{agreement.describe()}; {TOLERANCE:g} is allowed"
                )
            del runtime  # it may hold the files open
            files = _moved(model.parent, out)
            sidecar = _sidecar(metadata, files, agreement, images, embedded_images)
            with written_atomically(sidecar_path(out)) as aside:
                aside.write_text(json.dumps(sidecar.model_dump(), ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DetectorError(f"{out}: cannot be written ({error.strerror or error})") from error
    return ExportReport((*files, sidecar_path(out)), metadata, agreement)


def write_graph(
    source: Source, size: tuple[int, int], path: Path, *, int8_images: Images | None = None
) -> ExportMetadata:
    """Writes the graph for images of (height, width) ``size``, not compared with anything; its format is the suffix's.

    Args:
        int8_images: what the ranges of int8 are measured on; None leaves float32.
    """
    onnx = needed("onnx")
    needed("onnxscript")
    chain = Chain(source, size).eval()
    image = torch.zeros((*size, 3), dtype=torch.uint8)
    with torch.no_grad():
        found = chain(image)
    metadata = ExportMetadata(
        andon=__version__,
        torch=torch.__version__,
        method=source.detector.name,
        source=source.name,
        source_sha256=source.sha256,
        size=size,
        map_size=(int(found[1].shape[0]), int(found[1].shape[1])) if len(found) == 2 else None,
        region=_region(source),
        thresholds=dict(source.thresholds),
        int8=int8_images is not None,
    )
    as_onnx = path.with_suffix(".onnx")
    _to_onnx(chain, image, [SCORE, MAP][: len(found)], as_onnx)
    if int8_images is not None:
        quantise(as_onnx, (pixels for _, pixels in named_images(int8_images, size)))
    model = onnx.load(str(as_onnx))
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        del node.metadata_props[:]  # where in the source a node is from: paths of this machine
    onnx.helper.set_model_props(model, {KEY: metadata.model_dump_json()})
    onnx.save(model, str(as_onnx))
    if path.suffix.lower() == ".xml":
        _to_openvino(as_onnx, path, metadata)
    return metadata


def _check_out(out: Path, format: ExportFormat) -> None:
    if out.suffix.lower() != _SUFFIXES[format]:
        raise ConfigError(f"--out {out}: a model of the format {format} is a file *{_SUFFIXES[format]}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")


def _images(source: Source, images: Images, size: tuple[int, int] | None) -> tuple[tuple[int, int], Images]:
    """The size, and the images to compare on."""
    if len(images):
        return size or (images.image(0).shape[0], images.image(0).shape[1]), images
    size = size or source.size
    made = [] if size is None else source.stand_ins(size)
    if size is None or not made:
        raise DataError(
            f"{source.name}: there are no images to compare the exported model on; give good ones (--images)"
        )
    return size, _Named(made)


class _Named(Images):
    """Images in memory, with names."""

    def __init__(self, images: Sequence[tuple[str, ImageArray]]) -> None:
        super().__init__([image for _, image in images])
        self._names = [name for name, _ in images]

    def name(self, index: int) -> str:
        return self._names[index]


def _region(source: Source) -> tuple[float, float, float, float]:
    region = source.detector.transform.region
    return region.top, region.left, region.bottom, region.right


def _to_onnx(chain: Chain, image: torch.Tensor, outputs: list[str], path: Path) -> None:
    name = chain.detector.name
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                chain,
                (image,),
                path,
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=outputs,
                external_data=False,
            )
    except Exception as error:  # the exporter and what it calls raise all kinds
        causes = list(_causes(error))
        operators = sorted({name for e in causes for name in re.findall(r"\b(?:aten|prims)[.:]+\w+", str(e))})
        reason = f"the operator {', '.join(operators[:3])}" if operators else first_line(causes[-1])
        raise DetectorError(f"{name}: cannot be exported to ONNX because of {reason}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__


def _to_openvino(onnx: Path, path: Path, metadata: ExportMetadata) -> None:
    openvino = needed("openvino")
    try:
        # Not convert_model: it reports that it was called to its makers, and reads the same.
        model = openvino.Core().read_model(str(onnx))
    except Exception as error:
        raise DetectorError(
            f"{metadata.method}: cannot be exported to OpenVINO, which does not read all of the graph's operators "
            f"({last_line(error)})"
        ) from error
    model.set_rt_info(metadata.model_dump_json(), KEY)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    onnx.unlink()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter logs and prints about itself."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _moved(folder: Path, out: Path) -> tuple[Path, ...]:
    """The model's files brought to their place, the one that is opened last."""
    files = sorted((path for path in folder.iterdir()), key=lambda path: path.name == out.name)
    for path in files:
        with written_atomically(out.parent / path.name) as aside:
            shutil.copyfile(path, aside)
    return tuple(out.parent / path.name for path in reversed(files))


def _sidecar(
    metadata: ExportMetadata, files: Sequence[Path], agreement: Agreement, images: Images, embedded: int
) -> Sidecar:
    rows = []
    for index, (name, image) in enumerate(named_images(images)):
        rows.append(
            ReferenceImage(
                name=name,
                sha256=pixel_digest(image),
                score=agreement.reference[index],
                exported=agreement.found[index],
                png=png_of(image) if index < embedded else None,
            )
        )
    digests = {path.name: sha256_of_file(path) for path in files}
    return Sidecar(metadata=metadata, files=digests, tolerance=agreement.tolerance, images=tuple(rows))
