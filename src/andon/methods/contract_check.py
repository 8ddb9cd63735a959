"""Tries a method against the contract on tiny generated images, before any long run.

>>> from andon.methods import check_method
>>> report = check_method("thumbnail-nn", {"transform": {"size": [32, 48]}})
>>> report.kept, [item.requirement for item in report.items if item.outcome == "broken"]
(True, [])
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from pydantic import ValidationError

from andon._tools.models import first_fault
from andon._tools.text import first_line
from andon.core import AndonError, ImageArray, Prediction
from andon.methods._config import TrainedConfig
from andon.methods._file import load
from andon.methods.base import Detector, Method
from andon.methods.registry import create_method

__all__ = ["ContractItem", "ContractReport", "check_method"]

Outcome = Literal["kept", "broken", "not checked"]
TINY_BUDGET = 0.001
"""Part of a training that is trained where a Config has a budget and none is given."""
_TOLERANCE = 1e-4
"""Rounding of other batch sizes, as part of the largest score or value of a map."""
_SIZES = ((40, 56), (56, 40), (48, 48))
"""(height, width) of the generated images."""


@dataclass(frozen=True)
class ContractItem:
    """One requirement.

    Attributes:
        requirement: in the contract's words.
        outcome: whether the method keeps it, breaks it, or nobody could see.
        detail: what was found, or why it was not checked; one line, may be empty.
    """

    requirement: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class ContractReport:
    """What ``check_method`` found.

    Attributes:
        method: the reference.
        title: the method's name in tables.
        items: in the order of the checks.
        notes: how it was tried, where that is not the default configuration.
    """

    method: str
    title: str
    items: tuple[ContractItem, ...]
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether nothing is broken."""
        return all(item.outcome != "broken" for item in self.items)


def check_method(
    reference: str, config: Mapping[str, Any] | None = None, *, preset: str | None = None
) -> ContractReport:
    """Fits and scores with a method a few times on a CPU and sees whether it keeps the contract.

    Global random states and settings are as before when it returns, whatever the method does to them.

    Args:
        reference: see ``method_class``.
        config: hyperparameters that differ from the defaults. A method with a ``budget`` is trained for 0.001 of its
            length unless one is given.
        preset: see ``create_method``.

    Raises:
        AndonError: the method cannot be made (not found, wrong options), or lacks weights.
    """
    options, notes = dict(config or {}), []
    method = create_method(reference, options, preset=preset)
    if isinstance(method.config, TrainedConfig) and method.config.budget == 1 and "budget" not in options:
        options["budget"] = TINY_BUDGET
        notes.append(f"trained for {TINY_BUDGET:g} of its length (budget)")
        method = create_method(reference, options, preset=preset)
    trial = _Trial(method, lambda changes: create_method(reference, {**options, **changes}, preset=preset))
    with _restored():
        trial.run()
    return ContractReport(reference, method.title, tuple(trial.items), tuple(notes))


