"""Versions of images (``andon.data.augmented``) in the trained methods: epochs keep their length, none leaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from andon.core import Sample
from andon.data import Augmentation, Images, augmented
from andon.data.files import WholeMaskReader
from andon.methods import create_method
from andon.methods._teachers import Split
from andon.methods.efficientad.config import EfficientAdConfig

TINY: dict[str, dict[str, Any]] = {
    "draem": {
        "transform": {"size": (64, 64)}, "epochs": 2, "train_batch_size": 2, "reconstructive_width": 4,
        "discriminative_width": 4, "textures": "noise",
    },
    "cflow": {
        "backbone": "resnet18", "layers": ("layer1",), "weights": "random", "transform": {"size": (64, 64)},
        "condition": 4, "coupling_blocks": 1, "meta_epochs": 2, "sub_epochs": 1, "train_batch_size": 2, "fibres": 128,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    found = []
    for number in range(6):
        path = folder / f"{number}.png"
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(path)
        found.append(Sample(f"train/good/{number}", path, "train", "good", WholeMaskReader()))
    return found


@pytest.mark.parametrize("name", sorted(TINY))
def test_an_epoch_is_as_long_as_without_augmentation(name: str, samples: list[Sample]) -> None:
    method = create_method(name, TINY[name])
    versions = augmented(samples, Augmentation(versions=4), seed=0, trained=True)
    plain, shown = method.fit(samples), method.fit(Images(versions))
    assert plain.report.n_train == shown.report.n_train == 6
    steps = [{loss: points[-1][0] for loss, points in d.report.curves.items()} for d in (plain, shown)]
    assert steps[0] == steps[1]
    again = method.fit(Images(augmented(samples, Augmentation(versions=4), seed=0, trained=True)))
    np.testing.assert_array_equal(again.predict(samples).image_scores, shown.predict(samples).image_scores)
    assert not np.array_equal(plain.predict(samples).image_scores, shown.predict(samples).image_scores)


def test_no_image_is_trained_on_and_held_out_in_two_versions(samples: list[Sample]) -> None:
    config = EfficientAdConfig(validation_share=0.34)
    plain = Split.of(Images(samples), config.validation_share, seed=1)
    shown = Split.of(
        Images(augmented(samples, Augmentation(versions=5), seed=0, trained=True)), config.validation_share, seed=1
    )

    def ids(images: Images) -> list[str]:
        return [item.id for item in images.items if isinstance(item, Sample)]

    assert (len(plain.train), len(plain.validation)) == (4, 2)
    assert (len(shown.train), len(shown.validation)) == (20, 10)
    assert set(ids(shown.train)) == set(ids(plain.train))
    assert set(ids(shown.validation)) == set(ids(plain.validation))
    assert not set(ids(shown.train)) & set(ids(shown.validation))
    assert shown.train.n_sources == 4
