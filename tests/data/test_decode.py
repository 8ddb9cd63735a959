"""Every kind of image is read right, or refused in one line that names the file."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from andon.core import AndonError
from andon.data import decode
from andon.data.decode import decode_image, read_image, read_mask, read_size

from .images import encode, gradient, png, png16, tiff

LOSSLESS = ("PNG", "BMP", "TIFF", "WebP")
GREY16 = np.array([[0, 1, 128, 129, 257], [32767, 32768, 65406, 65407, 65535]], np.uint16)


def as_eight_bits(values: np.ndarray, white: int = 65535) -> np.ndarray:
    return np.floor(values.astype(float) * 255 / white + 0.5).astype(np.uint8)


def refused(data: bytes, *words: str) -> str:
    """The message of a refusal, checked to be one line that names the image."""
    with pytest.raises(AndonError) as caught:
        decode_image(data, "part 7.png")
    text = str(caught.value)
    assert text.startswith("part 7.png: ")
    assert "\n" not in text
    assert all(word in text for word in words), text
    return text


class TestReadRight:
    @pytest.mark.parametrize("kind", LOSSLESS)
    def test_colour(self, kind: str, tmp_path: Path) -> None:
        image = gradient()
        path = tmp_path / "a.bin"  # the content counts, not the suffix
        path.write_bytes(encode(image, kind, **({"lossless": True} if kind == "WebP" else {})))
        np.testing.assert_array_equal(read_image(path), image)
        assert read_size(path) == (12, 17)

    def test_result_is_the_callers_own(self) -> None:
        image = decode_image(encode(gradient()))
        assert image.dtype == np.uint8
        assert image.flags.writeable
        assert image.flags.c_contiguous

    def test_jpeg_is_close(self) -> None:
        smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)
        image = np.stack([smooth, smooth, smooth], 2)
        assert np.abs(decode_image(encode(image, "JPEG", quality=95)).astype(int) - image).max() <= 3

    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
    def test_grey(self, kind: str) -> None:
        grey = gradient()[..., 0]
        np.testing.assert_array_equal(decode_image(encode(grey, kind)), np.repeat(grey[..., None], 3, 2))

    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
    def test_one_bit(self, kind: str) -> None:
        bits = gradient()[..., 0] > 127
        assert (decode_image(encode(bits, kind)) == np.where(bits, 255, 0)[..., None]).all()

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_few_bits_of_grey_reach_white(self, bits: int) -> None:
        n = 2**bits
        row = np.arange(8) % n
        packed = np.packbits(((row[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8))
        expected = row * 255 // (n - 1)
        assert decode_image(png(8, 1, bits, 0, b"\0" + packed.tobytes()))[0, :, 0].tolist() == expected.tolist()

    def test_palette_with_and_without_transparency(self) -> None:
        picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
        picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        for options in ({}, {"transparency": 1}, {"transparency": b"\x00\x80\xff"}):
            out = io.BytesIO()
            picture.save(out, "PNG", **options)
            assert decode_image(out.getvalue()).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WebP"])
    def test_alpha_is_dropped_not_composited(self, kind: str) -> None:
        rgba = np.dstack([gradient(), np.full((12, 17), 7, np.uint8)])
        options = {"lossless": True, "exact": True} if kind == "WebP" else {}
        np.testing.assert_array_equal(decode_image(encode(rgba, kind, **options)), rgba[..., :3])

    def test_grey_with_alpha(self) -> None:
        grey_alpha = gradient()[..., :2]
        picture = Image.merge("LA", [Image.fromarray(np.ascontiguousarray(grey_alpha[..., i])) for i in (0, 1)])
        out = io.BytesIO()
        picture.save(out, "PNG")
        np.testing.assert_array_equal(decode_image(out.getvalue()), np.repeat(grey_alpha[..., :1], 3, 2))

    def test_cmyk(self) -> None:
        cmyk = np.zeros((16, 16, 4), np.uint8)
        cmyk[..., 0] = 255  # full cyan
        for kind, tolerance in (("TIFF", 0), ("JPEG", 2)):
            out = io.BytesIO()
            Image.fromarray(cmyk, "CMYK").save(out, kind)
            assert np.abs(decode_image(out.getvalue()).astype(int) - [0, 255, 255]).max() <= tolerance

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
    def test_exif_orientation(self, kind: str, orientation: int, tmp_path: Path) -> None:
        # What a viewer shows (EXIF 2.3, 4.6.4): the corner that is red, and the size.
        stored = np.zeros((16, 32, 3), np.uint8)
        stored[:8, :8, 0] = 255
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if kind == "WebP" else {}
        path = tmp_path / "turned"
        path.write_bytes(encode(stored, kind, exif=exif.tobytes(), **options))
        image = read_image(path)
        red_corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
        corners = {corner: image[corner][0] > 128 for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
        assert [corner for corner, red in corners.items() if red] == [red_corner[orientation]]
        assert image.shape[:2] == ((16, 32) if orientation < 5 else (32, 16)) == read_size(path)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation_in_a_tiff(self, orientation: int, tmp_path: Path) -> None:
        stored = gradient()
        jpeg_way = tmp_path / "a"
        exif = Image.Exif()
        exif[0x0112] = orientation
        jpeg_way.write_bytes(encode(stored, "PNG", exif=exif.tobytes()))
        for deep in (stored, stored.astype(np.uint16) * 257):
            path = tmp_path / "b"
            path.write_bytes(tiff(deep, tags={274: orientation}))
            np.testing.assert_array_equal(read_image(path), read_image(jpeg_way))
            assert read_size(path) == read_image(path).shape[:2]

    @pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0garbage", b"nonsense"])
    def test_damaged_notes_do_not_spoil_an_image(self, exif: bytes) -> None:
        np.testing.assert_array_equal(decode_image(encode(gradient(), "PNG", exif=exif)), gradient())

    def test_orientation_without_sense_is_ignored(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 99
        assert decode_image(encode(gradient(), "PNG", exif=exif.tobytes())).shape == (12, 17, 3)

    def test_a_stereo_jpeg_is_its_first_image(self) -> None:
        out = io.BytesIO()
        first = Image.fromarray(np.full((16, 16, 3), 200, np.uint8))
        first.save(out, "MPO", save_all=True, append_images=[Image.fromarray(np.zeros((16, 16, 3), np.uint8))])
        assert (decode_image(out.getvalue()) > 190).all()

    def test_a_gif_with_one_image(self) -> None:
        assert (decode_image(encode(np.full((4, 5), 90, np.uint8), "GIF")) == 90).all()

    def test_bytes_and_file_give_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(encode(gradient(), "JPEG"))
        np.testing.assert_array_equal(read_image(path), decode_image(path.read_bytes()))
        np.testing.assert_array_equal(read_image(str(path)), read_image(path))


class TestSixteenBits:
    """65535 is white, every value is rounded to the nearest of 256, and nothing is stretched."""

    def test_png_grey(self) -> None:
        assert decode_image(png16(GREY16))[..., 1].tolist() == as_eight_bits(GREY16).tolist()

    @pytest.mark.parametrize("channels", [2, 3, 4])
    def test_png_colour(self, channels: int) -> None:
        values = np.random.default_rng(channels).integers(0, 65536, (9, 11, channels), dtype=np.uint16)
        expected = values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, 2)
        np.testing.assert_array_equal(decode_image(png16(values)), as_eight_bits(expected))

    @pytest.mark.parametrize("big", [False, True])
    def test_tiff(self, big: bool) -> None:
        colour = np.random.default_rng(0).integers(0, 65536, (9, 11, 3), dtype=np.uint16)
        assert decode_image(tiff(GREY16, big=big))[..., 0].tolist() == as_eight_bits(GREY16).tolist()
        np.testing.assert_array_equal(decode_image(tiff(colour, big=big)), as_eight_bits(colour))

    @pytest.mark.parametrize("suffix", [".tiff", ".png"])
    @pytest.mark.parametrize("channels", [3, 4])
    def test_as_another_library_writes_it(self, suffix: str, channels: int) -> None:
        values = np.random.default_rng(1).integers(0, 65536, (40, 30, channels), dtype=np.uint16)
        whole, data = cv2.imencode(suffix, values)  # the TIFF is compressed, with a predictor
        assert whole
        np.testing.assert_array_equal(decode_image(data.tobytes()), as_eight_bits(values[..., 2::-1]))

    def test_compressed_tiff(self) -> None:
        out = io.BytesIO()
        Image.fromarray(GREY16).save(out, "TIFF", compression="tiff_lzw")
        assert decode_image(out.getvalue())[..., 2].tolist() == as_eight_bits(GREY16).tolist()

    def test_tiff_whose_white_is_zero(self) -> None:
        assert decode_image(tiff(GREY16, tags={262: 0}))[..., 0].tolist() == as_eight_bits(65535 - GREY16).tolist()
        eight = gradient()[..., 0]
        assert decode_image(tiff(eight, tags={262: 0}))[..., 0].tolist() == (255 - eight).tolist()

    def test_tiff_of_twelve_bits(self) -> None:
        values = np.array([[0, 8, 9, 2048, 4095, 4095]], np.uint16)
        bits = ((values[0][:, None] >> np.arange(12)[::-1]) & 1).astype(np.uint8)
        data = tiff(values, tags={258: 12}, data=np.packbits(bits).tobytes())
        assert decode_image(data)[0, :, 0].tolist() == as_eight_bits(values, white=4095)[0].tolist()

    def test_dark_images_stay_dark(self) -> None:
        assert decode_image(png16(np.full((4, 4), 1000, np.uint16))).max() == 4

    def test_a_fourth_channel_is_dropped_unless_the_colours_are_multiplied_by_it(self) -> None:
        values = np.random.default_rng(2).integers(0, 65536, (9, 11, 4), dtype=np.uint16)
        for tags in ({}, {338: 0}, {338: 2}):
            np.testing.assert_array_equal(decode_image(tiff(values, tags=tags)), as_eight_bits(values[..., :3]))
        refused(tiff(values, tags={338: 1}), "16-bit colour is not read")

    def test_separate_planes_are_refused(self) -> None:
        out = tiff(np.zeros((3, 4, 3), np.uint16), tags={284: 2})
        with pytest.raises(AndonError):
            decode_image(out)


class TestRefused:
    def test_no_image(self) -> None:
        for data in (b"hello", b"%PDF-1.7", b"\x7fELF", b"%!PS-Adobe-3.0 EPSF-3.0", b"<svg/>", b"\0" * 100):
            refused(data, "not an image of a known kind", "PNG")

    def test_empty(self, tmp_path: Path) -> None:
        refused(b"", "empty")
        (tmp_path / "a.png").touch()
        for read in (read_image, read_size, read_mask):
            with pytest.raises(AndonError, match=r"a\.png: the file is empty"):
                read(tmp_path / "a.png")

    @pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "GIF"])
    def test_truncated(self, kind: str) -> None:
        data = encode(gradient(64, 64), kind)
        for keep in (0.2, 0.5, 0.9):
            refused(data[: int(len(data) * keep)])

    def test_truncated_although_pillow_was_told_to_accept_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        data = encode(gradient(64, 64), "JPEG")
        refused(data[: len(data) // 2], "truncated")

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WebP", "TIFF"])
    def test_animations_and_pages(self, kind: str) -> None:
        frames = [Image.fromarray(gradient(seed=i)) for i in range(3)]
        out = io.BytesIO()
        frames[0].save(out, kind, save_all=True, append_images=frames[1:])
        refused(out.getvalue(), "animation")

    @pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32, np.uint32, np.int8])
    def test_pixels_without_a_known_white(self, dtype: Any) -> None:
        refused(tiff(np.ones((4, 5), dtype)), "what is white is unknown")

    def test_double_precision(self) -> None:
        refused(tiff(np.ones((4, 5), np.float64)))

    def test_lab(self) -> None:
        out = io.BytesIO()
        Image.new("LAB", (4, 4)).save(out, "TIFF")
        refused(out.getvalue(), "LAB", "save it as RGB")

    @pytest.mark.parametrize(("width", "height"), [(20000, 20000), (65536, 1), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1)])
    def test_bombs_are_refused_from_the_header(self, width: int, height: int, tmp_path: Path) -> None:
        data = png(width, height, 8, 2, b"\0" * 1000)
        path = tmp_path / "bomb.png"
        path.write_bytes(data)
        refused(data, "too many", f"{width}×{height}")
        for read in (read_size, read_mask):
            with pytest.raises(AndonError, match=r"bomb\.png: .*too many"):
                read(path)

    def test_a_caller_may_want_less(self) -> None:
        data = encode(gradient())
        height, width = gradient().shape[:2]
        assert decode_image(data, max_pixels=width * height).shape[:2] == (height, width)
        with pytest.raises(
            AndonError, match=rf"part\.png: {width}×{height} pixels are too many .*{width * height - 1:,}"
        ):
            decode_image(data, "part.png", max_pixels=width * height - 1)

    def test_a_bomb_of_each_kind(self) -> None:
        gif = bytearray(encode(np.zeros((4, 4), np.uint8), "GIF"))
        gif[6:10] = struct.pack("<HH", 65535, 65535)
        bmp = bytearray(encode(gradient(), "BMP"))
        bmp[18:26] = struct.pack("<ii", 60000, 60000)
        page = tiff(np.zeros((4, 4), np.uint8), tags={256: 60000, 257: 60000})
        jpeg = bytearray(encode(gradient(), "JPEG"))
        at = jpeg.index(b"\xff\xc0")
        jpeg[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
        for data in (gif, bmp, page, jpeg):
            refused(bytes(data), "too many")

    @pytest.mark.parametrize("first", [True, False])
    def test_a_second_size_in_a_header_reaches_no_decoder(self, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        # Pillow believes the last, another decoder may believe the first.
        small, large = (4, 5), (30000, 30000)
        sizes = (large, small) if first else (small, large)
        colour = np.zeros((*small, 3), np.uint16)
        page = tiff(colour, tags={256: sizes[1][1], 255: sizes[0][1]})
        page = page.replace(struct.pack("<HHI", 255, 3, 1), struct.pack("<HHI", 256, 3, 1))
        picture = png16(colour)
        header = picture[8:33]
        other = b"IHDR" + struct.pack(">II", large[1], large[0]) + header[16:21]
        other = header[:4] + other + struct.pack(">I", zlib.crc32(other))
        monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
        for data in (page, picture[:8] + (other + header if first else header + other) + picture[33:]):
            refused(data)

    def test_the_limits_themselves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decode, "MAX_PIXELS", 12 * 17)
        decode_image(encode(gradient(12, 17)))
        refused(encode(gradient(12, 18)), "12")
        monkeypatch.setattr(decode, "MAX_PIXELS", 10**6)
        monkeypatch.setattr(decode, "MAX_SIDE", 17)
        decode_image(encode(gradient(12, 17)))
        refused(encode(gradient(12, 18)))

    def test_an_image_above_pillows_own_limit_is_read_without_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert decode_image(encode(gradient(12, 17))).shape == (12, 17, 3)
            assert decode_image(tiff(gradient(12, 17))).shape == (12, 17, 3)

    def test_a_compressed_text_bomb_in_a_png(self) -> None:
        text = zlib.compress(b"a" * 100_000_000)
        data = b"comment\0\0" + text
        chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
        plain = encode(gradient())
        refused(plain[:33] + chunk + plain[33:])

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        for path, words in (
            (tmp_path / "none.png", "there is no such file"),
            (tmp_path, "a folder"),
            (Path("nul\0.png"), "cannot be read"),
            (tmp_path / ("x" * 300), "cannot be read"),
        ):
            for read in (read_image, read_size, read_mask):
                with pytest.raises(AndonError, match=words):
                    read(path)

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(AndonError, match="not a regular file"):
            read_image(tmp_path / "pipe.png")

    def test_permission_denied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(encode(gradient()))

        def denied(*args: Any, **kwargs: Any) -> Any:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", denied)  # root, who may run this, is denied nothing
        with pytest.raises(AndonError, match=r"a\.png: cannot be read \(Permission denied\)"):
            read_image(path)

    def test_a_file_too_large_to_be_an_image(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        with path.open("wb") as file:
            file.truncate(decode.MAX_FILE_BYTES + 1)  # sparse
        with pytest.raises(AndonError, match="too many"):
            read_image(path)


class TestMasks:
    def read(self, tmp_path: Path, data: bytes) -> np.ndarray:
        path = tmp_path / "mask.png"
        path.write_bytes(data)
        return read_mask(path)

    def test_values_are_kept(self, tmp_path: Path) -> None:
        values = np.array([[0, 254, 254], [0, 0, 3]], np.uint8)
        for data in (
            encode(values),
            encode(np.dstack([values] * 3)),
            encode(np.dstack([values] * 3 + [np.full_like(values, 9)])),
            encode(np.dstack([values, values * 0, values])),
            encode(values, mode="LA"),
            encode(values, "TIFF"),
            png16(values.astype(np.uint16)),
        ):
            assert self.read(tmp_path, data).tolist() == values.tolist()

    def test_white(self, tmp_path: Path) -> None:
        bits = np.array([[True, False]])
        for data in (encode(bits), png16(np.where(bits, 65535, 0).astype(np.uint16))):
            assert self.read(tmp_path, data).tolist() == [[255, 0]]

    def test_palette_is_taken_as_it_looks(self, tmp_path: Path) -> None:
        picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
        picture.putpalette([0, 0, 0, 128, 0, 0])
        out = io.BytesIO()
        picture.save(out, "PNG")
        assert self.read(tmp_path, out.getvalue()).tolist() == [[0, 128]]

    def test_two_values_in_a_pixel(self, tmp_path: Path) -> None:
        with pytest.raises(AndonError, match=r"mask\.png: a pixel .* two different positive values"):
            self.read(tmp_path, encode(np.array([[[255, 254, 0]]], np.uint8)))

    def test_sixteen_bits_of_neither_kind(self, tmp_path: Path) -> None:
        with pytest.raises(AndonError, match="16-bit mask"):
            self.read(tmp_path, png16(np.array([[0, 300]], np.uint16)))

    def test_jpeg_is_black_and_white(self, tmp_path: Path) -> None:
        values = np.zeros((32, 32), np.uint8)
        values[:, 11:] = 255
        read = self.read(tmp_path, encode(values, "JPEG", quality=70))
        assert read.tolist() == values.tolist()


SEEDS = [encode(gradient(16, 16), kind) for kind in (*LOSSLESS, "JPEG", "GIF", "PPM", "JPEG2000")] + [
    png16(GREY16),
    png16(np.zeros((4, 4, 3), np.uint16)),
    tiff(GREY16),
    tiff(np.zeros((4, 4, 3), np.uint16), big=True),
    cv2.imencode(".tiff", np.zeros((8, 8, 4), np.uint16))[1].tobytes(),
    encode(gradient(16, 16), "PNG", mode="P"),
    encode(gradient(16, 16), "TIFF", compression="tiff_lzw"),
    encode(gradient(16, 16), "TIFF", compression="jpeg"),
    encode(gradient(16, 16), "JPEG", progressive=True),
]


def read_or_refused(data: bytes) -> None:
    """The one promise for any bytes: an image, or an AndonError of one line; no other exception, no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = decode_image(data, "fuzz")
        except AndonError as error:
            text = str(error)
            assert text.startswith("fuzz: ")
            assert "\n" not in text
        else:
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
            assert image.size > 0


