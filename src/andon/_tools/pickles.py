"""Whether a file of ``torch.save`` can be loaded without taking more memory than its size warrants.

``torch.load(weights_only=True)`` runs no code of the file's, yet a few bytes can ask it for a ``bytearray`` of any
length, a conversion of a tensor that repeats one number for ever, or a key whose hash takes for ever. So the pickle is
gone through first with numbers, words and tuples alone: nothing else is made, and what plain tensors in dicts and lists
do not need is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, cast

__all__ = ["check_torch_file"]

_MOST_OPERATIONS = 1_000_000
"""Of a file's pickles: one tensor takes some 25."""
_MOST_PICKLED = 2**26
_REPEATED_BYTES = 2**24
"""A tensor may repeat its storage (``expand``) up to so many bytes."""
_LEGACY_PICKLES, _PIECE = 5, 2**20
_ITEM_BYTES = {
    "UntypedStorage": 1, "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "QInt8Storage": 1, "QUInt8Storage": 1,
    "ShortStorage": 2, "HalfStorage": 2, "BFloat16Storage": 2, "IntStorage": 4, "FloatStorage": 4, "QInt32Storage": 4,
    "LongStorage": 8, "DoubleStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip
_MARK = object()


class _Name(str):
    """A class or function that a pickle names."""


class _Made:
    """What unpickling would make: "list", "dict", "OrderedDict", "tensor", "storage" or "other"."""

    __slots__ = ("item", "kind", "size", "used")

    def __init__(self, kind: str, size: int = 0, item: int = 1) -> None:
        self.kind, self.size, self.item, self.used = kind, size, item, False


class _Reader:
    """Of a file, for ``genops``; no room is made for more bytes than are left."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.readline, self.tell = file, file.readline, file.tell

    def read(self, count: int) -> bytes:
        if count > _PIECE:
            place = self._file.tell()
            left = self._file.seek(0, io.SEEK_END) - place
            self._file.seek(place)
            count = min(count, left)
        return self._file.read(count)


def check_torch_file(file: BinaryIO) -> None:
    """Goes through the pickles of a file, of the zip format or older, which is at its beginning then.

    Raises:
        ValueError: it is damaged, asks for more than it holds, or makes what tensors in dicts and lists do not need.
    """
    try:
        file.seek(0)
        start, end = file.read(4), file.seek(0, io.SEEK_END)
        file.seek(0)
        if start == b"PK\x03\x04":
            _check_zip(file, end)
        else:
            _check_legacy(file, end)
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError, EOFError, IndexError) as error:
        raise ValueError(f"truncated or not a torch file ({error})") from error
    finally:
        file.seek(0)


def _check_zip(file: BinaryIO, end: int) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        total = sum(m.file_size for m in members)
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or total > end:
            raise ValueError(
                f"{end:,} bytes that unpack to {total:,}; torch packs nothing, so this is refused: load and save it "
                "with torch, best as .safetensors"
            )
        sizes = {m.filename: m.file_size for m in members}
        pickles = [name for name in sizes if PurePosixPath(name).name == "data.pkl"]
        if len(sizes) < len(members) or len(pickles) != 1:
            raise ValueError("truncated or not a torch file (its archive does not hold one data.pkl)")
        if sizes[pickles[0]] > _MOST_PICKLED:
            raise ValueError(f"its pickle has {sizes[pickles[0]]:,} bytes (limit {_MOST_PICKLED:,})")
        content = archive.read(pickles[0])
    folder = f"{pickles[0].removesuffix('data.pkl')}data/"
    _Scan(io.BytesIO(content), lambda key, size: size <= sizes.get(folder + key, -1)).run()


def _check_legacy(file: BinaryIO, end: int) -> None:
    # Before torch 0.1.10 files were archives that are unpacked to the disk; nobody has them.
    try:
        tarfile.open(fileobj=file, mode="r:").close()
    except tarfile.TarError:
        file.seek(0)
    else:
        raise ValueError("in the format of torch before 0.1.10, which is refused: load and save it with torch")
    stored: dict[str, int] = {}
    left = end

    def fits(key: str, size: int) -> bool:
        nonlocal left
        left -= max(0, size - stored.get(key, 0))
        stored[key] = max(size, stored.get(key, 0))
        return left >= 0

    operations = 0
    for _ in range(_LEGACY_PICKLES):
        operations = _Scan(file, fits, operations).run()


class _Scan:
    """One pickle, gone through.

    Args:
        file: it begins here.
        fits: whether a storage of a key can have so many bytes.
        operations: those of the pickles before.
    """

    def __init__(self, file: BinaryIO, fits: Callable[[str, int], bool], operations: int = 0) -> None:
        self._file, self._fits, self._operations = file, fits, operations
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> int:
        """Operations so far; the file is where the pickle ends."""
        argument: Any
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], _Reader(self._file))):
            self._operations += 1
            if self._operations > _MOST_OPERATIONS:
                raise ValueError(f"its pickle has more than {_MOST_OPERATIONS:,} operations: no state dict has")
            match opcode.name:
                case "PROTO" | "STOP":
                    pass
                case "SHORT_BINSTRING" if not argument.isascii():  # whose encoding is anybody's guess
                    raise ValueError("truncated or not a torch file (a word that is not ASCII)")
                case "BININT" | "BININT1" | "BININT2" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING" | "LONG1":
                    self._stack.append(argument)
                case "GLOBAL":
                    self._stack.append(_Name(argument.replace(" ", ".", 1)))
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    self._stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
                case "MARK":
                    self._stack.append(_MARK)
                case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                    self._stack.append(_Made(opcode.name.removeprefix("EMPTY_").lower()))
                case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                    self._tuple(opcode.name)
                case "BINPUT" | "LONG_BINPUT":
                    self._memo[argument] = self._stack[-1]
                case "BINGET" | "LONG_BINGET":
                    self._get(argument)
                case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS":
                    self._fill(opcode.name)
                case "BINPERSID":
                    self._stack.append(self._storage(self._stack.pop()))
                case "REDUCE" | "NEWOBJ":
                    arguments = self._stack.pop()
                    self._stack.append(self._called(self._stack.pop(), arguments))
                case "BUILD":
                    self._build()
                case name:
                    raise ValueError(f"truncated, or not pickled as torch does (operation {name}): refused")
        return self._operations

    def _get(self, key: int) -> None:
        if key not in self._memo:
            raise ValueError("truncated or not a torch file (a reference to nothing)")
        self._stack.append(self._memo[key])

    def _since_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("truncated or not a torch file (no mark)")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _tuple(self, name: str) -> None:
        if name == "TUPLE":
            self._stack.append(tuple(self._since_mark()))
            return
        count = 0 if name == "EMPTY_TUPLE" else int(name[-1])
        items = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _fill(self, name: str) -> None:
        if name.endswith("S"):
            items = self._since_mark()
        else:
            items = [self._stack.pop() for _ in range(1 if name == "APPEND" else 2)][::-1]
        into = self._stack[-1]
        kinds = ("list",) if name.startswith("APPEND") else ("dict", "OrderedDict")
        if not (isinstance(into, _Made) and into.kind in kinds):
            raise ValueError("truncated or not a torch file (items of no dict or list)")
        # The hash of a tuple of tuples can take for ever.
        if kinds != ("list",) and any(not isinstance(key, str | int | float | None) for key in items[::2]):
            raise ValueError("it has keys that are neither words nor numbers")

    def _build(self) -> None:
        state, made = self._stack.pop(), self._stack[-1]
        if not (isinstance(made, _Made) and made.kind == "OrderedDict"):
            raise ValueError("it holds objects that are neither tensors nor dicts: refused")
        self._use_up(state, "dict")

    def _use_up(self, made: object, kind: str) -> None:
        """What is copied is copied once."""
        if not isinstance(made, _Made) or made.kind != kind or made.used:
            raise ValueError(f"truncated or not a torch file (no {kind} of its own)")
        made.used = True

    def _storage(self, identity: object) -> _Made:
        match identity:
            case ("storage", _Name() as kind, str() as key, str(), int() as count, *_) if type(key) is str:
                item = _ITEM_BYTES.get(kind.rpartition(".")[2], 0)
                if not item or count < 0:
                    raise ValueError(f"it has a storage of {count} × {kind}")
                if not self._fits(key, count * item):
                    raise ValueError(f"it says that a storage has {count * item:,} bytes, which it does not hold")
                return _Made("storage", count, item)
        raise ValueError("truncated or not a torch file (no storage)")

    def _called(self, function: object, arguments: object) -> _Made:
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise ValueError("truncated or not a torch file (a call of nothing)")
        match str(function), arguments:
            case "collections.OrderedDict", ():
                return _Made("OrderedDict")
            case "collections.Counter", (counted,):  # of learning-rate schedules
                self._use_up(counted, "dict")
                return _Made("other")
            case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", (
                storage,
                offset,
                size,
                stride,
                *_,
            ):
                return _tensor(storage, offset, size, stride)
            case "torch._utils._rebuild_parameter", (_Made(kind="tensor") as tensor, _, _):
                return tensor
            case "torch.Size", (size,) if _whole(size):
                return _Made("other")
            case "torch.device", (str(), *_):
                return _Made("other")
        raise ValueError(f"it holds what is made by {function[:80]}, not only plain tensors: refused")


def _whole(numbers: object) -> bool:
    return isinstance(numbers, tuple) and len(numbers) <= 64 and all(isinstance(n, int) and n >= 0 for n in numbers)


def _tensor(storage: object, offset: object, size: Any, stride: Any) -> _Made:
    if not (isinstance(storage, _Made) and storage.kind == "storage" and _whole(size) and _whole(stride)):
        raise ValueError("truncated or not a torch file (no tensor)")
    if not isinstance(offset, int) or offset < 0 or len(size) != len(stride):
        raise ValueError("truncated or not a torch file (no tensor)")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and last >= storage.size:
        raise ValueError(f"it says that a tensor is {list(size)}, and holds {storage.size:,} numbers for it")
    if count * storage.item > max(storage.size * storage.item, _REPEATED_BYTES):
        raise ValueError(f"it repeats {storage.size:,} numbers to a tensor {list(size)}")
    return _Made("tensor")
