"""Models of the anomalib library (version 2) behind Andon's contract: ``anomalib:Dinomaly``.

What is anomalib's: the network, its losses and its training, run by its ``Engine``. What is Andon's: the images (size
and normalisation as the model's own pre-processing says), the seed, and the evaluation. Raw scores and maps are taken:
its post-processing would look at images of a validation set. The last tenth of the training images, which are trained
on as well, stands for that set, because some models take the scale of their maps from it; no test image is seen.
"""

from __future__ import annotations

import inspect
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, create_model
from torch import nn
from torch.utils.data import DataLoader, Dataset

from andon._tools.seeds import derived_seed
from andon._tools.text import first_line
from andon.core import ConfigError, DetectorError, listed
from andon.data import Images, Transform
from andon.methods._config import TrainedConfig, budgeted
from andon.methods.base import Detector, Fitting, Method
from andon.weights import WeightsRecord

__all__ = ["PREFIX", "AnomalibConfig", "AnomalibDetector", "AnomalibMethod", "anomalib_method", "anomalib_version"]

PREFIX = "anomalib:"
_HOW = "pip install 'andon[anomalib]'"
_EPOCHS = {
    "Cfa": 30,
    "Cflow": 50,
    "Csflow": 240,
    "Draem": 700,
    "Dsr": 700,
    "EfficientAd": 1000,
    "Fastflow": 500,
    "Fre": 220,
    "Ganomaly": 100,
    "Glass": 100,
    "InpFormer": 200,
    "Patchflow": 200,
    "ReverseDistillation": 200,
    "Stfpm": 100,
    "Uflow": 200,
    "UniNet": 100,
}
"""Epochs in anomalib's examples/configs/model (2.6); early stopping, which would look at test images, is left out."""
_STEPS = {"Dinomaly": 5000, "EfficientAd": 70_000}
"""Steps there."""
_PLAIN = {"pre_processor": False, "post_processor": False, "evaluator": False, "visualizer": False}
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class AnomalibConfig(TrainedConfig):
    """Options of a model of anomalib.

    Attributes:
        model: arguments of its class.
        trainer: arguments of its Engine, hence of Lightning's Trainer: ``max_epochs``, ``max_steps``, … What the model
            itself asks for wins, as it does in anomalib.
        train_batch_size: images a step.
    """

    model: dict[str, Any] = Field(default_factory=dict)
    trainer: dict[str, Any] = Field(default_factory=dict)
    train_batch_size: int = Field(32, ge=1)


class AnomalibDetector(Detector):
    """The network of a model of anomalib."""

    def __init__(self, config: AnomalibConfig, network: nn.Module) -> None:
        super().__init__(config)
        self.network = network

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        found = self.network(batch)
        maps, scores = getattr(found, "anomaly_map", None), getattr(found, "pred_score", None)
        if maps is not None:
            maps = maps.reshape(len(batch), *maps.shape[-2:]).float()
        if scores is None:  # as anomalib's own post-processing has it
            if maps is None:
                raise DetectorError(f"{self.name}: gave neither pred_score nor anomaly_map, but {type(found).__name__}")
            scores = maps.amax((1, 2))
        return scores.reshape(len(batch)).float(), maps


