"""Archives that are what they say, and those that would do harm."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from andon.core import DataError
from andon.data import archives
from andon.data.archives import archive_stem, is_archive, unpack, unpacked_beside
from tests.data.sets.miniatures import tarred, zipped

FILES = {"set/a/1.png": b"one", "set/a/2.png": b"two" * 1000, "set/README": b""}


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_every_kind(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"set{suffix}"
    (zipped if suffix == ".zip" else tarred)(path, FILES)
    seen: list[tuple[int, int]] = []
    unpack(path, tmp_path / "out", progress=lambda _, done, total: seen.append((done, total)))
    # The folder of the archive's own name is not one too many.
    assert content(tmp_path / "out") == {name.removeprefix("set/"): data for name, data in FILES.items()}
    assert seen
    assert all(0 <= done <= total == path.stat().st_size for done, total in seen)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", path.name]
    with pytest.raises(DataError, match="out: is there already"):
        unpack(path, tmp_path / "out")


def test_names() -> None:
    assert [archive_stem(name) for name in ("a.tar.xz", "b.ZIP", "c.d.tgz", "plain")] == ["a", "b", "c.d", "plain"]


def test_litter_of_systems_is_left_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.png": b"a", "__MACOSX/._a.png": b"x", ".DS_Store": b"x", "b/._c.png": b"x"})
    unpack(path, tmp_path / "out")
    assert content(tmp_path / "out") == {"a.png": b"a"}


def test_archives_in_an_archive(tmp_path: Path) -> None:
    images = zipped(tmp_path / "train_images.zip", {"1.jpg": b"1"}).read_bytes()
    bottle = tarred(tmp_path / "bottle.tar.xz", {"bottle/train/1.png": b"1"}).read_bytes()
    path = zipped(tmp_path / "steel.zip", {"train_images.zip": images, "more/bottle.tar.xz": bottle, "train.csv": b"x"})
    unpack(path, tmp_path / "out")
    assert content(tmp_path / "out") == {"more/bottle/train/1.png": b"1", "train.csv": b"x", "train_images/1.jpg": b"1"}


@pytest.mark.parametrize(
    "name",
    ["/etc/x", "../x", "a/../../x", "C:/x", "..\\x", "a\\..\\..\\x", "a\nb", "a/" * 40 + "x", "n" * 300],
)
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    for make, suffix in ((zipped, "zip"), (tarred, "tar")):
        path = make(tmp_path / f"bad.{suffix}", {"ok.png": b"x", name: b"x"})
        with pytest.raises(DataError, match=r"bad\.(zip|tar): .*(leads out|too long or too deep)"):
            unpack(path, tmp_path / "out/in")
        assert not (tmp_path / "out/in").exists()
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        member = tarfile.TarInfo("x")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match="'x' is a link or a device"):
        unpack(tmp_path / "bad.tar", tmp_path / "out")


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="'x' is a link or a device"):
        unpack(tmp_path / "bad.zip", tmp_path / "out")


def test_rights_are_not_taken_over(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("x.sh")
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o4777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "x")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out/x.sh").stat().st_mode) & 0o7111 == 0


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 10_000)
    zeros = b"\0" * 3_000_000
    for make, suffix in ((zipped, "zip"), (tarred, "tar.xz")):
        path = make(tmp_path / f"bomb.{suffix}", {"zeros.png": zeros})
        with pytest.raises(DataError, match=r"bomb\.(zip|tar\.xz): unpacks to more than"):
            unpack(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        outer = zipped(tmp_path / "outer.zip", {path.name: path.read_bytes()})
        with pytest.raises(DataError, match=r"outer\.zip: unpacks to more than"):
            unpack(outer, tmp_path / "out")
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    path = zipped(tmp_path / "many.zip", {f"{i}.png": b"" for i in range(3)})
    with pytest.raises(DataError, match="more than 2 files in it"):
        unpack(path, tmp_path / "out")


def test_black_masks_shrink_and_are_no_bomb(tmp_path: Path) -> None:
    path = zipped(tmp_path / "masks.zip", {f"{i}.bmp": b"\0" * 600_000 for i in range(20)})
    unpack(path, tmp_path / "out")
    assert len(content(tmp_path / "out")) == 20


def test_a_size_that_is_a_lie(tmp_path: Path) -> None:
    path = zipped(tmp_path / "lie.zip", {"a.png": b"x" * 5000})
    data = bytearray(path.read_bytes())
    for at in (data.find(b"PK\x03\x04") + 22, data.find(b"PK\x01\x02") + 24):
        data[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"lie\.zip"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", b"2")
    with pytest.raises(DataError, match=r"a\.zip: 'a\.png' is there twice"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    path = tarred(tmp_path / "b.tar", {"a": b"1", "a/b": b"2"})
    with pytest.raises(DataError, match="is a file and a folder"):
        unpack(path, tmp_path / "out")


def test_encrypted(tmp_path: Path) -> None:
    path = zipped(tmp_path / "secret.zip", {"a.png": b"x"})
    data = bytearray(path.read_bytes())
    for at in (data.find(b"PK\x03\x04") + 6, data.find(b"PK\x01\x02") + 8):
        data[at] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"'a\.png' is encrypted"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_cut_off_and_damaged(suffix: str, tmp_path: Path) -> None:
    data = os.urandom(60_000)
    whole = (zipped if suffix == ".zip" else tarred)(
        tmp_path / f"whole{suffix}", {"a.png": data, "b.png": data}
    ).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in (0, 1, 100, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\."):
            unpack(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    path.write_bytes(b"not an archive" * 100)
    with pytest.raises(DataError, match="damaged, or not an archive that is read"):
        unpack(path, tmp_path / "out")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=6), st.sampled_from(["zip", "tar", "tar.gz", "tar.xz"]))
def test_any_damage_is_an_error_of_ours_or_none(tmp_path: Path, at: int, bits: bytes, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    data = bytearray((zipped if kind == "zip" else tarred)(path, {"a/1.png": b"1" * 300, "b.txt": b"2"}).read_bytes())
    for offset, value in enumerate(bits):
        data[(at + offset) % len(data)] ^= value
    path.write_bytes(data)
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    try:
        unpack(path, out)
    except DataError:
        assert not out.exists()


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": b"x" * 5000})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("U", (), {"free": 100})())
    with pytest.raises(DataError, match=r"unpacks to 5,000 bytes, but .* has 100 left"):
        unpack(path, tmp_path / "out")


def test_beside_the_archive(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", FILES)
    folder, name = unpacked_beside(path)
    assert (folder, name) == (tmp_path / "set.unpacked", "set")
    (folder / "a/1.png").write_bytes(b"mine")
    assert unpacked_beside(path)[0] == folder
    assert (folder / "a/1.png").read_bytes() == b"mine"  # not unpacked again
    zipped(path, {**FILES, "more": b"x"})
    with pytest.raises(DataError, match=r"set\.unpacked: is not what set\.zip unpacks to.*remove the folder"):
        unpacked_beside(path)


def test_what_is_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.zip").mkdir()
    assert not is_archive(tmp_path / "a.zip")
    assert not is_archive(tmp_path / "none.tar")
    buffer = io.BytesIO()
    (tmp_path / "b.TGZ").write_bytes(buffer.getvalue())
    assert is_archive(tmp_path / "b.TGZ")


def test_another_process_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "set.zip", FILES)
    real = archives.unpack

    def slow(archive: Path, target: Path, **options: Any) -> None:
        real(archive, target, **options)
        real(archive, target, **options)

    monkeypatch.setattr(archives, "unpack", slow)
    assert unpacked_beside(path)[0] == tmp_path / "set.unpacked"
    monkeypatch.setattr(archives.os, "access", lambda *_: False)
    with pytest.raises(DataError, match=r"other\.zip: cannot be unpacked beside itself.*--from FILE --out DIR"):
        unpacked_beside(zipped(tmp_path / "other.zip", FILES))
