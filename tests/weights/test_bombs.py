"""Archives that unpack to far more than they hold."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from andon.core import WeightsError
from andon.weights.state_dicts import read_state_dict


def _packed(content: bytes) -> bytes:
    """A torch file whose members are deflated."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    return out.getvalue()


def _state() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(1000.0)}, buffer)
    return buffer.getvalue()


def test_a_torch_file_that_is_packed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(_state())
    assert torch.equal(read_state_dict(path)["a"], torch.arange(1000.0))
    path.write_bytes(_packed(_state()))
    with pytest.raises(WeightsError, match="torch packs nothing"):
        read_state_dict(path)


def test_an_ordinary_archive_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/w.pth", _state())
    assert torch.equal(read_state_dict(path, "w.pth")["a"], torch.arange(1000.0))


@pytest.mark.parametrize("suffix", [".zip", ".pth"])
@pytest.mark.parametrize("says", ["the truth", "a small size"])
def test_900_mb_in_a_small_archive_are_never_unpacked(suffix: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    size = 900 * 2**20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w.pth", "w") as member:
        for _ in range(900):
            member.write(bytes(2**20))
    content = path.read_bytes()
    assert len(content) < 10**6
    if says == "a small size":
        assert content.count(size.to_bytes(4, "little")) >= 1
        path.write_bytes(content.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    program = (
        "import resource, sys; from pathlib import Path; from andon.core import WeightsError\n"
        "from andon.weights.state_dicts import read_state_dict\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_state_dict(Path(sys.argv[1]), 'w.pth')\n"
        "except WeightsError as error: print(error, file=sys.stderr)\n"
        "else: raise SystemExit(1)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100 * 1024, done.stdout
    assert resource.RLIM_INFINITY  # ru_maxrss is in KiB on Linux
