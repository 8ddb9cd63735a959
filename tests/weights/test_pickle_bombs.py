"""Small pickles that ask for memory or time without end: refused before anything is made."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from andon._tools.pickles import check_torch_file
from andon.core import WeightsError
from andon.weights import read_state_dict

ALLOWED_MB = 200
"""Over the process at rest; each of these would take gigabytes, or for ever."""


def number(value: int) -> bytes:
    content = value.to_bytes(8, "little")
    return b"\x8a\x08" + content


def word(text: str) -> bytes:
    return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


def call(name: str, *arguments: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def storage(count: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return b"(" + word("storage") + f"ctorch\n{kind}\n".encode() + word(key) + word("cpu") + number(count) + b"tQ"


def tensor(count: int, size: bytes, stride: bytes, name: str = "_rebuild_tensor_v2") -> bytes:
    return call(
        f"torch._utils.{name}", storage(count), number(0), size, stride, b"\x89", call("collections.OrderedDict")
    )


HUGE = 10**11
ONE = number(1) + b"\x85"
DOUBLED = b"q\x01h\x01\x86" * 60
BOMBS = {
    "bytearray": call("builtins.bytearray", number(HUGE)),
    "bytes that double": b"".join(b"c_codecs\nencode\n" for _ in range(40))
    + call("_codecs.encode", word("aa"), word("latin1"))
    + b"".join(word("hex") + b"\x86R" for _ in range(40)),
    "tensor of nested lists": call(
        "torch.FloatTensor", b"]" + number(1) + b"a" + b"".join(b"q\x01](" + b"h\x01" * 1000 + b"e" for _ in range(3))
    ),
    "tensor by its class": call("torch.FloatTensor", number(HUGE)),
    "storage by its class": call("torch.FloatStorage", number(HUGE)),
    "storage forged": tensor(HUGE, number(2) + b"\x85", ONE),
    "tensor forged": tensor(1, number(HUGE) + b"\x85", ONE),
    "tensor in two dimensions": tensor(1, number(10**6) + number(10**6) + b"\x86", number(0) + number(1) + b"\x86"),
    "tensor repeated": tensor(1, number(HUGE) + b"\x85", number(0) + b"\x85"),
    "tensor converted": call(
        "torch._utils._rebuild_device_tensor_from_cpu_tensor",
        tensor(1, number(HUGE) + b"\x85", number(0) + b"\x85"),
        b"ctorch\nfloat64\n" + word("cpu") + b"\x89",
    ),
    "old tensor": tensor(1, number(HUGE) + b"\x85", ONE, "_rebuild_tensor"),
    "set": call("builtins.set", b"](" + b"K\x01" * 1000 + b"e"),
    "key whose hash takes for ever": b"}K\x01\x85" + DOUBLED + b"K\x01s",
    "bytes that are not there": b"\x96" + (2**62).to_bytes(8, "little"),
    "words that are not there": b"X\xff\xff\xff\x7f",
    "a million dicts": b"(" + b"}" * 1_100_000 + b"l",
}


def archive(pickled: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
        file.writestr("archive/data/0", bytes(4))
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return out.getvalue()


def legacy(pickled: bytes) -> bytes:
    """Magic number, protocol, system, object, keys, then the storages."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer, _use_new_zipfile_serialization=False)
    head = buffer.getvalue()
    start = head.index(b"\x80\x02}q\x00X\x01")  # of the object
    assert head[:start].count(b"\x80\x02") == 3
    return head[:start] + b"\x80\x02" + pickled + b"." + b"\x80\x02]X\x01\x00\x00\x000a." + bytes(12)


@pytest.mark.parametrize("form", [archive, legacy])
@pytest.mark.parametrize("bomb", BOMBS)
def test_is_refused_in_one_line(bomb: str, form: object, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(form(BOMBS[bomb] if bomb.startswith(("key", "a m")) else b"}" + word("w") + BOMBS[bomb] + b"s"))  # type: ignore[operator]
    with pytest.raises(WeightsError, match=r"^weights .*w\.pth: ") as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_takes_no_memory(tmp_path: Path) -> None:
    for count, pickled in enumerate(BOMBS.values()):
        for form in (archive, legacy):
            (tmp_path / f"{count}-{form.__name__}.pth").write_bytes(form(b"}" + word("w") + pickled + b"s"))
    (tmp_path / "polyglot.pth").write_bytes(b"N.N.N.N.N.".ljust(512, b"\0"))
    script = f"""
import pathlib, resource
from andon.core import WeightsError
from andon.weights import read_state_dict
rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in pathlib.Path({str(tmp_path)!r}).iterdir():
    try:
        read_state_dict(path)
    except WeightsError:
        continue
    raise SystemExit(path)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rest) / 1024)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34)),
    )
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < ALLOWED_MB


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_plain_is_let_in(zipped: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    optimiser = torch.optim.Adam(network.parameters())
    network[2](torch.ones(1, 4)).sum().backward()
    optimiser.step()
    shared = torch.arange(12.0)
    everything = {
        "state_dict": network.state_dict(),
        "model": OrderedDict(network.named_parameters()),
        "optimiser": optimiser.state_dict(),
        "schedule": {"milestones": Counter({5: 1}), "lr": [0.1, 1e-9], "last": -1, "name": "é"},
        "types": {str(t): torch.zeros(3, dtype=t) for t in (torch.float64, torch.half, torch.bfloat16, torch.bool)},
        "views": [shared[2:5], shared.view(3, 4).T, shared[:1].expand(7), torch.zeros(0, 4), torch.tensor(3)],
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "random": torch.get_rng_state(),
        "large": [2**40, -(2**31), True, None, (1, "a")],
    }
    buffer = io.BytesIO()
    torch.save(everything, buffer, _use_new_zipfile_serialization=zipped)
    check_torch_file(buffer)
    assert buffer.tell() == 0
    assert torch.load(buffer, weights_only=True)["large"] == everything["large"]
