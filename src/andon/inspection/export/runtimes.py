"""What runs a detector, image by image: torch, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from andon._tools.text import first_line
from andon.core import ConfigError, DataError, DetectorError, FloatArray, ImageArray
from andon.inspection.export._chain import MAP, SCORE
from andon.inspection.export.metadata import KEY, ExportMetadata, parsed_metadata
from andon.inspection.export.sources import Source

__all__ = [
    "OnnxRuntime",
    "OpenVinoRuntime",
    "Outcome",
    "Runtime",
    "RuntimeName",
    "TorchRuntime",
    "needed",
    "open_runtime",
]

RuntimeName = Literal["torch", "onnxruntime", "openvino"]


class Outcome(NamedTuple):
    """What is said of one image.

    Attributes:
        score: raw, higher = more anomalous.
        map: anomaly map, float32 ``[h, w]``, raw; None where there are scores only.
    """

    score: float
    map: FloatArray | None


class Runtime(ABC):
    """Scores one image at a time; may be called from several threads."""

    name: ClassVar[RuntimeName]
    title: ClassVar[str]

    @abstractmethod
    def run(self, image: ImageArray) -> Outcome:
        """Score and map of RGB uint8 ``[H, W, 3]``; DataError where an exported model takes images of another size."""


class TorchRuntime(Runtime):
    """A detector as it is, on its device. Threads are torch's (``torch.set_num_threads``)."""

    name = "torch"
    title = "torch"

    def __init__(self, source: Source) -> None:
        self._source = source
        self._one_colour = source.one_colour_score()

    def run(self, image: ImageArray) -> Outcome:
        detector, regions = self._source.detector, self._source.regions
        grey = detector.transform.resize(image)
        found = detector.predict_batch(detector.transform.normalise(grey[None]))
        score, maps = float(found.image_scores[0]), found.anomaly_maps
        if regions is not None and regions.mask is not None:
            score = float(regions.read(found).scores[0])
            maps = None if maps is None else regions.cut(maps, found.region)
        if bool((grey == grey[0, 0]).all()):
            score = max(score, self._one_colour)
        return Outcome(score, None if maps is None else maps[0])


class _ExportedRuntime(Runtime):
    """A runtime that runs an exported model.

    Attributes:
        metadata: what the model says of itself.
    """

    metadata: ExportMetadata

    def _check(self, image: ImageArray) -> None:
        height, width = self.metadata.size
        if image.dtype != np.uint8 or image.shape != (height, width, 3):
            found = f"{image.dtype} {list(image.shape)}"
            raise DataError(
                f"the exported model takes RGB uint8 [{height}, {width}, 3], not {found}; export it for that size"
            )


class OnnxRuntime(_ExportedRuntime):
    """An exported ONNX model in ONNX Runtime, on the CPU.

    Args:
        path: the .onnx file.
        threads: of one image; None for the runtime's own choice.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        DetectorError: missing, damaged, or not exported by Andon.
    """

    name = "onnxruntime"
    title = "ONNX Runtime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        ort = needed("onnxruntime")
        _check_file(path)
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its warnings are about the graph, which no user can change
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            properties = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # its errors have no common class below Exception
            raise DetectorError(f"{path}: ONNX Runtime cannot load it ({first_line(error)})") from error
        self._path = path
        self.metadata = _metadata(properties.get(KEY), path)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, image: ImageArray) -> Outcome:
        self._check(image)
        try:
            found = self._session.run(None, {self._input: np.ascontiguousarray(image)})
        except Exception as error:
            raise DetectorError(f"{self._path}: ONNX Runtime cannot run it ({first_line(error)})") from error
        return _outcome(dict(zip(self._outputs, found, strict=True)), self._path)


class OpenVinoRuntime(_ExportedRuntime):
    """An exported OpenVINO or ONNX model in OpenVINO, on the CPU, in float32.

    OpenVINO computes in bfloat16 on processors that have it unless it is told not to: those scores differ by more than
    the tolerance, so it is told.

    Args:
        path: the .xml file, with its .bin beside it, or an .onnx file.
        threads: of one image; None for the runtime's own choice.

    Raises:
        ConfigError: OpenVINO is not installed.
        DetectorError: missing, damaged, or not exported by Andon.
    """

    name = "openvino"
    title = "OpenVINO"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        openvino = needed("openvino")
        _check_file(path)
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            model = core.read_model(str(path))
            # Of an ONNX model its metadata_props are below "framework".
            keys = next((k for k in ([KEY], ["framework", KEY]) if model.has_rt_info(k)), None)
            text = None if keys is None else str(model.get_rt_info(keys).value)
            self._model = core.compile_model(model, "CPU", options)
        except Exception as error:
            raise DetectorError(f"{path}: OpenVINO cannot load it ({last_line(error)})") from error
        self._path = path
        self.metadata = _metadata(text, path)

    def run(self, image: ImageArray) -> Outcome:
        self._check(image)
        try:
            request = self._model.create_infer_request()  # one for each call: a request serves one thread at a time
            request.infer({0: np.ascontiguousarray(image)}, share_inputs=True)
            # The request owns its outputs' memory.
            found = {output.any_name: request.get_tensor(output).data.copy() for output in self._model.outputs}
        except Exception as error:
            raise DetectorError(f"{self._path}: OpenVINO cannot run it ({last_line(error)})") from error
        return _outcome(found, self._path)


def open_runtime(
    path: Path, name: RuntimeName | None = None, threads: int | None = None
) -> OnnxRuntime | OpenVinoRuntime:
    """An exported model, in the runtime of its format unless another is named.

    Raises:
        ConfigError: a file of another suffix, a runtime that does not read it, or one that is not installed.
        DetectorError: missing, damaged, or not exported by Andon.
    """
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".xml"):
        raise ConfigError(f"{path}: an exported model is an .onnx or an .xml (OpenVINO) file")
    chosen = name or ("onnxruntime" if suffix == ".onnx" else "openvino")
    if chosen == "openvino":
        return OpenVinoRuntime(path, threads)
    if chosen == "onnxruntime" and suffix == ".onnx":
        return OnnxRuntime(path, threads)
    raise ConfigError(f"{path}: {chosen} does not run it; OpenVINO reads .onnx and .xml, ONNX Runtime .onnx")


def needed(module: str) -> Any:
    """A package of the extra ``export``; ConfigError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"this needs {module} ({first_line(error)}): pip install 'andon[export]'") from error


def last_line(error: Exception) -> str:
    """What OpenVINO's errors end with; what comes before is places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DetectorError(f"{path}: there is no such file; an exported model is written by andon export")


def _metadata(text: str | None, path: Path) -> ExportMetadata:
    if text is None:
        raise DetectorError(f"{path}: was not exported by Andon (it has no metadata {KEY!r})")
    return parsed_metadata(text, path)


def _outcome(found: dict[str, Any], path: Path) -> Outcome:
    if SCORE not in found or np.shape(found[SCORE]) != (1,):
        raise DetectorError(f"{path}: gives no score, though its metadata says that Andon exported it")
    return Outcome(float(found[SCORE][0]), found.get(MAP))
