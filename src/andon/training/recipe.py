"""What all recipes share: their options, the images of a step, the run, the file that they end in."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import save
from torch import nn

from andon._tools.files import write_file
from andon._tools.models import FrozenModel
from andon._tools.parallel import ordered_map
from andon._tools.seeds import numpy_step_generator
from andon.core import ConfigError, ImageArray, ProgressCallback, WeightsError, no_progress
from andon.data import ImageSource, image_source
from andon.training.loop import TrainingOptions, TrainingReport
from andon.training.schedules import SampleOrder, Schedule, cosine_schedule
from andon.training.stage import Stage, train_stage
from andon.weights import WeightsRecord, file_sha256

__all__ = [
    "ImageStream",
    "PretrainOptions",
    "PretrainReport",
    "Recipe",
    "RecipeRun",
    "RecipeStage",
    "checkpoint_of",
    "run_recipe",
]

_FIRST_HELD_OUT = 1 << 40
"""Of an endless source: no run gets as far."""


class Recipe(FrozenModel):
    """Options of every recipe.

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

    name: ClassVar[str]
    """What it is called in the files that it makes."""

    images: str = "rendered"
    steps: int = Field(60_000, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: str = Field("constant", pattern="constant|cosine")
    seed: int = Field(0, ge=0)
    held_out: int = Field(32, ge=0)

    @property
    def part(self) -> str:
        """The learned part that it makes."""
        raise NotImplementedError

    @property
    def rate(self) -> Schedule | None:
        """The factor on the learning rate by step."""
        return cosine_schedule(self.steps, self.steps // 20) if self.schedule == "cosine" else None

    @property
    def identity(self) -> str:
        """What a checkpoint is of."""
        return self.model_dump_json()


RecipeT = TypeVar("RecipeT", bound=Recipe)
BatchT = TypeVar("BatchT")


class PretrainOptions(TypedDict, total=False):
    """How a recipe is carried out; none of it changes what is learned.

    Attributes:
        device: where it is trained; "cpu".
        overwrite: replace a file that exists; refused otherwise.
        half: store float16, which halves the file.
        checkpoint_seconds: least time between two checkpoints, which lie beside the output; 60.
        progress: called as ``progress(stage, done, total)``.
    """

    device: torch.device | str
    overwrite: bool
    half: bool
    checkpoint_seconds: float
    progress: ProgressCallback


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
        """The images of a step."""
        if self._order is not None:
            return self._order(step)
        return list(range(step * self.recipe.batch_size, (step + 1) * self.recipe.batch_size))

    def images(self, indices: list[int] | range, size: int) -> Iterator[ImageArray]:
        """RGB uint8 ``[size, size, 3]`` each, made or read by a few threads."""
        return ordered_map(lambda index: self.source.image(index, size), indices)

    def random(self, step: int, *names: str) -> np.random.Generator:
        """The generator of one step's crops and augmentation."""
        return numpy_step_generator(self.recipe.seed, *names, step)


class RecipeRun(Generic[RecipeT]):
    """A recipe that is being carried out.

    Attributes:
        recipe: its options.
        stream: its images.
        device: where it is trained.
        progress: to be called as ``progress(stage, done, total)``.
    """

    def __init__(self, recipe: RecipeT, output: Path, device: torch.device, progress: ProgressCallback) -> None:
        self.recipe, self.output, self.device, self.progress = recipe, output, device, progress
        self.stream = ImageStream(recipe)
        self._beside: set[Path] = set()

    def beside(self, kind: str) -> Path:
        """A file beside the output, for a run that goes on; removed when the output is written."""
        path = _beside(self.output, kind)
        self._beside.add(path)
        return path

    def clean(self) -> None:
        """Removes what lies beside the output."""
        for path in self._beside:
            path.unlink(missing_ok=True)


def _beside(output: Path, kind: str) -> Path:
    return output.with_name(f"{output.name}.{kind}")


def checkpoint_of(output: Path) -> Path:
    """Where the state of a run is kept."""
    return _beside(output, "checkpoint")


class RecipeStage(Stage[BatchT], Generic[RecipeT, BatchT]):
    """A recipe's training, and what comes of it.

    Attributes:
        network: what is trained; a subclass hands it over with its first weights.
        used: learned parts that it learns from.
        autocast: whether bfloat16 will do where the device is a GPU that has it.
    """

    channels_last = True
    autocast = True
    used: tuple[WeightsRecord, ...] = ()

    def __init__(self, run: RecipeRun[RecipeT], network: nn.Module) -> None:
        self.run, self.recipe, self.stream, self.device = run, run.recipe, run.stream, run.device
        self.steps = self.full_steps = run.recipe.steps
        self.network = network.to(run.device).train()

    @property
    def identity(self) -> str:
        """What a checkpoint is of."""
        return self.recipe.identity

    def modules(self) -> Mapping[str, nn.Module]:
        return {"network": self.network}

    def optimiser(self) -> torch.optim.Optimizer:
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay)

    def schedule(self) -> Schedule | None:
        return self.recipe.rate

    @abstractmethod
    def result(self) -> tuple[nn.Module, Mapping[str, float]]:
        """After the training: the network whose state is stored, and what was measured on held-out images."""


def run_recipe(
    recipe: RecipeT,
    output: Path,
    begin: Callable[[RecipeRun[RecipeT]], RecipeStage[RecipeT, Any]],
    **options: Unpack[PretrainOptions],
) -> PretrainReport:
    """Trains, and writes the weights; goes on where a killed run stopped.

    Raises:
        ConfigError: an output that exists, or of another type; no images.
        TrainingError: a training that goes wrong.
        WeightsError: an output that cannot be written.
    """
    if output.suffix != ".safetensors":
        raise ConfigError(f"{output}: weights are written as .safetensors; name the file so")
    if output.exists() and not options.get("overwrite", False):
        raise ConfigError(f"{output}: exists already; name another file, or say --overwrite")
    run = RecipeRun(recipe, output, torch.device(options.get("device", "cpu")), options.get("progress", no_progress))
    stage = begin(run)
    training = train_stage(
        stage,
        seed=recipe.seed,
        identity=stage.identity,
        device=run.device,
        options=TrainingOptions(
            checkpoint=run.beside("checkpoint"),
            checkpoint_seconds=options.get("checkpoint_seconds", 60.0),
            autocast=stage.autocast,
            channels_last=stage.channels_last,
        ),
        progress=run.progress,
    )
    report = _stored(stage, training, half=options.get("half", False))
    run.clean()
    return report


def _stored(stage: RecipeStage[Any, Any], training: TrainingReport, *, half: bool) -> PretrainReport:
    """Writes a safetensors file with all that says how it came about; atomically."""
    recipe, output, source = stage.recipe, stage.run.output, stage.stream.source
    network, figures = stage.result()
    # What licence hangs on the result depends on what it was made from; of a user's images only the user knows.
    own = source.count is None and all(record.licence == "Apache-2.0" for record in stage.used)
    metadata = {
        "part": recipe.part,
        "recipe": recipe.name,
        "options": recipe.model_dump_json(),
        "images": source.name,
        "steps": str(training.steps),
        "seed": str(recipe.seed),
        "final_loss": f"{training.final_loss:.6g}",
        "figures": json.dumps(dict(figures), sort_keys=True),
        "used": json.dumps([record.as_dict() for record in stage.used]),
        "licence": "Apache-2.0" if own else "depends on the images and weights it was made from",
    }
    dtype = torch.float16 if half else torch.float32
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in network.state_dict().items()}
    # One entry, because the library writes several in an order that differs from run to run.
    write_file(output, save(tensors, {"andon": json.dumps(metadata, ensure_ascii=False)}), WeightsError)
    return PretrainReport(output, file_sha256(output), training, figures, metadata)
