"""How good are the anomaly maps that some other software made? Exact figures, without any of Andon's methods.

    python examples/judge_my_maps.py MAPS DATA

A map lies in ``MAPS/<category>/<defect type>/<image>`` (``.npy``, ``.tiff`` or ``.png``, of any size; higher = more
anomalous) for the image ``DATA/<category>/test/<defect type>/<image>``. Image scores are the maxima of the maps.
"""

from __future__ import annotations

import sys
from pathlib import Path

from andon import load_dataset
from andon.benchmark import evaluate_maps


def main(maps: Path, data: Path) -> None:
    report = evaluate_maps(maps, load_dataset(data), fpr_limits=(0.05, 0.3))
    for category, result in report.results.items():
        image, localisation = result.evaluation.image, result.evaluation.localisation
        print(f"{category}: image AUROC {image.auroc:.3f}")
        for limit, value in localisation.auspro.items() if localisation else ():  # none without masks
            print(f"{category}: AUsPRO to a pixel FPR of {limit}: {value:.3f}")
    for category, reason in report.refused.items():
        print(f"{category}: not judged: {reason}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
