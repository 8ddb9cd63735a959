"""An inspector that learns more good images: what it would be, and what that would change, before it is accepted.

The new images are scored before they are learned, so their scores are as good as those of the calibration: shot later
than all others, they are one more block that the scoring detector did not see. The scores of the earlier images are
kept, as the file has no images; where the images are given, each block of them is scored again by what the other blocks
and the new images give.

What is dangerous in it is an image that is not good: a memory that holds a defect passes it for ever. So an image that
lies far above all good ones is named and left out, and recorded defects show what the update would let through.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from andon.core import ConfigError, DataError, ImageArray, ProgressCallback, Sample, no_progress
from andon.data import ArrayCache, ImageLike, Images, as_images
from andon.inspection.alignment import Located, aligned_samples
from andon.inspection.calibration import ConformalCalibration, Thresholds, percent
from andon.inspection.cross_fitting import held_out, readings_of
from andon.inspection.file import TrainingImage, Update
from andon.inspection.inspector import Inspector, VerdictName, promise
from andon.inspection.regions import Readings
from andon.methods import Detector, FitRun, Grows, detector_with

__all__ = ["LeftOut", "Proposal", "Rejudged", "propose_update"]

_FAR = 2.0
"""A new image may lie this many times as far above the good images' median as the highest of them."""


class LeftOut(NamedTuple):
    """A new image that is not learned, and why."""

    name: str
    reason: str


class Rejudged(NamedTuple):
    """An image's score and verdict by the earlier inspector and by the new one."""

    name: str
    score: float
    verdict: VerdictName
    new_score: float
    new_verdict: VerdictName


@dataclass(frozen=True)
class Proposal:
    """An update, and what it would change.

    Attributes:
        inspector: as it would be.
        earlier: as it is.
        added: the new images that are learned; they were scored before that, and the new detector knows them.
        left_out: the new images that are not.
        calibration: the good images of the earlier calibration, by the scores of each calibration.
        defects: recorded defects, where they were given.
        notes: what a reader has to know.
    """

    inspector: Inspector
    earlier: Inspector
    added: tuple[Rejudged, ...]
    left_out: tuple[LeftOut, ...]
    calibration: tuple[Rejudged, ...]
    defects: tuple[Rejudged, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def parent(self) -> str:
        """Fingerprint of the earlier one's file."""
        return self.inspector.provenance.updates[-1].parent

    @property
    def changed(self) -> tuple[Rejudged, ...]:
        """Good images of the earlier calibration whose verdict changes."""
        return tuple(image for image in self.calibration if image.verdict != image.new_verdict)

    @property
    def let_through(self) -> tuple[Rejudged, ...]:
        """Recorded defects that were noticed, and would pass."""
        return tuple(d for d in self.defects if d.verdict != "pass" and d.new_verdict == "pass")

    def sentences(self) -> tuple[str, ...]:
        """What the update does, a sentence each, warnings last."""
        old, new = self.earlier, self.inspector
        verb = "added" if self.inspector.provenance.updates[-1].learned else "scored, not learned"
        lines = [f"{len(self.added)} good images {verb}; {len(self.left_out)} left out"]
        lines += [f"new images ({len(self.added)}): {_change(self.added)}"] if self.added else []
        lines.append(f"earlier good images ({len(self.calibration)}): {_change(self.calibration)}")
        banded = old.thresholds.look < old.thresholds.stop
        for what in ("look", "stop") if banded else ("stop",):
            before, after = getattr(old.thresholds, what), getattr(new.thresholds, what)
            rates = [percent(i.calibration.rate_of(t)) for i, t in ((old, before), (new, after))]
            lines.append(f"threshold of {what}: {before:.4g} → {after:.4g}, promises {rates[0]} → {rates[1]}")
        lines += [f"before: {line}" for line in promise(old.calibration, old.thresholds)]
        lines += [f"after: {line}" for line in promise(new.calibration, new.thresholds)]
        lines += self.notes
        if self.defects:
            lines.append(f"recorded defects ({len(self.defects)}): {_change(self.defects)}")
        return (*lines, *self.warnings())

    def warnings(self) -> tuple[str, ...]:
        """Recorded defects that the update would let through: a wrongly labelled image among the new ones?"""
        return tuple(
            f"the defect {d.name} would PASS (score {d.score:.4g} → {d.new_score:.4g}, was {d.verdict}): "
            "is one of the new images no good one? What is learned as good passes for ever"
            for d in self.let_through
        )


def _change(images: Sequence[Rejudged]) -> str:
    """ "2 stop, 58 pass → 60 pass"."""

    def counted(verdicts: Iterable[VerdictName]) -> str:
        counts = Counter(verdicts)
        order: tuple[VerdictName, ...] = ("stop", "look", "part not found", "pass")
        return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])

    return f"{counted(i.verdict for i in images)} → {counted(i.new_verdict for i in images)}"


