"""What the trained methods' benchmarks share: the machine's line, figures beside the floor, images of maps."""

from __future__ import annotations

import datetime
import platform
import time

import cv2
import numpy as np
import torch

from andon.benchmark import evaluate
from andon.core import Category, ImageArray, Sample
from andon.data import Images
from andon.methods import Detector, create_method
from bench_coreset import processor


def machine() -> str:
    return (
        f"{datetime.date.today()}, {processor()}, {torch.get_num_threads()} thread(s); torch {torch.__version__}, "
        f"Python {platform.python_version()}."
    )


def beside_the_floor(detector: Detector, category: Category, images: Images) -> list[str]:
    """Image AUROC and AUsPRO to 0.05, in %, of a detector, then of ``thumbnail-nn`` on the same images."""
    floor = create_method("thumbnail-nn").fit(images)
    figures: list[str] = []
    for each in (detector, floor):
        result = evaluate(each, category, fpr_limits=(0.05,)).evaluation
        localisation = result.localisation
        figures += [
            f"{100 * (result.image.auroc or 0):.1f}",
            f"{100 * localisation.auspro[0.05]:.1f}" if localisation is not None and localisation.auspro else "–",
        ]
    return figures


def prediction_ms(detector: Detector, category: Category) -> float:
    """CPU milliseconds an image, over ten."""
    some = Images(category.test[:10])
    start = time.process_time()
    detector.predict(some)
    return 1000 * (time.process_time() - start) / len(some)


def shown_samples(category: Category) -> list[Sample]:
    """Eight defective samples spread over the test set, and two good ones."""
    defective = [s for s in category.test if s.is_defective]
    return [*defective[:: max(1, len(defective) // 8)][:8], *[s for s in category.test if not s.is_defective][:2]]


def truth_image(sample: Sample, size: tuple[int, int]) -> ImageArray:
    """A sample's mask, white on black, at (width, height)."""
    truth = sample.ground_truth()
    marked = np.zeros((1, 1), np.uint8) if truth is None else truth.union().astype(np.uint8)
    mask = np.asarray(cv2.resize(marked, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.repeat(255 * mask[..., None], 3, axis=2)
