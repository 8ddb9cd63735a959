"""Export of the whole chain, and its verification."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from andon import create_method
from andon.core import ConfigError, DataError, DetectorError
from andon.data import Transform
from andon.inspection import Source, export_model, load_any, open_runtime, read_sidecar, verify_export
from andon.inspection.export.runtimes import TorchRuntime
from andon.inspection.inspector import load_inspector
from andon.inspection.regions import Regions
from andon.inspection.training import train_inspector
from tests.inspection.export.tiny import SIZE, TinyConfig, images, tiny_source

pytest.importorskip("onnx", reason="needs andon[export]")
pytest.importorskip("onnxscript", reason="needs andon[export]")
pytest.importorskip("onnxruntime", reason="needs andon[export]")


@pytest.fixture(params=["onnx", "openvino"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a model of either format goes."""
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="needs andon[export]")
        return tmp_path / "model.xml"
    return tmp_path / "model.onnx"


def export(source: Source, model: Path, **options: object):  # type: ignore[no-untyped-def]
    options = {"images": images(), "format": "openvino" if model.suffix == ".xml" else "onnx", **options}
    return export_model(source, model, **options)  # type: ignore[arg-type]


def test_a_model_says_what_torch_says(model: Path) -> None:
    source = tiny_source(thresholds={"look": 1.0, "stop": 2.0})
    report = export(source, model)
    assert report.agreement.agrees
    assert len(report.agreement.names) == 6
    assert all(path.is_file() for path in report.files)
    assert {path.name for path in model.parent.iterdir()} == {path.name for path in report.files}
    runtime, torch_runtime = open_runtime(model), TorchRuntime(source)
    for image in images(4)[2:]:
        expected, found = torch_runtime.run(image), runtime.run(image)
        assert found.score == pytest.approx(expected.score, rel=1e-5)
        assert expected.map is not None
        assert found.map == pytest.approx(expected.map, rel=1e-4, abs=1e-5)


def test_what_a_model_says_of_itself(model: Path) -> None:
    source = tiny_source(thresholds={"stop": 2.0})
    export(source, model)
    metadata = open_runtime(model).metadata
    assert (metadata.method, metadata.source, metadata.source_sha256) == ("tiny", source.name, source.sha256)
    assert (metadata.size, metadata.map_size) == (SIZE, (28, 32))
    assert metadata.region == pytest.approx((2 / 32, 2 / 36, 30 / 32, 34 / 36))
    assert metadata.thresholds == {"stop": 2.0}
    assert read_sidecar(model.with_name(model.name + ".json")).metadata == metadata
    for path in model.parent.iterdir():
        assert str(Path(__file__).parents[3]).encode() not in path.read_bytes(), "a path of this machine"


@pytest.mark.parametrize(
    "transform",
    [
        Transform(size=SIZE, normalisation="unit"),
        Transform(size=(60, 24), crop=(31, 21), antialias=False),
    ],
    ids=["as it comes", "plain, odd crop"],
)
def test_every_transform(tmp_path: Path, transform: Transform) -> None:
    report = export(tiny_source(TinyConfig(transform=transform)), tmp_path / "model.onnx")
    assert report.agreement.worst < 1e-6


def test_scores_only(tmp_path: Path) -> None:
    report = export(tiny_source(TinyConfig(maps=False)), tmp_path / "model.onnx")
    assert report.metadata.map_size is None
    assert report.agreement.map_difference is None
    assert open_runtime(tmp_path / "model.onnx").run(images(1)[0]).map is None


def test_an_image_of_one_colour_scores_no_less_than_in_torch(model: Path) -> None:
    source = tiny_source()
    export(source, model)
    grey = np.full((*SIZE, 3), 128, dtype=np.uint8)
    expected = TorchRuntime(source).run(grey).score
    assert expected == pytest.approx(source.detector.constant_score())
    assert open_runtime(model).run(grey).score == pytest.approx(expected, rel=1e-6)


def test_an_image_of_one_colour_stops_whatever_it_scores(model: Path) -> None:
    source = tiny_source(thresholds={"look": 40.0, "stop": 50.0})
    export(source, model)
    found = open_runtime(model).run(np.zeros((*SIZE, 3), dtype=np.uint8)).score
    assert 50 < found < 50.001
    assert found == TorchRuntime(source).run(np.zeros((*SIZE, 3), dtype=np.uint8)).score


