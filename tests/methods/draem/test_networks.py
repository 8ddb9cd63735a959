from __future__ import annotations

import pytest
import torch
from torch import nn

from andon.methods.draem.networks import DiscriminativeSubNetwork, ReconstructiveSubNetwork


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolutions(*layers: tuple[int, int]) -> int:
    """Parameters of 3×3 convolutions with bias and batch norm, by their channels."""
    return sum(9 * inputs * outputs + outputs + 2 * outputs for inputs, outputs in layers)


def test_reconstructive_network_has_the_published_layers() -> None:
    """The table of channels of the authors' repository, and the number of parameters that its network has."""
    w = 128
    encoder = [(3, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w)]
    encoder += [(4 * w, 8 * w), (8 * w, 8 * w), (8 * w, 8 * w), (8 * w, 8 * w)]
    decoder = [(8 * w, 8 * w), (8 * w, 8 * w), (8 * w, 4 * w), (4 * w, 4 * w), (4 * w, 4 * w), (4 * w, 2 * w)]
    decoder += [(2 * w, 2 * w), (2 * w, 2 * w), (2 * w, w), (w, w), (w, w), (w, w)]
    last = 9 * w * 3 + 3
    with torch.device("meta"):
        network = ReconstructiveSubNetwork()
    assert count(network) == convolutions(*encoder, *decoder) + last == 69_048_579
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(shapes) == 156
    assert shapes["encoder.block1.0.weight"] == (128, 3, 3, 3)
    assert shapes["encoder.block5.4.running_var"] == (1024,)
    assert shapes["decoder.up1.1.weight"] == (1024, 1024, 3, 3)
    assert shapes["decoder.db1.3.weight"] == (512, 1024, 3, 3)
    assert shapes["decoder.fin_out.0.weight"] == (3, 128, 3, 3)


def test_discriminative_network_has_the_published_layers() -> None:
    w = 64
    encoder = [(6, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w), (4 * w, 8 * w)]
    encoder += [(8 * w, 8 * w)] * 5
    decoder = [(8 * w, 8 * w), (16 * w, 8 * w), (8 * w, 8 * w), (8 * w, 4 * w), (12 * w, 4 * w), (4 * w, 4 * w)]
    decoder += [(4 * w, 2 * w), (6 * w, 2 * w), (2 * w, 2 * w), (2 * w, w), (3 * w, w), (w, w)]
    decoder += [(w, w), (2 * w, w), (w, w)]
    last = 9 * w * 2 + 2
    with torch.device("meta"):
        network = DiscriminativeSubNetwork()
    assert count(network) == convolutions(*encoder, *decoder) + last == 28_374_146
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(shapes) == 191
    assert shapes["encoder_segment.block6.3.weight"] == (512, 512, 3, 3)
    assert shapes["decoder_segment.up_b.1.weight"] == (512, 512, 3, 3)
    assert shapes["decoder_segment.db_b.0.weight"] == (512, 1024, 3, 3)
    assert shapes["decoder_segment.db4.0.weight"] == (64, 128, 3, 3)
    assert shapes["decoder_segment.fin_out.0.bias"] == (2,)


@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_images_keep_their_size(size: tuple[int, int]) -> None:
    images = torch.rand(1, 3, *size)
    reconstruction = ReconstructiveSubNetwork(4).eval()(images)
    assert reconstruction.shape == images.shape
    mask = DiscriminativeSubNetwork(4).eval()(torch.cat([images, reconstruction], 1))
    assert mask.shape == (1, 2, *size)


def plain_unet(network: DiscriminativeSubNetwork, x: torch.Tensor) -> torch.Tensor:
    """Section 3.2's U-Net level by level, with the network's own layers."""
    encoder, decoder = network.encoder_segment, network.decoder_segment
    skips = []
    for number in range(1, 7):
        x = encoder.get_submodule(f"block{number}")(x)
        skips.append(x)
        x = nn.functional.max_pool2d(x, 2)
    x = skips[5]
    for up, block, level in [("up_b", "db_b", 4), ("up1", "db1", 3), ("up2", "db2", 2), ("up3", "db3", 1)]:
        x = decoder.get_submodule(block)(torch.cat([decoder.get_submodule(up)(x), skips[level]], 1))
    x = decoder.get_submodule("db4")(torch.cat([decoder.get_submodule("up4")(x), skips[0]], 1))
    logits: torch.Tensor = decoder.get_submodule("fin_out")(x)
    return logits


def test_every_level_meets_its_own_skip() -> None:
    torch.manual_seed(0)
    network = DiscriminativeSubNetwork(2).eval()
    x = torch.rand(1, 6, 64, 64)
    torch.testing.assert_close(network(x), plain_unet(network, x))


def test_nothing_bypasses_the_reconstruction() -> None:
    """Only the coarsest features reach the decoder: with these silenced the output does not depend on the image."""
    torch.manual_seed(0)
    network = ReconstructiveSubNetwork(2).eval()
    norm = network.get_submodule("encoder.block5.4")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.zero_()
    a, b = network(torch.rand(1, 3, 32, 32)), network(torch.rand(1, 3, 32, 32))
    torch.testing.assert_close(a, b)