def propose_update(
    inspector: Inspector,
    good: Images | Iterable[ImageLike],
    *,
    names: Sequence[str] | None = None,
    training: Images | Iterable[ImageLike] | None = None,
    defective: Images | Iterable[ImageLike] | None = None,
    recalibrate: bool = False,
    keep_thresholds: bool = False,
    include_outliers: bool = False,
    progress: ProgressCallback = no_progress,
) -> Proposal:
    """An inspector with more good images, without training again; nothing is written.

    Args:
        inspector: as it is.
        good: good images that it has not learned from, in shooting order. Those that were learned from already, are of
            one colour, or in which the part is not found are left out and named.
        names: what to call them; the files' names by default.
        training: the images that it learned from, to score them again; others among them do no harm.
        defective: recorded defects, to see what the update would let through.
        recalibrate: the detector stays as it is, only thresholds follow the new images.
        keep_thresholds: thresholds keep their values, not the rates that they promise.
        include_outliers: learn even images that lie far above all good ones.
        progress: see ``Method.fit``.

    Raises:
        ConfigError: the method must be trained again, or options that do not go together.
        DataError: no image is left to add, one that cannot be read or has another shape, or training images that are
            missing.
    """
    if recalibrate and training is not None:
        raise ConfigError("the images that were learned from are of no use where the detector stays as it is")
    if not recalibrate:
        _check_grows(inspector)
    with tempfile.TemporaryDirectory(prefix="andon-") as folder:
        cache = ArrayCache(Path(folder))
        new = _sifted(inspector, Images(as_images(good).items, cache), names, include_outliers)
        run = FitRun(inspector.detector.device, progress)
        seed = inspector.provenance.seed
        detector = inspector.detector if recalibrate else _grown(inspector.detector, new.images, seed, run)
        old = _readings(inspector.calibration)
        if training is not None:
            old = _scored_again(inspector, Images(as_images(training).items, cache), new.images, run)
        rates = (None, None) if keep_thresholds else _promised(inspector)
        found = _updated(inspector, detector, _joined(inspector.calibration, old, new), new.named, rates)
        after = readings_of(detector, new.images, inspector.regions).scores
    earlier = [image.name for image in inspector.provenance.calibrated]
    return Proposal(
        found,
        inspector,
        _rejudged(new.names, new.readings.scores, inspector, after, found),
        new.left_out,
        _rejudged(earlier, inspector.calibration.scores, inspector, old.scores, found),
        _defects(inspector, found, as_images(defective if defective is not None else ()), progress),
        _notes(inspector, recalibrate, training is not None, rates),
    )


