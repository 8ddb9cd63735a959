"""Recipes for every learned part that a method needs: backbone, EfficientAD's teacher, DSR's codebook."""

from andon.nn.pretrain.backbone import BackboneRecipe, pretrain_backbone
from andon.nn.pretrain.codebook import CodebookRecipe, pretrain_codebook
from andon.nn.pretrain.recipe import PretrainReport, Recipe, create_recipe
from andon.nn.pretrain.teacher import TeacherRecipe, pretrain_teacher

__all__ = [
    "BackboneRecipe",
    "CodebookRecipe",
    "PretrainReport",
    "Recipe",
    "TeacherRecipe",
    "create_recipe",
    "pretrain_backbone",
    "pretrain_codebook",
    "pretrain_teacher",
]
