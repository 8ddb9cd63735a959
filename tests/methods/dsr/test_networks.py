"""DSR's networks and latent anomalies against brute force and the sizes of the authors' networks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from andon._tools.seeds import step_generator
from andon.methods.dsr import anomalies
from andon.methods.dsr.anomalies import LatentDraws, latent_anomalies, sample_codes
from andon.methods.dsr.codebook import DiscreteLatentModel
from andon.methods.dsr.networks import (
    AnomalyDetectionModule,
    ImageReconstructionNetwork,
    SubspaceRestrictionModule,
    UpsamplingModule,
)
from andon.methods.dsr.subspaces import Encoding, encode

CODES, SIDE = 40, 64
SKIP = 0.05


@pytest.fixture(scope="module")
def latents() -> DiscreteLatentModel:
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        model = DiscreteLatentModel(CODES, hidden=8, residual=4).eval().requires_grad_(False)
    # Codes as large as the features: the nearest one then depends on the position.
    features = encode(model, images(4))
    for book, values in ((model.top, features.coarse), (model.bottom, features.joined)):
        flat = values.permute(0, 2, 3, 1).reshape(-1, 8)
        book.codebook.copy_(flat[torch.randperm(len(flat), generator=step_generator(1))[:CODES]])
    return model


def images(count: int) -> torch.Tensor:
    return torch.rand((count, 3, SIDE, SIDE), generator=step_generator(0, "images", count))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Networks


def convolution(inputs: int, outputs: int, side: int = 3) -> int:
    return inputs * outputs * side**2 + outputs


def test_sizes_are_those_of_the_authors_networks() -> None:
    """Counted by the authors' own classes (VitjanZ/DSR_anomaly_detection, dsr_model.py), and layer by layer."""
    with torch.device("meta"):
        modules = SubspaceRestrictionModule(), ImageReconstructionNetwork(), AnomalyDetectionModule()
        upsampling = UpsamplingModule()
    assert [parameters(module) for module in (*modules, upsampling)] == [7_818_240, 9_418_371, 5_610_690, 5_611_842]
    w, c = 128, convolution
    down = c(w, w) + c(w, w) + c(w, 2 * w) + c(2 * w, 2 * w) + c(2 * w, 4 * w) + c(4 * w, 4 * w)
    up = c(4 * w, 2 * w) + 2 * c(2 * w, 2 * w) + c(2 * w, w) + 2 * c(w, w) + c(w, w)
    assert parameters(modules[0]) == down + up
    assert parameters(upsampling) - parameters(modules[2]) == 2 * 9 * 64


def test_names_are_those_of_the_authors_checkpoints() -> None:
    with torch.device("meta"):
        restriction = SubspaceRestrictionModule().state_dict()
        decoder = ImageReconstructionNetwork().state_dict()
        detection = AnomalyDetectionModule().state_dict()
    assert [len(state) for state in (restriction, decoder, detection)] == [26, 24, 36]
    assert restriction["unet.encoder.block3.3.weight"].shape == (512, 512, 3, 3)
    assert restriction["unet.decoder.up2.1.weight"].shape == (256, 512, 3, 3)
    assert restriction["unet.decoder.fin_out.0.weight"].shape == (128, 128, 3, 3)
    assert decoder["block2.3.weight"].shape == (1024, 512, 3, 3)
    assert decoder["pre_vq_conv.weight"].shape == (64, 1024, 1, 1)
    assert decoder["upblock2.weight"].shape == (64, 64, 4, 4)
    assert decoder["_residual_stack._layers.1._block.3.weight"].shape == (128, 64, 1, 1)
    assert decoder["_conv_trans_2.weight"].shape == (64, 3, 4, 4)
    assert detection["unet.encoder.block1.0.weight"].shape == (64, 6, 3, 3)
    assert detection["unet.decoder.db1.0.weight"].shape == (256, 512, 3, 3)
    assert detection["unet.decoder.fin_out.0.bias"].shape == (2,)


def test_restriction_gives_codes_and_lets_gradients_through(latents: DiscreteLatentModel) -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        module = SubspaceRestrictionModule(8, 4)
    codes = latents.bottom.look_up(encode(latents, images(2)).fine_codes)
    features, restored = module(codes, latents.bottom)
    assert features.shape == restored.shape == codes.shape
    nearest = torch.cdist(restored.permute(0, 2, 3, 1).reshape(-1, 8), latents.bottom.codebook).min(1).values
    assert nearest.max() < 1e-3
    weights = torch.randn(restored.shape, generator=step_generator(2))
    (straight,) = torch.autograd.grad((restored * weights).sum(), features, retain_graph=True)
    assert torch.equal(straight, weights)
    assert not latents.bottom.codebook.requires_grad


