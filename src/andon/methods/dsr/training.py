"""DSR's two trainings (section 3.3): decoders and detection on latent anomalies, then the up-sampling module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.memory import BoundedStore, capacity
from andon._tools.seeds import numpy_step_generator, step_generator
from andon.core import FloatArray, ImageArray
from andon.methods._reconstruction import AnomalySimulationStage
from andon.methods.base import Fitting
from andon.methods.dsr.anomalies import LatentDraws, latent_anomalies
from andon.methods.dsr.codebook import DiscreteLatentModel
from andon.methods.dsr.config import DsrConfig
from andon.methods.dsr.subspaces import FINE, DsrNetworks, Encoding, Views, compare, encode, render, restore
from andon.training import focal_loss

__all__ = ["Batch", "DecoderStage", "UpsamplingStage", "learn_mean_codes"]

Rows = tuple[torch.Tensor, ...]
"""What is known of images: of one, or one row an image in each tensor."""


class Batch(NamedTuple):
    """A step's images, made from the step's number alone.

    Attributes:
        indices: of the training images, ``[B]``.
        images: float32 ``[B, 3, H, W]``.
        untouched: bool ``[B]``: neither rotated nor altered, so that what is known of the training image holds.
        mask: float32 ``[B, 1, H, W]`` of zeros and ones.
        draws: of the latent anomalies; None for the up-sampling module.
    """

    indices: torch.Tensor
    images: torch.Tensor
    untouched: torch.Tensor
    mask: torch.Tensor
    draws: LatentDraws | None


@torch.no_grad()
def learn_mean_codes(fitting: Fitting, latents: DiscreteLatentModel, networks: DsrNetworks) -> None:
    """Sets the networks' mean code of every position over the training images, where they have one."""
    if networks.mean_coarse is None or networks.mean_fine is None:
        return
    config, images = fitting.method.config, fitting.images
    sums: list[torch.Tensor] = []
    with fitting.clock("mean codes"):
        for indices, batch in images.batches(config.transform, config.train_batch_size):
            encoding = encode(latents, batch.to(fitting.device))
            codes = latents.top.look_up(encoding.coarse_codes), latents.bottom.look_up(encoding.fine_codes)
            parts = [part.sum(0, dtype=torch.float64) for part in codes]
            sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
            fitting.progress("mean codes", indices.stop, len(images))
    networks.mean_coarse.copy_((sums[0] / len(images)).float())
    networks.mean_fine.copy_((sums[1] / len(images)).float())


class _DsrStage(AnomalySimulationStage[Batch]):
    """What both trainings have in common: what is known of untouched images, and the optimiser."""

    config: DsrConfig
    networks: DsrNetworks

    def __init__(
        self,
        fitting: Fitting,
        latents: DiscreteLatentModel,
        networks: DsrNetworks,
        epochs: float,
        rotation_probability: float,
        decay_at: tuple[float, ...],
        decay: float,
    ) -> None:
        super().__init__(
            fitting,
            networks,
            epochs,
            samples=fitting.method.config.epoch_samples,
            rotation_probability=rotation_probability,
            decay_at=decay_at,
            decay=decay,
        )
        self.fitting, self.latents = fitting, latents
        self.known: BoundedStore[Rows] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """What this stage trains."""
        raise NotImplementedError

    def describe(self, images: torch.Tensor) -> Rows:
        """What is to be known of untouched images, one row an image in each tensor."""
        raise NotImplementedError

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.config.learning_rate)

    def close(self) -> None:
        self.known = None

    def look_up(self, indices: torch.Tensor, usable: torch.Tensor, images: torch.Tensor) -> Rows:
        """``describe`` of a batch: from memory for ``usable`` images that it holds, computed for the others."""
        if self.known is None:
            self.known = self._describe_all()
        pairs = zip(indices.tolist(), usable.tolist(), strict=True)
        known = [self.known.get(index) if use else None for index, use in pairs]
        return _patched(known, lambda rows: self.describe(images[rows]))

    @torch.no_grad()
    def _describe_all(self) -> BoundedStore[Rows]:
        """``describe`` of as many training images as the memory limit allows, in chunks that do not depend on it."""
        store = BoundedStore[Rows](0)
        for indices, batch in self.images.batches(self.transform, self.config.train_batch_size):
            described = self.describe(batch.to(self.fitting.device))
            if indices.start == 0:
                per_image = sum(part[0].numel() * part.element_size() for part in described)
                store.capacity = min(len(self.images), capacity(self.config.memory_limit, per_image))
            for index, *parts in zip(indices, *described, strict=True):
                store.put(index, tuple(parts))
            self.fitting.progress("encodings", len(store), max(store.capacity, 1))
            if len(store) == store.capacity:
                break
        return store


