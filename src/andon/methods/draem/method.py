"""DRÆM: a discriminatively trained reconstruction embedding for surface anomaly detection.

Zavrtanik, Kristan & Skočaj, ICCV 2021; arXiv 2108.07610. One network learns to give an image back as good where an
artificial anomaly was put into it; a second one sees image and reconstruction, and learns to say where the anomaly
was. What the paper leaves open is as in the authors' repository (VitjanZ/DRAEM).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, cast

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field, field_validator
from torch import nn
from torch.nn import functional as F

from andon.core import AndonError, FloatArray, ImageArray, Prediction, ProgressCallback, no_progress
from andon.data.images import ImageLike, Images, as_images
from andon.data.rendered import ImageSource, image_source
from andon.methods._perlin import perlin_mask, rotated_perlin_noise
from andon.methods._reconstruction import (
    OddSide,
    PerlinExponents,
    ReconstructionConfig,
    TrainingParts,
    largest_average,
    rotated,
)
from andon.methods._state import checked_state, types_of
from andon.methods._training import budget_notes, budgeted, stage_options, training_identity
from andon.methods.base import FitReport, Method
from andon.methods.draem.networks import DiscriminativeSubNetwork, ReconstructiveSubNetwork
from andon.methods.registry import register
from andon.training.loop import (
    SampleOrder,
    numpy_step_generator,
    step_decay,
    step_generator,
    steps_of_epochs,
)
from andon.training.loop import train as train_networks
from andon.training.losses import focal_loss, ssim

__all__ = ["Draem", "DraemConfig", "augment_texture", "simulate_anomaly"]

_TEXTURE_BYTES = 256 * 2**20
"""Memory for textures that were used before."""
_STAGE = "train"

_STUDY: Mapping[str, Any] = {"textures": "noise", "rotation_probability": 0.0, "batch_size": 32}
"""Settings of the AutoVI study: no textures were named, none of the images was turned."""
_EMBEDDED: Mapping[str, Any] = {
    "transform": {"size": (96, 96)},
    "n_textures": 200,
    "reconstructive_width": 8,
    "discriminative_width": 8,
    "epochs": 100,
    "train_batch_size": 2,
    "learning_rate": 4e-3,
    "perlin_exponents": (1, 4),
    "rotation_probability": 0.0,
    "score_window": 9,
}


class DraemConfig(ReconstructionConfig):
    """Hyperparameters of DRAEM; the defaults are the paper's, where it says nothing the authors' repository's.

    Attributes:
        textures: what anomalies are made of: the folder of a texture data set (the paper's is the Describable Textures
            Dataset), "rendered" or "rendered:SEED" for rendered images, or "noise" for the values of the Perlin noise
            itself, as in the study's code.
        n_textures: how many different ones of rendered images are used (the Describable Textures Dataset has 5,640).
        reconstructive_width, discriminative_width: channels of the first block of either network.
        epochs: times that every training image is seen.
        train_batch_size: images a step.
        learning_rate: of Adam.
        decay_at, decay: parts of the training after which the learning rate is multiplied by ``decay``.
        anomaly_probability: of a training image to get an anomaly.
        beta: opacity of the anomalies, uniform from the first to the second (equation 2).
        perlin_exponents: the masks' Perlin noise has 2^k cells a side, k even from the first to the second of these.
        perlin_threshold: noise above it is anomalous.
        texture_augmentations: how many of the ten changes of colour and shape a texture goes through, in random order.
        rotation_probability: of a training image to be turned before the anomaly is made.
        rotation: largest angle of a turn, degrees.
        ssim_weight: λ of the structural similarity (equation 3).
        ssim_window: side of its window in pixels; odd.
        focal_gamma: γ of the focal loss.
        initialisation: "normal": filters with deviation 0.02, as the authors'; "torch": PyTorch's own.
        score_window: side in pixels of the average whose largest value is the image score (3.4); odd; 1 for the map's
            largest value itself.
    """

    unit_reason: ClassVar[str] = "the losses are for images in 0..1"
    batch_size: int = 8
    textures: str = "rendered"
    n_textures: int = Field(5640, ge=1)
    reconstructive_width: int = Field(128, ge=1)
    discriminative_width: int = Field(64, ge=1)
    epochs: float = Field(700, gt=0)
    train_batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    decay_at: TrainingParts = (400 / 700, 600 / 700)
    decay: float = Field(0.1, gt=0, le=1)
    anomaly_probability: float = Field(0.5, gt=0, le=1)
    beta: tuple[float, float] = (0.1, 1.0)
    perlin_exponents: PerlinExponents = (0, 5)
    perlin_threshold: float = Field(0.5, ge=0, lt=1)
    texture_augmentations: int = Field(3, ge=0, le=10)
    rotation_probability: float = Field(0.3, ge=0, le=1)
    rotation: float = Field(45.0, ge=0, le=180)
    ssim_weight: float = Field(1.0, ge=0)
    ssim_window: OddSide = Field(11, ge=1)
    focal_gamma: float = Field(2.0, ge=0)
    initialisation: Literal["normal", "torch"] = "normal"
    score_window: OddSide = Field(21, ge=1)

    @field_validator("beta")
    @classmethod
    def _opacities(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"must be two numbers above 0, at most 1, the smaller first, not {value}")
        return value


# Artificial anomalies (section 3.3)


def _gamma(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    tones = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.5, 2.0, 3)
    return cast(ImageArray, cv2.LUT(image, (tones * 255 + 0.5).astype(np.uint8)[None]))


def _brightness(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    parts = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    tones = np.arange(256) * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30)
    parts[..., 0] = cv2.LUT(parts[..., 0], np.clip(tones, 0, 255).astype(np.uint8))
    return cast(ImageArray, cv2.cvtColor(parts, cv2.COLOR_YCrCb2RGB))


def _sharpness(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(rng.uniform(0, 2)))


def _colour(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    """Hue turned by up to a fifth of the circle, saturation changed by up to a fifth of its range."""
    parts = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue 0..179
    hue, saturation = rng.uniform(-50, 50, 2)
    values = np.arange(256)
    parts[..., 0] = cv2.LUT(parts[..., 0], ((values + round(hue * 180 / 255)) % 180).astype(np.uint8))
    parts[..., 1] = cv2.LUT(parts[..., 1], np.clip(values + saturation, 0, 255).astype(np.uint8))
    return cast(ImageArray, cv2.cvtColor(parts, cv2.COLOR_HSV2RGB))


def _solarised(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    threshold = int(rng.integers(32, 129))
    return np.where(image >= threshold, 255 - image, image) if rng.random() < 0.5 else image


def _posterised(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return np.asarray(ImageOps.posterize(Image.fromarray(image), int(rng.integers(1, 9))))


def _inverted(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return 255 - image


def _contrast(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return np.asarray(ImageOps.autocontrast(Image.fromarray(image), cutoff=int(rng.integers(0, 21))))


def _equalised(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def _rotated(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return rotated(image, rng.uniform(-45, 45))


_AUGMENTATIONS: tuple[Callable[[np.random.Generator, ImageArray], ImageArray], ...] = (
    _gamma,
    _brightness,
    _sharpness,
    _colour,
    _solarised,
    _posterised,
    _inverted,
    _contrast,
    _equalised,
    _rotated,
)
"""Kinds and ranges are those of the authors' repository."""


