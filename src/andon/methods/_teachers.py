"""What methods with a teacher and students share: extractors as teachers, what a teacher says of the training images,
and who is held out to bring maps to one scale (EfficientAD, Uninformed Students, GCAD)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.memory import BoundedStore, capacity
from andon._tools.seeds import numpy_step_generator
from andon.core import DetectorError, ProgressCallback
from andon.data import Images, Transform
from andon.features import Extractor, blank_extractor
from andon.methods._state import shapes_under
from andon.weights import WeightsRecord

__all__ = [
    "DescribedImages",
    "ExtractorTeacher",
    "NormalisedTeacher",
    "Sampling",
    "Split",
    "Teaching",
    "blank_teacher_extractor",
    "on_grid",
]

_STATISTICS_BATCH = 4
_EXTRACTOR = "teacher.extractor."


class Sampling(NamedTuple):
    """Where the vectors of a grid lie along a side of the image, in pixels.

    Attributes:
        first: centre of the first.
        stride: from one to the next.
    """

    first: float
    stride: int

    def places(self, count: int) -> torch.Tensor:
        """Centres of the first ``count``, float32 ``[count]``."""
        return torch.arange(count, dtype=torch.float32) * self.stride + self.first


class Teaching(Protocol):
    """A frozen network whose output students learn."""

    channels: int

    def __call__(self, batch: torch.Tensor, /) -> torch.Tensor: ...

    def merge_normalisation(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """From now on the output is ``(output − mean) / std``."""


class NormalisedTeacher(nn.Module):
    """Base of teachers ``[B, 3, H, W]`` to ``[B, channels, h, w]`` whose outputs are normalised afterwards.

    Buffers: ``mean`` and ``std``, float32 ``[channels]``, by which that is done; 0 and 1 at first.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, channels: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mean", torch.zeros(channels, device=device))
        self.register_buffer("std", torch.ones(channels, device=device))

    def normalised(self, output: torch.Tensor) -> torch.Tensor:
        """``(output − mean) / std``, in place."""
        return output.sub_(self.mean[:, None, None]).div_(self.std[:, None, None])

    @torch.no_grad()
    def merge_normalisation(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """From now on the output is ``(output − mean) / std``, both float32 ``[channels]``; once."""
        self.mean.copy_(mean)
        self.std.copy_(std)


class ExtractorTeacher(NormalisedTeacher):
    """A frozen extractor as a teacher: ``[B, 3, H, W]`` to ``[B, channels, h, w]``, all its stages one after the other.

    Args:
        grid: (h, w) of the students' output, to which features are interpolated.
        sampling: where that grid lies in the image.
    """

    def __init__(self, extractor: Extractor, grid: tuple[int, int], sampling: Sampling) -> None:
        device = next((tensor.device for tensor in (*extractor.parameters(), *extractor.buffers())), None)
        super().__init__(sum(extractor.channels), device)
        self.extractor, self.grid, self.sampling = extractor, grid, sampling

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        image = (batch.shape[2], batch.shape[3])
        parts = [on_grid(stage, image, self.grid, self.sampling) for stage in self.extractor(batch)]
        return self.normalised(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))


def blank_teacher_extractor(
    method: str,
    backbone: str,
    layers: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    weights: Sequence[WeightsRecord],
) -> Extractor:
    """The extractor of a teacher with room for the saved tensors whose names begin with "teacher.extractor.".

    Args:
        method: its name, for the message.
        backbone, layers: see ``create_extractor``.
        shapes, weights: as ``Method.blank`` gets them.

    Raises:
        DetectorError: no weights are known.
    """
    if not weights:
        raise DetectorError(f"{method}: the saved state does not say which weights its teacher had")
    return blank_extractor(backbone, layers, weights[0], shapes_under(shapes, _EXTRACTOR))


def on_grid(features: torch.Tensor, image: tuple[int, int], grid: tuple[int, int], sampling: Sampling) -> torch.Tensor:
    """Features ``[B, C, h, w]`` that cover an image (H, W) evenly, bilinear at the places of a grid."""
    rows, columns = (
        ((sampling.places(count) + 0.5) / side * 2 - 1).to(features.device)
        for count, side in zip(grid, image, strict=True)
    )
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    places = places.expand(features.shape[0], -1, -1, -1)
    return F.grid_sample(features, places, mode="bilinear", padding_mode="border", align_corners=False)


