"""Late fusion: rows of the tables computed from what is in a store, without running anything again.

Each member's scores are standardised by what good images of the training set score that its model did not see (the
cross-fitted scores of the calibration, ``Protocol.calibration_folds``), z = (s - mean) / deviation, and the ensemble's
score is the mean of its members' z. Maps are standardised likewise, by the mean and deviation of all values of the maps
of the same images, brought to the image's size and place, and averaged; where a member does not see a pixel (outside of
its crop) the mean is over those that do. No test image is looked at for any of it.

Members are matched by seed. One without randomness ran once and stands for every seed. Where something is missing the
ensemble has no row, or no localisation, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.benchmark.gallery import GalleryMaps
from andon.benchmark.record import ExperimentRecord, ExperimentSpec
from andon.benchmark.store import Store
from andon.core import Category, ConfigError, Dataset, StoreError, listed
from andon.data import sample_key
from andon.evaluation import (
    CategoryResult,
    EvaluationArrays,
    LocalisationAccumulator,
    category_result,
    place_map,
)

__all__ = ["FUSION", "Fused", "FusedExperiment", "fuse", "fused_map", "standardised"]

FUSION = "late-fusion"
"""The method's name in the records of ensembles."""


@dataclass(frozen=True)
class FusedExperiment:
    """An ensemble on one category with one seed.

    Attributes:
        record: as of an experiment; its spec's config names the members, its notes their experiments' ids.
        arrays: scores and curves, as ``Store.arrays`` gives them.
    """

    record: ExperimentRecord
    arrays: EvaluationArrays


@dataclass(frozen=True)
class Fused:
    """What ``fuse`` gives.

    Attributes:
        experiments: in the store's order of categories, then seeds.
        missing: why there is no row for a category and seed, or no localisation in it; one line each.
    """

    experiments: tuple[FusedExperiment, ...] = ()
    missing: tuple[str, ...] = ()

    def records(self) -> list[ExperimentRecord]:
        """To be put behind ``Store.records()`` for the tables."""
        return [e.record for e in self.experiments]

    def arrays(self) -> dict[str, EvaluationArrays]:
        """By the record's id."""
        return {e.record.id: e.arrays for e in self.experiments}


@dataclass(frozen=True)
class _Member:
    record: ExperimentRecord
    arrays: EvaluationArrays


@dataclass
class _Group:
    """The experiments of the wanted methods on one category: by label, then seed."""

    first: ExperimentSpec
    found: dict[str, dict[int, ExperimentRecord]] = field(default_factory=dict)


def fuse(
    store: Store,
    labels: Sequence[str],
    *,
    name: str | None = None,
    records: Iterable[ExperimentRecord] | None = None,
    datasets: Mapping[str, Dataset] | None = None,
) -> Fused:
    """Ensembles of methods that are in a store, on every category where all of them are.

    Args:
        store: has their scores, and their maps where all were kept (``keep_maps`` of a plan: "first" or "all").
        labels: of the members, as the store's records have them; at least two.
        name: the ensemble's label; "A + B" otherwise.
        records: those to take members from; the store's otherwise.
        datasets: by name, for the masks: without a category's there is no localisation on it.

    Raises:
        ConfigError: fewer than two members, one twice, or one that the store has no result of.
    """
    wanted = tuple(labels)
    if len(wanted) < 2 or len(set(wanted)) < len(wanted):
        raise ConfigError(f"an ensemble needs two different methods at least, not {listed(wanted) or 'none'}")
    own = store.records() if records is None else list(records)
    known = dict.fromkeys(r.spec.label for r in own)
    for label in wanted:
        if label not in known:
            raise ConfigError(f"{store.root}: has no result of a method {label!r}; it has: {listed(known) or 'none'}")
    experiments, missing = [], []
    for group in _groups(own, wanted):
        where = f"{name or ' + '.join(wanted)} on {group.first.category} ({group.first.dataset})"
        absent = [label for label in wanted if label not in group.found]
        if absent:
            missing.append(f"{where}: no result of {listed(absent)}")
            continue
        category = _category(datasets, group.first)
        for seed, members in _by_seed(group, wanted):
            try:
                fused = _Ensemble(store, wanted, name, seed, [_Member(m, store.arrays(m.id)) for m in members])
                experiment, why = fused.experiment(category)
            except (StoreError, _UnfitError) as error:
                missing.append(f"{where}, seed {seed}: {error}")
                continue
            experiments.append(experiment)
            if why:
                missing.append(f"{where}, seed {seed}: no localisation: {why}")
    return Fused(tuple(experiments), tuple(missing))