def _updated(
    inspector: Inspector,
    detector: Detector,
    calibration: ConformalCalibration,
    images: tuple[TrainingImage, ...],
    rates: tuple[float | None, float | None],
) -> Inspector:
    """The inspector with another calibration, and with another detector where the images were learned."""
    learned = detector is not inspector.detector
    update = Update(
        parent=inspector.file().fingerprint,
        images=images,
        learned=learned,
        rates=rates,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return replace(
        inspector,
        detector=detector,
        calibration=calibration,
        thresholds=_thresholds(inspector.thresholds, calibration, rates),
        provenance=inspector.provenance.model_copy(update={"updates": (*inspector.provenance.updates, update)}),
        second_day=None if learned else inspector.second_day,
    )


def _check_grows(inspector: Inspector) -> None:
    detector, provenance = inspector.detector, inspector.provenance
    if not isinstance(detector, Grows):
        raise ConfigError(
            f"{detector.title} cannot learn more images without being trained again: andon train DIR "
            f"{_options(inspector)} --out FILE, DIR with all good images; or andon update "
            "--recalibrate, which moves thresholds only"
        )
    if detector.report.n_train != len(provenance.learned):
        raise ConfigError(
            "the file does not say how many images its detector stands on (versions of one image were learned from); "
            "train again with all good images, or andon update --recalibrate"
        )


def _grown(detector: Detector, images: Images, seed: int, run: FitRun) -> Detector:
    found = detector_with(detector, images, seed=seed, run=run)
    assert found is not None  # that it grows was checked
    return found


def _options(inspector: Inspector) -> str:
    """The method as ``andon train`` is told it: its name, and the options that are not its default's."""
    method, provenance = inspector.detector.method, inspector.provenance
    usual = dict(_flat(method.Config(**method.presets.get("default", {})).model_dump(mode="json")))
    differ = {name: value for name, value in _flat(provenance.config) if usual.get(name, ...) != value}
    told = [f"--set {shlex.quote(f'{name}={json.dumps(value)}')}" for name, value in differ.items()]
    return " ".join([f"--method {shlex.quote(provenance.method)}", f"--seed {provenance.seed}", *told])


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


# The new images


class _New(NamedTuple):
    """The new images that are to be learned, as the detector gets them, and their scores before that."""

    images: Images
    names: tuple[str, ...]
    named: tuple[TrainingImage, ...]
    readings: Readings
    left_out: tuple[LeftOut, ...]


def _sifted(inspector: Inspector, images: Images, names: Sequence[str] | None, include_outliers: bool) -> _New:
    if len(images) == 0:
        raise DataError("there are no new images")
    if names is None:
        names = [images.name(index) for index in range(len(images))]
    if len(names) != len(images):
        raise ValueError(f"{len(names)} names for {len(images)} images")
    left_out: list[LeftOut] = []
    fresh = _fresh(inspector, images, names, left_out)
    images, names = images.subset(fresh), [names[index] for index in fresh]
    seen, kept = _in_frame(inspector, images, names, left_out)
    coloured = [index for index in range(len(seen)) if not inspector.one_colour(seen, index)]
    dead = sorted(set(range(len(seen))) - set(coloured))
    left_out += [LeftOut(names[kept[index]], "it is of one colour: a dead camera?") for index in dead]
    seen, kept = seen.subset(coloured), [kept[index] for index in coloured]
    if not kept:
        raise DataError(f"no image is left to add: {_told(left_out)}")
    readings = readings_of(inspector.detector, seen, inspector.regions)
    limit, near = _limit(inspector.calibration), []
    for index, score in enumerate(readings.scores.tolist()):
        if include_outliers or score <= limit:
            near.append(index)
        else:
            left_out.append(
                LeftOut(names[kept[index]], f"its score {score:.4g} is far above all good ones: is it good?")
            )
    if not near:
        raise DataError(
            f"no image is left to add: {_told(left_out)} (andon update with --include-outliers learns it all the same)"
        )
    chosen = [kept[index] for index in near]
    return _New(
        seen.subset(near),
        tuple(names[index] for index in chosen),
        tuple(TrainingImage(name=Path(names[i]).name, fingerprint=images.fingerprint(i)) for i in chosen),
        Readings(*(column[near] if len(column) else column for column in readings)),
        tuple(left_out),
    )


def _told(left_out: Sequence[LeftOut]) -> str:
    more = f", and {len(left_out) - 1} more" if len(left_out) > 1 else ""
    return f"{left_out[0].name}: {left_out[0].reason}{more}"


def _limit(calibration: ConformalCalibration) -> float:
    """The score above which an image is no good one that the earlier ones let expect."""
    median, highest = float(np.median(calibration.scores)), float(calibration.scores.max())
    return median + _FAR * (highest - median)


def _fresh(inspector: Inspector, images: Images, names: Sequence[str], left_out: list[LeftOut]) -> list[int]:
    """Which images the calibration does not know, each once."""
    known = {image.fingerprint: "it is in the file already" for image in inspector.provenance.calibrated}
    fresh = []
    for index, name in enumerate(names):
        content = images.fingerprint(index)
        if content in known:
            left_out.append(LeftOut(name, known[content]))
            continue
        known[content] = f"it is the same as {name}"
        fresh.append(index)
    return fresh


def _in_frame(
    inspector: Inspector, images: Images, names: Sequence[str], left_out: list[LeftOut]
) -> tuple[Images, list[int]]:
    """The images as the detector gets them, and which they are; those without the part are left out."""
    found: list[int] = []
    located: list[Located] = []
    for index, name in enumerate(names):
        pixels: ImageArray = images.image(index)
        inspector.check_shape((pixels.shape[0], pixels.shape[1]), name)
        if inspector.alignment is not None:
            place = inspector.alignment.locate(pixels)
            if not inspector.alignment.found(place):
                left_out.append(LeftOut(name, f"part not found (correlation {place.correlation:.2f})"))
                continue
            located.append(place)
        found.append(index)
    images = images.subset(found)
    return images if inspector.alignment is None else aligned_samples(images, inspector.alignment, located), found


# Calibration


def _readings(calibration: ConformalCalibration) -> Readings:
    return Readings(calibration.scores, calibration.map_maxima, calibration.map_medians)


def _scored_again(inspector: Inspector, training: Images, new: Images, run: FitRun) -> Readings:
    """The calibration's readings, those of the images that were learned from by what the other blocks and the new
    images give."""
    images, lost = _learned_of(inspector, training), list[LeftOut]()
    images, _ = _in_frame(inspector, images, [images.name(index) for index in range(len(images))], lost)
    if lost:
        raise DataError(f"{lost[0].name}: {lost[0].reason}, though it was learned from")
    detector, seed = inspector.detector, inspector.provenance.seed
    parts = []
    for block, without, _ in held_out(detector.method, detector, images, seed=seed, run=run):
        parts.append(readings_of(_grown(without, new, seed, FitRun()), images.subset(block), inspector.regions))
        run.progress("calibration", block.stop, len(images))
    again = [np.concatenate(column) for column in zip(*parts, strict=True)]
    updates = inspector.provenance.updates
    learned = [True] * len(inspector.provenance.images) + [u.learned for u in updates for _ in u.images]
    columns = [np.array(column) for column in _readings(inspector.calibration)]
    for column, values in zip(columns, again, strict=True):
        if len(column):
            column[np.flatnonzero(learned)] = values
    return Readings(*columns)


def _learned_of(inspector: Inspector, training: Images) -> Images:
    """Of images those that were learned from, in their order."""
    places = {training.fingerprint(index): index for index in range(len(training))}
    learned = inspector.provenance.learned
    missing = [image.name for image in learned if image.fingerprint not in places]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(learned)} images that were learned from are not among the training images "
            f"(the first is {missing[0]}); give all of them as they were, or none"
        )
    return training.subset([places[image.fingerprint] for image in learned])


