"""Configurations that go with the embedded extractor, for ``create_method(name, EMBEDDED[name])`` and for plans.

They need no network and no pretrained weights; docs/features.md says what they measure. The methods' own defaults stay
the papers' and the study's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["EMBEDDED"]

_FEATURES: dict[str, Any] = {
    "backbone": "andon-features",
    "layers": ("cells",),
    "weights": "embedded",
    "transform": {"size": (224, 224)},
}
EMBEDDED: Mapping[str, Mapping[str, Any]] = {
    # Cells are averaged over 3 × 3 by the extractor already. The mean of the 20 largest of 784 distances is a little
    # steadier than the largest alone.
    "patchcore": {**_FEATURES, "patch_size": 1, "image_score": "mean_top_k", "top_k": 20},
    "padim": _FEATURES,
}