def test_only_the_pixels_that_count(model: Path) -> None:
    mask = np.zeros(SIZE, dtype=bool)
    mask[5:20, 8:30] = True
    whole = tiny_source()
    source = Source(whole.detector, whole.name, whole.sha256, regions=Regions(mask))
    assert export(source, model).agreement.agrees
    image = images(1)[0]
    found, all_of_it = open_runtime(model).run(image), TorchRuntime(whole).run(image)
    assert found.map is not None
    assert all_of_it.map is not None
    counted = Regions(mask).on_map((28, 32), whole.detector.transform.region)
    assert found.score == pytest.approx(all_of_it.map[counted].max(), rel=1e-5)
    assert found.score < all_of_it.score
    assert found.map[~counted] == pytest.approx(all_of_it.map.min(), rel=1e-4)


# Inspectors


def inspector_file(path: Path, **options: object) -> Path:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :72]
    part = (120 + 60 * ((x - 36) ** 2 + (y - 30) ** 2 < 300))[..., None]
    good = [(part + rng.normal(0, 4, (60, 72, 3))).clip(0, 255).astype(np.uint8) for _ in range(12)]
    train_inspector(good, method="thumbnail-nn", **options).save(path)  # type: ignore[arg-type]
    return path


def test_an_inspector_keeps_its_thresholds_and_regions(tmp_path: Path, model: Path) -> None:
    path = inspector_file(tmp_path / "part.andon", roi="10,12,40,30")
    inspector = load_inspector(path)
    source = load_any(path)
    assert source.thresholds == {"look": inspector.thresholds.look, "stop": inspector.thresholds.stop}
    export(source, model, images=images(3, (60, 72)))
    assert open_runtime(model).metadata.thresholds == source.thresholds
    for image in images(2, (60, 72)):
        verdict, found = inspector.inspect(image), open_runtime(model).run(image)
        assert found.score == pytest.approx(verdict.score, rel=1e-5)
        assert (found.score > source.thresholds["stop"]) == (verdict.verdict == "stop")
    black = np.zeros((60, 72, 3), dtype=np.uint8)
    assert inspector.inspect(black).verdict == "stop"
    assert open_runtime(model).run(black).score > source.thresholds["stop"]


def test_without_images_an_inspectors_thumbnail_stands_in(tmp_path: Path) -> None:
    model = tmp_path / "part.onnx"
    report = export(load_any(inspector_file(tmp_path / "part.andon")), model, images=())
    assert report.agreement.names == ("thumbnail", "thumbnail, mirrored", "thumbnail, darker", "thumbnail, brighter")
    assert report.metadata.size == (60, 72)
    assert verify_export(model, tmp_path / "part.andon").passed


def test_an_inspector_that_aligns_is_refused(tmp_path: Path) -> None:
    path = inspector_file(tmp_path / "part.andon", align=True)
    with pytest.raises(DetectorError, match="it locates each part in its image"):
        load_any(path)


# What is refused


def test_a_model_that_scores_otherwise_is_not_written(model: Path) -> None:
    with pytest.raises(DetectorError, match=r"not written, because .* does not say what torch says: 6 images"):
        export(tiny_source(TinyConfig(fault="large")), model)
    assert list(model.parent.iterdir()) == []


def test_a_model_that_decides_otherwise_is_not_written(tmp_path: Path) -> None:
    config = TinyConfig(fault="small")
    score = TorchRuntime(tiny_source(config)).run(images()[1]).score
    with pytest.raises(DetectorError, match="1 decided otherwise"):
        export(tiny_source(config, {"stop": score * 1.0002}), tmp_path / "model.onnx")
    assert export(tiny_source(config, {"stop": score * 2}), tmp_path / "model.onnx").agreement.agrees


def test_an_operator_that_cannot_be_exported_is_named(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"because of the operator prims.bessel_j0$"):
        export(tiny_source(TinyConfig(fault="operator")), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    source, out = tiny_source(), tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match=r"is a file \*.xml"):
        export_model(source, out, images(), format="openvino")
    with pytest.raises(ConfigError, match="there is no folder"):
        export(source, tmp_path / "none" / "model.onnx")
    with pytest.raises(DataError, match="there are no images"):
        export(source, out, images=[])
    with pytest.raises(ConfigError, match="each side"):
        export(source, out, size=(4, 40))
    with pytest.raises(DataError, match=r"image 0: is 40x52 .*, the model takes 40x50"):
        export(source, out, size=(40, 50))
    export(source, out)
    with pytest.raises(DataError, match=r"takes RGB uint8 \[40, 52, 3\]"):
        open_runtime(out).run(images(1, (40, 50))[0])


# int8


def test_int8_is_written_with_what_it_loses(tmp_path: Path) -> None:
    report = export(tiny_source(), tmp_path / "model.onnx", int8=True)
    assert 0 < report.agreement.median <= report.agreement.worst < 0.1
    assert open_runtime(tmp_path / "model.onnx").metadata.int8
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.json"}


