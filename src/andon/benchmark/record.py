"""An experiment: what identifies it, and what is kept of it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from andon._tools.models import FrozenModel
from andon.core import canonical_json
from andon.data import AugmentationChoice
from andon.evaluation import FPR_LIMITS, Evaluation

__all__ = [
    "ExperimentRecord",
    "ExperimentSpec",
    "Failure",
    "Hardware",
    "Manifest",
    "Protocol",
    "StoredCode",
    "StoredDataset",
    "StoredFile",
    "StoredPlan",
]


class Protocol(FrozenModel):
    """How a method is trained and judged, beside its own Config.

    Attributes:
        shots: training images drawn at random with the experiment's seed (``draw_shots``); None for all.
        fpr_limits: pixel-FPR limits of AUsPRO; the first is the one in the tables.
        calibration_folds: the threshold from good training images uses scores of models that did not see them: this
            many folds are fitted for it; 0 for none (no such threshold then).
        augmentation: of the training images (``andon.data.Augmentation``; "study" for the study's); None for none.
    """

    shots: int | None = Field(default=None, ge=1)
    fpr_limits: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(default=FPR_LIMITS, min_length=1)
    calibration_folds: int = Field(default=0, ge=0)
    augmentation: AugmentationChoice | None = None

    @property
    def drawn(self) -> bool:
        """Whether training images, or what is done to them, are drawn: then there is chance in every method."""
        return self.shots is not None or self.augmentation is not None

    @field_validator("calibration_folds")
    @classmethod
    def _check_folds(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("must be 0 or at least 2: one fold leaves nothing to fit on")
        return folds

    @field_validator("fpr_limits")
    @classmethod
    def _check_limits(cls, limits: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(limits)) < len(limits):
            raise ValueError("names a limit twice")
        return limits


class ExperimentSpec(FrozenModel):
    """What identifies an experiment. Its id is the hash of exactly this.

    Attributes:
        dataset: name of the data set in the tables.
        category: the inspection task.
        data_fingerprint: hash of the category's files and configuration, so that changed data is a new experiment.
        method: registered name, or ``path/to/file.py:Class``.
        label: what tables call it (the method's title, or the plan's label for a variant).
        config: the whole resolved Config of the method, defaults included.
        code_fingerprint: hash of the code of a method that is not Andon's own (file or package), so that changed code
            is a new experiment; "" for Andon's own.
    """

    dataset: str
    category: str
    data_fingerprint: str
    method: str
    label: str
    config: dict[str, Any]
    protocol: Protocol = Protocol()
    seed: int = 0
    code_fingerprint: str = ""

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        content = self.model_dump(mode="json", exclude={"label"})
        # An option that came later is in it only where it is used: earlier experiments stay what they are.
        if self.protocol.augmentation is None:
            del content["protocol"]["augmentation"]
        value = ["andon-experiment", 1, content]
        return hashlib.blake2b(canonical_json(value).encode(), digest_size=8).hexdigest()


class Hardware(FrozenModel):
    """The machine, without its name."""

    cpu: str
    cores: int
    memory_gb: float
    device: str
    """"cpu", or the accelerator's name."""
    threads: int


class ExperimentRecord(FrozenModel):
    """The result of one experiment, as kept in the store (``record.json``).

    Attributes:
        fit_seconds: wall seconds of ``fit`` by stage, with "total".
        predict_seconds: wall seconds of predicting the test set, decoding included.
        images_per_second: test images a second from file to score, without any cache; None where it was not measured
            (seeds after the first).
        features_cached: whether features came from the cache: then times are not a method's whole cost.
        calibration_seconds: wall seconds of fitting and predicting the calibration folds; None without them.
        peak_memory_mb: peak resident memory of the experiment's process, MiB.
        seeded: whether the seed changes the result. Where it does not the experiment runs once and stands for all
            seeds: tables show its value without ± and the tests take it as exact.
        weights: ``WeightsRecord``s as dicts.
        notes: what a reader has to know.
        skipped: ids of the images that were left out because they cannot be read (``skip_bad``).
        started: UTC time, ISO 8601.
    """

    id: str
    spec: ExperimentSpec
    evaluation: Evaluation
    n_train: int
    fit_seconds: dict[str, float]
    predict_seconds: float
    images_per_second: float | None
    features_cached: bool
    peak_memory_mb: float
    calibration_seconds: float | None = None
    seeded: bool = True
    weights: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    curves: dict[str, list[tuple[int, float]]] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    hardware: Hardware
    started: str
    seconds: float
    """Wall seconds of the whole experiment."""

    @field_validator("evaluation")
    @classmethod
    def _restore_limits(cls, evaluation: Evaluation, info: ValidationInfo) -> Evaluation:
        """Earlier records keep 12 digits of a limit; the protocol has it whole."""
        spec = info.data.get("spec")
        return evaluation if spec is None else evaluation.with_limits(spec.protocol.fpr_limits)


class StoredFile(FrozenModel):
    """Size and BLAKE2b of a file of an experiment."""

    bytes: int
    blake2b: str


class Manifest(FrozenModel):
    """What the folder of an experiment holds, beside this."""

    id: str
    files: dict[str, StoredFile]


class Failure(FrozenModel):
    """Why an experiment has no result."""

    id: str
    spec: ExperimentSpec
    kind: Literal["error", "killed", "timeout"]
    reason: str
    """One line."""
    detail: str = ""
    """Traceback or the last lines of the log."""
    started: str
    seconds: float

    @model_validator(mode="after")
    def _check_id(self) -> Failure:
        if self.id != self.spec.id:
            raise ValueError(f"it is of experiment {self.spec.id}")
        return self


class StoredDataset(FrozenModel):
    """Where a data set of a plan lay when the plan was last run (a hint for reloading: it may have moved)."""

    name: str
    path: str
    layout: str
    categories: tuple[str, ...]


class StoredCode(FrozenModel):
    """Code from outside that a plan's method was imported from when the plan was last run.

    Attributes:
        reference: the method, as the plan names it.
        path: of the file, or of the package's folder.
        sha256: of the file; of a package, over its Python files.
        seal: shows the user who had it run that it was he (``andon.benchmark.foreign``); "" for none.
    """

    reference: str
    path: str
    sha256: str
    seal: str = ""


class StoredPlan(FrozenModel):
    """A plan as it was last run in this store."""

    name: str
    title: str
    source: str
    """The YAML text."""
    content: dict[str, Any]
    """What it was read as, with the data sets' absolute paths: the store can go on without the file."""
    base: str
    """The folder that the paths of its methods start from."""
    seeds: tuple[int, ...]
    datasets: tuple[StoredDataset, ...]
    specs: tuple[ExperimentSpec, ...]
    """All its experiments, in the order of the plan."""
    code: tuple[StoredCode, ...] = ()

    @model_validator(mode="after")
    def _check_specs(self) -> StoredPlan:
        for spec in self.specs:
            _ = spec.id  # ValueError for a configuration that no experiment can have had
        return self
