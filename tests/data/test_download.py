"""Downloads from a server that breaks off, cannot go on, or sends something else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from andon.core import DataError
from andon.data.download import RemoteFile, download, zenodo_files
from tests.data.servers import Server, serving

DATA = os.urandom(900_000)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        state.files["/a.zip"] = DATA
        yield state


def remote(server: Server, data: bytes = DATA, name: str = "a.zip", size: int | None = None) -> RemoteFile:
    sums = (("md5", hashlib.md5(data).hexdigest()), ("sha256", hashlib.sha256(data).hexdigest().upper()))
    return RemoteFile(name, f"{server.url}/{name}", len(data) if size is None else size, sums)


def get(file: RemoteFile, target: Path, waits: list[float] | None = None) -> Path:
    return download(file, target, sleep=(waits if waits is not None else []).append)


def test_whole_at_once_and_not_again(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    target = tmp_path / "deep/a.zip"
    download(remote(server), target, progress=lambda *step: seen.append(step))
    assert target.read_bytes() == DATA
    assert seen[-1] == ("download a.zip", len(DATA), len(DATA))
    assert get(remote(server), target) == target
    assert len(server.asked) == 1
    assert [p.name for p in target.parent.iterdir()] == ["a.zip"]


def test_broken_connections_go_on_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.breaks = [100_000, 250_000, 0, 1]
    waits: list[float] = []
    get(remote(server), tmp_path / "a.zip", waits)
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == [
        None,
        "bytes=100000-",
        "bytes=350000-",
        "bytes=350000-",
        "bytes=350001-",
    ]
    assert len(waits) == 4


def test_a_stopped_download_goes_on_in_another_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA[:600_000])
    get(remote(server), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert server.asked == [("/a.zip", "bytes=600000-")]


def test_a_server_that_cannot_go_on_begins_anew(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "a.zip.part").write_bytes(b"x" * 600_000)
    get(remote(server), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_what_is_there_and_whole_is_only_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA)
    get(remote(server), tmp_path / "a.zip")
    assert server.asked == []
    (tmp_path / "b.zip.part").write_bytes(DATA)
    server.files["/b.zip"] = DATA
    file = RemoteFile("b.zip", f"{server.url}/b.zip", None, (("md5", hashlib.md5(DATA).hexdigest()),))
    get(file, tmp_path / "b.zip")  # its size is not published: the server says that nothing is missing
    assert server.asked == [("/b.zip", f"bytes={len(DATA)}-")]


def test_a_wrong_checksum(server: Server, tmp_path: Path) -> None:
    file = remote(server, DATA[::-1])
    with pytest.raises(
        DataError, match=r"a\.zip\.part: its md5 is [0-9a-f]{32}, not [0-9a-f]{32} as published.*run it"
    ):
        get(file, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []  # nothing that could be taken for it is left
    (tmp_path / "a.zip").write_bytes(DATA)
    with pytest.raises(DataError, match=r"a\.zip: its md5 .*remove it"):
        get(file, tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(DATA[1:])
    with pytest.raises(DataError, match="899,999 bytes, not the 900,000 published"):
        get(file, tmp_path / "a.zip")


def test_a_part_of_another_file_is_found_out(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"\0" * 600_000)
    with pytest.raises(DataError, match=r"as published for a\.zip; it was removed"):
        get(remote(server), tmp_path / "a.zip")
    get(remote(server), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_more_than_is_published(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sends more than the 1,000 bytes of this file"):
        get(remote(server, size=1000), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_answers_that_ask_to_come_again_and_those_that_do_not(server: Server, tmp_path: Path) -> None:
    server.answers = [503, 429, 500]
    waits: list[float] = []
    get(remote(server), tmp_path / "a.zip", waits)
    assert waits == [0, 0, 0]  # as the server says
    with pytest.raises(DataError, match=r"none\.zip: the server answers 404"):
        get(remote(server, name="none.zip"), tmp_path / "none.zip")
    server.answers = [503] * 20
    (tmp_path / "b.zip.part").write_bytes(DATA[:10])
    with pytest.raises(DataError, match=r"the server answers 503\); what came is kept in .*b\.zip\.part, run it again"):
        get(remote(server, name="b.zip"), tmp_path / "b.zip")
    assert (tmp_path / "b.zip.part").read_bytes() == DATA[:10]


def test_no_server(tmp_path: Path) -> None:
    with serving() as gone:
        file = remote(gone)
    waits: list[float] = []
    with pytest.raises(DataError, match="cannot be downloaded"):
        get(file, tmp_path / "a.zip", waits)
    assert waits == [2, 4, 8, 16, 30]
    with pytest.raises(DataError, match="not an address of the web"):
        get(RemoteFile("x", "file:///etc/passwd"), tmp_path / "x")


def test_a_record_of_zenodo(server: Server) -> None:
    server.record(7, {"a.zip": b"abc", "readme.md": b""})
    first, second = zenodo_files(7, host=server.url)
    assert first == RemoteFile(
        "a.zip", f"{server.url}/api/records/7/files/a.zip/content", 3, (("md5", "900150983cd24fb0d6963f7d28e17f72"),)
    )
    assert second.name == "readme.md"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"files": [{"key": "a"}]}',
        b'{"files": [{"key": "../a", "size": 1, "checksum": "md5:0"}]}',
        b'{"files": [{"key": "a", "size": 1, "checksum": "crc:0"}]}',
        b'{"files": [{"key": "a", "size": null, "checksum": "md5:0"}]}',
        b"[" * 100_000,
    ],
)
def test_a_record_that_is_none(answer: bytes, server: Server) -> None:
    server.files["/api/records/7"] = answer
    with pytest.raises(DataError, match="api/records/7: the answer lists no files"):
        zenodo_files(7, host=server.url)
    with pytest.raises(DataError, match="api/records/8: cannot be read"):
        zenodo_files(8, host=server.url)
