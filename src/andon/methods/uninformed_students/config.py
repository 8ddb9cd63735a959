"""Uninformed Students' hyperparameters."""

from __future__ import annotations

from pydantic import Field

from andon.methods._patch_teachers import PatchTeacherConfig

__all__ = ["UninformedStudentsConfig"]


class UninformedStudentsConfig(PatchTeacherConfig):
    """Configuration; the defaults are the paper's. Besides those of ``PatchTeacherConfig``:

    Attributes:
        students: M, of each receptive field.
        student_width: factor on the channels of the students' layers before their last; 1 in the paper.
    """

    students: int = Field(3, ge=1)
    student_width: float = Field(1.0, gt=0)
