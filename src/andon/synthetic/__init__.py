"""The synthetic line: six rendered inspection tasks in AutoVI's layout.

``render`` gives one image with its ground truth, ``generate`` writes a data set.
"""

from andon.synthetic.generation import MANIFEST, counts_of, generate, plan_images
from andon.synthetic.knobs import Counts, Knobs
from andon.synthetic.rendering import TASKS, RenderedScene, defect_types, mode_of, render, seen_at

__all__ = [
    "MANIFEST",
    "TASKS",
    "Counts",
    "Knobs",
    "RenderedScene",
    "counts_of",
    "defect_types",
    "generate",
    "mode_of",
    "plan_images",
    "render",
    "seen_at",
]
