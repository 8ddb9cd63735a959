"""What all recipes share: their options, the images of a step, the file that they end in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save

from andon._tools.files import written_atomically
from andon._tools.parallel import ordered_map
from andon.core import AndonError, ImageArray
from andon.data.rendered import ImageSource, image_source
from andon.training.loop import (
    SampleOrder,
    Schedule,
    TrainingOptions,
    TrainingReport,
    cosine_schedule,
    numpy_step_generator,
)
from andon.weights import WeightsRecord
from andon.weights.resolution import file_sha256

__all__ = ["ImageStream", "PretrainReport", "Recipe", "create_recipe", "finished", "store_weights"]

_FIRST_HELD_OUT = 1 << 40
"""Of an endless source: no run gets as far."""


class Recipe(BaseModel):
    """Options of every recipe; frozen, unknown ones are refused.

    Attributes:
        images: "rendered", "rendered:SEED", or a folder of images.
        steps: steps of the optimiser.
        batch_size: images a step.
        learning_rate: at its highest.
        weight_decay: of Adam (added to the gradient).
        schedule: "constant", or "cosine" (warm-up over a twentieth of the steps, then down to 0).
        seed: of weights, order, crops and augmentation.
        held_out: images that are kept out of training, to measure on; of a folder at most a tenth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: str = "rendered"
    steps: int = Field(60_000, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: str = Field("constant", pattern="constant|cosine")
    seed: int = Field(0, ge=0)
    held_out: int = Field(32, ge=0)

    @property
    def rate(self) -> Schedule | None:
        return cosine_schedule(self.steps, self.steps // 20) if self.schedule == "cosine" else None

    @property
    def identity(self) -> str:
        """What a checkpoint is of."""
        return self.model_dump_json()


RecipeT = TypeVar("RecipeT", bound=Recipe)


def create_recipe(kind: type[RecipeT], options: Mapping[str, Any]) -> RecipeT:
    """A recipe of options as a command line gives them (None: the default); AndonError names a wrong one."""
    try:
        return kind(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise AndonError(f"option {where!r}: {first['msg']} (got {first['input']!r})") from error


@dataclass(frozen=True)
class PretrainReport:
    """What a recipe made.

    Attributes:
        path: the safetensors file.
        sha256: its hash.
        training: steps, seconds, loss curves.
        figures: what was measured on held-out images, by name.
        metadata: what the file says of itself.
    """

    path: Path
    sha256: str
    training: TrainingReport
    figures: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


class ImageStream:
    """The images of every step of a run, and some that no step sees.

    Of a folder the last ones are kept out, at most a tenth; of fewer than 10 images none.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.source: ImageSource = image_source(recipe.images)
        self.recipe = recipe
        count = self.source.count
        if count is None:
            self.held_out = range(_FIRST_HELD_OUT, _FIRST_HELD_OUT + recipe.held_out)
            self._order = None
        else:
            kept = min(recipe.held_out, count // 10)
            self.held_out = range(count - kept, count)
            self._order = SampleOrder(count - kept, recipe.batch_size, recipe.seed)

    def indices(self, step: int) -> list[int]:
        if self._order is not None:
            return self._order(step)
        return list(range(step * self.recipe.batch_size, (step + 1) * self.recipe.batch_size))

    def images(self, indices: list[int] | range, size: int) -> Iterator[ImageArray]:
        """RGB uint8 ``[size, size, 3]`` each, made or read by a few threads."""
        return ordered_map(lambda index: self.source.image(index, size), indices)

    def random(self, step: int, *names: str) -> np.random.Generator:
        """The generator of one step's crops and augmentation."""
        return numpy_step_generator(self.recipe.seed, *names, step)


def training_options(output: Path, seconds: float, *, autocast: bool = True) -> TrainingOptions:
    """Options of a recipe's run: its checkpoint lies beside its output."""
    return TrainingOptions(
        checkpoint=checkpoint_of(output), checkpoint_seconds=seconds, autocast=autocast, channels_last=True
    )


def checkpoint_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.checkpoint")


@contextmanager
def finished(output: Path, *, overwrite: bool) -> Iterator[None]:
    """Around a recipe: refuses an output that exists, and removes the checkpoint when all went well."""
    if output.suffix != ".safetensors":
        raise AndonError(f"{output}: weights are written as .safetensors; name the file so")
    if output.exists() and not overwrite:
        raise AndonError(f"{output}: exists already; name another file, or say --overwrite")
    yield
    checkpoint_of(output).unlink(missing_ok=True)


def store_weights(
    output: Path,
    state: Mapping[str, torch.Tensor],
    recipe: Recipe,
    *,
    name: str,
    part: str,
    source: ImageSource,
    training: TrainingReport,
    figures: Mapping[str, float],
    used: tuple[WeightsRecord, ...] = (),
    half: bool = False,
) -> PretrainReport:
    """Writes a safetensors file with all that says how it came about; atomically.

    Args:
        half: store float16, which halves the file.
    """
    # What licence hangs on the result depends on what it was made from; of a user's images only the user knows.
    own = source.count is None and all(record.licence == "Apache-2.0" for record in used)
    metadata = {
        "part": part,
        "recipe": name,
        "options": recipe.model_dump_json(),
        "images": source.name,
        "steps": str(training.steps),
        "seed": str(recipe.seed),
        "final_loss": f"{training.final_loss:.6g}",
        "figures": json.dumps(dict(figures), sort_keys=True),
        "used": json.dumps([record.as_dict() for record in used]),
        "licence": "Apache-2.0" if own else "depends on the images and weights it was made from",
    }
    dtype = torch.float16 if half else torch.float32
    tensors = {n: t.detach().to("cpu", dtype).contiguous() for n, t in state.items()}
    try:
        with written_atomically(output) as aside:
            # One entry, because the library writes several in an order that differs from run to run.
            aside.write_bytes(save(tensors, {"andon": json.dumps(metadata, ensure_ascii=False)}))
    except OSError as error:
        raise AndonError(f"{output}: cannot be written ({error.strerror or error})") from error
    return PretrainReport(output, file_sha256(output), training, figures, metadata)
