"""The contrast of places against a loop, and its views."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from andon.data.rendered import rendered_image
from andon.features.dense_contrast import COVERED, dense_contrast_loss, three_views


def test_the_loss_is_the_loop_over_places() -> None:
    generator = torch.Generator().manual_seed(0)
    # 5 × 5 places, fewer than are drawn: all unchanged ones are asked about once, all changed ones twice.
    views = [F.normalize(torch.randn((3, 4, 5, 5), generator=generator), dim=1) for _ in range(3)]
    mask = torch.zeros((3, 1, 20, 20))
    mask[0, 0, :8, :4] = 1  # two whole places
    mask[1, 0, 12:16, 12:14] = 1  # half of one
    mask[2, 0, 0, 0] = 1  # a sixteenth of one: does not count
    found = dense_contrast_loss(*views, mask, torch.Generator().manual_seed(1))

    covered = mask.reshape(3, 5, 4, 5, 4).mean((2, 4)) > COVERED
    assert int(covered.sum()) == 3
    asked = [(b, y, x) for b in range(3) for y in range(5) for x in range(5)]
    asked += [(b, y, x) for b, y, x in asked if covered[b, y, x]]
    anchor, positive, changed = (v.double().numpy() for v in views)
    total = 0.0
    for b, y, x in asked:
        query = anchor[b, :, y, x]
        right = math.exp(query @ positive[b, :, y, x] / 0.1)
        wrong = sum(math.exp(query @ positive[c, :, v, u] / 0.1) for c, v, u in asked if c != b)
        if covered[b, y, x]:
            wrong += math.exp(query @ changed[b, :, y, x] / 0.1 + 2.0)
        total -= math.log(right / (right + wrong))
    assert float(found) == pytest.approx(total / len(asked), rel=1e-4)


def test_views_show_one_crop_and_only_the_third_has_defects() -> None:
    # Large dark and bright squares: light and shifts change little of them, a pasted part does.
    dice = np.random.default_rng(9)
    image, other = (
        np.kron(dice.choice([40, 200], (6, 6)), np.ones((16, 16)))[..., None].repeat(3, 2).astype(np.uint8)
        for _ in range(2)
    )
    near, far = [], []
    for seed in range(20):
        anchor, positive, changed, mask = three_views(image, other, 64, np.random.default_rng(seed))
        assert anchor.shape == positive.shape == changed.shape == (64, 64, 3)
        assert anchor.dtype == np.uint8
        assert 0 < mask.mean() < 0.6
        # Light differs between views; structure, which correlation sees, only where the defects are.
        inside = [np.corrcoef(anchor[mask].ravel(), view[mask].ravel())[0, 1] for view in (positive, changed)]
        near.append(np.corrcoef(anchor[~mask].ravel(), changed[~mask].ravel())[0, 1])
        far.append(inside[0] - inside[1])
    assert np.median(near) > 0.8
    assert np.median(far) > 0.05


def test_views_are_a_function_of_the_generator() -> None:
    image = rendered_image(0, 3, 64)
    first, second = (three_views(image, image, 48, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
