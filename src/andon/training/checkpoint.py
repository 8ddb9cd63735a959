"""The state of a run, on disk.

A checkpoint is what ``torch.save`` writes, then a mark and the BLAKE2b of all before it: whatever part of it is lost or
changed, it is noticed. A damaged one is set aside, and the run begins again; one of another run, or what is no regular
file, is refused. One is read only if it can be this run's by its size, and its checksum before anything is made of it.
"""

from __future__ import annotations

import copy
import glob
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from andon._tools.files import open_regular, written_atomically
from andon._tools.pickles import check_torch_file
from andon._tools.text import first_line
from andon.core import TrainingError
from andon.training.curves import LossCurve

__all__ = ["RunState"]

_FORMAT = 2
_MARK = b"andon-checkpoint"
_DIGEST = 32
_SPARE_BYTES, _TIMES_MODULES = 2**28, 16
"""A checkpoint is smaller than so many bytes and times its modules: an optimiser keeps a few numbers a parameter."""
_PIECE = 2**20


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
        state = {"format": _FORMAT, "identity": self.identity, "step": done, "seconds": seconds, **self._content()}
        try:
            with written_atomically(self.path) as aside:
                torch.save(state, aside)
                _seal(aside)
        except (OSError, RuntimeError) as error:
            # Hours of training must not end because there is no room for a checkpoint.
            if not self._warned:
                warnings.warn(f"checkpoint {self.path}: cannot be written ({error}); going on without", stacklevel=3)
            self._warned = True

    def restore(self) -> int:
        """Steps that are done: 0 where there is no checkpoint, or a damaged one, which is set aside with a warning.

        Raises:
            TrainingError: a checkpoint of another run, one that cannot be read or moved, or no regular file.
        """
        if self.path is None:
            return 0
        for torn in self.path.parent.glob(f".{glob.escape(self.path.name)}.*"):  # a kill while one was written
            torn.unlink(missing_ok=True)
        if not self.path.exists():
            return 0
        before: dict[str, Any] | None = None
        try:
            state = _sealed_state(self.path, self._most_bytes())
            if state["identity"] != self.identity:
                raise TrainingError(
                    f"checkpoint {self.path}: is of another run (other options); remove it, or name another file"
                )
            before = copy.deepcopy(self._content())
            self._apply(state)
            done = int(state["step"])
            if done < 0:
                raise ValueError(f"its step is {done}")
        except TrainingError:
            raise
        except OSError as error:
            raise TrainingError(f"checkpoint {self.path}: cannot be read ({error.strerror or error})") from error
        except Exception as error:  # damage may raise anything
            if before is not None:
                self._apply(before)
            self._set_aside(self.path, first_line(error))
            return 0
        return done

    def _most_bytes(self) -> int:
        tensors = (t for module in self.modules.values() for t in module.state_dict().values())
        return _SPARE_BYTES + _TIMES_MODULES * sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))

    def _content(self) -> dict[str, Any]:
        """What changes with every step."""
        return {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimiser": self.optimiser.state_dict(),
            "generators": {name: _state_of(generator) for name, generator in self.generators.items()},
            "layers": [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if _cuda_used() else [])],
            "curve": self.curve.to_json(),
            "seconds": self.seconds,
        }

    def _apply(self, state: Mapping[str, Any]) -> None:
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

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = path.with_name(f"{path.name}.damaged")
        try:
            path.replace(aside)
        except OSError as error:
            raise TrainingError(
                f"checkpoint {path}: damaged ({reason}) and cannot be moved ({error.strerror or error}); remove it"
            ) from error
        warnings.warn(
            f"checkpoint {path}: damaged ({reason}); it is now {aside.name}, and {self.stage} begins again",
            stacklevel=4,
        )


def _seal(path: Path) -> None:
    """Adds mark and digest to a file."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST)).digest()
        file.seek(0, os.SEEK_END)
        file.write(_MARK + digest)


def _sealed_state(path: Path, most_bytes: int) -> Mapping[str, Any]:
    """What a sealed file holds; a TrainingError where it is no file, any other exception where it is damaged."""
    with open_regular(path, what="a checkpoint", error=TrainingError, name=f"checkpoint {path}") as file:
        size = file.seek(0, os.SEEK_END) - len(_MARK) - _DIGEST
        if size > most_bytes:
            raise ValueError(f"{size:,} bytes, more than one of this run can have")
        file.seek(max(0, size))
        seal = file.read(len(_MARK) + _DIGEST)
        if size < 0 or not seal.startswith(_MARK):
            raise ValueError("truncated, or not a checkpoint of this version")
        file.seek(0)
        digest = hashlib.blake2b(digest_size=_DIGEST)
        for start in range(0, size, _PIECE):
            digest.update(file.read(min(_PIECE, size - start)))
        if digest.digest() != seal[len(_MARK) :]:
            raise ValueError("its checksum is another")
        check_torch_file(file)
        # Of the zip format the directory at the end is found before what follows it.
        state: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    if state["format"] != _FORMAT:
        raise ValueError("not a checkpoint of this version")
    return state


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