class AnomalibMethod(Method[AnomalibConfig]):
    """A model of anomalib; subclasses are made by ``anomalib_method``."""

    trained = True
    Config = AnomalibConfig
    model_class: ClassVar[type[Any]]

    def learn(self, fitting: Fitting) -> AnomalibDetector:
        fitting.note(f"anomalib {anomalib_version()}; backbones are those that it loads")
        with _seeded(fitting.seed, fitting.device), tempfile.TemporaryDirectory() as folder, fitting.clock("training"):
            model = self._made(self.config.model)
            options = self._trainer_options(model, fitting.device)
            engine = _engine()(default_root_dir=folder, callbacks=[_progress_of(fitting)], **options)
            with torch.enable_grad():
                engine.fit(model, datamodule=_datamodule(fitting.images, self.config, fitting.seed))
        return AnomalibDetector(self.config, model.model)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> AnomalibDetector:
        # The state holds all weights: none are to be loaded, where the model has a word for that.
        plain = {"pre_trained": False} if "pre_trained" in inspect.signature(self.model_class).parameters else {}
        with _seeded(0, torch.device("cpu")):
            detector = AnomalibDetector(self.config, self._made({**self.config.model, **plain}).model)
        for name, module in detector.named_modules():
            for own, buffer in module._buffers.items():
                shape = tuple(shapes.get(f"{name}.{own}", ()))
                if shape and (buffer is None or (buffer.ndim > 0 and tuple(buffer.shape) != shape)):
                    module._buffers[own] = torch.zeros(shape, dtype=None if buffer is None else buffer.dtype)
        return detector

    def _made(self, options: Mapping[str, Any]) -> Any:
        try:
            return self.model_class(**options, **_PLAIN)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.name}: the option model does not fit: {first_line(error)}") from error

    def _trainer_options(self, model: Any, device: torch.device) -> dict[str, Any]:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        place = {"accelerator": "gpu" if device.type == "cuda" else device.type, "devices": 1}
        if device.type == "cuda":
            place["devices"] = [device.index or 0]
        length = self._length(model)
        return {**quiet, **place, **self.config.trainer, **length}

    def _length(self, model: Any) -> dict[str, int]:
        """How long it is trained, under the budget; ConfigError where nobody says it."""
        own, given = dict(model.trainer_arguments), self.config.trainer
        known = {"max_epochs": _EPOCHS.get(self._plain_name), "max_steps": _STEPS.get(self._plain_name)}
        chosen = {k: given[k] for k in known if k in given} or {k: v for k, v in known.items() if v is not None}
        if not chosen and not {"max_epochs", "max_steps"} & set(own):
            raise ConfigError(
                f"{self.name}: anomalib does not say how long it is trained: give it the option "
                "trainer: {max_epochs: …} or {max_steps: …}"
            )
        return {k: budgeted(v, self.config.budget) if v > 0 else v for k, v in chosen.items()}

    @property
    def _plain_name(self) -> str:
        return self.model_class.__name__


def anomalib_version() -> str:
    """The version of anomalib that is installed; ConfigError where there is none, or one before 2."""
    version = str(getattr(_imported("anomalib"), "__version__", "0"))
    if not version.partition(".")[0].isdecimal() or int(version.partition(".")[0]) < 2:
        raise ConfigError(f"anomalib {version} is too old, its models are used from version 2 on: {_HOW}")
    return version


def anomalib_method(name: str) -> type[AnomalibMethod]:
    """The method that a model of anomalib is.

    Args:
        name: of its class ("EfficientAd"), in any case, underscores left out or not.

    Raises:
        ConfigError: anomalib is not installed or cannot be imported; it has no such model.
    """
    anomalib_version()
    models = _imported("anomalib.models")
    known = {n.replace("_", "").lower(): n for n in getattr(models, "__all__", ())}
    found = known.get(name.replace("_", "").lower())
    if found is None:
        raise ConfigError(f"anomalib has no model {name!r}; it has: {listed(sorted(known.values()), 40)}")
    return _adapted(getattr(models, found))


@cache
def _adapted(model_class: type[Any]) -> type[AnomalibMethod]:
    name = model_class.__name__
    transform = _transform_of(model_class)
    fields: dict[str, Any] = {"transform": (Transform, ... if transform is None else transform)}
    if name == "EfficientAd":  # which takes no other
        fields["train_batch_size"] = (int, Field(1, ge=1))
    attributes = {
        "name": f"{PREFIX}{name}",
        "title": f"{name} (anomalib)",
        "paper": "in anomalib: Akcay et al., ICIP 2022, arXiv:2202.08341",
        "model_class": model_class,
        "Config": create_model(f"{name}Config", __base__=AnomalibConfig, __module__=__name__, **fields),
        "__module__": __name__,
    }
    return type(name, (AnomalibMethod,), attributes)


