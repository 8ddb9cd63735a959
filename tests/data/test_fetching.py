"""Published data sets fetched from a server of this machine, and from files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from andon.core import ConfigError, DataError
from andon.data import fetch_set, load_dataset, published_set, published_sets, recognised_set
from andon.data.catalogue import PublishedSet
from andon.data.download import RemoteFile
from tests.data.servers import Server, serving
from tests.data.sets import miniatures as mini
from tests.data.sets.miniatures import tarred, written, zipped

AUTOVI = published_set("autovi")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


def archives_of_autovi(folder: Path) -> dict[str, bytes]:
    names = [name.removesuffix(".zip") for name in AUTOVI.files]
    found = {f"{name}.zip": zipped(folder / f"{name}.zip", mini.autovi(name)).read_bytes() for name in names}
    return {**found, "license.txt": b"licence"}


def autovi(files: dict[str, bytes]) -> PublishedSet:
    return replace(AUTOVI, sha256={name: hashlib.sha256(data).hexdigest() for name, data in files.items()})


class TestZenodo:
    def test_all_archives_are_fetched_checked_and_unpacked(self, server: Server, tmp_path: Path) -> None:
        files = archives_of_autovi(tmp_path / "there")
        server.record(10459003, files)
        steps: set[str] = set()
        out = tmp_path / "here"
        fetched = fetch_set(autovi(files), out, progress=lambda name, *_: steps.add(name), host=server.url)
        assert list(fetched.dataset.categories) == [name.removesuffix(".zip") for name in AUTOVI.files]
        assert (out / "license.txt").read_bytes() == b"licence"
        assert {"download pipe_staple.zip", "unpack"} <= steps
        assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "there"]  # nothing is left of the downloads
        asked = len(server.asked)
        again = fetch_set(autovi(files), out, host=server.url)
        assert again.notes == (f"{out}: all of it is there already",)
        assert len(server.asked) == asked

    def test_only_one_category_and_the_rest_later(self, server: Server, tmp_path: Path) -> None:
        files = archives_of_autovi(tmp_path / "there")
        server.record(10459003, files)
        out = tmp_path / "here"
        fetched = fetch_set(autovi(files), out, categories=["pipe_staple"], host=server.url)
        assert list(fetched.dataset.categories) == ["pipe_staple"]
        (tmp_path / "here.download").mkdir()
        half = files["tank_screw.zip"]
        (tmp_path / "here.download/tank_screw.zip.part").write_bytes(half[: len(half) // 2])
        assert len(fetch_set(autovi(files), out, host=server.url).dataset) == 6
        ranges = dict(server.asked)
        assert ranges["/api/records/10459003/files/tank_screw.zip/content"] == f"bytes={len(half) // 2}-"
        with pytest.raises(ConfigError, match="autovi has no archive of x; it has: engine_wiring"):
            fetch_set(autovi(files), out, categories=["x"], host=server.url)

    def test_wrong_checksums(self, server: Server, tmp_path: Path) -> None:
        files = archives_of_autovi(tmp_path / "there")
        server.record(10459003, files, {"engine_wiring.zip": "0" * 32})
        with pytest.raises(DataError, match=r"engine_wiring\.zip\.part: its md5 is"):
            fetch_set(autovi(files), tmp_path / "here", host=server.url)
        server.record(10459003, files)
        with pytest.raises(DataError, match=r"engine_wiring\.zip\.part: its sha256 is"):  # the pinned one
            fetch_set(AUTOVI, tmp_path / "here", host=server.url)
        assert not (tmp_path / "here").exists()

    def test_a_record_without_a_file_and_no_network(self, server: Server, tmp_path: Path) -> None:
        server.record(10459003, {"readme.md": b"x"})
        with pytest.raises(DataError, match=r"has no file engine_wiring\.zip any more; it has: readme\.md"):
            fetch_set(AUTOVI, tmp_path / "here", host=server.url)
        with pytest.raises(DataError, match=r"cannot be read .*get its files from .*give their folder with --from"):
            fetch_set(AUTOVI, tmp_path / "here", host="http://127.0.0.1:9")


def test_a_file_elsewhere(server: Server, tmp_path: Path) -> None:
    data = zipped(tmp_path / "there/KolektorSDD2.zip", mini.ksdd2()).read_bytes()
    server.files["/k.zip"] = data
    sums = (("sha256", hashlib.sha256(data).hexdigest()),)
    remote = RemoteFile("KolektorSDD2.zip", f"{server.url}/k.zip", len(data), sums)
    fetched = fetch_set(replace(published_set("ksdd2"), remote=(remote,)), tmp_path / "ksdd2")
    assert fetched.dataset.layout == "ksdd2"
    assert (tmp_path / "ksdd2/train/10000.png").is_file()


class TestFromFiles:
    def test_one_archive(self, tmp_path: Path) -> None:
        path = tarred(tmp_path / "mvtec_loco_anomaly_detection.tar.xz", mini.mvtec_loco())
        fetched = fetch_set(published_set("mvtec-loco"), tmp_path / "loco", source=path)
        assert list(fetched.dataset.categories) == ["breakfast_box"]
        assert path.is_file()
        again = fetch_set(published_set("mvtec-loco"), tmp_path / "loco", source=path)
        assert "is there already" in again.notes[0]

    def test_a_folder_of_archives(self, tmp_path: Path) -> None:
        for name in ("Class1", "Class2"):
            files = {p: data for p, data in mini.dagm().items() if p.startswith(name)}
            zipped(tmp_path / f"there/{name}.zip", files)
        zipped(tmp_path / "there/holiday.zip", {"x": b"x"})
        fetched = fetch_set(published_set("dagm"), tmp_path / "dagm", source=tmp_path / "there")
        assert list(fetched.dataset.categories) == ["Class1", "Class2"]
        assert not (tmp_path / "dagm/holiday").exists()
        with pytest.raises(Exception, match=r"there: no data set found, but archives.*andon data fetch NAME --from"):
            load_dataset(tmp_path / "there")

    def test_one_of_several_archives_goes_beside_the_others(self, tmp_path: Path) -> None:
        for name in ("pipe_clip", "pipe_staple"):
            path = zipped(tmp_path / f"{name}.zip", mini.autovi(name))
            fetched = fetch_set(AUTOVI, tmp_path / "autovi", source=path)
        assert list(fetched.dataset.categories) == ["pipe_clip", "pipe_staple"]

    def test_what_is_unpacked_stays_where_it_is(self, tmp_path: Path) -> None:
        root = written(tmp_path / "VisA", mini.visa())
        fetched = fetch_set(published_set("visa"), tmp_path / "out", source=root)
        assert (fetched.dataset.root, fetched.notes) == (root, (f"{root} is unpacked already and stays where it is",))
        assert not (tmp_path / "out").exists()

    def test_another_data_set(self, tmp_path: Path) -> None:
        root = written(tmp_path / "VisA", mini.visa())
        with pytest.raises(DataError, match=r"is not KolektorSDD .*: its layout is visa, not ksdd"):
            fetch_set(published_set("ksdd"), tmp_path / "out", source=root)
        root = written(tmp_path / "own", mini.mvtec_ad("my_part"))
        with pytest.raises(DataError, match=r"is not MVTec AD .*: it has a category my_part"):
            fetch_set(published_set("mvtec-ad"), tmp_path / "out", source=root)

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no such file or folder"):
            fetch_set(AUTOVI, tmp_path / "out", source=tmp_path / "none.zip")
        (tmp_path / "a.rar").write_bytes(b"x")
        with pytest.raises(DataError, match=r"a\.rar: neither an archive"):
            fetch_set(AUTOVI, tmp_path / "out", source=tmp_path / "a.rar")


def test_where_to_get_what_may_not_be_downloaded(tmp_path: Path) -> None:
    for entry in published_sets():
        assert entry.page.startswith("http")
        assert entry.licence
        if not entry.unattended and not entry.package:
            with pytest.raises(ConfigError) as caught:
                fetch_set(entry, tmp_path / "out")
            assert entry.page in str(caught.value)
            assert "--from" in str(caught.value)
    with pytest.raises(ConfigError, match="no published data set is called 'imagenet'; known: autovi, dagm"):
        published_set("imagenet")


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("andon.data.fetching.elpv_folder", lambda: None)
    with pytest.raises(ConfigError, match="pip install --no-deps elpv-dataset"):
        fetch_set(published_set("elpv"), tmp_path / "out")
    root = written(tmp_path / "elpv", mini.elpv())
    monkeypatch.setattr("andon.data.fetching.elpv_folder", lambda: root)
    assert len(fetch_set(published_set("elpv"), tmp_path / "out").dataset) == 2


def test_sets_are_recognised_by_layout_and_categories() -> None:
    def name(layout: str, *categories: str) -> str | None:
        found = recognised_set(layout, categories)
        return None if found is None else found.name

    assert name("visa-2cls-fewshot", "pcb1") == "visa"
    assert name("autovi", "tank_screw", "pipe_clip") == "autovi"
    assert name("autovi", "breakfast_box") == "mvtec-loco"
    assert name("autovi", "breakfast_box", "tank_screw") is None
    assert name("mvtec", "bottle") == "mvtec-ad"
    assert name("mvtec", "mine") is None
    assert name("folder", "good") is None


def test_checksums_are_whole() -> None:
    lengths = {"md5": 32, "sha256": 64}
    for entry in published_sets():
        pins = [pin for file in entry.remote for pin in file.checksums] + [("sha256", d) for d in entry.sha256.values()]
        assert all(len(digits) == lengths[kind] and int(digits, 16) >= 0 for kind, digits in pins)
        assert entry.zenodo is None or set(entry.sha256) == set(entry.files)


def test_a_full_disk_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "KolektorSDD.zip", mini.ksdd())
    monkeypatch.setattr("andon.data.archives._copy", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(DataError, match=r"cannot be written .No space left.; nothing was kept"):
        fetch_set(published_set("ksdd"), tmp_path / "out", source=path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["KolektorSDD.zip"]
    assert shutil.disk_usage(tmp_path).free > 0
