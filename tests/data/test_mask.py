"""A mask is read where one reading is possible, and refused where there are several."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from andon.core import AndonError, DataError
from andon.data.decode import read_mask
from andon.data.registry import load_dataset

from .images import encode, gradient, mask, mvtec, png16

MARKED = np.zeros((32, 40), bool)
MARKED[8:20, 5:17] = True
ON = MARKED[..., None]


def rgba(colour: Any, alpha: Any) -> np.ndarray:
    return np.dstack([np.broadcast_to(colour, (32, 40, 3)), np.broadcast_to(alpha, (32, 40))]).astype(np.uint8)


def palette(indices: np.ndarray, colours: list[int], **options: Any) -> bytes:
    picture = Image.fromarray(indices.astype(np.uint8), "P")
    picture.putpalette(colours)
    out = io.BytesIO()
    picture.save(out, "PNG", **options)
    return out.getvalue()


def read(tmp_path: Path, data: bytes, *, any_value: bool = True) -> np.ndarray:
    path = tmp_path / "m.png"
    path.write_bytes(data)
    return read_mask(path, any_value=any_value)


def refused(tmp_path: Path, data: bytes, words: str, *, any_value: bool = True) -> None:
    with pytest.raises(DataError, match=rf"m\.png: .*{words}"):
        read(tmp_path, data, any_value=any_value)


OPACITY = np.where(MARKED, 255, 0)
READ = {
    "white, transparent where nothing is": encode(rgba(255, OPACITY)),
    "white, hardly opaque": encode(rgba(255, np.where(MARKED, 3, 0))),
    "white of one plane": encode(rgba((255, 0, 0), OPACITY)),
    "grey and alpha": encode(rgba(200, OPACITY), mode="LA"),
    "16 bits and alpha": png16(np.dstack([np.full((32, 40, 3), 65535), OPACITY * 257]).astype(np.uint16)),
    "TIFF": encode(rgba(255, OPACITY), "TIFF"),
    "lossless WebP": encode(rgba(255, OPACITY), "WebP", lossless=True, exact=True),
    "coloured paint on nothing": encode(rgba(np.where(ON, (10, 200, 30), 0), OPACITY)),
    "coloured paint on transparent white": encode(rgba(np.where(ON, (10, 200, 30), 255), OPACITY)),
    "opaque": encode(rgba(np.where(ON, 255, 0), 255)),
    "constant alpha": encode(rgba(np.where(ON, 255, 0), 7)),
    "colours": encode(np.where(ON, (255, 128, 7), 0).astype(np.uint8)),
    "several colours": encode((gradient(32, 40) | 1) * ON.astype(np.uint8)),
    "palette": palette(MARKED, [0, 0, 0, 90, 200, 13]),
    "palette without black": palette(MARKED, [68, 1, 84, 253, 231, 37]),
    "palette with transparency": palette(MARKED, [255, 255, 255, 255, 0, 0], transparency=0),
    "palette, white on black in the other order": palette(~MARKED, [255, 255, 255, 0, 0, 0]),
    "two classes of a palette": palette(MARKED * (1 + np.arange(40) % 2), [0, 0, 0, 128, 0, 0, 0, 128, 0]),
    "key colour": encode(np.full((32, 40, 3), 9, np.uint8) * ON.astype(np.uint8) + np.uint8(1), transparency=(1, 1, 1)),
    "16 bits": png16((MARKED * 300).astype(np.uint16)),
    "black and white JPEG": encode(np.where(MARKED, 255, 0).astype(np.uint8), "JPEG", quality=60),
    "lossy WebP": encode(np.where(ON, 255, 0).repeat(3, 2).astype(np.uint8), "WebP", quality=60),
    "lossy JPEG 2000": encode(np.where(MARKED, 255, 0).astype(np.uint8), "JPEG2000", irreversible=True),
    "JPEG 2000": encode(np.where(MARKED, 200, 0).astype(np.uint8), "JPEG2000"),
    "JPEG in a TIFF": encode(np.where(MARKED, 255, 0).astype(np.uint8), "TIFF", compression="jpeg", quality=60),
    "PGM": encode(np.where(MARKED, 200, 0).astype(np.uint8), "PPM"),
    "PBM": encode(MARKED, "PPM"),
}


@pytest.mark.parametrize("what", READ)
def test_the_one_reading(what: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, READ[what]) > 0, MARKED)


def test_values_where_they_select_a_defect(tmp_path: Path) -> None:
    for data, value in (
        (encode(rgba(254, OPACITY)), 254),
        (encode(rgba((0, 254, 0), OPACITY)), 254),
        (encode(rgba(np.where(ON, (0, 254, 254), 0), OPACITY)), 254),
        (palette(MARKED, [0, 0, 0, 128, 0, 0]), 128),
        (palette(MARKED, [255, 255, 255, 253, 253, 253], transparency=0), 253),
        (png16(np.where(MARKED, 65535, 0).astype(np.uint16)), 255),
        (png16(np.where(MARKED, 77, 0).astype(np.uint16)), 77),
    ):
        np.testing.assert_array_equal(read(tmp_path, data, any_value=False), np.where(MARKED, value, 0))


def test_several_readings_or_none(tmp_path: Path) -> None:
    alpha = np.where(np.arange(40) < 11, 255, 0)
    refused(tmp_path, encode(rgba(0, OPACITY)), "black all over and only its transparency varies.* save it as a grey")
    refused(tmp_path, encode(rgba(np.where(ON, 255, 0), alpha)), "mark different pixels.* save it as a grey")
    refused(tmp_path, encode(rgba(255, np.where(MARKED, 255, 60))), "mark different pixels")
    refused(tmp_path, palette(MARKED, [255, 255, 255, 255, 0, 0], transparency=1), "palette and the transparency")
    refused(tmp_path, encode(gradient(32, 40) | 1), "no pixel of this mask is black")
    refused(tmp_path, encode((gradient(32, 40) | 1)[..., 0]), "no pixel of this mask is black")
    for kind in ("JPEG", "WebP"):
        refused(tmp_path, encode(np.full((32, 40, 3), 120, np.uint8), kind), "lossy kind of file")
        refused(tmp_path, encode(np.where(ON, 90, 0).repeat(3, 2).astype(np.uint8), kind), "lossy kind of file")


def test_several_values_where_they_select_a_defect(tmp_path: Path) -> None:
    refused(
        tmp_path, encode(np.where(ON, (255, 128, 0), 0).astype(np.uint8)), "two different positive", any_value=False
    )
    refused(tmp_path, palette(MARKED, [68, 1, 84, 253, 231, 37]), "no black, so its values are", any_value=False)
    refused(tmp_path, png16((MARKED * 300).astype(np.uint16)), "this one reaches 300", any_value=False)


def test_a_turned_mask_with_alpha(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read(tmp_path, encode(rgba(255, OPACITY), exif=exif))
    np.testing.assert_array_equal(found > 0, np.rot90(MARKED, -1))


def test_the_same_figures_as_with_a_grey_mask(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "b")
    grey = [s.ground_truth() for s in load_dataset(root)["b"].test]
    for i in range(2):
        shape = mask(255, 3 + i)
        white = np.full_like(shape, 255)
        (root / f"ground_truth/crack/{i:03}_mask.png").write_bytes(encode(np.dstack([white, white, white, shape])))
    for before, after in zip(grey, [s.ground_truth() for s in load_dataset(root)["b"].test], strict=True):
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(before.union(), after.union())


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA"]),
    levels=st.lists(st.sampled_from([0, 0, 1, 7, 128, 254, 255]), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    any_value=st.booleans(),
    kind=st.sampled_from(["PNG", "TIFF"]),
)
def test_what_is_read_is_what_is_seen_or_refused(
    tmp_path: Path, mode: str, levels: list[int], seed: int, any_value: bool, kind: str
) -> None:
    """Seen: composited on black, a pixel that shows; except where a palette without black marks by its indices."""
    rng = np.random.default_rng(seed)
    bands = Image.new(mode, (1, 1)).getbands()
    planes = rng.choice(np.array(levels, np.uint8), (6, 7, len(bands)))
    if mode == "P":
        picture = Image.fromarray(planes[..., 0] % 4, "P")
        picture.putpalette([int(v) for v in rng.choice(np.array(levels, np.uint8), 12)])
    elif len(bands) > 1:
        picture = Image.merge(mode, [Image.fromarray(planes[..., k]) for k in range(len(bands))])
    else:
        picture = Image.fromarray(planes[..., 0]).convert(mode)
    path = tmp_path / "m.png"
    picture.save(path, kind)
    try:
        values = read_mask(path, any_value=any_value)
    except AndonError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 (either way is right)
        return
    shown = np.asarray(picture.convert("RGBA")).astype(int)
    alpha = shown[..., 3] if len(np.unique(shown[..., 3])) > 1 else 255
    seen = shown[..., :3].max(-1) * alpha > 0
    if mode == "P" and seen.all() and not (planes[..., 0] % 4).all():
        seen = planes[..., 0] % 4 > 0
    np.testing.assert_array_equal(values > 0, seen)