def augment_texture(texture: ImageArray, rng: np.random.Generator, count: int = 3) -> ImageArray:
    """``count`` different changes of colour or shape of RGB uint8 ``[H, W, 3]``, drawn at random, one by one."""
    for number in rng.choice(len(_AUGMENTATIONS), count, replace=False):
        texture = _AUGMENTATIONS[number](rng, texture)
    return texture


def simulate_anomaly(image: FloatArray, texture: FloatArray, mask: FloatArray, beta: float) -> FloatArray:
    """Equation 2: the texture with opacity ``beta`` over the image, inside of the mask; nothing changes outside.

    Args:
        image, texture: float32 ``[H, W, 3]``, 0 … 1.
        mask: float32 ``[H, W]`` of zeros and ones.
    """
    return image + (mask * np.float32(beta))[..., None] * (texture - image)


class _Textures:
    """Images that anomalies are made of; what was used stays in memory while there is room. For any thread."""

    def __init__(self, config: DraemConfig) -> None:
        self._source: ImageSource = image_source(config.textures)
        self._count = config.n_textures if self._source.count is None else self._source.count
        self._height, self._width = config.transform.output_size
        self._known: dict[int, ImageArray] = {}
        self._capacity = _TEXTURE_BYTES // (self._height * self._width * 3)
        self._mutex = threading.Lock()

    @property
    def name(self) -> str:
        return self._source.name if self._source.count is not None else f"{self._source.name}, {self._count:,} images"

    def draw(self, rng: np.random.Generator) -> ImageArray:
        """RGB uint8 ``[H, W, 3]``."""
        index = int(rng.integers(self._count))
        texture = self._known.get(index)
        if texture is None:
            texture = self._source.image(index, max(self._height, self._width))
            if texture.shape[:2] != (self._height, self._width):
                texture = cast(ImageArray, cv2.resize(texture, (self._width, self._height)))
            with self._mutex:
                if len(self._known) < self._capacity:
                    self._known[index] = texture
        return texture