def test_int8_without_convolutions_is_refused(tmp_path: Path) -> None:
    source = Source.of(create_method("thumbnail-nn").fit(images()))
    with pytest.raises(DetectorError, match="no convolution in it to quantise"):
        export(source, tmp_path / "model.onnx", int8=True)


# Verification


@pytest.fixture
def thumbnail(tmp_path: Path) -> Path:
    """A detector that is in a file."""
    path = tmp_path / "thumbnail.safetensors"
    create_method("thumbnail-nn").fit(images(4)).save(path)
    return path


def test_verified_by_the_file_and_by_the_sidecar(tmp_path: Path, thumbnail: Path) -> None:
    model = tmp_path / "model.onnx"
    export(load_any(thumbnail), model)
    for reference in (None, thumbnail, tmp_path / "model.onnx.json"):
        found = verify_export(model, reference)
        assert found.passed
        assert found.same_files
        assert len(found.agreement.names) == 4
        assert not found.notes
    (tmp_path / "model.onnx.json").unlink()
    assert verify_export(model, thumbnail, images=load_images(6)).passed
    with pytest.raises(ConfigError, match="give --images"):
        verify_export(model, thumbnail)
    with pytest.raises(DetectorError, match="there is no such file"):
        verify_export(model)


def load_images(n: int):  # type: ignore[no-untyped-def]
    from andon.data import as_images

    return as_images(images(n))


def test_another_runtime_verifies_the_same_model(tmp_path: Path, thumbnail: Path) -> None:
    pytest.importorskip("openvino", reason="needs andon[export]")
    export(load_any(thumbnail), tmp_path / "model.onnx")
    found = verify_export(tmp_path / "model.onnx", runtime="openvino")
    assert found.passed
    assert found.runtime == "OpenVINO"


def test_another_detector_does_not_verify(tmp_path: Path, thumbnail: Path) -> None:
    model, other = tmp_path / "model.onnx", tmp_path / "other.safetensors"
    export(load_any(thumbnail), model)
    create_method("thumbnail-nn").fit(images(2)).save(other)
    found = verify_export(model, other)
    assert not found.passed
    assert found.notes == ("model.onnx was exported from another file (thumbnail.safetensors) than other.safetensors",)


def test_a_model_that_was_changed_does_not_verify(tmp_path: Path, thumbnail: Path) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    export(load_any(thumbnail), path)
    model = onnx.load(str(path))
    model.doc_string = "changed"
    onnx.save(model, str(path))
    found = verify_export(path)
    assert found.agreement.agrees
    assert not found.passed
    assert "its SHA-256 is another" in found.notes[0]


def test_an_image_that_is_not_recorded_is_refused(tmp_path: Path, thumbnail: Path) -> None:
    export(load_any(thumbnail), tmp_path / "model.onnx")
    stranger = np.zeros((*SIZE, 3), dtype=np.uint8)
    from andon.data import as_images

    with pytest.raises(DataError, match="not recorded in the sidecar"):
        verify_export(tmp_path / "model.onnx", images=as_images([stranger]))


def test_damaged_files_are_refused(tmp_path: Path, thumbnail: Path) -> None:
    model, sidecar = tmp_path / "model.onnx", tmp_path / "model.onnx.json"
    export(load_any(thumbnail), model)
    text = sidecar.read_text()
    sidecar.write_text(text[: len(text) // 2])
    with pytest.raises(DetectorError, match="or is damaged"):
        verify_export(model)
    fields = json.loads(text)
    fields["images"][0]["sha256"] = "0" * 64
    sidecar.write_text(json.dumps(fields))
    with pytest.raises(DetectorError, match="not the one that was recorded"):
        verify_export(model)
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(DetectorError, match="ONNX Runtime cannot load it"):
        open_runtime(model)
    with pytest.raises(DetectorError, match="there is no such file"):
        open_runtime(tmp_path / "none.onnx")
    with pytest.raises(ConfigError, match=r"an \.onnx or an \.xml"):
        open_runtime(thumbnail)


def test_a_model_of_somebody_else_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, checker, helper, save

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(DetectorError, match="was not exported by Andon"):
        open_runtime(tmp_path / "other.onnx")
    # With the metadata of a model of Andon's, which takes an image.
    export(tiny_source(), tmp_path / "model.onnx")
    metadata = open_runtime(tmp_path / "model.onnx").metadata
    helper.set_model_props(model, {"andon": metadata.model_dump_json()})
    save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(DetectorError, match="ONNX Runtime cannot run it"):
        open_runtime(tmp_path / "other.onnx").run(images(1)[0])
