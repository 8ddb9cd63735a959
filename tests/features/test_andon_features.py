"""The embedded extractor: its filters, its invariances, its place behind the contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from andon.core import AndonError
from andon.data.transform import Transform
from andon.features import create_extractor
from andon.features.andon_features import CELL, ORIENTATIONS, FilterBank, gabor_kernels


def images(n: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), dtype=np.uint8)


def extract(batch: np.ndarray) -> torch.Tensor:
    return create_extractor("andon-features", ("cells",))(Transform(size=batch.shape[1:3]).normalise(batch))[0]


def test_kernels_have_no_mean_unit_norm_and_are_in_quadrature() -> None:
    kernels = gabor_kernels()[:, 0].double()
    assert kernels.shape == (2 * ORIENTATIONS, 7, 7)
    assert torch.allclose(kernels.sum((1, 2)), torch.zeros(2 * ORIENTATIONS, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(kernels.square().sum((1, 2)), torch.ones(2 * ORIENTATIONS, dtype=torch.float64), atol=1e-6)
    even, odd = kernels[:ORIENTATIONS], kernels[ORIENTATIONS:]
    assert torch.allclose(even, even.flip(1, 2), atol=1e-6)
    assert torch.allclose(odd, -odd.flip(1, 2), atol=1e-6)


@pytest.mark.parametrize("k", range(ORIENTATIONS))
def test_each_orientation_answers_its_own_stripes(k: int) -> None:
    angle = np.pi * k / ORIENTATIONS
    y, x = np.mgrid[:48, :48]
    stripes = np.cos(2 * np.pi / 3.6 * (x * np.cos(angle) + y * np.sin(angle)))
    maps = torch.from_numpy(stripes).float()[None, None]
    moduli = FilterBank()._modulus(maps)[0, :, 12:36, 12:36]
    assert int(moduli.mean((1, 2)).argmax()) == k
    # A modulus of a wave is nearly flat: that is what filtering in quadrature is for.
    assert float(moduli[k].std() / moduli[k].mean()) < 0.05


@pytest.mark.parametrize("size", [(64, 64), (40, 72), (8, 8), (61, 83), (16, 224)])
def test_shape_for_any_size(size: tuple[int, int]) -> None:
    extractor = create_extractor("andon-features", ["cells"], "embedded")
    (maps,) = extractor(torch.zeros(2, 3, *size))
    assert maps.shape == (2, *extractor.channels, -(-size[0] // CELL), -(-size[1] // CELL))
    assert maps.dtype == torch.float32
    assert bool(maps.isfinite().all())
    assert extractor.strides == (CELL,)


def test_a_change_of_light_moves_only_the_brightness_channels() -> None:
    rng = np.random.default_rng(1)
    grey = rng.uniform(0.3, 0.6, (1, 1, 64, 64)).astype(np.float32)
    transform, bank = Transform(size=(64, 64)), FilterBank()

    def features(light: np.ndarray) -> torch.Tensor:
        # Exact floats, not 8-bit images: (x + 0.05) is scaled, which is an offset of the logarithm.
        unit = torch.from_numpy(np.repeat(light, 3, axis=1))
        return bank(unit_to_imagenet(unit))[0]

    def unit_to_imagenet(unit: torch.Tensor) -> torch.Tensor:
        zero = transform.normalise(np.zeros((1, 1, 1, 3), np.uint8))
        one = transform.normalise(np.full((1, 1, 1, 3), 255, np.uint8))
        return zero + unit * (one - zero)

    before, after = features(grey), features((grey + 0.05) * 1.5 - 0.05)
    moved = (after - before).abs().amax((1, 2)) > 2e-3
    assert moved.nonzero().flatten().tolist() == [bank.channels - 6, bank.channels - 3]
    assert torch.allclose((after - before)[-6], torch.full_like(after[-6], np.log(1.5)), atol=1e-4)


def test_grey_images_have_no_colour_and_coloured_ones_have() -> None:
    grey = np.repeat(images(1)[..., :1], 3, axis=3)
    tinted = grey.copy()
    tinted[..., 2] //= 2
    colour = slice(-5, -3)
    assert float(extract(grey)[:, colour].abs().max()) < 1e-5
    assert float(extract(tinted)[:, colour].abs().max()) > 0.05


def test_a_local_change_moves_the_cells_around_it_and_no_far_ones() -> None:
    before = images(1, (256, 256))
    after = before.copy()
    after[0, 40:48, 200:208] = 255
    change = (extract(after) - extract(before)).square().sum(1)[0]
    row, column = divmod(int(change.argmax()), change.shape[1])
    assert abs(row - 5) <= 1
    assert abs(column - 25) <= 1
    assert float(change[20:, :10].max()) == 0


@pytest.mark.parametrize("flip", [1, 2])
def test_cells_lie_where_the_image_has_them(flip: int) -> None:
    # Mirrored images give mirrored brightness and mean moduli of upright orientations: no half-cell shift anywhere.
    batch = images(1, (96, 96))
    direct, mirrored = extract(batch), extract(np.ascontiguousarray(np.flip(batch, flip))).flip(flip + 1)
    upright = [-6, -5, -4, -3, -2, -1, 0]  # brightness and colour at two octaves; modulus of vertical stripes
    assert torch.allclose(direct[:, upright], mirrored[:, upright], atol=1e-4)


def test_an_image_does_not_depend_on_its_batch() -> None:
    batch = images(3)
    # To rounding: a convolution may add in another order for another batch size.
    assert torch.allclose(extract(batch)[1:2], extract(batch[1:2]), rtol=1e-4, atol=1e-4)


def test_record_and_fingerprint() -> None:
    one, two = (create_extractor("andon-features", ("cells",)) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert one.weights.source == "embedded"
    assert one.weights.pretrained
    assert one.weights.licence == "Apache-2.0"
    assert len(one.weights.sha256) == 64


@pytest.mark.parametrize(
    ("stages", "weights", "message"),
    [(("layer2", "layer3"), None, "one stage, 'cells'"), (("cells",), "imagenet", "no weights but its own")],
)
def test_impossible_requests(stages: tuple[str, ...], weights: str | None, message: str) -> None:
    with pytest.raises(AndonError, match=message):
        create_extractor("andon-features", stages, weights)


def test_can_be_exported() -> None:
    bank, example = FilterBank().eval(), torch.rand(1, 3, 64, 72)
    exported = torch.export.export(bank, (example,)).module()
    other = torch.rand(1, 3, 64, 72)
    assert torch.allclose(exported(other), bank(other), atol=1e-5)