fuzz = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


class TestFuzz:
    @fuzz
    @given(st.binary(max_size=300), st.sampled_from([b"", *(seed[:12] for seed in SEEDS)]))
    def test_random_bytes(self, data: bytes, start: bytes) -> None:
        read_or_refused(start + data)

    @fuzz
    @given(st.sampled_from(SEEDS), st.data())
    def test_flipped_bits(self, seed: bytes, data: st.DataObject) -> None:
        damaged = bytearray(seed)
        for at in data.draw(st.lists(st.integers(0, 8 * len(seed) - 1), min_size=1, max_size=6)):
            damaged[at // 8] ^= 1 << (at % 8)
        read_or_refused(bytes(damaged))

    @fuzz
    @given(st.sampled_from(SEEDS), st.integers(0, 80), st.binary(min_size=1, max_size=8))
    def test_damaged_headers(self, seed: bytes, at: int, patch: bytes) -> None:
        read_or_refused(seed[:at] + patch + seed[at + len(patch) :])

    @fuzz
    @given(st.sampled_from(SEEDS), st.floats(0, 1))
    def test_truncated(self, seed: bytes, keep: float) -> None:
        read_or_refused(seed[: int(len(seed) * keep)])


def test_threads_leave_no_filter_behind(tmp_path: Path) -> None:
    paths = []
    for i in range(8):
        path = tmp_path / f"{i}.png"
        picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
        picture.putpalette([i] * 9)
        picture.save(path, transparency=b"\x00\x80\xff")  # Pillow warns of this one
        paths.append(path)
    before = list(warnings.filters)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                for i, path in enumerate(paths):
                    assert (read_image(path) == i).all()
        except BaseException as error:
            failures.append(error)

    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert not leaked
    assert warnings.filters == before
