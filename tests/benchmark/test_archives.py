"""What the store's archives may unpack to is looked at before anything is."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from andon.benchmark import _serial
from andon.benchmark._serial import UNREADABLE, load_npz, npz_bytes


@contextmanager
def at_most(n_bytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"shape": shape, "fortran_order": False, "descr": dtype})
    return out.getvalue()


def archive(member: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.npy", member)
    return out.getvalue()


def declaring(content: bytes, size: int) -> bytes:
    """The archive with another size of its member in both of its headers (APPNOTE 4.3.7 and 4.3.12)."""
    forged = bytearray(content)
    struct.pack_into("<I", forged, content.index(b"PK\x03\x04") + 22, size)
    struct.pack_into("<I", forged, content.index(b"PK\x01\x02") + 24, size)
    return bytes(forged)


def large(megabytes: int) -> bytes:
    """An archive of a real array of zeros, made a piece at a time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed, packed.open("a.npy", "w") as file:
        file.write(header((megabytes * 2**18,)))
        for _ in range(megabytes):
            file.write(bytes(2**20))
    return out.getvalue()


def test_900_mb_in_a_small_archive_are_refused_before_they_are_unpacked() -> None:
    content = large(900)
    assert len(content) < 2**20
    with at_most(2**22), pytest.raises(ValueError, match=r"bytes that unpack to 943,718,528 \(limit "):
        load_npz(content)


def test_more_than_the_limit_however_large_the_archive() -> None:
    # Declared 1 GiB and 4 bytes, beside 12 MB that do not pack: the ratio alone would let it in.
    noise = np.random.default_rng(0).bytes(12 * 2**20)
    content = declaring(archive(header((3 * 2**20,)) + noise), 2**30 + 4)
    with at_most(2**22), pytest.raises(ValueError, match=r"unpack to 1,073,741,828 \(limit 1,073,741,824\)"):
        load_npz(content)


def test_a_forged_size_takes_no_more_than_it_declares() -> None:
    content = declaring(archive(header((2**26,)) + bytes(2**28)), 100)
    with at_most(2**22), pytest.raises(UNREADABLE):
        load_npz(content)


def test_an_array_that_is_larger_than_its_member() -> None:
    with pytest.raises(UNREADABLE):
        load_npz(archive(header((2**40,)) + bytes(100)))


def test_what_is_written_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_serial, "_SURE_ARRAYS", 2**16)
    for values in (np.zeros((300, 400), np.float32), np.random.default_rng(0).random((300, 400), np.float32)):
        content = npz_bytes({"a": values, "b": values[:3]})
        found = load_npz(content)
        np.testing.assert_array_equal(found["a"], values)
        assert len(content) > values.nbytes // 100
