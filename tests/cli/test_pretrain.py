"""``andon pretrain``: the options are the recipes'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.cli._options import import_object, model_help
from andon.cli.pretrain import RECIPES
from tests.cli.conftest import Andon

OPTIONS = {
    "backbone": ("objective", "architecture", "last-stage", "image-size", "crop"),
    "efficientad-teacher": ("size", "extractor", "layer", "weights", "statistics-images", "window", "closed-form"),
    "uninformed-students-teacher": ("receptive-field", "extractor", "layer", "weights", "enlarge", "metric", "compact"),
    "dsr-codebook": ("image-size", "crop"),
}
SHARED = ("images", "steps", "batch-size", "learning-rate", "schedule", "seed", "device", "half", "overwrite")


@pytest.mark.parametrize("command", list(RECIPES))
def test_help_has_every_option_with_words(andon: Andon, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = andon("pretrain", command, "--help").stdout
    for name in (*OPTIONS[command], *SHARED):
        assert f"--{name} " in text
    recipe = import_object(RECIPES[command][0])
    assert model_help(recipe).keys() == recipe.model_fields.keys(), "an option without a word of help"
    assert "andon-features" in text or command != "efficientad-teacher"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("efficientad-teacher", "t.safetensors", "--size", "tiny"), "--size"),
        (("efficientad-teacher", "t.safetensors", "--window", "57"), "--window"),
        (("backbone", "t.safetensors", "--architecture", "vgg"), "option 'architecture': must be one of resnet18"),
        (("backbone", "t.safetensors", "--learning-rate", "0"), "option 'learning_rate'"),
        (("dsr-codebook", "t.safetensors", "--crop", "36"), "crop 36 must be a multiple of 8"),
        (("dsr-codebook", "t.pth"), "t.pth: weights are written as .safetensors"),
        (("backbone", "t.safetensors", "-p", "nowhere"), "nowhere: there is no such folder of images"),
    ],
)
def test_mistakes_are_one_line(andon: Andon, args: tuple[str, ...], message: str) -> None:
    shown = andon("pretrain", *args, code=2).stderr
    assert message in shown
    assert shown.count("\n") == 1


def test_pretraining_on_a_folder(andon: Andon, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    output = tmp_path / "backbone.safetensors"
    command = ("pretrain", "backbone", output, "-p", folder, "--steps", "2", "--batch-size", "4", "--crop", "32")
    done = andon(*command, "--last-stage", "1", "--half", "--projection", "8")
    assert "2 steps in" in done.stdout
    assert f"wrote {output}, SHA-256" in done.stdout
    assert "exists already" in andon(*command, code=2).stderr
