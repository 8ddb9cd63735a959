"""``andon pretrain``: learned parts from your own images or rendered ones. Options are those of the recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from andon.cli._options import Device, command_group, import_object, model_command, options_model
from andon.cli._progress import stage_bars
from andon.cli._show import duration, say

if TYPE_CHECKING:
    from andon.training import PretrainReport

__all__ = ["RECIPES", "app"]

app = command_group("Make learned parts yourself, on your own images or rendered ones.")

RECIPES = {
    "backbone": (
        "andon.features.pretraining:BackboneRecipe",
        "andon.features.pretraining:pretrain_backbone",
        "A ResNet without labels.",
    ),
    "efficientad-teacher": (
        "andon.methods.efficientad.pretraining:TeacherRecipe",
        "andon.methods.efficientad.pretraining:pretrain_teacher",
        "EfficientAD's teacher: a small network imitates an extractor.",
    ),
    "uninformed-students-teacher": (
        "andon.methods.uninformed_students.pretraining:PatchTeacherRecipe",
        "andon.methods.uninformed_students.pretraining:pretrain_patch_teacher",
        "A patch teacher of Uninformed Students and GCAD: a small network that describes patches.",
    ),
    "dsr-codebook": (
        "andon.methods.dsr.pretraining:CodebookRecipe",
        "andon.methods.dsr.pretraining:pretrain_codebook",
        "DSR's discrete latent model (VQ-VAE-2).",
    ),
}
"""By command: the recipe's model, what follows it, and what comes of it; by name, because they import torch."""

FLAGS: Mapping[str, Sequence[str]] = {"images": ("--images", "-p"), "layers": ("--layer",)}


def _add_command(name: str, recipe: str, function: str, text: str) -> None:
    text = f"{text} Run it again after an interruption: it goes on."

    @app.command(name, cls=model_command(recipe, FLAGS), help=text)
    def pretrain(
        context: typer.Context,
        file: Annotated[Path, typer.Argument(metavar="FILE", help="The .safetensors file to write.")],
        device: Device = "cpu",
        half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    ) -> None:
        options = options_model(context, import_object(recipe))
        with stage_bars() as progress:
            report = import_object(function)(
                options, file, device=device, overwrite=overwrite, half=half, progress=progress
            )
        _print_report(report)


for _name, (_recipe, _function, _text) in RECIPES.items():
    _add_command(_name, _recipe, _function, _text)


def _print_report(report: PretrainReport) -> None:
    training = report.training
    resumed = f" (resumed at step {training.resumed_at})" if training.resumed_at else ""
    say(f"{training.steps} steps in {duration(training.seconds)}{resumed}, loss {training.final_loss:.4g}")
    for name, value in report.figures.items():
        say(f"{name}: {value:.4g}")
    say(f"wrote {report.path}, SHA-256 {report.sha256}")
