"""Contrast of places rather than of images: what a camera's day does to a place must not move its features, what a
defect does to it must.

Dense contrastive learning (Wang et al., CVPR 2021; arXiv 2011.09157) with the InfoNCE loss, and one more negative that
matters here: the same place with a made-up defect on it (``pseudo_defects``). Places of the same image are
no negatives: on a part the same texture lies in many places, and good patches are to find each other.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from andon.core import BoolArray, FloatArray, ImageArray
from andon.features.pseudo_defects import add_pseudo_defect

__all__ = ["COVERED", "dense_contrast_loss", "three_views"]

COVERED = 0.15
"""Part of a place that a made-up defect must change to count."""
_DEFECTS = 2
_PLACES = 32
"""Unchanged places, and at most as many changed ones, that are asked about in each image."""
_TEMPERATURE = 0.1
_MARGIN = 2.0
"""Added to the changed place's logit: it must be farther away than a place elsewhere."""


def three_views(
    image: ImageArray, other: ImageArray, side: int, rng: np.random.Generator
) -> tuple[ImageArray, ImageArray, ImageArray, BoolArray]:
    """One crop of an image seen three times, the third time with made-up defects.

    Args:
        image, other: RGB uint8 of one size, at least ``side``; pasted parts may come from ``other``.
        side: of the crop.

    Returns:
        Anchor, positive and changed view, uint8 ``[side, side, 3]``, and bool ``[side, side]``: pixels that the defects
        changed (before the views' light, noise and shifts of up to 1.5 pixels).
    """
    y, x = (int(v) for v in rng.integers(0, np.array(image.shape[:2]) - side + 1))
    crop = np.ascontiguousarray(np.rot90(image[y : y + side, x : x + side], int(rng.integers(4))))
    changed, mask = crop, np.zeros((side, side), dtype=bool)
    for _ in range(_DEFECTS):
        changed, more = add_pseudo_defect(changed, np.ascontiguousarray(other[:side, :side]), rng)
        mask |= more
    return _another_day(crop, rng), _another_day(crop, rng), _another_day(changed, rng), mask


def _another_day(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Other light (gain, tint, gamma, a slow field), focus, a shift below two pixels, sensor noise."""
    side = image.shape[0]
    gain = np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.03, 3))
    lit = np.clip(image / 255 * gain, 0, 1) ** np.exp(rng.normal(0, 0.12))
    field = cv2.resize(rng.normal(0, 0.12, (3, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
    view: FloatArray = (255 * lit * (1 + field)[..., None]).astype(np.float32)
    sigma = rng.uniform(0, 0.8)
    if sigma > 0.25:
        view = np.asarray(cv2.GaussianBlur(view, (0, 0), sigma), dtype=np.float32)
    angle = rng.normal(0, 0.01)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0]])
    turn[:, 2] = rng.uniform(-1.5, 1.5, 2)
    view = np.asarray(
        cv2.warpAffine(view, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT),
        dtype=np.float32,
    )
    noisy = view + rng.normal(0, rng.uniform(0.5, 6), view.shape)
    return np.asarray(np.clip(noisy, 0, 255), dtype=np.uint8)


def dense_contrast_loss(
    anchor: torch.Tensor,
    positive: torch.Tensor,
    changed: torch.Tensor,
    mask: torch.Tensor,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """InfoNCE over places: its own place in ``positive`` against places of other images and its changed self.

    Args:
        anchor, positive, changed: embeddings ``[B, D, h, w]`` of the three views, of length 1 along D; B at least 2.
        mask: float32 ``[B, 1, H, W]``, 1 where a made-up defect is.
        generator: draws the places.
    """
    batch, _, height, width = anchor.shape
    covered = F.interpolate(mask, size=(height, width), mode="area").flatten(1) > COVERED
    own, same, other = (z.flatten(2).transpose(1, 2) for z in (anchor, positive, changed))
    images, places = [], []
    for number in range(batch):
        spoilt = torch.nonzero(covered[number].cpu()).flatten()
        chosen = [
            torch.randperm(height * width, generator=generator)[:_PLACES],
            spoilt[torch.randperm(len(spoilt), generator=generator)[:_PLACES]],
        ]
        places += chosen
        images += [torch.full((len(c),), number) for c in chosen]
    image, place = torch.cat(images).to(anchor.device), torch.cat(places).to(anchor.device)
    query, match, spoiled = own[image, place], same[image, place], other[image, place]
    never = torch.finfo(query.dtype).min / 4
    elsewhere = (query @ match.T / _TEMPERATURE).masked_fill(image[:, None] == image[None, :], never)
    hard = (query * spoiled).sum(1) / _TEMPERATURE + _MARGIN
    hard = hard.masked_fill(~covered[image, place], never)
    logits = torch.cat([((query * match).sum(1) / _TEMPERATURE)[:, None], hard[:, None], elsewhere], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))
