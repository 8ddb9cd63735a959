"""The synthetic line: six rendered inspection tasks in AutoVI's layout.

``render`` gives one picture with its ground truth, ``generate`` writes a data set.
"""

from andon.data.synthetic.generation import MANIFEST, generate, plan_pictures
from andon.data.synthetic.knobs import Counts, Knobs
from andon.data.synthetic.rendering import TASKS, RenderedScene, defect_types, render

__all__ = [
    "MANIFEST",
    "TASKS",
    "Counts",
    "Knobs",
    "RenderedScene",
    "defect_types",
    "generate",
    "plan_pictures",
    "render",
]
