"""The state of a run, on disk."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from andon._tools.files import written_atomically
from andon._tools.text import first_line
from andon.core import TrainingError
from andon.training.curves import LossCurve

__all__ = ["RunState"]

_FORMAT = 1


class RunState:
    """The state of a run, and its checkpoint."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimiser: Optimizer,
        generators: Mapping[str, torch.Generator | np.random.Generator],
        identity: str,
        path: Path | None,
        stage: str,
    ) -> None:
        self.modules, self.optimiser, self.generators = modules, optimiser, generators
        self.identity, self.stage = identity, stage
        self.path = path
        self.curve, self.seconds = LossCurve(), 0.0
        self._warned = False

    def save(self, done: int, seconds: float) -> None:
        if self.path is None:
            return
        state = {
            "format": _FORMAT,
            "identity": self.identity,
            "step": done,
            "seconds": seconds,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimiser": self.optimiser.state_dict(),
            "generators": {name: _state_of(generator) for name, generator in self.generators.items()},
            "layers": [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if _cuda_used() else [])],
            "curve": self.curve.to_json(),
        }
        try:
            with written_atomically(self.path) as aside:
                torch.save(state, aside)
        except (OSError, RuntimeError) as error:
            # Hours of training must not end because there is no room for a checkpoint.
            if not self._warned:
                warnings.warn(f"checkpoint {self.path}: cannot be written ({error}); going on without", stacklevel=3)
            self._warned = True

    def restore(self) -> int:
        """Steps that are done: 0 where there is no checkpoint."""
        if self.path is None or not self.path.is_file():
            return 0
        what = f"checkpoint {self.path}"
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or state.get("format") != _FORMAT:
                raise ValueError("not a checkpoint of this version")
            identity = state["identity"]
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as e:
            raise TrainingError(
                f"{what}: cannot be read ({first_line(e)}); remove it to start from the beginning"
            ) from e
        if identity != self.identity:
            raise TrainingError(f"{what}: is of another run (other options); remove it, or name another file")
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, generator in self.generators.items():
            _restore(generator, state["generators"][name])
        layers = state["layers"]
        torch.set_rng_state(layers[0])
        if len(layers) > 1 and _cuda_used():
            torch.cuda.set_rng_state_all(layers[1:])
        self.curve, self.seconds = LossCurve.from_json(state["curve"]), float(state["seconds"])
        return int(state["step"])


def _cuda_used() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _state_of(generator: torch.Generator | np.random.Generator) -> torch.Tensor | str:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return json.dumps(generator.bit_generator.state, default=lambda array: {"array": array.tolist()})


def _restore(generator: torch.Generator | np.random.Generator, state: torch.Tensor | str) -> None:
    if isinstance(generator, torch.Generator):
        assert isinstance(state, torch.Tensor)
        generator.set_state(state)
    else:
        assert isinstance(state, str)
        generator.bit_generator.state = json.loads(state, object_hook=lambda d: d.get("array", d))
