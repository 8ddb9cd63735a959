"""Latency and throughput, and the fastest runtime that agrees."""

from __future__ import annotations

import math
import sys

import pytest

from andon.core import ConfigError
from andon.inspection import Agreement, RuntimeSpeed, fastest, measure_speed, sample_images
from tests.inspection.export.tiny import SIZE, TinyConfig, images, tiny_source

NAMED = [(f"{i}", image) for i, image in enumerate(images(3))]


def measured(name: str, p50: float, worst: float | None = None) -> RuntimeSpeed:
    agreement = None if worst is None else Agreement(("a",), (1.0,), (1.0 + worst,), {})
    return RuntimeSpeed(name, name, p50, p50, 1.0, agreement)  # type: ignore[arg-type]


def test_the_fastest_is_the_one_that_agrees() -> None:
    torch, close, off = measured("torch", 30.0), measured("onnxruntime", 20.0, 1e-5), measured("openvino", 5.0, 0.1)
    assert fastest([torch, close, off]).name == "onnxruntime"
    assert fastest([torch, measured("onnxruntime", 40.0, 0.0)]).name == "torch"
    with pytest.raises(ConfigError, match="no runtime"):
        fastest([off, RuntimeSpeed("onnxruntime", "ONNX Runtime", refusal="not installed")])


def test_runtimes_are_measured_side_by_side() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package, reason="needs andon[export]")
    speeds = measure_speed(tiny_source(), NAMED, seconds=0.05, callers=2, threads=1)
    assert [speed.name for speed in speeds] == ["torch", "onnxruntime", "openvino"]
    for speed in speeds:
        assert 0 < speed.p50 <= speed.p99
        assert speed.throughput > 0
        assert speed.usable
    assert speeds[0].agreement is None
    assert speeds[1].agreement is not None
    assert speeds[1].agreement.names == ("0", "1", "2")


def test_a_runtime_that_is_not_there_or_disagrees_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="needs andon[export]")
    monkeypatch.setitem(sys.modules, "openvino", None)
    source = tiny_source(TinyConfig(fault="large"))
    torch, ort, openvino = measure_speed(source, NAMED, seconds=0.01, threads=1)
    assert not ort.usable
    assert not ort.refusal
    assert "pip install 'andon[export]'" in openvino.refusal
    assert math.isnan(openvino.p50)
    assert fastest([torch, ort, openvino]) is torch


def test_torch_alone_needs_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    (torch,) = measure_speed(tiny_source(), NAMED, runtimes=["torch"], seconds=0.01)
    assert torch.usable


def test_made_up_images() -> None:
    made = sample_images(SIZE, 2)
    assert [image.shape for _, image in made] == [(*SIZE, 3)] * 2
    assert (made[0][1] != made[1][1]).any()
    with pytest.raises(ConfigError, match="no images"):
        measure_speed(tiny_source(), [])