def test_views_of_the_detection_module_keep_the_size() -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        detection, upsampling = AnomalyDetectionModule(4), UpsamplingModule(4)
        decoder = ImageReconstructionNetwork(16, 4, 4, 8, 4)
    specific, general = images(2), images(3)[:2]
    mask = detection(specific, general)
    assert mask.shape == upsampling(specific, general, mask.softmax(1)).shape == (2, 2, SIDE, SIDE)
    level = torch.rand((2, 8, SIDE // 4, SIDE // 4), generator=step_generator(1))
    assert decoder(level, level).shape == (2, 3, SIDE, SIDE)


# Sampling of codes


@settings(deadline=None, max_examples=30)
@given(
    strength=st.floats(0, 1), skip=st.floats(0, 0.9), n=st.integers(1, 60), seed=st.integers(0, 99),
    block=st.sampled_from([3, 4096]),
)  # fmt: skip
def test_sampled_codes_lie_within_the_similarity_bound(
    strength: float, skip: float, n: int, seed: int, block: int
) -> None:
    generator = step_generator(seed, "codes")
    vectors, codebook = torch.randn((20, 6), generator=generator), torch.randn((n, 6), generator=generator)
    original, anomalies._ROWS = anomalies._ROWS, block
    try:
        chosen = sample_codes(vectors, codebook, strength, torch.rand(20, generator=generator), skip)
    finally:
        anomalies._ROWS = original
    order = (vectors[:, None].double() - codebook.double()).square().sum(2).argsort(1)
    ranks = (order == chosen[:, None]).int().argmax(1)
    least = min(int(skip * n), n - 1)
    assert ranks.min() >= least
    assert ranks.max() <= max(least, int(strength * n))


def test_every_code_within_the_bound_is_drawn_equally_often() -> None:
    codebook = torch.randn((100, 4), generator=step_generator(0))
    vector = torch.zeros((1, 4))
    uniform = (torch.arange(4500) + 0.5) / 4500
    chosen = sample_codes(vector.expand(4500, -1), codebook, 0.4899, uniform, 0.05)
    allowed = codebook.norm(dim=1).argsort()[5:49]  # ⌊0.05·100⌋ up to ⌊0.4899·100⌋
    counts = torch.bincount(chosen, minlength=100)
    assert set(chosen.tolist()) == set(allowed.tolist())
    assert counts[allowed].max() - counts[allowed].min() <= 1


def test_strengths_of_draws_are_within_their_range() -> None:
    draws = LatentDraws.draw(500, (8, 6), 0.2, step_generator(0))
    for strength in (draws.coarse_strength, draws.fine_strength):
        assert 0.2 <= strength.min() < 0.22
        assert 0.98 < strength.max() <= 1
    assert draws.fine_uniform.shape == (500, 8, 6)
    assert draws.coarse_uniform.shape == (500, 4, 3)
    assert 0.4 < draws.both.float().mean() < 0.6
    assert 0.4 < draws.coarse_only.float().mean() < 0.6


# Anomalies


def masks() -> torch.Tensor:
    mask = torch.zeros((4, 1, SIDE, SIDE))
    mask[:, :, 21, 30] = 1  # one pixel alters the position that it lies in
    mask[:, :, 40:50, 8:25] = 1
    return mask


def draws_of(kinds: list[str]) -> LatentDraws:
    draws = LatentDraws.draw(len(kinds), (SIDE // 4, SIDE // 4), 0.2, step_generator(4))
    return draws._replace(
        both=torch.tensor([kind == "both" for kind in kinds]),
        coarse_only=torch.tensor([kind == "coarse" for kind in kinds]),
    )


KINDS = ["both", "coarse", "fine", "both"]


def altered_positions(mask: torch.Tensor, stride: int) -> torch.Tensor:
    """By brute force: positions with any pixel of the mask beneath."""
    blocks = mask[:, 0].unfold(1, stride, stride).unfold(2, stride, stride)
    return blocks.flatten(3).amax(3) > 0


def test_codes_outside_of_the_mask_are_untouched(latents: DiscreteLatentModel) -> None:
    encoding, mask = encode(latents, images(4)), masks()
    mask[3] = 0
    result = latent_anomalies(latents, encoding, mask, draws_of(KINDS), SKIP)
    on_coarse, on_fine = altered_positions(mask, 8), altered_positions(mask, 4)
    changed_coarse = result.coarse_codes != encoding.coarse_codes
    changed_fine = result.fine_codes != encoding.fine_codes
    # The nearest codes are left out, so every code beneath the mask is another.
    assert torch.equal(changed_coarse[0], on_coarse[0])
    assert torch.equal(changed_coarse[1], on_coarse[1])
    assert not changed_coarse[2].any()
    assert not changed_fine[1].any()
    assert torch.equal(changed_fine[2], on_fine[2])
    assert not changed_coarse[3].any()
    assert not changed_fine[3].any()
    assert not result.mask[3].any()


def test_where_both_levels_are_altered_the_fine_one_sees_the_altered_coarse_one(latents: DiscreteLatentModel) -> None:
    encoding, mask = encode(latents, images(4)), masks()
    result = latent_anomalies(latents, encoding, mask, draws_of(KINDS), SKIP)
    upsampled = latents.upsample_top(latents.top.look_up(result.coarse_codes))
    joined = latents.join_bottom(encoding.fine, upsampled)[0]
    distances = torch.cdist(joined.flatten(1).T, latents.bottom.codebook).view(SIDE // 4, SIDE // 4, CODES)
    on_fine = altered_positions(mask, 4)[0]
    outside = distances.argmin(2) == result.fine_codes[0]
    assert outside[~on_fine].all()
    ranks = (distances.argsort(2) == result.fine_codes[0][..., None]).int().argmax(2)[on_fine]
    bound = int(draws_of(KINDS).fine_strength[0] * CODES)
    assert int(SKIP * CODES) <= ranks.min()
    assert ranks.max() <= bound


def test_sampled_codes_of_each_level_keep_to_the_images_strength(latents: DiscreteLatentModel) -> None:
    encoding, mask, draws = encode(latents, images(4)), masks(), draws_of(KINDS)
    weak = draws._replace(coarse_strength=torch.full((4,), 0.2), fine_strength=torch.full((4,), 0.2))
    result = latent_anomalies(latents, encoding, mask, weak, SKIP)
    for index, features, codes, book, stride in (
        (1, encoding.coarse, result.coarse_codes, latents.top, 8),
        (2, encoding.joined, result.fine_codes, latents.bottom, 4),
    ):
        where = altered_positions(mask, stride)[index]
        distances = torch.cdist(features[index][:, where].T, book.codebook)
        ranks = (distances.argsort(1) == codes[index][where][:, None]).int().argmax(1)
        assert int(SKIP * CODES) <= ranks.min()
        assert ranks.max() <= int(0.2 * CODES)


def test_the_mask_to_learn_is_that_of_the_coarsest_altered_level(latents: DiscreteLatentModel) -> None:
    encoding, mask = encode(latents, images(4)), masks()
    learned = latent_anomalies(latents, encoding, mask, draws_of(KINDS), SKIP).mask
    for index, stride in enumerate((8, 8, 4, 8)):
        positions = altered_positions(mask, stride)[index]
        expected = positions.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
        assert torch.equal(learned[index, 0] > 0, expected)


def test_anomalies_do_not_depend_on_the_other_images(latents: DiscreteLatentModel) -> None:
    encoding, mask, draws = encode(latents, images(4)), masks(), draws_of(KINDS)
    together = latent_anomalies(latents, encoding, mask, draws, SKIP)
    for i in range(4):
        alone = latent_anomalies(
            latents, Encoding(*(part[i : i + 1] for part in encoding)), mask[i : i + 1],
            LatentDraws(*(part[i : i + 1] for part in draws)), SKIP,
        )  # fmt: skip
        assert torch.equal(alone.fine_codes[0], together.fine_codes[i])
        assert torch.equal(alone.coarse_codes[0], together.coarse_codes[i])


def test_encoding_is_the_models_own(latents: DiscreteLatentModel) -> None:
    batch = images(3)
    encoding, whole = encode(latents, batch), latents(batch)
    assert torch.equal(encoding.coarse_codes, whole.top.indices)
    assert torch.equal(encoding.fine_codes, whole.bottom.indices)
    coarse = latents.top.look_up(encoding.coarse_codes)
    image = latents.decode(latents.upsample_top(coarse), latents.bottom.look_up(encoding.fine_codes))
    torch.testing.assert_close(image, whole.reconstruction, rtol=1e-4, atol=1e-5)
    assert F.mse_loss(coarse, whole.top.values) < 1e-10
