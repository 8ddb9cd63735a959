"""A method of your own in one file: how far is each pixel from the good images' median?

    python examples/my_own_method.py IMAGES

In a benchmark it stands beside the others by its place:
``andon bench run --data IMAGES --method patchcore --method examples/my_own_method.py:MedianImage --store runs/mine``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from andon import evaluate, load_dataset
from andon.data import Transform
from andon.methods import Detector, Fitting, Method, MethodConfig
from andon.weights import WeightsRecord


class MedianConfig(MethodConfig):
    """Every hyperparameter, with its default: the command line and plans take their options from here."""

    transform: Transform = Transform(size=(64, 64), normalisation="unit")
    quantile: float = 0.5
    """Which quantile of the good images is the reference."""


class MedianDetector(Detector):
    """What was learned, as buffers, so that it is saved with the detector and moves to a GPU."""

    reference: torch.Tensor

    def __init__(self, config: MedianConfig, reference: torch.Tensor) -> None:
        super().__init__(config)
        self.register_buffer("reference", reference)  # [3, H, W]

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = (batch - self.reference).square().sum(dim=1)  # [B, H, W], higher = more anomalous
        return maps.amax(dim=(1, 2)), maps


class MedianImage(Method[MedianConfig]):
    """Squared difference to the pixel-wise median of the good images."""

    name = "median-image"
    title = "Median image"
    seeded = False  # the seed changes nothing: a benchmark runs it once
    Config = MedianConfig

    def learn(self, fitting: Fitting) -> MedianDetector:
        batches = fitting.images.batches(self.config.transform, self.config.batch_size)
        with fitting.clock("median"):
            good = torch.cat([batch for _, batch in batches])
            reference = good.quantile(self.config.quantile, dim=0)
        return MedianDetector(self.config, reference)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> MedianDetector:
        # Room for what is read from a file; without it the detector works, but cannot be saved and loaded.
        return MedianDetector(self.config, torch.zeros(3, *self.config.transform.output_size))


def main(folder: Path) -> None:
    for category in load_dataset(folder):
        detector = MedianImage().fit(category)
        figures = evaluate(detector, category).evaluation.image
        print(f"{category.name}: image AUROC {figures.auroc:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
