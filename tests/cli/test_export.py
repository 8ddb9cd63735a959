"""``andon export``, ``andon verify`` and ``andon speed``."""

from __future__ import annotations

from pathlib import Path

import pytest

from andon import create_method
from tests.cli.conftest import Andon

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="needs andon[export]")


@pytest.fixture(scope="module")
def detector(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "thumbnail.safetensors"
    create_method("thumbnail-nn").fit(sorted((images / "train" / "good").iterdir())).save(path)
    return path


def test_exported_and_verified(andon: Andon, tmp_path: Path, images: Path, detector: Path) -> None:
    model = tmp_path / "model.onnx"
    test = images / "test"
    done = andon("export", detector, "--format", "onnx", "--out", model, "-i", test, "--threshold", "20")
    assert "takes RGB uint8 [96, 80, 3]" in done.stdout
    assert "8 images: scores differ by at most" in done.stdout
    assert "all decisions identical" in done.stdout
    done = andon("verify", model, "--reference", detector)
    assert "model.onnx in ONNX Runtime, thumbnail.safetensors in torch" in done.stdout
    assert done.stdout.splitlines()[-1] == "verified"
    assert done.stdout.count(".png") == 4
    assert andon("verify", model, "--images", test).stdout.count(".png") == 8


def test_what_does_not_agree_exits_with_two(andon: Andon, tmp_path: Path, images: Path, detector: Path) -> None:
    model, other = tmp_path / "model.onnx", tmp_path / "other.safetensors"
    andon("export", detector, "--out", model, "-i", images / "test")
    create_method("thumbnail-nn").fit(sorted((images / "test" / "spot").iterdir())).save(other)
    done = andon("verify", model, "--reference", other, code=2)
    assert "was exported from another file" in done.stderr
    assert "model.onnx does not pass" in done.stderr


def test_mistakes_are_one_line(andon: Andon, tmp_path: Path, images: Path, detector: Path) -> None:
    out = tmp_path / "model.onnx"
    good = images / "test" / "good"
    for words, message in (
        (("export", detector, "--out", out), "there are no images to compare"),
        (("export", detector, "--out", out, "-i", tmp_path / "none"), "there is no such image or folder"),
        (("export", detector, "--out", out, "-i", tmp_path), "no images in it or below"),
        (("export", detector, "--out", out, "-i", good, "--format", "openvino"), "is a file *.xml"),
        (("export", detector, "--out", out, "-i", good, "--size", "96"), "expected HEIGHTxWIDTH"),
        (("export", detector, "--out", out, "-i", good, "--size", "90x80"), "is 96x80 (height x width), the model"),
        (("export", detector, "--out", out, "-i", good, "--int8"), "no convolution"),
        (("export", good / "000.png", "--out", out, "-i", good), "is not a detector's file"),
        (("verify", out), "there is no such file"),
        (("speed", tmp_path / "none.andon"), "none.andon"),
    ):
        done = andon(*words, code=2)
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_speed_side_by_side(andon: Andon, images: Path, detector: Path) -> None:
    pytest.importorskip("openvino", reason="needs andon[export]")
    done = andon("speed", detector, "-i", images / "test" / "good", "--seconds", "0.1", "--threads", "1")
    title, header, *rows, best = done.stdout.splitlines()
    assert "96x80" in title
    assert header.split()[:6] == ["runtime", "p50", "ms", "p99", "ms", "images/s"]
    assert [row.split("  ")[0] for row in rows] == ["torch", "ONNX Runtime", "OpenVINO"]
    assert best.startswith("fastest that agrees: ")
    done = andon("speed", detector, "--runtime", "torch", "--seconds", "0.1", "--size", "64x64")
    assert "made-up ones" in done.stderr
    assert len(done.stdout.splitlines()) == 3