def _joined(calibration: ConformalCalibration, old: Readings, new: _New) -> ConformalCalibration:
    scores, maxima, medians = (np.concatenate(pair) for pair in zip(old, new.readings, strict=True))
    how = f"{calibration.how}; {len(new.names)} more, scored before they were added"
    return ConformalCalibration(scores, maxima, medians, how)


def _promised(inspector: Inspector) -> tuple[float | None, float | None]:
    """Rates of look and stop that the thresholds keep: as the last update wanted them, or as they are; None for a
    threshold that is no score of the calibration, as it was given by value."""
    calibration, updates = inspector.calibration, inspector.provenance.updates
    wanted = updates[-1].rates if updates else (None, None)

    def rate(threshold: float, before: float | None) -> float | None:
        if before is not None and calibration.threshold(before) == threshold:
            return before  # k / (n + 1) rounds down; update by update that would add up
        return calibration.rate_of(threshold) if bool((calibration.scores == threshold).any()) else None

    return rate(inspector.thresholds.look, wanted[0]), rate(inspector.thresholds.stop, wanted[1])


def _thresholds(
    now: Thresholds, calibration: ConformalCalibration, rates: tuple[float | None, float | None]
) -> Thresholds:
    stop = now.stop if rates[1] is None else calibration.threshold(rates[1])
    if now.look == now.stop:
        return Thresholds(stop, stop)
    look = now.look if rates[0] is None else calibration.threshold(rates[0])
    return Thresholds(min(look, stop), stop)


# What changes


def _rejudged(
    names: Sequence[str],
    scores: np.ndarray[tuple[int], np.dtype[np.float64]],
    earlier: Inspector,
    new_scores: np.ndarray[tuple[int], np.dtype[np.float64]],
    inspector: Inspector,
) -> tuple[Rejudged, ...]:
    rows = zip(names, scores.tolist(), new_scores.tolist(), strict=True)
    return tuple(
        Rejudged(name, score, earlier.thresholds.decide(score), new, inspector.thresholds.decide(new))
        for name, score, new in rows
    )


def _defects(
    earlier: Inspector, inspector: Inspector, images: Images, progress: ProgressCallback
) -> tuple[Rejudged, ...]:
    found = []
    for index, item in enumerate(images.items):
        before, after = earlier.inspect(item), inspector.inspect(item)
        name = str(item.path) if isinstance(item, Sample) else images.name(index)
        found.append(Rejudged(name, before.score, before.verdict, after.score, after.verdict))
        progress("defects", index + 1, len(images))
    return tuple(found)


def _notes(
    inspector: Inspector, recalibrate: bool, again: bool, rates: tuple[float | None, float | None]
) -> tuple[str, ...]:
    notes = []
    if recalibrate:
        notes.append("the detector stays as it is: only thresholds follow the new images")
    elif not again:
        notes.append(
            "the scores of the earlier images are those of the earlier detector, as the file has no images; "
            "andon update with --training DIR scores them again"
        )
    by_value = [name for name, rate in zip(("look", "stop"), rates, strict=True) if rate is None]
    if by_value:
        notes.append(f"{' and '.join(by_value)}: the threshold keeps its value, and not a rate")
    if inspector.second_day is not None and not recalibrate:
        notes.append("the scores of another day were the earlier detector's, and are dropped")
    return tuple(notes)