@dataclass
class _Trial:
    """The checks of a method, in order; a fit that fails ends them."""

    method: Method[Any]
    remade: Callable[[Mapping[str, Any]], Method[Any]]
    items: list[ContractItem] = field(default_factory=list)

    def run(self) -> None:
        described = self.method.describe()
        train, test = generated_images(6, seed=1), [*generated_images(5, seed=2, defect=True), _constant()]
        before = [image.copy() for image in (*train, *test)]
        watch = _Watch()
        _reseed(1)
        watch.begin()
        detector = self._fitted("fit gives a Detector that scores an image", train)
        if detector is None:
            return
        prediction = self._predicted(detector, test)
        watch.end()
        if prediction is None:
            return
        self._outputs(detector, test, prediction)
        self._batches(detector, test, prediction)
        self._stateless(detector, test, prediction)
        self._seeds(detector, train, test, prediction)
        self._globals(watch)
        self._round_trip(detector, test, prediction)
        self._cpu(detector)
        self._unchanged(described, before, [*train, *test])
        self._few(train, test)
        self._oblong(train, test)
        self.say(
            "higher = more anomalous", "not checked", "generated images cannot show it: look at the AUROC of a run"
        )

    # One requirement each

    def _fitted(self, requirement: str, train: list[ImageArray], seed: int = 0) -> Detector | None:
        try:
            detector = self.method.fit(train, seed=seed)
        except Exception as error:
            self.say(requirement, "broken", _told(error))
            return None
        self.say(requirement, "kept")
        return detector

    def _predicted(self, detector: Detector, test: list[ImageArray]) -> Prediction | None:
        requirement = "predict gives one Prediction an image, without gradients"
        try:
            prediction = detector.predict(test)
        except Exception as error:
            self.say(requirement, "broken", _told(error))
            return None
        found = len(prediction.image_scores)
        self.see(requirement, found == len(test), f"{found} image scores of {len(test)} images")
        return prediction if found == len(test) else None

    def _outputs(self, detector: Detector, test: list[ImageArray], prediction: Prediction) -> None:
        """Types and shapes are those of ``forward`` itself; finiteness is that of all images, one of one colour too."""
        scores, maps = prediction.image_scores, prediction.anomaly_maps
        right = scores.dtype == np.float32 and scores.ndim == 1
        self.see("image scores are float32 [B]", right, f"{scores.dtype} {list(scores.shape)}")
        if maps is None:
            self.say("anomaly maps are float32 [B, h, w] or None", "kept", "None: image scores only")
        else:
            right = maps.dtype == np.float32 and maps.ndim == 3 and len(maps) == len(test)
            self.see("anomaly maps are float32 [B, h, w] or None", right, f"{maps.dtype} {list(maps.shape)}")
        finite = bool(np.isfinite(scores).all()) and (maps is None or bool(np.isfinite(maps).all()))
        self.see("scores and maps are finite", finite, "NaN or infinite, of generated images or one of one colour")

    def _batches(self, detector: Detector, test: list[ImageArray], together: Prediction) -> None:
        requirement = "the scores of an image never depend on the other images in its batch"
        transform = detector.transform
        batch = transform.normalise(np.stack([transform.resize(image) for image in test]))
        try:
            whole = detector.predict_batch(batch)
            alone = Prediction.concatenate([detector.predict_batch(batch[i : i + 1]) for i in range(len(batch))])
            backwards = detector.predict_batch(batch.flip(0))
        except Exception as error:
            self.say(requirement, "broken", _told(error))
            return
        worst = max(_difference(whole, alone), _difference(whole, _reversed(backwards)))
        self.see(
            requirement, worst <= _TOLERANCE, f"alone or in another order they differ by {worst:.2g} of the largest"
        )

    def _stateless(self, detector: Detector, test: list[ImageArray], first: Prediction) -> None:
        before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
        again = detector.predict(test)
        changed = [n for n, t in detector.state_dict().items() if n not in before or not _equal(t, before[n])]
        same = _difference(first, again) == 0
        detail = f"{changed[0]} changes" if changed else "a second prediction of the same images differs"
        self.see("forward keeps no state: the same images give the same scores", same and not changed, detail)

    def _seeds(self, detector: Detector, train: list[ImageArray], test: list[ImageArray], first: Prediction) -> None:
        _reseed(2)  # what draws from the global generators draws something else now
        requirement = "the same seed on the same machine gives the same detector"
        again = self._silent(lambda: self.method.fit(train, seed=0), requirement)
        if again is not None:
            state, other = detector.state_dict(), again.state_dict()
            differing = [n for n in state if n not in other or not _equal(state[n], other[n])]
            same = not differing and set(state) == set(other) and _difference(first, again.predict(test)) == 0
            named = f"{differing[0]} differs" if differing else "its scores differ"
            self.see(requirement, same, f"{named} (every random number must come from fitting.seed)")
        requirement = "another seed may give another detector, unless seeded is False"
        other_seed = self._silent(lambda: self.method.fit(train, seed=1), requirement)
        if other_seed is not None and again is not None:
            differs = _difference(first, other_seed.predict(test)) > 0
            if self.method.seeded:
                hint = "it does" if differs else "it does not here: seeded = False would save runs if it never does"
                self.say(requirement, "kept", hint)
            else:
                self.see(requirement, not differs, "seeded is False, and yet the scores differ")

    def _globals(self, watch: _Watch) -> None:
        drawn, changed = watch.drawn, watch.changed
        self.see(
            "no use of global random state (python, numpy, torch)",
            not drawn,
            f"the global state of {', '.join(drawn)} was changed: take random numbers from a generator of fitting.seed",
        )
        self.see("no change of global settings (threads, grad mode, default dtype, …)", not changed, "; ".join(changed))

    def _round_trip(self, detector: Detector, test: list[ImageArray], first: Prediction) -> None:
        requirement = "save and load give the same detector (blank makes room for it)"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "detector"

            def again() -> Detector:
                detector.save(path)
                return load(path, method=self.method)

            loaded = self._silent(again, requirement)
        if loaded is not None:
            difference = self._silent(lambda: _difference(first, loaded.predict(test)), requirement)
            if difference is not None:
                self.see(
                    requirement, difference == 0, f"scores differ by {difference:.2g} of the largest after loading"
                )

    def _cpu(self, detector: Detector) -> None:
        wrong = [n for n, t in detector.state_dict().items() if t.device.type != "cpu"]
        self.see("all of it is on the device asked for (cpu)", not wrong, f"{', '.join(wrong[:3])} is not")

    def _unchanged(self, described: dict[str, Any], before: list[ImageArray], images: list[ImageArray]) -> None:
        self.see("a method never changes", self.method.describe() == described, "its configuration was changed by fit")
        same = all(np.array_equal(a, b) for a, b in zip(before, images, strict=True))
        self.see("images are not written to", same, "an image that was handed in has other pixels now")

    def _few(self, train: list[ImageArray], test: list[ImageArray]) -> None:
        requirement = "it learns from one image"
        detector = self._silent(lambda: self.method.fit(train[:1]), requirement)
        if detector is not None:
            finite = bool(np.isfinite(detector.predict(test).image_scores).all())
            self.see(requirement, finite, "its scores are not finite then")

    def _oblong(self, train: list[ImageArray], test: list[ImageArray]) -> None:
        """Images on disk of other shapes were there all the time; here what ``forward`` gets is not square."""
        requirement = "it works with non-square images"
        height, width = self.method.config.transform.output_size
        if height != width:
            self.say(requirement, "kept", f"all of this was at {height}×{width}")
            return
        step = 32 if width > 64 else 8
        size = (height, width - step if width > step else width + step)
        transform = {**self.method.config.transform.model_dump(mode="json"), "size": list(size), "crop": None}
        try:
            method = self.remade({"transform": transform})
        except (AndonError, ValidationError) as error:
            self.say(requirement, "not checked", f"its Config refuses {size[0]}×{size[1]}: {_told(error)}")
            return
        prediction = self._silent(lambda: method.fit(train).predict(test), requirement)
        if prediction is not None:
            self.see(
                requirement, bool(np.isfinite(prediction.image_scores).all()), f"not finite at {size[0]}×{size[1]}"
            )

    # How they are told

    def _silent(self, attempt: Callable[[], Any], requirement: str) -> Any:
        """What an attempt gives; None, and the requirement broken, where it fails."""
        try:
            return attempt()
        except Exception as error:
            self.say(requirement, "broken", _told(error))
            return None

    def see(self, requirement: str, kept: bool, fault: str) -> None:
        """Kept, or broken with what is wrong."""
        self.say(requirement, "kept" if kept else "broken", "" if kept else fault)

    def say(self, requirement: str, outcome: Outcome, detail: str = "") -> None:
        self.items.append(ContractItem(requirement, outcome, detail))