def _transform_of(model_class: type[Any]) -> Transform | None:
    """The pre-processing that a model asks for; None where Andon's transform cannot say it: then the user has to."""
    try:
        steps = model_class.configure_pre_processor().transform
    except (TypeError, AttributeError, NotImplementedError):
        return None
    size = crop = None
    values: dict[str, Any] = {"normalisation": "unit"}
    for step in getattr(steps, "transforms", [steps]):
        match type(step).__name__:
            case "Resize" if size is None and "bilinear" in str(getattr(step, "interpolation", "bilinear")).lower():
                size = _pair(step.size)
                values["antialias"] = bool(getattr(step, "antialias", True))
            case "CenterCrop" if crop is None:
                crop = _pair(step.size)
            case "Normalize" if np.allclose([step.mean, step.std], _IMAGENET):
                values["normalisation"] = "imagenet"
            case _:
                return None
    return None if size is None else Transform(size=size, crop=crop, **values)


def _pair(size: Any) -> tuple[int, int]:
    sides = [int(side) for side in size] if isinstance(size, Sequence) else [int(size)]
    return sides[0], sides[-1]


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"a method anomalib:… needs anomalib ({first_line(error)}): {_HOW}") from error


def _engine() -> Any:
    return _imported("anomalib.engine").Engine


def _progress_of(fitting: Fitting) -> Any:
    class Progress(_imported("lightning.pytorch").Callback):  # type: ignore[misc]
        """Tells Andon how far the training is."""

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            fitting.progress("training", int(trainer.global_step), int(trainer.estimated_stepping_batches))

    return Progress()


class _Good(Dataset[torch.Tensor]):
    """Good images, each float32 ``[3, h, w]`` as the transform gives it."""

    def __init__(self, images: Images, indices: Sequence[int], transform: Transform) -> None:
        self.images, self.indices, self.transform = images, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> torch.Tensor:
        image = self.images.resized(self.indices[place], self.transform)
        return self.transform.normalise(image[None])[0]


def _datamodule(images: Images, config: AnomalibConfig, seed: int) -> Any:
    batch_class = _imported("anomalib.data").ImageBatch
    last = range(len(images) - max(1, len(images) // 10), len(images))

    def batch(tensors: Sequence[torch.Tensor]) -> Any:
        stacked = torch.stack(list(tensors))
        masks = torch.zeros((len(stacked), *stacked.shape[-2:]), dtype=torch.bool)
        return batch_class(image=stacked, gt_label=torch.zeros(len(stacked), dtype=torch.bool), gt_mask=masks)

    class Good(_imported("lightning.pytorch").LightningDataModule):  # type: ignore[misc]
        """What anomalib's engine and models ask of a datamodule."""

        name, category = "andon", ""
        train_batch_size, eval_batch_size = config.train_batch_size, config.batch_size

        def train_dataloader(self) -> DataLoader[torch.Tensor]:
            data = _Good(images, range(len(images)), config.transform)
            order = torch.Generator().manual_seed(derived_seed(seed, "order"))
            return DataLoader(data, self.train_batch_size, shuffle=True, collate_fn=batch, generator=order)

        def val_dataloader(self) -> DataLoader[torch.Tensor]:
            return DataLoader(_Good(images, last, config.transform), self.eval_batch_size, collate_fn=batch)

    return Good()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds what anomalib draws from, the global generators, and puts their states back."""
    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        random.seed(derived_seed(seed, "python"))
        np.random.seed(derived_seed(seed, "numpy") % 2**32)  # noqa: NPY002
        torch.manual_seed(derived_seed(seed, "torch"))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)  # noqa: NPY002
