import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from andon.core import AndonError, Category, Sample
from andon.data import maps as maps_module
from andon.data.maps import find_maps, map_folder, read_map


def values(dtype, shape=(5, 7)):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "u":
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    return (rng.normal(size=shape) * 100).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png(tmp_path, dtype):
    scores = values(dtype)
    Image.fromarray(scores).save(tmp_path / "a.PNG")
    read = read_map(tmp_path / "a.PNG")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, scores)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff(tmp_path, dtype, compression, byteorder):
    scores = values(dtype)
    tifffile.imwrite(tmp_path / "a.tiff", scores, compression=compression, byteorder=byteorder)
    read = read_map(tmp_path / "a.tiff")
    assert read.dtype == ("float32" if dtype == "float16" else dtype)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, scores)


def test_tiff_of_another_writer(tmp_path):
    scores = values("float32")
    Image.fromarray(scores).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_map(tmp_path / "a.tif"), scores)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", ">f4", ">u2"])
def test_npy(tmp_path, dtype):
    scores = values(np.dtype(dtype).newbyteorder("=")).astype(dtype)
    scores = np.asfortranarray(scores)
    np.save(tmp_path / "a.npy", scores)
    read = read_map(tmp_path / "a.npy")
    assert read.dtype.isnative
    assert read.flags.owndata or not isinstance(read, np.memmap)
    np.testing.assert_array_equal(read, scores)


def test_minus_infinity_is_a_score(tmp_path):
    scores = values("float32")
    scores[0] = -np.inf
    np.save(tmp_path / "a.npy", scores)
    np.testing.assert_array_equal(read_map(tmp_path / "a.npy"), scores)