def generated_images(n: int, *, seed: int, defect: bool = False) -> list[ImageArray]:
    """RGB uint8 images ``[h, w, 3]`` of three sizes: a bright disc on a dark ground with noise.

    Args:
        n: how many.
        seed: of the noise.
        defect: every second one has a dark square on the disc.
    """
    rng, images = np.random.default_rng(seed), []
    for index in range(n):
        height, width = _SIZES[index % len(_SIZES)]
        y, x = np.mgrid[:height, :width]
        disc = 50 + 120 * (np.hypot(y - height / 2, x - width / 2) < 0.35 * min(height, width))
        if defect and index % 2:
            disc[height // 2 : height // 2 + 8, width // 2 : width // 2 + 8] = 20
        noisy = disc[..., None] + rng.normal(0, 6, (height, width, 3))
        images.append(noisy.clip(0, 255).astype(np.uint8))
    return images


def _constant() -> ImageArray:
    return np.full((*_SIZES[0], 3), 90, np.uint8)


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_fault(error)
    return first_line(error) if isinstance(error, AndonError) else f"{type(error).__name__}: {first_line(error)}"


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def _difference(one: Prediction, other: Prediction) -> float:
    """Largest difference of scores and of maps, each as part of the largest of them; inf for other shapes or NaN."""
    pairs = [(one.image_scores, other.image_scores)]
    if one.anomaly_maps is not None and other.anomaly_maps is not None:
        pairs.append((one.anomaly_maps, other.anomaly_maps))
    elif (one.anomaly_maps is None) != (other.anomaly_maps is None):
        return float("inf")
    worst = 0.0
    for a, b in pairs:
        if a.shape != b.shape:
            return float("inf")
        if np.array_equal(a, b, equal_nan=True):
            continue
        with np.errstate(invalid="ignore"):
            difference = float(np.abs(a.astype(np.float64) - b).max()) / max(float(np.abs(a).max()), 1e-12)
        worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    return worst


def _reversed(prediction: Prediction) -> Prediction:
    maps = prediction.anomaly_maps
    return Prediction(prediction.image_scores[::-1], None if maps is None else maps[::-1], region=prediction.region)


# Global state


def _reseed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the global state is what is meant)
    torch.manual_seed(seed)