class DecoderStage(_DsrStage):
    """Subspace restriction, object-specific decoder and anomaly detection, together."""

    name = "decoders"

    def __init__(self, fitting: Fitting, latents: DiscreteLatentModel, networks: DsrNetworks) -> None:
        config: DsrConfig = fitting.method.config
        schedule = config.rotation_probability, config.decay_at, config.decay
        super().__init__(fitting, latents, networks, config.epochs, *schedule)

    def parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.networks.named_parameters() if not name.startswith("upsampling.")]

    def describe(self, images: torch.Tensor) -> Rows:
        encoding = encode(self.latents, images)
        coarse = self.latents.top.look_up(encoding.coarse_codes)
        fine = self.latents.bottom.look_up(encoding.fine_codes)
        return *encoding, render(self.latents, coarse, fine)

    def batch(self, number: int) -> Batch:
        rng = numpy_step_generator(self.seed, self.name, number)
        indices = self.order(number)
        drawn = [self.image(index, rng) for index in indices]
        masks = np.stack([self.mask(rng) for _ in indices])[:, None]
        height, width = self.transform.output_size
        return Batch(
            torch.tensor(indices),
            self.transform.normalise(np.stack([image for image, _ in drawn])),
            torch.tensor([untouched for _, untouched in drawn]),
            torch.from_numpy(masks),
            LatentDraws.draw(
                len(indices),
                (height // FINE, width // FINE),
                self.config.latent_strength,
                step_generator(self.seed, "latent anomalies", number),
            ),
        )

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        config, latents, networks = self.config, self.latents, self.networks
        assert batch.draws is not None
        with torch.no_grad():
            *parts, normal = self.look_up(batch.indices, batch.untouched, batch.images)
            encoding = Encoding(*parts)
            altered = latent_anomalies(latents, encoding, batch.mask, batch.draws, config.latent_skip)
            coarse, fine = latents.top.look_up(altered.coarse_codes), latents.bottom.look_up(altered.fine_codes)
            rows = altered.mask.flatten(1).any(1).nonzero().squeeze(1)
            general = normal.index_put((rows,), render(latents, coarse[rows], fine[rows])) if len(rows) else normal
            good_coarse = latents.top.look_up(encoding.coarse_codes)
            good_fine = latents.bottom.look_up(encoding.fine_codes)
        coarse_features, fine_features, specific = restore(latents, networks, coarse, fine)
        probabilities = networks.detection(specific.detach(), general).softmax(1)
        return {
            "coarse features": F.mse_loss(coarse_features, good_coarse),
            "fine features": F.mse_loss(fine_features, good_fine),
            "reconstruction": config.reconstruction_weight * F.mse_loss(specific, batch.images),
            "focal": mask_loss(config, probabilities, altered.mask),
        }


class UpsamplingStage(_DsrStage):
    """The up-sampling module, on anomalies in the image."""

    name = "upsampling"

    def __init__(self, fitting: Fitting, latents: DiscreteLatentModel, networks: DsrNetworks) -> None:
        config: DsrConfig = fitting.method.config
        schedule = config.upsampling_rotation_probability, config.upsampling_decay_at, config.upsampling_decay
        super().__init__(fitting, latents, networks, config.upsampling_epochs, *schedule)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.networks.upsampling.parameters())

    def describe(self, images: torch.Tensor) -> Rows:
        return compare(self.latents, self.networks, images)

    def batch(self, number: int) -> Batch:
        rng = numpy_step_generator(self.seed, self.name, number)
        indices = self.order(number)
        shown, masks, untouched = [], [], []
        for index in indices:
            image, as_it_was = self.image(index, rng)
            mask = self.mask(rng)
            shown.append(_smudged(image, mask, rng, self.config.smudge_transparency))
            masks.append(mask[None])
            untouched.append(as_it_was and not mask.any())
        return Batch(
            torch.tensor(indices),
            torch.from_numpy(np.stack(shown)),
            torch.tensor(untouched),
            torch.from_numpy(np.stack(masks)),
            None,
        )

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            views = Views(*self.look_up(batch.indices, batch.untouched, batch.images))
        probabilities = self.networks.upsampling(*views).softmax(1)
        return {"focal": mask_loss(self.config, probabilities, batch.mask)}


def mask_loss(config: DsrConfig, probabilities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Focal loss of probabilities ``[B, 2, H, W]`` against a mask ``[B, 1, H, W]`` of zeros and ones."""
    if config.softmax_twice:
        probabilities = probabilities.softmax(1)
    return focal_loss(probabilities, mask, gamma=config.focal_gamma)


def _smudged(image: ImageArray, mask: FloatArray, rng: np.random.Generator, transparency: float) -> FloatArray:
    """The image, one colour laid over it beneath the mask; float32 ``[3, H, W]`` in 0..1."""
    colour, seen = rng.random(3, dtype=np.float32), np.float32(rng.uniform(0, transparency))
    plain = image.astype(np.float32) / np.float32(255)
    smudge = seen * plain + (1 - seen) * colour
    return np.ascontiguousarray(np.where(mask[..., None] > 0, smudge, plain).transpose(2, 0, 1))


def _patched(known: Sequence[Rows | None], compute: Callable[[list[int]], Rows]) -> Rows:
    """One row an image in each tensor: what is known, and ``compute(rows)`` for the rows that are not."""
    missing = [row for row, parts in enumerate(known) if parts is None]
    computed = compute(missing) if missing else ()
    if len(missing) == len(known):
        return computed
    found = dict(zip(missing, zip(*computed, strict=True), strict=True)) if missing else {}
    whole = [found[row] if parts is None else parts for row, parts in enumerate(known)]
    return tuple(torch.stack(column) for column in zip(*whole, strict=True))