def png_header(width, height):
    """A PNG whose header claims a size, with no pixels worth the name."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write_bad(path: Path, what: str) -> Path:
    rng = np.random.default_rng(0)
    scores = values("float32")
    match what:
        case "rgb.png":
            Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).save(path / what)
        case "palette.png":
            Image.fromarray(values("uint8")).convert("P").save(path / what)
        case "bits.png":
            Image.fromarray(values("uint8") > 99).save(path / what)
        case "jpeg.png":
            Image.fromarray(values("uint8")).save(path / what, format="JPEG")
        case "animated.png":
            frames = [Image.fromarray(values("uint8") // n) for n in (1, 2)]
            frames[0].save(path / what, save_all=True, append_images=frames[1:])
        case "huge.png" | "gigantic.png":
            side = 15_000 if what == "huge.png" else 200_000
            (path / what).write_bytes(png_header(side, side))
        case "zero.png" | "zero.npy" | "zero.tiff":
            (path / what).touch()
        case "text.png" | "text.npy" | "text.tiff" | "a.txt":
            (path / what).write_text("not a map at all")
        case "truncated.png":
            Image.fromarray(rng.integers(0, 255, (60, 60), dtype=np.uint8)).save(path / "t.png")
            (path / what).write_bytes((path / "t.png").read_bytes()[:900])
        case "truncated.npy":
            np.save(path / "t.npy", scores)
            (path / what).write_bytes((path / "t.npy").read_bytes()[:-9])
        case "truncated.tiff":
            tifffile.imwrite(path / "t.tiff", scores)
            (path / what).write_bytes((path / "t.tiff").read_bytes()[:-60])
        case "nan.npy" | "nan.tiff":
            scores[1, 2] = np.nan
            np.save(path / what, scores) if what.endswith("npy") else tifffile.imwrite(path / what, scores)
        case "infinite.npy":
            scores[1, 2] = np.inf
            np.save(path / what, scores)
        case "integers.npy":
            np.save(path / what, np.arange(6).reshape(2, 3))
        case "bool.npy":
            np.save(path / what, np.ones((2, 3), dtype=bool))
        case "three.npy":
            np.save(path / what, np.zeros((1, 2, 3), dtype=np.float32))
        case "nothing.npy":
            np.save(path / what, np.zeros((0, 3), dtype=np.float32))
        case "pickle.npy":
            np.save(path / what, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        case "pages.tiff":
            tifffile.imwrite(path / what, np.zeros((3, 20, 20), dtype=np.float32), photometric="minisblack")
        case "rgb.tiff":
            tifffile.imwrite(path / what, np.zeros((20, 20, 3), dtype=np.uint8), photometric="rgb")
        case "int32.tiff":
            tifffile.imwrite(path / what, np.zeros((20, 20), dtype=np.int32))
        case "folder.npy":
            (path / what).mkdir()
    return path / what


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("rgb.png", "colour mode RGB"),
        ("palette.png", "colour mode P"),
        ("bits.png", "colour mode 1"),
        ("jpeg.png", "not a PNG"),
        ("animated.png", "animation"),
        ("huge.png", "too many"),
        ("gigantic.png", "too many"),
        ("zero.png", "empty"),
        ("zero.npy", "empty"),
        ("zero.tiff", "empty"),
        ("text.png", "not a PNG"),
        ("text.npy", "not a NumPy"),
        ("text.tiff", "not a TIFF"),
        ("a.txt", "not a kind of anomaly map"),
        ("truncated.png", "truncated"),
        ("truncated.npy", "truncated"),
        ("truncated.tiff", "damaged"),
        ("nan.npy", "1 pixels are NaN"),
        ("nan.tiff", "1 pixels are NaN"),
        ("infinite.npy", "1 pixels are infinite"),
        ("integers.npy", "pixels are int64"),
        ("bool.npy", "pixels are bool"),
        ("three.npy", r"shape \[1, 2, 3\]"),
        ("nothing.npy", "no pixels"),
        ("pickle.npy", "shape"),
        ("pages.tiff", "3 pages"),
        ("rgb.tiff", r"shape \[20, 20, 3\]"),
        ("int32.tiff", "pixels are int32"),
        ("folder.npy", "a folder, not an anomaly map"),
        ("missing.png", "there is no such file"),
    ],
)
def test_refused_in_one_line_that_names_the_file(tmp_path, what, message):
    path = write_bad(tmp_path, what)
    with pytest.raises(AndonError, match=message) as caught:
        read_map(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text


@settings(max_examples=60, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".png", ".tiff", ".npy"]))
def test_damaged_bytes_never_escape_as_other_errors(tmp_path_factory, data, suffix):
    folder = tmp_path_factory.mktemp("fuzz")
    good = folder / f"good{suffix}"
    scores = values("float32", (9, 9))
    if suffix == ".png":
        Image.fromarray(values("uint8", (9, 9))).save(good)
    elif suffix == ".npy":
        np.save(good, scores)
    else:
        tifffile.imwrite(good, scores)
    raw = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    bad = folder / f"bad{suffix}"
    bad.write_bytes(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    read, message = None, ""
    try:
        read = read_map(bad)
    except AndonError as error:
        message = str(error)
    if read is None:
        assert str(bad) in message
    else:
        assert read.ndim == 2
        assert not np.isnan(read.astype(np.float64)).any()


def test_size_limit_is_checked_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(maps_module, "MAX_PIXELS", 30)
    for name in ("a.png", "a.npy", "a.tiff"):
        scores = values("uint8")
        {"a.png": lambda p, s: Image.fromarray(s).save(p), "a.npy": np.save, "a.tiff": tifffile.imwrite}[name](
            tmp_path / name, scores
        )
        with pytest.raises(AndonError, match="too many"):
            read_map(tmp_path / name)


def category(names=("good/000", "good/001", "hole/000", "hole/001"), name="part"):
    samples = tuple(
        Sample(id=f"test/{n}", path=Path(f"{n}.png"), split="test", defect_type=n.split("/")[0], reader=None)
        for n in names
    )
    return Category(name=name, dataset="d", root=Path("d"), samples=samples)


def fill(folder, names, suffix=".npy"):
    for n in names:
        path = folder / (n + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((2, 2), dtype=np.float32)) if suffix == ".npy" else path.write_bytes(b"x")


NAMES = ("good/000", "good/001", "hole/000", "hole/001")


def test_maps_are_matched(tmp_path):
    fill(tmp_path, [*NAMES, "hole/777", "other/001"])
    fill(tmp_path, ["good/.hidden"])
    (tmp_path / "good" / "notes.txt").write_text("no map")
    files = find_maps(tmp_path, category())
    assert [p.relative_to(tmp_path).as_posix() for p in files.paths] == [f"{n}.npy" for n in NAMES]
    assert files.surplus == (os.path.join("hole", "777.npy"), os.path.join("other", "001.npy"))


def test_missing_maps_are_all_counted(tmp_path):
    names = [f"good/{k:03d}" for k in range(30)]
    fill(tmp_path, names[:3])
    with pytest.raises(AndonError, match=r"27 of 30 test images of part .*good/003, good/004.* and 19 more") as caught:
        find_maps(tmp_path, category(names))
    assert "\n" not in str(caught.value)


def test_two_maps_of_an_image_are_refused(tmp_path):
    fill(tmp_path, NAMES)
    fill(tmp_path, ["hole/000"], ".png")
    with pytest.raises(AndonError, match="second map"):
        find_maps(tmp_path, category())


@pytest.mark.parametrize(
    ("inside", "single", "found"),
    [("part/test", False, True), ("part", False, True), ("", True, True), ("test", True, True), ("", False, False)],
)
def test_layouts(tmp_path, inside, single, found):
    fill(tmp_path / inside, NAMES)
    assert map_folder(tmp_path, category(), single=single) == (tmp_path / inside if found else None)


def test_maps_in_linked_folders_and_circles_refused(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "maps"
    for name in ("good/000", "good/001", "hole/000", "hole/001"):
        path = elsewhere / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ones((4, 4)))
    folder.mkdir()
    for name in ("good", "hole"):
        (folder / name).symlink_to(elsewhere / name)
    files = find_maps(folder, category())
    assert [p.relative_to(folder).as_posix() for p in files.paths] == [
        "good/000.npy", "good/001.npy", "hole/000.npy", "hole/001.npy"
    ]  # fmt: skip
    for target in (folder, elsewhere / "hole", "/proc/self/root"):
        link = elsewhere / "hole/up"
        link.symlink_to(target)
        with pytest.raises(AndonError, match=r"maps/hole/up: a link to a folder that it lies in"):
            find_maps(folder, category())
        link.unlink()


def test_a_tiff_whose_piece_unpacks_to_far_more_is_refused(tmp_path):
    path = tmp_path / "a.tiff"
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(300)) + packer.flush()
    tifffile.imwrite(path, np.zeros((10, 10), np.uint8), compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        places = tags["StripOffsets"].valueoffset, tags["StripByteCounts"].valueoffset
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, places[0], len(data))
    struct.pack_into("<I", data, places[1], len(bomb))
    path.write_bytes(bytes(data) + bomb)
    tracemalloc.start()
    with pytest.raises(AndonError, match="unpacks to more than its pixels"):
        read_map(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
