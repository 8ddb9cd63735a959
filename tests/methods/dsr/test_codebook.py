"""DSR's discrete latent model against brute force and a literal one-hot quantiser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from andon._tools.seeds import step_generator
from andon.methods.dsr import codebook as vqvae
from andon.methods.dsr.codebook import DiscreteLatentModel, VectorQuantizer

FACTS = Path(__file__).parents[2] / "facts" / "checkpoints.json"


def quantizer(codes: int = 12, channels: int = 5, **options: float) -> VectorQuantizer:
    with torch.random.fork_rng([]):
        torch.manual_seed(codes)
        return VectorQuantizer(codes, channels, **options)


def model(codes: int = 16, **options: float) -> DiscreteLatentModel:
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        return DiscreteLatentModel(codes, hidden=8, residual=4, **options)


def test_names_and_shapes_are_the_published_ones() -> None:
    if not FACTS.is_file():
        pytest.skip("facts about published checkpoints are not at hand")
    published = json.loads(FACTS.read_text())["dsr_discrete_latent_model"]
    with torch.device("meta"):
        state = DiscreteLatentModel().state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published


@settings(deadline=None, max_examples=30)
@given(
    codes=st.integers(1, 40), rows=st.integers(1, 50), seed=st.integers(0, 1000), block=st.sampled_from([1, 7, 8192])
)
def test_nearest_code_by_brute_force(codes: int, rows: int, seed: int, block: int) -> None:
    generator = step_generator(seed, "vq")
    quantise = quantizer(codes)
    vectors = torch.randn((rows, 5), generator=generator)
    original, vqvae._ROWS = vqvae._ROWS, block
    try:
        found = quantise.nearest(vectors)
    finally:
        vqvae._ROWS = original
    distances = (vectors[:, None].double() - quantise.codebook[None].double()).square().sum(2)
    chosen = distances.gather(1, found[:, None]).squeeze(1)
    torch.testing.assert_close(chosen, distances.min(1).values, rtol=1e-5, atol=1e-5)


def test_values_are_codes_and_gradients_pass_straight_through() -> None:
    quantise = quantizer().eval()
    inputs = torch.randn((2, 5, 3, 4), generator=step_generator(2)).requires_grad_()
    result = quantise(inputs)
    torch.testing.assert_close(result.values, quantise.look_up(result.indices), rtol=0, atol=1e-6)
    weights = torch.randn(result.values.shape, generator=step_generator(3))
    (gradient,) = torch.autograd.grad((result.values * weights).sum(), inputs, retain_graph=True)
    assert torch.equal(gradient, weights)
    (pull,) = torch.autograd.grad(result.commitment, inputs)
    torch.testing.assert_close(pull, 0.25 * 2 * (inputs - result.values).detach() / inputs.numel())


def test_running_means_against_the_literal_one_hot_form() -> None:
    quantise = quantizer(decay=0.9).train()
    size, sums = torch.zeros(12).double(), quantise._ema_w.detach().double().clone()
    codebook = quantise.codebook.detach().double().clone()
    for step in range(4):
        inputs = torch.randn((2, 5, 6, 4), generator=step_generator(4, step))
        flat = inputs.permute(0, 2, 3, 1).reshape(-1, 5).double()
        one_hot = F.one_hot(torch.cdist(flat, codebook).argmin(1), 12).double()
        result = quantise(inputs)
        expected = (one_hot @ codebook).view(2, 6, 4, 5).permute(0, 3, 1, 2)
        torch.testing.assert_close(result.values.double(), expected, rtol=1e-4, atol=1e-5)
        size = 0.9 * size + 0.1 * one_hot.sum(0)
        size = (size + 1e-5) / (size.sum() + 12 * 1e-5) * size.sum()
        sums = 0.9 * sums + 0.1 * one_hot.T @ flat
        codebook = sums / size[:, None]
        torch.testing.assert_close(quantise.codebook.double(), codebook, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(quantise._ema_cluster_size.double(), size, rtol=1e-4, atol=1e-6)


def test_evaluation_moves_nothing() -> None:
    quantise = quantizer().eval()
    before = {name: tensor.clone() for name, tensor in quantise.state_dict().items()}
    quantise(torch.randn((1, 5, 4, 4), generator=step_generator(5)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantise.state_dict().items())


def test_unused_codes_come_back() -> None:
    far = torch.randn((4, 5, 8, 8), generator=step_generator(6)) + 50
    lost, kept = quantizer(decay=0.9).train(), quantizer(decay=0.9, revive=0.05).train()
    for step in range(30):
        lost(far)
        kept(far, step_generator(7, step))
    assert lost.eval()(far).indices.unique().numel() <= 2, "the nearest few follow everything"
    assert kept.eval()(far).indices.unique().numel() == 12
    with pytest.raises(ValueError, match="needs a generator"):
        kept.train()(far)


def test_no_array_of_positions_times_codes_is_kept_for_the_gradient() -> None:
    quantise = quantizer(codes=500).train()
    inputs = torch.randn((1, 5, 40, 40), generator=step_generator(8)).requires_grad_()
    saved: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        quantise(inputs).commitment.backward()
    assert max(saved) <= inputs.numel()


def test_levels_and_reconstruction() -> None:
    network = model().eval()
    result = network(torch.rand((2, 3, 40, 24), generator=step_generator(9)))
    assert result.reconstruction.shape == (2, 3, 40, 24)
    assert result.bottom.indices.shape == (2, 10, 6)
    assert result.top.indices.shape == (2, 5, 3)


def test_shortcut_of_a_residual_block_is_rectified() -> None:
    block = model()._encoder_t._residual_stack._layers[0]
    x = torch.randn((1, 8, 4, 4), generator=step_generator(10))
    inner = F.conv2d(F.relu(x), block._block[1].weight, padding=1)
    expected = F.relu(x) + F.conv2d(F.relu(inner), block._block[3].weight)
    torch.testing.assert_close(block(x.clone()), expected)


def test_restriction_to_codes_is_the_quantiser_without_its_movement() -> None:
    quantise = quantizer().train()
    before = quantise.codebook.clone()
    inputs = torch.randn((2, 5, 4, 3), generator=step_generator(11)).requires_grad_()
    restricted = quantise.restrict(inputs)
    assert torch.equal(quantise.codebook, before), "in training mode neither"
    torch.testing.assert_close(restricted, quantise.look_up(quantise.indices(inputs)), rtol=0, atol=1e-6)
    weights = torch.randn(restricted.shape, generator=step_generator(12))
    (gradient,) = torch.autograd.grad((restricted * weights).sum(), inputs)
    assert torch.equal(gradient, weights)
    with torch.no_grad():
        flat = inputs.permute(0, 2, 3, 1).reshape(-1, 5)
        expected = before[torch.cdist(flat.double(), before.double()).argmin(1)].view(2, 4, 3, 5).permute(0, 3, 1, 2)
        assert torch.equal(quantise.restrict(inputs.detach()), expected), "without a gradient, the codes themselves"
