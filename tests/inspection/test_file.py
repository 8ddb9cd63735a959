"""The inspector's file: the same inspector comes back, and nothing else is let in."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from andon.core import DetectorError
from andon.inspection import Inspector, InspectorFile, load_inspector, train_inspector
from andon.inspection.container import MAX_BYTES, pack, unpack, write_container
from tests.inspection.parts import SMALL, part

names = st.from_regex(r"[a-z][a-z0-9.]{0,8}", fullmatch=True).filter(lambda name: name != "SHA256SUMS")
members = st.dictionaries(names, st.binary(max_size=200), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    images = [part(seed) for seed in range(6)]
    return train_inspector(images, "patchcore", config=SMALL["patchcore"], roi="5,5,80,60", align=(20, 15, 56, 42))


@pytest.fixture(scope="module")
def saved(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "part.andon"
    inspector.save(path)
    return path


@given(members)
def test_a_container_is_an_archive_that_others_read(content: dict[str, bytes]) -> None:
    data = pack(content)
    assert {name: bytes(view) for name, view in unpack(data, "x").items()} == content
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["SHA256SUMS", *content]
        for line in archive.read("SHA256SUMS").decode().splitlines():
            digest, name = line.split("  ")
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest


@given(members, st.data())
def test_no_other_bytes_are_a_container(content: dict[str, bytes], data: st.DataObject) -> None:
    whole = pack(content)
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    for changed in (flipped, whole[:at], whole + b"\0", whole[at:] if at else b"", whole[:at] + b"x" + whole[at:]):
        with pytest.raises(DetectorError):
            unpack(changed, "x")


@given(st.binary(max_size=300))
def test_no_bytes_at_all_do_harm(data: bytes) -> None:
    with pytest.raises(DetectorError):
        unpack(data, "x")


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/b", "", ".hidden", "a" * 65, "SHA256SUMS"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ValueError, match="not members"):
        pack({name: b""})


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_of_others_are_refused(compression: int, saved: Path, tmp_path: Path) -> None:
    """Whatever they hold: a bomb, a way out of a folder, a name twice."""
    with zipfile.ZipFile(saved) as archive:
        content = [(name, archive.read(name)) for name in archive.namelist()]
    for extra in ([], [("../../evil", b"x")], [("bomb", bytes(10**6))], [content[1]]):
        path = tmp_path / "other.andon"
        with (
            pytest.warns(UserWarning, match="Duplicate") if extra == [content[1]] else _nothing(),
            zipfile.ZipFile(path, "w", compression) as archive,
        ):
            for name, data in [*content, *extra]:
                archive.writestr(name, data)
        with pytest.raises(DetectorError):
            load_inspector(path)


class _nothing:  # noqa: N801 (a context like others)
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def test_the_same_inspector_comes_back(inspector: Inspector, saved: Path) -> None:
    again = load_inspector(saved)
    assert again.thresholds == inspector.thresholds
    assert again.provenance == inspector.provenance
    np.testing.assert_array_equal(again.calibration.scores, inspector.calibration.scores)
    np.testing.assert_array_equal(again.regions.mask, inspector.regions.mask)
    assert again.alignment is not None
    assert again.alignment.box == (20, 15, 56, 42)
    np.testing.assert_array_equal(again.origins, inspector.origins)
    for seed, defect in ((50, False), (51, True)):
        before, after = (i.inspect(part(seed, defect=defect)) for i in (inspector, again))
        assert (before.verdict, before.score, before.p_value) == (after.verdict, after.score, after.p_value)
        np.testing.assert_array_equal(before.anomaly_map, after.anomaly_map)


def test_equal_content_is_an_equal_file(inspector: Inspector, saved: Path, tmp_path: Path) -> None:
    load_inspector(saved).save(tmp_path / "again.andon")
    assert (tmp_path / "again.andon").read_bytes() == saved.read_bytes()
    assert InspectorFile.read(saved).fingerprint == inspector.file().fingerprint


def test_provenance_says_where_it_is_from(saved: Path) -> None:
    provenance = InspectorFile.read(saved).content.provenance
    assert provenance.method == "patchcore"
    assert len({image.fingerprint for image in provenance.images}) == 6
    assert provenance.size == (72, 96)
    assert provenance.weights[0]["name"].startswith("orthogonal")
    assert provenance.versions["torch"]
    assert provenance.created


def changed(saved: Path, tmp_path: Path, **other: bytes | None) -> Path:
    content = {name: bytes(view) for name, view in unpack(saved.read_bytes(), "x").items()}
    for name, data in other.items():
        member = name.replace("_", ".")
        if data is None:
            del content[member]
        else:
            content[member] = data
    write_container(tmp_path / "changed.andon", content)
    return tmp_path / "changed.andon"


def test_newer_and_unsound_files_are_refused(saved: Path, tmp_path: Path) -> None:
    settings_ = json.loads(bytes(unpack(saved.read_bytes(), "x")["inspector.json"]))

    def refused(match: str, **other: bytes | None) -> None:
        with pytest.raises(DetectorError, match=match):
            load_inspector(changed(saved, tmp_path, **other))

    def with_settings(**values: object) -> bytes:
        return json.dumps({**settings_, **values}).encode()

    refused("another format than 1.*update Andon", inspector_json=with_settings(format=2, novelty=1))
    refused("damaged", inspector_json=with_settings(thresholds={"look": 2.0, "stop": 1.0}))
    refused("damaged", inspector_json=with_settings(thresholds={"look": 1.0}))
    refused("damaged", inspector_json=b"[" * 100_000)
    refused("damaged", inspector_json=with_settings(calibration={"how": "", "scores": []}))
    refused("counted.png is missing", counted_png=None)
    refused("reference.png is missing", reference_png=None)
    refused("no detector.safetensors", detector_safetensors=None)
    refused("unknown member new.bin", new_bin=b"")
    refused("detector.safetensors: is not a detector's file", detector_safetensors=b"x" * 100)
    refused("thumbnail.png", thumbnail_png=b"x")
    refused("origins.bin is damaged", origins_bin=b"abc")


def test_a_method_from_a_file_is_not_run(saved: Path, tmp_path: Path) -> None:
    """A name in a file must not decide what code is imported."""
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    content = bytes(unpack(saved.read_bytes(), "x")["detector.safetensors"])
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    kept = json.loads(header["__metadata__"]["andon"])
    kept["method"] = f"{tmp_path / 'evil.py'}:Evil"
    header["__metadata__"]["andon"] = json.dumps(kept)
    text = json.dumps(header).encode()
    forged = len(text).to_bytes(8, "little") + text + content[end:]
    with pytest.raises(DetectorError, match="not installed"):
        load_inspector(changed(saved, tmp_path, detector_safetensors=forged))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="no such file"):
        load_inspector(tmp_path / "none.andon")
    with pytest.raises(DetectorError, match="a folder"):
        load_inspector(tmp_path)
    (tmp_path / "empty.andon").write_bytes(b"")
    with pytest.raises(DetectorError, match="is not an inspector's file"):
        load_inspector(tmp_path / "empty.andon")
    with (tmp_path / "large.andon").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DetectorError, match="too many"):
        load_inspector(tmp_path / "large.andon")


def test_it_is_written_whole_or_not_at_all(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DetectorError, match="cannot be written"):
        InspectorFile.read(saved).write(tmp_path / "file" / "x.andon")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1))
def test_harmed_and_forged_files(saved: Path, tmp_path: Path, seed: int) -> None:
    from tests.inspection.damage import forged, harmed

    data, rng = saved.read_bytes(), np.random.default_rng(seed)
    path = tmp_path / "tried.andon"
    for change in (harmed, forged):
        path.write_bytes(changed_ := change(rng, data))
        try:
            load_inspector(path)
        except DetectorError:
            continue
        assert change is forged or changed_ == data