class Split(NamedTuple):
    """Good images, dealt out.

    Attributes:
        train: those that are trained on.
        validation: those on which maps are normalised.
        overlaps: whether images are in both.
    """

    train: Images
    validation: Images
    overlaps: bool

    @classmethod
    def of(cls, images: Images, share: float, seed: int, *, validate_on_all: bool = False) -> Split:
        """A share of the images is held out, each with all its versions; of a single one it is both.

        Args:
            share: of the images, at least one image.
            seed: which ones.
            validate_on_all: maps are normalised on all images, those trained on too.
        """
        n, sources = images.n_sources, images.sources
        held_out = min(max(1, round(share * n)), n - 1)
        order = [int(i) for i in numpy_step_generator(seed, "validation").permutation(n)]
        chosen = set(order[:held_out])
        train = images.subset([i for i, source in enumerate(sources) if source not in chosen])
        if validate_on_all or held_out == 0:
            return cls(train, images, overlaps=True)
        return cls(train, images.subset([i for i, source in enumerate(sources) if source in chosen]), overlaps=False)

    def note(self) -> str:
        """On which images maps are normalised, for the report."""
        which = "images, those trained on among them" if self.overlaps else "held-out images"
        return f"maps normalised on {len(self.validation):,} {which}"


class DescribedImages:
    """What the teacher says of the training images, its channels normalised over them.

    Making one normalises the teacher. Outputs are kept, as many as the memory limit allows: unaugmented images are
    described once.

    Args:
        teacher: on the device.
        images: to train on.
        transform: as the teacher sees them.
        memory_limit: GiB for outputs.

    Attributes:
        mean, std: of the teacher's channels before, float32 ``[C]``.
    """

    def __init__(
        self,
        teacher: Teaching,
        images: Images,
        transform: Transform,
        memory_limit: float,
        device: torch.device,
        progress: ProgressCallback,
    ) -> None:
        self.teacher, self._memory_limit = teacher, memory_limit
        self.kept = BoundedStore[torch.Tensor](0)
        self.mean, self.std = self._statistics(images, transform, device, progress)
        mean, std = (tensor.to(device)[:, None, None] for tensor in (self.mean, self.std))
        for index in range(len(images)):
            if (output := self.kept.get(index)) is not None:
                output.sub_(mean).div_(std)
        teacher.merge_normalisation(self.mean, self.std)

    @torch.no_grad()
    def _statistics(
        self, images: Images, transform: Transform, device: torch.device, progress: ProgressCallback
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sums = squares = origin = torch.zeros(self.teacher.channels, dtype=torch.float64)
        count = 0
        for indices, batch in images.batches(transform, _STATISTICS_BATCH):
            output = self.teacher(batch.to(device))
            if indices.start == 0:
                self.kept = BoundedStore(capacity(self._memory_limit, 4 * output[0].numel()))
            for index, one in zip(indices, output, strict=True):
                # A copy, because a view would keep the whole batch alive.
                self.kept.put(index, one.clone(memory_format=torch.contiguous_format))
            if indices.start == 0:  # sums of squares about a typical value do not cancel
                origin = output.mean((0, 2, 3)).double().cpu()
            shifted = output.transpose(0, 1).flatten(1).double().cpu() - origin[:, None]
            sums = sums + shifted.sum(1)
            squares = squares + shifted.square().sum(1)
            count += shifted.shape[1]
            progress("teacher", indices.stop, len(images))
        variance = (squares / count - (sums / count).square()).clamp_min(0)
        # A channel that never varies says nothing; it must not become a division by nothing.
        std = torch.where(variance > 0, variance, 1.0).sqrt()
        return (origin + sums / count).float(), std.float()

    @torch.no_grad()
    def __call__(self, indices: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """The teacher's output ``[B, C, h, w]`` for training images, from memory where it is there."""
        rows = []
        for row, index in enumerate(indices.tolist()):
            kept = self.kept.get(index)
            rows.append(self.teacher(batch[row : row + 1])[0] if kept is None else kept)
        return torch.stack(rows)

    def forget(self) -> None:
        """Gives the memory back."""
        self.kept = BoundedStore(0)
