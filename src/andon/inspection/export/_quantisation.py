"""Static quantisation of an ONNX graph to int8, by ONNX Runtime's tool."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from andon._tools.text import first_line
from andon.core import DetectorError, ImageArray
from andon.inspection.export.runtimes import needed

__all__ = ["quantise"]


def quantise(model: Path, images: Iterator[ImageArray]) -> None:
    """Quantises the convolutions of a graph in place: int8, one scale a channel of the weights.

    What a distance, a density or the resizing is computed by stays float32: a score is a small difference of them.

    Args:
        model: an ONNX file that takes uint8 ``[H, W, 3]``.
        images: what the ranges of the activations are measured on.

    Raises:
        DetectorError: a graph without convolutions, or one that the tool cannot quantise.
    """
    onnx, tool = needed("onnx"), needed("onnxruntime.quantization")
    graph = onnx.load(str(model)).graph
    if not any(node.op_type == "Conv" for node in graph.node):
        raise DetectorError(f"{model.name}: there is no convolution in it to quantise; leave out --int8")
    name = graph.input[0].name

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc, name-defined]  # a class of a package found at run time
        def get_next(self) -> dict[str, Any] | None:
            image = next(images, None)
            return None if image is None else {name: image}

    prepared, small = model.with_suffix(".prepared.onnx"), model.with_suffix(".int8.onnx")
    try:
        with _quiet():
            # Its symbolic shapes fail on fixed ones; ONNX's own inference is enough.
            needed("onnxruntime.quantization.shape_inference").quant_pre_process(
                str(model), str(prepared), skip_symbolic_shape=True
            )
            tool.quantize_static(
                str(prepared),
                str(small),
                Reader(),
                quant_format=tool.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=tool.QuantType.QUInt8,
                weight_type=tool.QuantType.QInt8,
            )
    except Exception as error:  # whatever the tool raises, it could not quantise
        raise DetectorError(
            f"{model.name}: cannot be quantised ({type(error).__name__}: {first_line(error)})"
        ) from error
    small.replace(model)
    prepared.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
