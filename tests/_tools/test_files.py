"""The door for users' files, and folders with links."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from andon._tools.files import folders_below, open_regular, path_of, read_regular
from andon.core import AndonError, ConfigError, DataError, DetectorError, WeightsError

KINDS = ("pipe", "socket", "device", "endless", "link to a pipe", "folder")


def strange(kind: str, path: Path) -> None:
    """Puts something at ``path`` that is no regular file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                here = Path.cwd()
                os.chdir(path.parent)  # names of sockets are short
                try:
                    listener.bind(path.name)
                finally:
                    os.chdir(here)
        case "device":
            path.symlink_to("/dev/null")
        case "endless":
            path.symlink_to("/dev/zero")
        case "link to a pipe":
            os.mkfifo(path.with_suffix(".fifo"))
            path.symlink_to(path.with_suffix(".fifo"))
        case "folder":
            path.mkdir()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    strange(kind, path)
    for read in (lambda: open_regular(path, error=ConfigError), lambda: read_regular(path, 10, error=ConfigError)):
        with pytest.raises(ConfigError, match=r"/x: a (folder|pipe|socket|device), not a"):
            read()


def test_size_and_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(DataError, match=r"x: 5 bytes are too many for a thing \(limit 4\)"):
        read_regular(path, 4, what="a thing")
    with pytest.raises(DataError, match="there is no such file"):
        open_regular(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        open_regular("a\0b")
    # A file of /proc has the size 0 and more behind it.
    with pytest.raises(DataError, match="too large"):
        read_regular("/proc/self/status", 10)
    with open_regular(path) as file:
        assert Path(path_of(file)).read_bytes() == b"12345"


def test_nothing_stays_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"123")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("pipe", "file", "none"):
        with pytest.raises(AndonError):
            open_regular(tmp_path / name, 2)
    assert len(os.listdir("/proc/self/fd")) == before


def test_linked_folders_are_entered_and_circles_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep/a").touch()
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "b/file").touch()
    (root / ".hidden").mkdir()
    (root / "a").symlink_to(tmp_path / "elsewhere")
    found = {str(path.relative_to(root)): names for path, names in folders_below(root)}
    assert found == {".": [], "a": [], "a/deep": ["a"], "b": ["file"]}
    for link, target in (("elsewhere/up", root), ("root/b/self", root / "b"), ("root/x", "/proc/self/root")):
        (tmp_path / link).symlink_to(target)
        with pytest.raises(AndonError, match=rf"{Path(link).name}: a link to a folder that it lies in"):
            list(folders_below(root))
        (tmp_path / link).unlink()


# --- every door, in a process of its own that would otherwise wait for ever -------------------------------------------

DOORS: dict[str, tuple[str, str]] = {
    "image": ("x.png", "from andon.data import read_image; read_image(PATH)"),
    "size": ("x.png", "from andon.data import read_size; read_size(PATH)"),
    "mask": ("x.png", "from andon.data import read_mask; read_mask(PATH)"),
    "fingerprint": ("x.png", "from andon.data.fingerprint import file_fingerprint; file_fingerprint(PATH)"),
    "configuration": ("defects_config.json", "from andon.data.autovi import read_defects_config as r; r(PATH)"),
    "PNG map": ("x.png", "from andon.data import read_map; read_map(PATH)"),
    "TIFF map": ("x.tiff", "from andon.data import read_map; read_map(PATH)"),
    "NPY map": ("x.npy", "from andon.data import read_map; read_map(PATH)"),
    "plan": ("x.yaml", "from andon.benchmark.plan import _read; _read(PATH)"),
    "scores": ("x.csv", "from andon.benchmark.maps import _read_scores; _read_scores(PATH)"),
    "pth": ("x.pth", "from andon.weights import read_state_dict; read_state_dict(PATH)"),
    "safetensors": ("x.safetensors", "from andon.weights import read_state_dict; read_state_dict(PATH)"),
    "zip": ("x.zip", "from andon.weights import read_state_dict; read_state_dict(PATH, 'a.pth')"),
    "hash": ("x.pth", "from andon.weights.state_dicts import file_sha256; file_sha256(PATH)"),
    "detector": ("x.andon", "import andon; andon.load(PATH)"),
}


def test_no_door_waits(tmp_path: Path) -> None:
    cases: list[tuple[str, str]] = []
    for door, (name, code) in DOORS.items():
        for number, kind in enumerate(KINDS):
            path = tmp_path / f"{door}-{number}" / name
            strange(kind, path)
            cases.append((str(path), code))
    program = """
import json, sys
from pathlib import Path
from andon.core import AndonError
for path, code in json.load(sys.stdin):
    print(path, flush=True)
    try:
        exec(code, {"PATH": Path(path)})
    except AndonError as error:
        assert str(path) in str(error), error
        assert "\\n" not in str(error)
        assert ", not " in str(error) or "no such" in str(error), error
    else:
        raise SystemExit(f"{path}: accepted")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(cases),
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-2000:]


def test_errors_are_of_the_room_that_asks(tmp_path: Path) -> None:
    import andon
    from andon.weights import read_state_dict

    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="a pipe, not a regular file"):
        read_state_dict(tmp_path / "x.pth")
    with pytest.raises(DetectorError, match="a pipe, not a regular file"):
        andon.load(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["train/good/x.png", "test/good/x.png", "defects_config.json"])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_data_info_and_fingerprints_of_a_data_set(name: str, kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k, place in enumerate(("train/good/0.png", "train/good/1.png", "test/good/0.png", "test/dent/0.png")):
        path = tmp_path / "set" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        _png(path, rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) + k)
    config = tmp_path / "set/defects_config.json"
    config.write_text("[]")
    if name == config.name:
        config.unlink()
    strange(kind, tmp_path / "set" / name)
    done = subprocess.run(
        [sys.executable, "-m", "andon.cli.main", "data", "info", str(tmp_path / "set")],
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    output = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in output
    assert done.returncode in (1, 2), output
    assert "not a regular file" in output, output


def _png(path: Path, image: np.ndarray) -> None:
    import cv2

    assert cv2.imwrite(str(path), image)
