"""Uninformed Students: student–teacher anomaly detection with discriminative latent embeddings.

Bergmann, Fauser, Sattlegger & Steger, CVPR 2020; arXiv 1911.02357. A frozen teacher describes the patch around every
pixel; an ensemble of students learns on good images to say the same of the same patch. Where a patch is unlike all
those, the students are wrong and disagree. The authors have published no code.
"""

from andon.methods.uninformed_students.config import UninformedStudentsConfig
from andon.methods.uninformed_students.method import UninformedStudents, UninformedStudentsDetector

__all__ = ["UninformedStudents", "UninformedStudentsConfig", "UninformedStudentsDetector"]