class _Batch(NamedTuple):
    """A step's images: as they should be given back and as they are shown, float32 ``[B, 3, H, W]``; the anomalies'
    mask, ``[B, 1, H, W]`` of zeros and ones."""

    target: torch.Tensor
    shown: torch.Tensor
    mask: torch.Tensor


class _Batches:
    """The batch of a step as a pure function of (seed, step)."""

    def __init__(self, config: DraemConfig, images: Images, seed: int) -> None:
        self.config, self.images, self.seed = config, images, seed
        self.order = SampleOrder(len(images), config.train_batch_size, seed)
        self.textures = None if config.textures == "noise" else _Textures(config)

    def __call__(self, step: int) -> _Batch:
        rng = numpy_step_generator(self.seed, "anomalies", step)
        made = [self._sample(index, rng) for index in self.order(step)]
        target, shown, mask = (np.stack(part) for part in zip(*made, strict=True))
        return _Batch(_channels_first(target), _channels_first(shown), torch.from_numpy(mask)[:, None])

    def _sample(self, index: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        config = self.config
        image = self.images.resized(index, config.transform)
        if rng.random() < config.rotation_probability:
            image = rotated(image, rng.uniform(-config.rotation, config.rotation))
        target = image.astype(np.float32) / np.float32(255)
        size = config.transform.output_size
        if rng.random() >= config.anomaly_probability:
            return target, target, np.zeros(size, np.float32)
        if self.textures is None:
            noise = rotated_perlin_noise(size, rng, exponents=config.perlin_exponents)
            mask = (noise > config.perlin_threshold).astype(np.float32)
            grey = (np.clip(noise, 0, 1) * np.float32(255)).astype(np.uint8)
            texture = np.repeat(grey[..., None], 3, axis=2)
        else:
            mask = perlin_mask(size, rng, exponents=config.perlin_exponents, threshold=config.perlin_threshold)
            texture = self.textures.draw(rng)
        texture = augment_texture(texture, rng, config.texture_augmentations)
        beta = rng.uniform(*config.beta)
        return target, simulate_anomaly(target, texture.astype(np.float32) / np.float32(255), mask, beta), mask


def _channels_first(images_: FloatArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images_.transpose(0, 3, 1, 2)))


# The method


