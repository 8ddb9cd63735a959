"""The one training loop: stages, schedules, losses, checkpoints, and what pre-training recipes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.training.curves import LossCurve
    from andon.training.loop import TrainingOptions, TrainingReport, train
    from andon.training.losses import focal_loss, ssim
    from andon.training.recipe import PretrainOptions, PretrainReport, Recipe, RecipeRun, RecipeStage, run_recipe
    from andon.training.schedules import SampleOrder, Schedule, cosine_schedule, step_decay, steps_of_epochs
    from andon.training.stage import Stage, train_stage

__all__ = [
    "LossCurve",
    "PretrainOptions",
    "PretrainReport",
    "Recipe",
    "RecipeRun",
    "RecipeStage",
    "SampleOrder",
    "Schedule",
    "Stage",
    "TrainingOptions",
    "TrainingReport",
    "cosine_schedule",
    "focal_loss",
    "run_recipe",
    "ssim",
    "step_decay",
    "steps_of_epochs",
    "train",
    "train_stage",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.training.curves": "LossCurve",
        "andon.training.loop": "TrainingOptions TrainingReport train",
        "andon.training.losses": "focal_loss ssim",
        "andon.training.recipe": "PretrainOptions PretrainReport Recipe RecipeRun RecipeStage run_recipe",
        "andon.training.schedules": "SampleOrder Schedule cosine_schedule step_decay steps_of_epochs",
        "andon.training.stage": "Stage train_stage",
    },
)