def standardised(values: npt.NDArray[Any], mean: float, deviation: float) -> npt.NDArray[np.float64]:
    """z-scores, float64 of any shape; ValueError for a deviation that is not positive and finite."""
    if not (np.isfinite(mean) and np.isfinite(deviation) and deviation > 0):
        raise ValueError("good images all score the same, so there is no scale to compare on")
    return (np.asarray(values, dtype=np.float64) - mean) / deviation


def fused_map(maps: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """The mean of standardised maps ``[H, W]`` of one image, over those that see a pixel; -inf where none does."""
    stack = np.stack([np.asarray(m, dtype=np.float64) for m in maps])
    seen = np.isfinite(stack)
    count = seen.sum(axis=0)
    total = np.where(seen, stack, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), -np.inf).astype(np.float32)


class _UnfitError(Exception):
    """Why members cannot be put together."""


@dataclass(frozen=True)
class _Ensemble:
    store: Store
    labels: tuple[str, ...]
    name: str | None
    seed: int
    members: list[_Member]

    def experiment(self, category: Category | None) -> tuple[FusedExperiment, str]:
        """The result, and why it has no localisation ("" where it has)."""
        first = self.members[0]
        for member in self.members:
            if member.arrays.sample_ids != first.arrays.sample_ids:
                raise _UnfitError(f"{member.record.spec.label} was judged on other images")
        calibration, scores = self._scores()
        maps, why = self._maps(category)
        spec, notes = self._spec(), [f"no localisation: {why}"] if why else []
        if calibration is None:
            notes.append("members were fitted on different training images: no threshold from training images")
        with LocalisationAccumulator(spec.protocol.fpr_limits, defective_first=True) as localisation:
            if maps is not None and category is not None:
                self._localise(localisation, category, maps)
            result = category_result(
                scores,
                first.arrays.defect_types,
                localisation,
                sample_ids=first.arrays.sample_ids,
                calibration_scores=calibration,
                notes=notes,
            )
        return FusedExperiment(self._record(spec, result), result.arrays), why

    def _scores(self) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float32]]:
        """z-scores of training images (None where members have different ones) and of test images, averaged."""
        calibrations, tests = [], []
        for member in self.members:
            own = member.arrays.calibration_scores
            if own is None or len(own) < 2:
                raise _UnfitError(
                    f"{member.record.spec.label} has no scores of held-out training images (calibration_folds)"
                )
            mean, deviation = float(np.mean(own, dtype=np.float64)), float(np.std(own, dtype=np.float64))
            try:
                tests.append(standardised(member.arrays.image_scores, mean, deviation))
                calibrations.append(standardised(own, mean, deviation))
            except ValueError as error:
                raise _UnfitError(f"{member.record.spec.label}: {error}") from None
        # The order of training images is that of the category: of equal lengths they are the same images.
        same = len({len(c) for c in calibrations}) == 1 and len({_drawn(m.record) for m in self.members}) == 1
        return (np.mean(calibrations, axis=0) if same else None), np.mean(tests, axis=0).astype(np.float32)

    def _maps(self, category: Category | None) -> tuple[list[tuple[GalleryMaps, float, float]] | None, str]:
        """Each member's maps of all test images, and how they are standardised; or why there are none."""
        if category is None:
            return None, "the data set's masks are not at hand"
        found = []
        for member in self.members:
            label, ids = member.record.spec.label, set(member.arrays.sample_ids)
            kept, moments = self.store.maps(member.record.id), member.arrays.calibration_map_moments
            if kept is None or not ids <= set(kept.sample_ids):
                return None, f"not all maps of {label} were kept (keep_maps)"
            if moments is None:
                return None, f"{label} has no figures of held-out training images' maps"
            if not moments[1] > 0:
                return None, f"the maps of {label} on good images are the same everywhere"
            found.append((kept, float(moments[0]), float(moments[1])))
        return found, ""

    def _localise(
        self,
        localisation: LocalisationAccumulator,
        category: Category,
        maps: Sequence[tuple[GalleryMaps, float, float]],
    ) -> None:
        samples = {s.id: s for s in category.test}
        ids = self.members[0].arrays.sample_ids
        if set(ids) != set(samples):
            raise _UnfitError(f"the data set at {category.root} has other test images than were judged")
        for sample_id in sorted(ids, key=lambda i: not samples[i].is_defective):
            sample = samples[sample_id]
            placed = []
            for kept, mean, deviation in maps:
                entry = kept.get(sample_id)
                assert entry is not None
                values, region = entry
                z = standardised(values, mean, deviation).astype(np.float32)
                placed.append(place_map(z, region, sample.size()))
            localisation.update(
                fused_map(placed),
                sample.ground_truth(),
                group=sample.defect_type,
                name=sample_key(sample),
                source=sample.path,
            )

    def _spec(self) -> ExperimentSpec:
        first = self.members[0].record.spec
        return first.model_copy(
            update={
                "method": FUSION,
                "label": self.name or " + ".join(self.labels),
                "config": {
                    "members": [_identity(m.record.spec) for m in self.members],
                    "standardisation": "held-out training images",
                    "fusion": "mean",
                },
                "code_fingerprint": "",
                "seed": self.seed,
            }
        )

    def _record(self, spec: ExperimentSpec, result: CategoryResult) -> ExperimentRecord:
        members = [m.record for m in self.members]
        speeds = [m.images_per_second for m in members]
        together = None if None in speeds or 0 in speeds else 1 / sum(1 / s for s in speeds if s)
        calibrations = [m.calibration_seconds for m in members if m.calibration_seconds is not None]
        ids = ", ".join(f"{m.spec.label} {m.id}" for m in members)
        return ExperimentRecord(
            id=spec.id,
            spec=spec,
            evaluation=result.evaluation,
            n_train=min(m.n_train for m in members),
            fit_seconds={"total": sum(m.fit_seconds.get("total", 0.0) for m in members)},
            calibration_seconds=sum(calibrations) if calibrations else None,
            predict_seconds=sum(m.predict_seconds for m in members),
            images_per_second=together,
            features_cached=any(m.features_cached for m in members),
            peak_memory_mb=max(m.peak_memory_mb for m in members),
            seeded=any(m.seeded for m in members),
            weights=tuple({str(w): w for m in members for w in m.weights}.values()),
            notes=(f"late fusion of {ids}: computed from their stored scores and maps; times are their sums",),
            skipped=tuple(dict.fromkeys(s for m in members for s in m.skipped)),
            versions=members[0].versions,
            hardware=members[0].hardware,
            started=max(m.started for m in members),
            seconds=sum(m.seconds for m in members),
        )