class _Networks(nn.Module):
    def __init__(self, config: DraemConfig) -> None:
        super().__init__()
        self.reconstructive = ReconstructiveSubNetwork(config.reconstructive_width)
        self.discriminative = DiscriminativeSubNetwork(config.discriminative_width)

    def forward(self, images_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The reconstruction ``[B, 3, H, W]``, and the probabilities of good and anomalous ``[B, 2, H, W]``."""
        reconstruction = self.reconstructive(images_)
        logits = self.discriminative(torch.cat([reconstruction, images_], dim=1))
        return reconstruction, logits.float().softmax(1)

    @torch.no_grad()
    def initialise(self, seed: int, kind: str) -> None:
        """Random weights from the seed. "normal": filters N(0, 0.02²), batch norms' factors N(1, 0.02²)."""
        for name, layer in self.named_modules():
            generator = step_generator(seed, "weights", name)
            if isinstance(layer, nn.Conv2d):
                bound = (layer.in_channels * 9) ** -0.5
                assert layer.bias is not None
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
                if kind == "normal":
                    nn.init.normal_(layer.weight, 0.0, 0.02, generator=generator)
                else:
                    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            elif isinstance(layer, nn.BatchNorm2d) and kind == "normal":
                nn.init.normal_(layer.weight, 1.0, 0.02, generator=generator)


@register
class Draem(Method[DraemConfig]):
    """DRAEM (Zavrtanik et al. 2021a).

    The anomaly map is the discriminative network's probability of "anomalous", the image score the largest value of its
    average over windows of 21×21 pixels (section 3.4). Cost, whatever the number of training images: a prediction at
    256×256 takes 198 billion multiplications an image with the published widths, a step three times as many; both
    grow with the area of the images and the square of the widths.
    """

    name: ClassVar[str] = "draem"
    title: ClassVar[str] = "DRAEM"
    paper: ClassVar[str] = (
        "Zavrtanik et al., DRÆM – A discriminatively trained reconstruction embedding for surface anomaly detection, "
        "ICCV 2021, arXiv:2108.07610"
    )
    trained: ClassVar[bool] = True
    Config = DraemConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": _STUDY,
        # The study's code takes the map's maximum, one more size of Perlin noise and PyTorch's initial weights.
        "released-code": {**_STUDY, "score_window": 1, "perlin_exponents": (0, 6), "initialisation": "torch"},
        # The method's authors' code, where it differs from their paper.
        "authors-code": {"beta": (0.2, 1.0), "rotation": 90.0, "decay_at": (0.8, 0.9), "decay": 0.2},
        "embedded": _EMBEDDED,
    }

    def __init__(self, config: DraemConfig) -> None:
        super().__init__(config)
        self._networks: _Networks | None = None

    @property
    def networks(self) -> _Networks:
        """The trained networks; AndonError before ``fit``."""
        if self._networks is None:
            raise AndonError("draem has learned nothing yet: call fit or load_state_dict first")
        return self._networks

    def _new_networks(self) -> _Networks:
        with torch.random.fork_rng([]):  # what torch fills them with is overwritten; its generator is not ours to move
            networks = _Networks(self.config)
        return networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        """Trains both networks together.

        Raises:
            AndonError: no images, no textures, or a training that goes wrong.
        """
        images = as_images(train)
        if len(images) == 0:
            raise AndonError("draem: there are no images to learn from")
        config = self.config
        batches = _Batches(config, images, seed)
        self.to(device)
        self._networks = None
        networks = self._new_networks()
        networks.initialise(seed, config.initialisation)
        networks.to(self.device)
        full = steps_of_epochs(config.epochs, len(images), config.train_batch_size)
        steps = budgeted(full, config.budget)
        report = train_networks(
            lambda _, batch: self.losses(networks, batch),
            batches,
            steps=steps,
            modules={"networks": networks},
            optimiser=torch.optim.Adam(networks.parameters(), lr=config.learning_rate, fused=True),
            schedule=step_decay(steps, config.decay_at, config.decay),
            seed=seed,
            identity=training_identity(self, images, seed),
            device=self.device,
            options=stage_options(self, _STAGE, channels_last=True),
            stage=_STAGE,
            progress=progress,
        )
        self._networks = networks.requires_grad_(False).eval()
        source = "values of the Perlin noise" if batches.textures is None else batches.textures.name
        return FitReport(
            n_train=len(images),
            seconds={_STAGE: report.seconds},
            notes=(f"textures of the anomalies: {source}", *budget_notes(config, steps, full)),
            curves=report.curves,
        )

    def losses(self, networks: nn.Module, batch: _Batch) -> dict[str, torch.Tensor]:
        """Equations 1 to 4: L2 and structural similarity of the reconstruction, focal loss of the mask."""
        config = self.config
        reconstruction, probabilities = networks(batch.shown)
        return {
            "l2": F.mse_loss(reconstruction, batch.target),
            "ssim": config.ssim_weight * (1 - ssim(reconstruction, batch.target, config.ssim_window)),
            "focal": focal_loss(probabilities, batch.mask, config.focal_gamma),
        }

    @torch.inference_mode()
    def predict_batch(self, batch: torch.Tensor) -> Prediction:
        _, probabilities = self.networks(batch.contiguous(memory_format=torch.channels_last))
        anomalous = probabilities[:, 1:]
        scores = largest_average(anomalous, self.config.score_window)
        return Prediction(scores.cpu().numpy(), anomalous[:, 0].cpu().numpy(), self.transform.region)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors of both networks, "reconstructive.…" and "discriminative.…", then named as the authors'."""
        return {name: tensor.detach().contiguous() for name, tensor in self.networks.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        networks = self._new_networks()
        expected = types_of(networks.state_dict())
        networks.load_state_dict(checked_state(self.name, state, expected))
        self._networks = networks.requires_grad_(False).eval().to(self.device)

    def to(self, device: torch.device | str) -> Method[DraemConfig]:
        super().to(device)
        if self._networks is not None:
            self._networks.to(self.device)
        return self
