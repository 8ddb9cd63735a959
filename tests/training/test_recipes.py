"""Every recipe in small: the loss falls, a killed run goes on bit for bit, and the file is what methods load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from andon._tools.models import first_fault
from andon._tools.seeds import step_generator
from andon.core import AndonError, ConfigError
from andon.data.rendered import rendered_image
from andon.data.transform import Transform
from andon.features.extractor import create_extractor
from andon.features.pretraining import BackboneRecipe, barlow_twins_losses, pretrain_backbone, two_views
from andon.methods.dsr.codebook import DiscreteLatentModel, load_discrete_latent_model
from andon.methods.dsr.pretraining import CodebookRecipe, pretrain_codebook
from andon.methods.efficientad.pdn import PDNSize, load_teacher
from andon.methods.efficientad.pretraining import TeacherRecipe, extractor_targets, pretrain_teacher, solve_last_layer
from andon.methods.uninformed_students.pretraining import PatchTeacherRecipe, pretrain_patch_teacher
from andon.training.recipe import ImageStream, PretrainReport, Recipe, checkpoint_of
from andon.weights.state_dicts import check_state_dict

TEACHER = TeacherRecipe(steps=8, batch_size=1, window=2, statistics_images=2, learning_rate=1e-3, held_out=2)
CODEBOOK = CodebookRecipe(steps=12, batch_size=3, crop=32, image_size=48, codes=32, learning_rate=1e-3, held_out=4)
BACKBONE = BackboneRecipe(
    steps=24,
    batch_size=32,
    crop=32,
    image_size=48,
    last_stage=1,
    projection=32,
    learning_rate=1e-3,
    schedule="constant",
    held_out=0,
)
PATCH_TEACHER = PatchTeacherRecipe(
    steps=16,
    batch_size=4,
    receptive_field=17,
    extractor="andon-features",
    layers=("cells",),
    learning_rate=1e-3,
    metric=0.1,
    compact=0.001,
    held_out=3,
)
RECIPES: dict[str, tuple[Recipe, Callable[..., PretrainReport]]] = {
    "teacher": (TEACHER, pretrain_teacher),
    "patch teacher": (PATCH_TEACHER, pretrain_patch_teacher),
    "codebook": (CODEBOOK, pretrain_codebook),
    "backbone": (BACKBONE, pretrain_backbone),
    "backbone, dense": (
        BACKBONE.model_copy(update={"objective": "dense-contrast", "batch_size": 4, "learning_rate": 5e-3}),
        pretrain_backbone,
    ),
}


class KilledError(Exception):
    """Stands for a process that ends."""


def kill_at(step: int) -> Callable[[str, int, int], None]:
    def progress(stage: str, done: int, total: int) -> None:
        if "loss" in stage and done >= step:
            raise KilledError

    return progress


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 small rendered images."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(32):
        Image.fromarray(rendered_image(1, number, 48)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", list(RECIPES))
def test_loss_falls_and_a_killed_run_ends_the_same(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from andon.training import loop as training

    monkeypatch.setattr(training, "_PROGRESS_SECONDS", 0.0)
    recipe, pretrain = RECIPES[name]
    if name.startswith("backbone"):
        recipe = recipe.model_copy(update={"images": str(folder)})
    whole = pretrain(recipe, tmp_path / "whole.safetensors")
    curves = whole.training.curves
    loss = [value for _, value in curves.get("loss") or next(iter(curves.values()))]
    quarter = len(loss) // 4
    assert np.mean(loss[-quarter:]) < 0.8 * np.mean(loss[:quarter])

    output = tmp_path / "killed.safetensors"
    with pytest.raises(KilledError):
        pretrain(recipe, output, checkpoint_seconds=0, progress=kill_at(5))
    assert not output.exists()
    assert checkpoint_of(output).is_file()
    resumed = pretrain(recipe, output)
    assert resumed.training.resumed_at == 5
    assert resumed.sha256 == whole.sha256, "the same bytes"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.safetensors", "whole.safetensors"]

    with safe_open(output, framework="pt") as file:
        metadata = json.loads(file.metadata()["andon"])
    assert json.loads(metadata["options"])["steps"] == recipe.steps
    rendered = recipe.images == "rendered"
    assert metadata["images"] == ("rendered, seed 0" if rendered else f"folder {folder.name}, 32 images")
    assert (metadata["licence"] == "Apache-2.0") == rendered, "of a user's images only the user knows"
    with pytest.raises(ConfigError, match=r"killed\.safetensors: exists already"):
        pretrain(recipe, output)


def test_teacher_loads_and_says_how_much_it_explains(tmp_path: Path) -> None:
    report = pretrain_teacher(TEACHER, tmp_path / "teacher.safetensors", half=True)
    teacher, record = load_teacher("small", report.path)
    assert record.sha256 == report.sha256
    assert (tmp_path / "teacher.safetensors").stat().st_size < 5.5e6, "float16"

    # The figure again, the long way round.
    recipe = TEACHER
    stream = ImageStream(recipe)
    extractor = recipe.create_extractor()

    def normalise(image: Any) -> torch.Tensor:
        return Transform().normalise(image[None])

    train = [normalise(p) for p in stream.images(range(2), 512)]
    known = torch.cat([recipe.targets(extractor, p) for p in train]).double()
    mean, std = known.mean((0, 2, 3), keepdim=True), known.std((0, 2, 3), correction=0, keepdim=True)
    error = power = 0.0
    for image in stream.images(stream.held_out, 512):
        wanted = ((recipe.targets(extractor, normalise(image)).double() - mean) / std)[..., 4:60, 4:60]
        small = np.asarray(Image.fromarray(image).reduce(2))
        error += float((teacher(normalise(small)).double() - wanted).square().mean())
        power += float(wanted.square().mean())
    assert report.figures["explained variance"] == pytest.approx(1 - error / power, abs=2e-3)


def test_targets_of_several_stages_share_the_channels() -> None:
    extractor = create_extractor("resnet18", (1, 2), "random")
    batch = torch.randn((1, 3, 512, 512), generator=step_generator(0))
    targets = extractor_targets(extractor, batch, 96)
    first, second = extractor(batch)
    assert targets.shape == (1, 96, 64, 64)
    smooth = F.avg_pool2d(F.pad(second, (1, 1, 1, 1), mode="replicate"), 3, 1)[..., 1:-1, 1:-1]
    pooled = F.adaptive_avg_pool1d(smooth.permute(0, 2, 3, 1).flatten(0, 2), 48).view(62, 62, 48).permute(2, 0, 1)
    torch.testing.assert_close(targets[0, 48:, 1:-1, 1:-1], pooled, rtol=1e-4, atol=1e-4)
    assert not torch.equal(targets[:, :48], targets[:, 48:])
    assert first.shape[-1] == 128


def test_a_teacher_is_distilled_from_efficientnet_lite(tmp_path: Path) -> None:
    recipe = TEACHER.model_copy(update={"extractor": "efficientnet_lite0", "steps": 2})
    extractor = recipe.create_extractor()
    rows = extractor(torch.zeros((1, 3, 512, 512)))
    assert [tuple(row.shape[1:]) for row in rows] == [(40, 64, 64), (112, 32, 32)], "strides 8 and 16"
    report = pretrain_teacher(recipe, tmp_path / "teacher.safetensors")
    with safe_open(report.path, framework="pt") as file:
        assert extractor.weights.sha256 in file.metadata()["andon"], "what it was distilled from"
    teacher, _ = load_teacher("small", report.path)
    said = teacher(torch.randn((1, 3, 256, 256), generator=step_generator(0)))
    assert said.shape == (1, 384, 56, 56)
    assert torch.isfinite(said).all()


def test_codebook_fits_the_published_shapes(tmp_path: Path) -> None:
    recipe = CODEBOOK.model_copy(update={"codes": 4096, "steps": 2, "batch_size": 1})
    report = pretrain_codebook(recipe, tmp_path / "codebook.safetensors")
    with torch.device("meta"):
        check_state_dict(DiscreteLatentModel(), load_file(report.path), report.path)
    model, record = load_discrete_latent_model(report.path)
    assert record.source == "file"
    assert model(torch.rand((1, 3, 32, 32), generator=step_generator(1))).reconstruction.shape == (1, 3, 32, 32)
    assert set(report.figures) == {"PSNR", "PSNR of the mean colour", "codes used top", "codes used bottom"}


def test_backbone_is_what_extractors_take(tmp_path: Path) -> None:
    report = pretrain_backbone(BACKBONE.model_copy(update={"steps": 1, "batch_size": 2}), tmp_path / "b.safetensors")
    extractor = create_extractor("resnet18", ("layer1",), report.path)
    assert torch.isfinite(extractor(torch.zeros((1, 3, 64, 64)))[0]).all()


def test_barlow_twins_loss_by_loops() -> None:
    first, second = torch.randn((2, 6, 3), generator=step_generator(2)).double()
    a, b = ((x - x.mean(0)) / (x.std(0, correction=0) + 1e-5) for x in (first, second))
    losses = barlow_twins_losses(first, second, 0.1)
    invariance = redundancy = 0.0
    for i in range(3):
        for j in range(3):
            c = float(sum(a[n, i] * b[n, j] for n in range(6))) / 6
            invariance += (1 - c) ** 2 if i == j else 0
            redundancy += 0.1 * c**2 if i != j else 0
    assert float(losses["invariance"]) == pytest.approx(invariance / 3)
    assert float(losses["redundancy"]) == pytest.approx(redundancy / 3)


def test_views() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    first, second = two_views(image, 32, rng)
    assert first.shape == second.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, second)


def test_held_out_images_of_a_folder_are_seen_by_no_step(folder: Path) -> None:
    stream = ImageStream(CODEBOOK.model_copy(update={"images": str(folder), "held_out": 32}))
    assert list(stream.held_out) == [29, 30, 31], "a tenth"
    seen = [index for step in range(29) for index in stream.indices(step)]
    assert sorted(seen) == sorted(list(range(29)) * 3)


def test_few_images_leave_none_to_measure_on(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (40, 40), (9, 99, 199)).save(folder / "only.png")
    recipe = CODEBOOK.model_copy(update={"images": str(folder), "steps": 1})
    assert pretrain_codebook(recipe, tmp_path / "c.safetensors").figures == {}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TeacherRecipe, {"size": "large"}, "option 'size'"),
        (TeacherRecipe, {"window": 57}, "option 'window'"),
        (CodebookRecipe, {"crop": 60}, "crop 60 must be a multiple of 8"),
        (CodebookRecipe, {"crop": 512}, "at most image_size 256"),
        (BackboneRecipe, {"architecture": "vgg"}, "must be one of resnet18"),
        (Recipe, {"steps": 0}, "option 'steps'"),
    ],
)
def test_bad_options_are_named(kind: type[Recipe], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kind(**options)
    assert message in first_fault(caught.value, kind)
    assert kind(seed=3).seed == 3


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written as \.safetensors"):
        pretrain_codebook(CODEBOOK, tmp_path / "c.pth")
    with pytest.raises(AndonError, match="there is no such folder of images"):
        pretrain_codebook(CODEBOOK.model_copy(update={"images": str(tmp_path / "none")}), tmp_path / "c.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["small", "medium"])
def test_solved_last_layer_against_scikit_learn(size: PDNSize) -> None:
    network, _ = load_teacher(size, "random:1")
    # A network of few channels, so that the textbook form is quick.
    last = network.last_layer
    narrow = torch.nn.Conv2d(6, 5, last.kernel_size)
    network.add_module(f"conv{4 if size == 'small' else 6}", narrow)
    network.before_last_layer = lambda batch: batch  # type: ignore[method-assign]
    generator = step_generator(5, size)
    pairs = [
        (torch.randn((2, 6, 9, 8), generator=generator), torch.randn((2, 5, *grid), generator=generator))
        for grid in [(10 - narrow.kernel_size[0], 9 - narrow.kernel_size[1])] * 3
    ]
    solve_last_layer(network, iter(pairs), ridge=0.02)

    rows = np.concatenate([F.unfold(x, narrow.kernel_size).mT.flatten(0, 1).numpy() for x, _ in pairs])
    targets = np.concatenate([y.permute(0, 2, 3, 1).flatten(0, 2).numpy() for _, y in pairs])
    # The penalty is on weights alone, not on the bias, as in scikit-learn's.
    expected = Ridge(alpha=0.02 * float(np.mean((rows**2).sum(0)))).fit(rows.astype(float), targets.astype(float))
    np.testing.assert_allclose(narrow.weight.detach().flatten(1), expected.coef_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(narrow.bias.detach(), expected.intercept_, rtol=1e-3, atol=1e-5)


def test_the_last_layer_is_solved_after_training(folder: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    recipe = TEACHER.model_copy(update={"steps": 1, "closed_form": 1, "images": str(folder), "held_out": 0})
    solved = pretrain_teacher(
        recipe, tmp_path / "solved.safetensors", progress=lambda stage, *_: stages.append(stage.partition(" · ")[0])
    )
    assert list(dict.fromkeys(stages)) == ["channel statistics", "distillation", "last layer"]
    plain = pretrain_teacher(recipe.model_copy(update={"closed_form": 0}), tmp_path / "plain.safetensors")
    first, second = load_file(solved.path), load_file(plain.path)
    assert torch.equal(first["conv3.weight"], second["conv3.weight"])
    assert not torch.equal(first["conv4.weight"], second["conv4.weight"])