def _random_states() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


def _environment() -> dict[str, str]:
    """The environment's variables, but for the one that torch sets when an optimiser makes its first step."""
    return {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}


_SETTINGS: dict[str, Callable[[], Any]] = {
    "torch's threads": torch.get_num_threads,
    "torch's grad mode": torch.is_grad_enabled,
    "torch's default dtype": torch.get_default_dtype,
    "torch's default device": torch.get_default_device,
    "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "cudnn.benchmark": lambda: torch.backends.cudnn.benchmark,
    "cudnn.deterministic": lambda: torch.backends.cudnn.deterministic,
    "torch's matmul precision": torch.get_float32_matmul_precision,
    "OpenCV's threads": cv2.getNumThreads,
    "numpy's handling of errors": np.geterr,
    "the working folder": os.getcwd,
    "the environment's variables": _environment,
}


class _Watch:
    """What became of global random states and settings between ``begin`` and ``end``."""

    drawn: list[str]
    changed: list[str]

    def begin(self) -> None:
        self._states = _random_states()
        self._settings = {name: get() for name, get in _SETTINGS.items()}

    def end(self) -> None:
        states = _random_states()
        self.drawn = [name for name, state in self._states.items() if states[name] != state]
        self.changed = []
        for name, before in self._settings.items():
            after = _SETTINGS[name]()
            if after != before:
                said = name.startswith(("torch's", "OpenCV"))
                self.changed.append(f"{name}: {before} became {after}" if said else f"{name} changed")


@contextmanager
def _restored() -> Iterator[None]:
    """Puts back what a method may change of random states and settings."""
    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    settings = {name: get() for name, get in _SETTINGS.items()}
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_num_threads(settings["torch's threads"])
        torch.set_grad_enabled(settings["torch's grad mode"])
        torch.set_default_dtype(settings["torch's default dtype"])
        torch.set_default_device(settings["torch's default device"])
        torch.use_deterministic_algorithms(settings["torch's deterministic algorithms"])
        torch.backends.cudnn.benchmark = settings["cudnn.benchmark"]
        torch.backends.cudnn.deterministic = settings["cudnn.deterministic"]
        torch.set_float32_matmul_precision(settings["torch's matmul precision"])
        cv2.setNumThreads(settings["OpenCV's threads"])
        np.seterr(**settings["numpy's handling of errors"])
        os.chdir(settings["the working folder"])
        _restore_environment(settings["the environment's variables"])


def _restore_environment(before: Mapping[str, str]) -> None:
    for name in set(_environment()) - set(before):
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
