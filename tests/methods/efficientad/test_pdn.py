"""The patch description network against the published shapes and the paper's geometry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from andon._tools.seeds import step_generator
from andon.methods.efficientad.pdn import PDN, RECEPTIVE_FIELD, SAMPLING, PDNSize, output_size, pdn_state_dict

FACTS = Path(__file__).parents[2] / "facts" / "checkpoints.json"


def pdn(size: PDNSize, channels: int = 384, *, padding: bool = False) -> PDN:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return PDN(size, channels, padding=padding).eval()


@pytest.mark.parametrize("size", ["small", "medium"])
def test_names_and_shapes_are_the_published_ones(size: PDNSize) -> None:
    if not FACTS.is_file():
        pytest.skip("facts about published checkpoints are not at hand")
    published = json.loads(FACTS.read_text())[f"efficientad_teacher_{size}"]
    assert {name: list(t.shape) for name, t in pdn(size).state_dict().items()} == published


def test_parameter_counts() -> None:
    # By the tables of appendix A.1: sums of (inputs · k² + 1) · outputs.
    def count(*layers: tuple[int, int, int]) -> int:
        return sum((i * k * k + 1) * o for i, o, k in layers)

    def of(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    assert of(pdn("small")) == count((3, 128, 4), (128, 256, 4), (256, 256, 3), (256, 384, 4))
    assert of(pdn("small", 768)) == count((3, 128, 4), (128, 256, 4), (256, 256, 3), (256, 768, 4))
    student = [(3, 256, 4), (256, 512, 4), (512, 512, 1), (512, 512, 3), (512, 768, 4), (768, 768, 1)]
    assert of(pdn("medium", 768)) == count(*student)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_output_sizes(size: PDNSize) -> None:
    image = torch.zeros((1, 3, 256, 256))
    with torch.no_grad():
        assert pdn(size)(image).shape == (1, 384, 56, 56)
        assert pdn(size, padding=True)(image).shape == (1, 384, 64, 64)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_a_vector_depends_on_its_patch_alone_and_on_all_of_it(size: PDNSize) -> None:
    network = pdn(size)
    side = RECEPTIVE_FIELD + 4 * 4
    image = torch.rand((1, 3, side, side), generator=step_generator(0, size), requires_grad=True)
    network(image)[0, :, 2, 1].square().sum().backward()
    assert image.grad is not None
    influence = image.grad.abs().sum((0, 1))
    touched = influence > 1e-5 * influence.max()  # minimal filtering leaves rounding in the rest of a tile
    rows, columns = (touched.any(axis).nonzero().flatten() for axis in (1, 0))
    assert (rows[0], rows[-1]) == (8, 8 + RECEPTIVE_FIELD - 1)
    assert (columns[0], columns[-1]) == (4, 4 + RECEPTIVE_FIELD - 1)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_inside_the_image_padding_changes_nothing_but_the_place(size: PDNSize) -> None:
    plain, padded = pdn(size), pdn(size, padding=True)
    padded.load_state_dict(plain.state_dict())
    image = torch.rand((1, 3, 128, 128), generator=step_generator(1))
    with torch.no_grad():
        inner, whole = plain(image), padded(image)
    assert inner.shape[-1] == 24
    assert whole.shape[-1] == 32
    torch.testing.assert_close(whole[..., 4:28, 4:28], inner, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_plain_sequences_of_layers_are_renamed(size: PDNSize) -> None:
    network = pdn(size)
    state = network.state_dict()
    numbers = [0, 3, 6, 8] if size == "small" else [0, 3, 6, 8, 10, 12]
    sequence = {
        f"{number}.{leaf}": state[f"conv{place}.{leaf}"]
        for place, number in enumerate(numbers, 1)
        for leaf in ("weight", "bias")
    }
    assert pdn_state_dict(sequence).keys() == state.keys()
    assert all(pdn_state_dict(sequence)[name] is state[name] for name in state)
    assert pdn_state_dict(state) == state


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize("sides", [(33, 40), (96, 130), (200, 151)])
def test_output_size_is_what_comes_out(size: PDNSize, sides: tuple[int, int]) -> None:
    network = PDN(size, 4, width=0.02)
    with torch.no_grad():
        assert network(torch.zeros((1, 3, *sides))).shape[2:] == output_size(*sides)


def test_centres_of_patches() -> None:
    assert SAMPLING.places(3).tolist() == [16, 20, 24]  # of 33 pixels, 4 apart


def test_width_changes_hidden_layers_alone() -> None:
    network = PDN("small", 10, width=0.25)
    assert [p.shape[0] for p in network.parameters() if p.ndim == 4] == [32, 64, 64, 10]


@pytest.mark.parametrize("size", ["small", "medium"])
def test_parts_of_the_last_layer_are_its_channels(size: PDNSize) -> None:
    network = PDN(size, 8, width=0.05)
    image = torch.rand((2, 3, 48, 48), generator=step_generator(2))
    with torch.no_grad():
        hidden = network.before_last_layer(image)
        torch.testing.assert_close(network.last_layer_part(hidden, 2, 7), network(image)[:, 2:7])


def test_normalisation_merged_into_the_last_layer() -> None:
    network = PDN("small", 6, width=0.05)
    image = torch.rand((1, 3, 48, 48), generator=step_generator(3))
    generator = step_generator(4)
    mean, std = torch.randn(6, generator=generator), torch.rand(6, generator=generator) + 0.1
    with torch.no_grad():
        expected = (network(image) - mean[:, None, None]) / std[:, None, None]
        network.merge_normalisation(mean, std)
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


def test_frozen_filters_are_made_anew_when_weights_change() -> None:
    network = PDN("small", 128).requires_grad_(False)
    image = torch.rand((1, 3, 112, 112), generator=step_generator(5))
    hidden = network.before_last_layer(image)
    layer = network.last_layer
    for factor in (1.0, 3.0):
        layer.weight.mul_(factor)
        for mode in (torch.no_grad(), torch.inference_mode()):
            with mode:
                found = network(image)
            expected = torch.nn.functional.conv2d(hidden, layer.weight, layer.bias)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
