"""``advise``: a task's character, its candidates measured, and a choice that does not go beyond its evidence."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import andon
from andon._tools.seeds import numpy_step_generator
from andon.core import AndonError, ConfigError, DataError, ImageArray, ProgressCallback, no_progress
from andon.data import ImageLike, Images, as_images
from andon.evaluation import Interval
from andon.inspection.advising.candidates import DEFAULT, Candidate, Content, content_of, usual_candidates
from andon.inspection.advising.characterise import Figure, characterise_features, characterise_pixels, drift
from andon.inspection.advising.evidence import (
    LEAST_DEFECTS,
    Choice,
    Evidence,
    auroc_interval,
    carried,
    choose,
    margins_over,
)
from andon.inspection.advising.measuring import Measured, OverBudgetError, Trial, make_trial, measure
from andon.inspection.advising.synthetic_defects import KINDS
from andon.inspection.calibration import DEFAULT_RATE, images_needed, least_rate, percent
from andon.methods import Detector, FeatureDetector

__all__ = ["DEFAULT_BUDGET", "LEAST_IMAGES", "MOST_IMAGES", "Advice", "advise", "drawn_images", "read_images"]

LEAST_IMAGES = 10
MOST_IMAGES = 100
"""Good images that are measured on; of more, so many are drawn."""
MOST_DEFECTS = 200
DEFAULT_BUDGET = 10.0
"""Minutes."""
_SIDE = 1024
"""Longest side in pixels to which images are brought before defects are pasted: bounds memory, and treats good and
defective images alike."""


@dataclass(frozen=True)
class Advice:
    """What was found.

    Attributes:
        candidate: the recommended one.
        choice: why it is that.
        worth_trying: a candidate that synthetic defects alone say is better than the default, beyond the error of that
            comparison, where there are too few real ones to choose by; None for none.
        evidence: what the choice stands on, on real or on synthetic defects.
        trial: the images that were measured on.
        content: where the images have something to them.
        measured: the candidates, the default first.
        skipped: labels of candidates that were not measured, and why.
        character: figures of the task.
        n_good: good images that were given.
        notes: on the number of images and on costs, in sentences.
        seed: of everything random.
        seconds: that it took.
    """

    candidate: Candidate
    choice: Choice
    worth_trying: Candidate | None
    evidence: Evidence
    trial: Trial = field(repr=False)
    content: Content
    measured: tuple[Measured, ...]
    skipped: tuple[tuple[str, str], ...]
    character: tuple[Figure, ...]
    n_good: int
    notes: tuple[str, ...]
    seed: int
    seconds: float

    @property
    def n_used(self) -> int:
        """Good images that were measured on."""
        return len(self.trial.good)

    @property
    def n_defective(self) -> int:
        """Real defects that were measured on."""
        return len(self.trial.real)

    def arguments(self, candidate: Candidate | None = None) -> str:
        """What ``andon train DIR --out FILE`` needs besides for a candidate, the recommended one unless said otherwise;
        "" for the default."""
        return (candidate or self.candidate).arguments(self.content)

    def synthetic_auroc(self, measured: Measured) -> Interval:
        """On the synthetic defects."""
        return auroc_interval(measured.on_synthetic(self.trial), seed=self.seed)

    def real_auroc(self, measured: Measured) -> Interval | None:
        """On the real defects; None without any."""
        found = measured.on_real()
        return None if found is None else auroc_interval(found, seed=self.seed)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return {
            "andon": andon.__version__,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "recommended": {
                "candidate": self.candidate.label,
                "arguments": self.arguments(),
                "differs_from_default": self.choice.changed,
                "worth_trying": None if self.worth_trying is None else self.worth_trying.label,
                "reasons": list(self.choice.reasons),
                "evidence": self.evidence.kind,
                "best_by_evidence": self.choice.best,
                "margins": {label: asdict(margin) for label, margin in self.choice.margins.items()},
            },
            "images": {
                "good": self.n_good,
                "measured_on": self.n_used,
                "defective": self.n_defective,
                "synthetic": len(self.trial.synthetic),
                "content_box": self.content._asdict(),
            },
            "character": [asdict(figure) for figure in self.character],
            "candidates": [self._row(measured) for measured in self.measured],
            "skipped": [{"candidate": label, "reason": reason} for label, reason in self.skipped],
            "synthetic_defects": [
                {"base": int(base), "kind": defect.kind, "share": defect.share}
                for base, defect in zip(self.trial.base, self.trial.synthetic, strict=True)
            ],
            "notes": list(self.notes),
        }

    def _row(self, measured: Measured) -> dict[str, Any]:
        real = self.real_auroc(measured)
        kinds = sorted({defect.kind for defect in self.trial.synthetic}, key=KINDS.index)
        return {
            "candidate": measured.candidate.label,
            "title": measured.title,
            "config": measured.config,
            "costs": asdict(measured.costs),
            "seconds": round(measured.seconds, 1),
            "auroc_synthetic": asdict(self.synthetic_auroc(measured)),
            "auroc_synthetic_by_kind": {kind: measured.on_synthetic(self.trial, kind).auroc for kind in kinds},
            "auroc_real": None if real is None else asdict(real),
            "scores_good": measured.good.tolist(),
            "scores_synthetic": measured.synthetic.tolist(),
            "scores_real": None if measured.real is None else measured.real.mean(axis=0).tolist(),
        }


def advise(
    good: Images | Iterable[ImageLike],
    defective: Images | Iterable[ImageLike] | None = None,
    *,
    candidates: Sequence[Candidate] | None = None,
    budget: float = DEFAULT_BUDGET,
    seed: int = 0,
    device: str = "cpu",
    progress: ProgressCallback = no_progress,
) -> Advice:
    """Characterises a task, measures candidates on it, and recommends one.

    Args:
        good: good images in shooting order, at least 10; of more than 100, 100 are drawn.
        defective: images with real defects, if there are any; of more than 200, 200 are drawn.
        candidates: what is measured beside the default; None for what a CPU learns quickly (``usual_candidates``).
        budget: minutes. The default is measured whatever it takes; what is not done when the time is up is left out,
            and named. All figures but costs depend on the seed alone, unless something is left out.
        seed: of everything random.
        device: that candidates are fitted on.

    Raises:
        AndonError: too few good images or unreadable ones, a budget that is none, or the default cannot be fitted.
    """
    begun = time.monotonic()
    all_good, all_bad = _checked(good, defective, budget)
    side = max([_SIDE, *(candidate.size or 0 for candidate in candidates or ())])
    images, sizes = read_images(drawn_images(all_good, MOST_IMAGES, seed, "good"), side, progress, "good images")
    defects, _ = read_images(drawn_images(all_bad, MOST_DEFECTS, seed, "defective"), side, progress, "defective images")
    content, trial = content_of(images), make_trial(images, defects, seed)
    chosen = usual_candidates(_usual(sizes), content) if candidates is None else candidates
    character = list(characterise_pixels(images, sizes))

    def seen(detector: Detector, watched: Images) -> None:
        if isinstance(detector, FeatureDetector):
            character.extend(characterise_features(detector, watched, seed))

    measured, skipped = _measured(chosen, content, trial, seed, begun + 60 * budget, device, progress, seen)
    character.append(drift(measured[0].good, "score drift", "of the default's scores", "the default's scores"))
    synthetic = _evidence(measured, trial, real=False)
    evidence = _evidence(measured, trial, real=True) if defects else synthetic
    choice = choose(evidence, DEFAULT.label, seed=seed)
    by_label = {m.candidate.label: m.candidate for m in measured}
    return Advice(
        candidate=by_label[choice.label],
        choice=choice,
        worth_trying=by_label.get(_hinted(evidence, synthetic, seed)),
        evidence=evidence,
        trial=trial,
        content=content,
        measured=tuple(measured),
        skipped=tuple(skipped),
        character=tuple(character),
        n_good=len(all_good),
        notes=_notes(len(all_good), character, choice, measured, evidence),
        seed=seed,
        seconds=time.monotonic() - begun,
    )


def _checked(
    good: Images | Iterable[ImageLike], defective: Images | Iterable[ImageLike] | None, budget: float
) -> tuple[Images, Images]:
    """Good and defective images; DataError and ConfigError as ``advise`` raises them."""
    if not budget > 0:
        raise ConfigError(f"budget {budget:g}: minutes, more than 0")
    images = as_images(good)
    if len(images) < LEAST_IMAGES:
        raise DataError(
            f"{len(images)} good image{'s are' if len(images) != 1 else ' is'} too few to advise on; "
            f"{LEAST_IMAGES} are the least, and 40 or more say much more"
        )
    return images, Images(()) if defective is None else as_images(defective)


def drawn_images(images: Images, most: int, seed: int, what: str) -> Images:
    """At most so many, drawn from all, in their order."""
    if len(images) <= most:
        return images
    chosen = numpy_step_generator(seed, "advise", what).choice(len(images), most, replace=False)
    return images.subset(sorted(int(i) for i in chosen))


def read_images(
    images: Images, side: int, progress: ProgressCallback, stage: str
) -> tuple[list[ImageArray], list[tuple[int, int]]]:
    """Pixels, the longest side at most ``side``, and (height, width) before that."""
    found, sizes = [], []
    for index in range(len(images)):
        image = images.image(index)
        height, width = image.shape[:2]
        if min(height, width) < 16:
            raise DataError(f"{images.name(index)}: {width} × {height} pixels are too few; 16 either way are the least")
        sizes.append((height, width))
        if max(height, width) > side:
            scale = side / max(height, width)
            smaller = max(16, round(width * scale)), max(16, round(height * scale))
            image = np.asarray(cv2.resize(image, smaller, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        found.append(image)
        progress(stage, index + 1, len(images))
    return found, sizes


def _usual(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return max(sorted(set(sizes)), key=sizes.count)


def _measured(
    candidates: Sequence[Candidate],
    content: Content,
    trial: Trial,
    seed: int,
    deadline: float,
    device: str,
    progress: ProgressCallback,
    seen: Callable[[Detector, Images], None],
) -> tuple[list[Measured], list[tuple[str, str]]]:
    """The default first, whatever it takes; then the others, in order, as far as the time goes."""
    measured: list[Measured] = []
    skipped: list[tuple[str, str]] = []
    for candidate in dict.fromkeys((DEFAULT, *candidates)):
        first = candidate == DEFAULT
        if not first and time.monotonic() > deadline:
            skipped.append((candidate.label, "was not begun when the time was up"))
            continue
        with tempfile.TemporaryDirectory(prefix="andon-") as folder:
            try:
                found = measure(
                    candidate,
                    content,
                    trial,
                    Path(folder),
                    seed=seed,
                    deadline=None if first else deadline,
                    device=device,
                    progress=progress,
                    seen=seen if first else None,
                )
            except (OverBudgetError, AndonError) as error:
                if first:
                    raise
                skipped.append((candidate.label, str(error)))
                continue
        measured.append(found)
    return measured, skipped


def _evidence(measured: Sequence[Measured], trial: Trial, *, real: bool) -> Evidence:
    if not real:
        pasted = {m.candidate.label: m.on_synthetic(trial) for m in measured}
        return Evidence("synthetic", len(trial.good), len(trial.synthetic), pasted)
    found = {m.candidate.label: won for m in measured if (won := m.on_real()) is not None}
    return Evidence("real", len(trial.good), len(trial.real), found)


def _hinted(evidence: Evidence, synthetic: Evidence, seed: int) -> str:
    """Label of the candidate that synthetic defects point to where real ones are too few; "" for none."""
    if evidence.kind == "real" and evidence.defective >= LEAST_DEFECTS:
        return ""
    label = carried(margins_over(synthetic, DEFAULT.label, seed=seed), DEFAULT.label)
    return "" if label == DEFAULT.label else label


def _notes(
    n: int, character: Sequence[Figure], choice: Choice, measured: Sequence[Measured], evidence: Evidence
) -> tuple[str, ...]:
    """What the number of images can promise, whether there was drift, and what is cheaper and no worse."""
    needed, least, usual = images_needed(DEFAULT_RATE), percent(least_rate(n)), percent(DEFAULT_RATE)
    enough = f", so {usual} as well" if n >= needed else f"; {usual} needs {needed}"
    notes = [f"{n} good images can promise a false-alarm rate down to {least}{enough}"]
    drifting = [figure.name for figure in character if figure.drifts]
    if drifting:
        notes.append(
            f"drift was seen in the shooting order ({', '.join(drifting)}): a promise holds only for what the images "
            "cover, so add good images of other days (andon train --second-day tests it)"
        )
    else:
        notes.append("no drift was seen in the shooting order; other days, lots and lights may differ all the same")
    if evidence.kind == "real" and not choice.changed:
        default = measured[0].costs.milliseconds
        cheap = [
            m.candidate.label
            for m in measured[1:]
            if choice.margins[m.candidate.label].high >= 0 and 3 * m.costs.milliseconds <= default
        ]
        if cheap:
            notes.append(
                f"not told apart from the default by this evidence, at a third of its time or less: {', '.join(cheap)}"
            )
    return tuple(notes)