def _identity(spec: ExperimentSpec) -> dict[str, Any]:
    """What a member is, whatever the seed."""
    return {
        "method": spec.method,
        "label": spec.label,
        "config": spec.config,
        "protocol": spec.protocol.model_dump(mode="json"),
        "code_fingerprint": spec.code_fingerprint,
    }


def _drawn(record: ExperimentRecord) -> tuple[int, int | None, int]:
    """By what training images are the same: their number, and the draw where they were drawn."""
    shots = record.spec.protocol.shots
    return record.n_train, shots, record.spec.seed if shots is not None else 0


def _groups(records: Iterable[ExperimentRecord], labels: Sequence[str]) -> Iterator[_Group]:
    groups: dict[tuple[str, str, str], _Group] = {}
    for record in records:
        spec = record.spec
        if spec.label in labels:
            group = groups.setdefault((spec.dataset, spec.category, spec.data_fingerprint), _Group(spec))
            group.found.setdefault(spec.label, {})[spec.seed] = record
    yield from groups.values()


def _by_seed(group: _Group, labels: Sequence[str]) -> Iterator[tuple[int, list[ExperimentRecord]]]:
    """The members of every seed that all of them have; what does not depend on it stands for all."""
    exact = {label: next(iter(r.values())) for label, r in group.found.items() if not next(iter(r.values())).seeded}
    drawn = [set(group.found[label]) for label in labels if label not in exact]
    seeds = sorted(set.intersection(*drawn)) if drawn else [next(iter(exact.values())).spec.seed]
    for seed in seeds:
        yield seed, [exact[label] if label in exact else group.found[label][seed] for label in labels]


def _category(datasets: Mapping[str, Dataset] | None, spec: ExperimentSpec) -> Category | None:
    if datasets is None or spec.dataset not in datasets:
        return None
    return datasets[spec.dataset].categories.get(spec.category)
