"""DSR: a dual subspace re-projection network for surface anomaly detection.

Zavrtanik, Kristan & Skočaj, ECCV 2022; arXiv 2208.01521. An image is put into codes of a codebook that knows images
in general, at two resolutions. One decoder renders any codes (general appearance); another first brings the codes back
to what good parts look like (object-specific appearance); a U-Net learns where the two renderings differ as they do at
anomalies. Anomalies to learn from are made of other codes, so they need no assumption about what defects look like.
What the paper leaves open is as in the authors' repository (VitjanZ/DSR_anomaly_detection).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from andon.core import AndonError, FloatArray, ImageArray, Prediction, ProgressCallback, no_progress
from andon.data.images import ImageLike, Images, as_images
from andon.methods._perlin import perlin_mask
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
from andon.methods.dsr.codebook import DiscreteLatentModel, load_discrete_latent_model
from andon.methods.dsr.networks import (
    COARSE,
    FINE,
    AnomalyDetectionModule,
    Encoding,
    ImageReconstructionNetwork,
    LatentDraws,
    SubspaceRestrictionModule,
    UpsamplingModule,
    encode,
    latent_anomalies,
)
from andon.methods.registry import register
from andon.training.loop import (
    SampleOrder,
    TrainingReport,
    numpy_step_generator,
    step_decay,
    step_generator,
    steps_of_epochs,
    train,
)
from andon.training.losses import focal_loss
from andon.weights import WeightsRecord

__all__ = ["Dsr", "DsrConfig"]

_GIB = 2**30
_STUDY: Mapping[str, Any] = {
    "batch_size": 16,
    "epoch_samples": None,
    "epochs": 350,
    "upsampling_epochs": 150,
    "upsampling_decay_at": (),
    "rotation_probability": 0.0,
    "upsampling_rotation_probability": 0.0,
}
"""Settings of the AutoVI study: 500 epochs of the images that there are, none of them augmented."""
_EMBEDDED: Mapping[str, Any] = {
    "weights": "embedded",
    "transform": {"size": (128, 128)},
    "epoch_samples": None,
    "epochs": 16,
    "upsampling_epochs": 0,
    "train_batch_size": 4,
    "learning_rate": 2e-3,
    "rotation_probability": 0.0,
    "perlin_exponents": (1, 4),
    "decoder": "general",
    "restriction_mean": True,
    "subspace_width": 32,
    "detection_width": 8,
    "score_window": 5,
}
"""A minute or two on a CPU for 60 images: what needs tens of thousands of steps to be learned is left out."""


class DsrConfig(ReconstructionConfig):
    """Hyperparameters of DSR; the defaults are the authors'.

    Attributes:
        weights: of the general discrete latent model: "imagenet" (published), "embedded", "random" (flagged), or a file
            (``andon.methods.dsr.codebook.load_discrete_latent_model``).
        epochs: of the decoders' and the detection module's training.
        upsampling_epochs: of the up-sampling module's training; 0 leaves the module out, and the map is the detection
            module's mask.
        epoch_samples: images an epoch, drawn from the training images; None for as many as there are.
        train_batch_size: images a step.
        learning_rate: of Adam, in both trainings.
        decay_at, decay: parts of the training after which the learning rate is multiplied by ``decay``.
        upsampling_decay_at, upsampling_decay: the same of the up-sampling module. The authors' schedule would do so at
            80 % and 90 % of ``epochs`` but ends at 50 %; here the parts are of its own length.
        anomaly_probability: of a training image to get an anomaly.
        latent_strength: lowest similarity bound; an image's is even between it and 1 (λ_s, section 3.3).
        latent_skip: part of the codes left out as too near, see ``andon.methods.dsr.networks.sample_codes``.
        perlin_exponents: the masks' Perlin noise has 2^k cells a side, k even from the first to the second of these.
        perlin_threshold: noise above it is mask.
        rotation_probability, upsampling_rotation_probability: of a training image to be turned.
        rotation: largest angle of a turn, degrees.
        smudge_transparency: largest transparency of the one-coloured smudges that the up-sampling module learns from.
        decoder: "specific": an object-specific decoder of its own renders the restored codes. "general": the general
            one does, which needs no training: not the paper's, but for trainings of a hundred steps, in which no
            decoder can be learned. Where codes were left as they are both images are then alike from the start.
        reconstruction_weight: λ of the object-specific image's loss; of no use with ``decoder="general"``.
        focal_gamma: γ of the focal loss.
        softmax_twice: the loss takes a second softmax of the probabilities, as the study's code does.
        restriction_mean: the subspace restriction adds what it learns to the mean code of each position on good
            images, beginning with nothing. Not the paper's: for short trainings on parts that always lie alike.
        subspace_width: channels of the subspace restriction's first block (128: as many as a code).
        decoder_width, decoder_bottleneck, decoder_hidden, decoder_residual: channels of the object-specific decoder.
        detection_width, upsampling_width: channels of the first block of either U-Net.
        score_window: side in pixels of the average whose largest value is the image score; odd.
        memory_limit: GiB that encodings of training images may use, computed once; images beyond it are encoded
            at every step.
    """

    unit_reason: ClassVar[str] = "the codebook knows images in 0..1"
    weights: str = "imagenet"
    epochs: float = Field(100, gt=0)
    upsampling_epochs: float = Field(50, ge=0)
    epoch_samples: int | None = Field(8000, ge=1)
    train_batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    decay_at: TrainingParts = (0.8,)
    decay: float = Field(0.1, gt=0, le=1)
    upsampling_decay_at: TrainingParts = (0.8, 0.9)
    upsampling_decay: float = Field(0.2, gt=0, le=1)
    anomaly_probability: float = Field(0.5, ge=0, le=1)
    latent_strength: float = Field(0.2, ge=0, le=1)
    latent_skip: float = Field(0.05, ge=0, lt=1)
    perlin_exponents: PerlinExponents = (0, 5)
    perlin_threshold: float = Field(0.5, ge=0, lt=1)
    rotation_probability: float = Field(0.4, ge=0, le=1)
    upsampling_rotation_probability: float = Field(0.3, ge=0, le=1)
    rotation: float = Field(90.0, ge=0, le=180)
    smudge_transparency: float = Field(0.8, ge=0, lt=1)
    decoder: Literal["specific", "general"] = "specific"
    reconstruction_weight: float = Field(10.0, ge=0)
    focal_gamma: float = Field(2.0, ge=0)
    softmax_twice: bool = False
    restriction_mean: bool = False
    subspace_width: int = Field(128, ge=1)
    decoder_width: int = Field(256, ge=1)
    decoder_bottleneck: int = Field(64, ge=1)
    decoder_hidden: int = Field(128, ge=2)
    decoder_residual: int = Field(64, ge=1)
    detection_width: int = Field(64, ge=1)
    upsampling_width: int = Field(64, ge=1)
    score_window: OddSide = Field(21, ge=1)
    memory_limit: float = Field(1.0, ge=0)


class _Networks(nn.Module):
    """All that is trained."""

    def __init__(self, config: DsrConfig, channels: int) -> None:
        super().__init__()
        self.decoder = config.decoder
        self.mean_coarse: torch.Tensor | None = None
        self.mean_fine: torch.Tensor | None = None
        if config.restriction_mean:
            height, width = config.transform.output_size
            for name, stride in (("mean_coarse", COARSE), ("mean_fine", FINE)):
                delattr(self, name)
                self.register_buffer(name, torch.zeros(channels, height // stride, width // stride))
        self.restriction_fine = SubspaceRestrictionModule(channels, config.subspace_width)
        self.restriction_coarse = SubspaceRestrictionModule(channels, config.subspace_width)
        if config.decoder == "specific":
            self.reconstruction = ImageReconstructionNetwork(
                2 * channels,
                config.decoder_width,
                config.decoder_bottleneck,
                config.decoder_hidden,
                config.decoder_residual,
            )
        self.detection = AnomalyDetectionModule(config.detection_width)
        if config.upsampling_epochs > 0:
            self.upsampling = UpsamplingModule(config.upsampling_width)

    def render(self, latents: DiscreteLatentModel, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """The object-specific image of restored codes."""
        if self.decoder == "specific":
            return cast(torch.Tensor, self.reconstruction(latents.upsample_top(coarse), fine))
        with torch.no_grad():
            return render(latents, coarse, fine)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """PyTorch's default weights, from the seed; filters of decoder and detection normal with deviation 0.02."""
        for name, layer in self.named_modules():
            if isinstance(layer, nn.modules.conv._ConvNd):
                generator = step_generator(seed, "weights", name)
                fan_in, _ = nn.init._calculate_fan_in_and_fan_out(layer.weight)
                if layer.bias is not None:
                    nn.init.uniform_(layer.bias, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
                if name.startswith(("reconstruction.", "detection.")):
                    nn.init.normal_(layer.weight, 0.0, 0.02, generator=generator)
                else:
                    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        if self.mean_fine is not None:
            for module in (self.restriction_fine, self.restriction_coarse):
                for parameter in module.unet.decoder.fin_out.parameters():
                    parameter.zero_()


class _Views(NamedTuple):
    """What the anomaly is seen in: both decoders' images ``[B, 3, H, W]``, and the mask's probabilities
    ``[B, 2, H, W]``."""

    specific: torch.Tensor
    general: torch.Tensor
    mask: torch.Tensor


@register
class Dsr(Method[DsrConfig]):
    """DSR (Zavrtanik et al. 2022).

    Cost, whatever the number of training images: a step at 256×256 takes about 230 billion multiplications an image
    with the default widths, a prediction 130; both grow with the area of the images and the square of the widths.
    """

    name: ClassVar[str] = "dsr"
    title: ClassVar[str] = "DSR"
    paper: ClassVar[str] = (
        "Zavrtanik et al., DSR – A dual subspace re-projection network for surface anomaly detection, ECCV 2022, "
        "arXiv:2208.01521"
    )
    trained: ClassVar[bool] = True
    Config = DsrConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": _STUDY,
        # Its schedulers are never stepped, and its focal loss takes a softmax of probabilities.
        "released-code": {**_STUDY, "decay_at": (), "softmax_twice": True},
        "embedded": _EMBEDDED,
    }

    def __init__(self, config: DsrConfig) -> None:
        super().__init__(config)
        self._latents: tuple[DiscreteLatentModel, WeightsRecord] | None = None
        self._networks: _Networks | None = None

    @property
    def latents(self) -> DiscreteLatentModel:
        """The general discrete latent model, frozen."""
        return self._load_latents()[0]

    @property
    def weights(self) -> WeightsRecord:
        """Where the general discrete latent model is from."""
        return self._load_latents()[1]

    def _load_latents(self) -> tuple[DiscreteLatentModel, WeightsRecord]:
        if self._latents is None:
            model, record = load_discrete_latent_model(self.config.weights)
            self._latents = model.to(self.device), record
        return self._latents

    def _new_networks(self) -> _Networks:
        with torch.random.fork_rng([]):  # what torch fills them with is overwritten; its generator is not ours to move
            return _Networks(self.config, self.latents.channels)

    @property
    def networks(self) -> _Networks:
        """The trained networks; AndonError before ``fit``."""
        if self._networks is None:
            raise AndonError("dsr has learned nothing yet: call fit or load_state_dict first")
        return self._networks

    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        """Trains the object-specific decoder with the detection module, then the up-sampling module.

        Raises:
            AndonError: no images, no codebook, or a training that goes wrong.
        """
        images = as_images(train)
        if len(images) == 0:
            raise AndonError("dsr: there are no images to learn from")
        self.to(device)
        self._networks = None
        networks = self._new_networks()
        networks.initialise(seed)
        networks.to(self.device)
        training = _Training(self, networks, images, seed, progress)
        report = training.run()
        self._networks = networks.requires_grad_(False).eval()
        return report

    def predict_batch(self, batch: torch.Tensor) -> Prediction:
        # One image at a time: how a batch is computed decides the last bits of features, and these decide between
        # two codes that are equally near. An image's score must not depend on what else is in its batch.
        results = [self._predict(image[None]) for image in batch]
        scores, maps = (torch.cat(parts).cpu().numpy() for parts in zip(*results, strict=True))
        return Prediction(scores, maps, self.transform.region)

    @torch.inference_mode()
    def _predict(self, images_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        networks = self.networks
        views = compare(self.latents, networks, images_)
        anomalous = views.mask[:, 1:]
        scores = largest_average(anomalous, self.config.score_window)
        if self.config.upsampling_epochs > 0:
            anomalous = networks.upsampling(*views).softmax(1)[:, 1:]
        return scores, anomalous[:, 0]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The trained networks' tensors by "network.name", and ``latents``: uint8 ``[32]``, the codebook's SHA-256."""
        state = {name: tensor.detach() for name, tensor in self.networks.state_dict().items()}
        return {**state, "latents": self._fingerprint()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        networks = self._new_networks()
        expected = types_of(networks.state_dict())
        tensors = checked_state(self.name, state, {**expected, "latents": (torch.uint8, (32,))})
        if not torch.equal(tensors.pop("latents").cpu(), self._fingerprint()):
            raise AndonError(
                f"dsr: tensor latents of the saved state is of another codebook than {self.config.weights!r}, with "
                "which its networks cannot work; name the weights that it was trained with"
            )
        networks.load_state_dict(tensors)
        self._networks = networks.requires_grad_(False).eval().to(self.device)

    def _fingerprint(self) -> torch.Tensor:
        return torch.tensor(list(bytes.fromhex(self.weights.sha256)), dtype=torch.uint8)

    def to(self, device: torch.device | str) -> Method[DsrConfig]:
        super().to(device)
        if self._latents is not None:
            self._latents[0].to(self.device)
        if self._networks is not None:
            self._networks.to(self.device)
        return self


def restore(
    latents: DiscreteLatentModel, networks: _Networks, coarse: torch.Tensor, fine: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The object-specific path: codes of both levels to restored features (coarse, fine) and the image of them."""
    coarse_features, coarse_codes = networks.restriction_coarse(coarse, latents.top, networks.mean_coarse)
    fine_features, fine_codes = networks.restriction_fine(fine, latents.bottom, networks.mean_fine)
    return coarse_features, fine_features, networks.render(latents, coarse_codes, fine_codes)


def render(latents: DiscreteLatentModel, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """The general path: the image of codes as they are."""
    return latents.decode(latents.upsample_top(coarse), fine)


@torch.no_grad()
def compare(latents: DiscreteLatentModel, networks: _Networks, images_: torch.Tensor) -> _Views:
    """Both decoders' views of images ``[B, 3, H, W]``, and where they differ (section 3.2)."""
    encoding = encode(latents, images_)
    coarse, fine = latents.top.look_up(encoding.coarse_codes), latents.bottom.look_up(encoding.fine_codes)
    general = render(latents, coarse, fine)
    *_, specific = restore(latents, networks, coarse, fine)
    return _Views(specific, general, networks.detection(specific, general).softmax(1))


class _Batch(NamedTuple):
    """A step's images, made from the step's number alone.

    Attributes:
        indices: of the training images, ``[B]``.
        images: float32 ``[B, 3, H, W]``.
        untouched: bool ``[B]``: neither turned nor altered, so that what is known of the training image holds.
        mask: float32 ``[B, 1, H, W]`` of zeros and ones.
        draws: of the latent anomalies; None for the up-sampling module.
    """

    indices: torch.Tensor
    images: torch.Tensor
    untouched: torch.Tensor
    mask: torch.Tensor
    draws: LatentDraws | None


class _Training:
    """One run of ``fit``."""

    def __init__(self, method: Dsr, networks: _Networks, images: Images, seed: int, progress: ProgressCallback) -> None:
        self.method, self.networks, self.images, self.seed, self.progress = method, networks, images, seed, progress
        self.config, self.device, self.latents = method.config, method.device, method.latents
        self.transform = method.config.transform
        self.identity = training_identity(method, images, seed)

    def run(self) -> FitReport:
        config = self.config
        if self.networks.mean_coarse is not None and self.networks.mean_fine is not None:
            coarse, fine = self._mean_codes()
            self.networks.mean_coarse.copy_(coarse)
            self.networks.mean_fine.copy_(fine)
        decoders = _DecoderStage(self)
        reports = {"decoders": decoders.train()}
        full = decoders.full_steps
        if config.upsampling_epochs > 0:
            upsampling = _UpsamplingStage(self)
            reports["upsampling"] = upsampling.train()
            full += upsampling.full_steps
        done = sum(report.steps for report in reports.values())
        notes = (
            f"codebook: {self.method.weights.name} ({self.method.weights.source})",
            f"anomalies: other codes of the codebook ({reports['decoders'].steps:,} steps)"
            + (f", one-coloured smudges ({reports['upsampling'].steps:,} steps)" if "upsampling" in reports else ""),
            *budget_notes(config, done, full),
        )
        return FitReport(
            n_train=len(self.images),
            seconds={stage: report.seconds for stage, report in reports.items()},
            weights=(self.method.weights,),
            notes=notes,
            curves={f"{stage}/{loss}": c for stage, report in reports.items() for loss, c in report.curves.items()},
        )

    @torch.no_grad()
    def _mean_codes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean code of every position over the training images: coarse ``[C, h/2, w/2]`` and fine ``[C, h, w]``."""
        latents, count = self.latents, len(self.images)
        sums: list[torch.Tensor] = []
        for indices, images_ in self.images.batches(self.transform, self.config.train_batch_size):
            encoding = encode(latents, images_.to(self.device))
            codes = latents.top.look_up(encoding.coarse_codes), latents.bottom.look_up(encoding.fine_codes)
            parts = [part.sum(0, dtype=torch.float64) for part in codes]
            sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
            self.progress("mean codes", indices.stop, count)
        return (sums[0] / count).float(), (sums[1] / count).float()


class _Stage:
    """What both trainings have in common: images, masks, what is known of untouched images, the loop."""

    name: ClassVar[str]
    epochs: float
    rotation_probability: float
    decay_at: tuple[float, ...]
    decay: float

    def __init__(self, run: _Training) -> None:
        self.run, self.config, self.latents, self.networks = run, run.config, run.latents, run.networks
        samples = self.config.epoch_samples or len(run.images)
        batch = self.config.train_batch_size
        self.full_steps = steps_of_epochs(self.epochs, samples, batch)
        self.steps = budgeted(self.full_steps, self.config.budget)
        self.order = SampleOrder(len(run.images), batch, run.seed)
        self.known: tuple[torch.Tensor, ...] | None = None

    # What a stage is

    def parameters(self) -> list[nn.Parameter]:
        raise NotImplementedError

    def losses(self, batch: _Batch) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def batch(self, number: int) -> _Batch:
        raise NotImplementedError

    def describe(self, images_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What is to be known of untouched images, one row an image in each tensor."""
        raise NotImplementedError

    # The loop

    def train(self) -> TrainingReport:
        run = self.run
        try:
            return train(
                lambda _, batch: self.losses(batch),
                self.batch,
                steps=self.steps,
                modules={"networks": self.networks},
                optimiser=torch.optim.Adam(self.parameters(), lr=self.config.learning_rate),
                schedule=step_decay(self.steps, self.decay_at, self.decay),
                seed=run.seed,
                identity=run.identity,
                device=run.device,
                options=stage_options(run.method, self.name),
                stage=self.name,
                progress=run.progress,
            )
        finally:
            self.known = None

    # Images

    def image(self, index: int, rng: np.random.Generator) -> tuple[ImageArray, bool]:
        """Training image ``index``, uint8 ``[H, W, 3]``, and whether it is as it was: turns are drawn."""
        image = self.run.images.resized(index, self.run.transform)
        if rng.random() >= self.rotation_probability:
            return image, True
        return rotated(image, rng.uniform(-self.config.rotation, self.config.rotation)), False

    def mask(self, rng: np.random.Generator) -> FloatArray:
        """Zeros, or with ``anomaly_probability`` ones in the region of an anomaly; float32 ``[H, W]``."""
        config, size = self.config, self.run.transform.output_size
        if rng.random() >= config.anomaly_probability:
            return np.zeros(size, np.float32)
        mask = perlin_mask(size, rng, exponents=config.perlin_exponents, threshold=config.perlin_threshold)
        return mask.astype(np.float32)

    # What is known

    def look_up(self, indices: torch.Tensor, usable: torch.Tensor, images_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """``describe`` of a batch: from memory for ``usable`` images that it holds, computed for the others."""
        if self.known is None:
            self.known = self._describe_all()
        capacity = len(self.known[0])
        return _patched(self.known, indices, usable & (indices < capacity), lambda rows: self.describe(images_[rows]))

    @torch.no_grad()
    def _describe_all(self) -> tuple[torch.Tensor, ...]:
        """``describe`` of as many training images as the memory limit allows, in chunks that do not depend on it."""
        images, batch_size = self.run.images, self.config.train_batch_size
        parts: list[tuple[torch.Tensor, ...]] = []
        capacity = len(images)
        for indices, images_ in images.batches(self.run.transform, batch_size):
            described = self.describe(images_.to(self.run.device))
            if not parts:
                per_image = sum(part[0].numel() * part.element_size() for part in described)
                capacity = min(len(images), int(self.config.memory_limit * _GIB / per_image))
            parts.append(tuple(part[: max(0, capacity - indices.start)] for part in described))
            self.run.progress("encodings", min(indices.stop, capacity), max(capacity, 1))
            if indices.stop >= capacity:
                break
        return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


class _DecoderStage(_Stage):
    """Section 3.3: subspace restriction, object-specific decoder and anomaly detection, together."""

    name = "decoders"

    def __init__(self, run: _Training) -> None:
        config = run.config
        self.epochs, self.rotation_probability = config.epochs, config.rotation_probability
        self.decay_at, self.decay = config.decay_at, config.decay
        super().__init__(run)

    def parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.networks.named_parameters() if not name.startswith("upsampling.")]

    def describe(self, images_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        encoding = encode(self.latents, images_)
        coarse = self.latents.top.look_up(encoding.coarse_codes)
        fine = self.latents.bottom.look_up(encoding.fine_codes)
        return *encoding, render(self.latents, coarse, fine)

    def batch(self, number: int) -> _Batch:
        config, seed = self.config, self.run.seed
        rng = numpy_step_generator(seed, self.name, number)
        indices = self.order(number)
        drawn = [self.image(index, rng) for index in indices]
        masks = np.stack([self.mask(rng) for _ in indices])[:, None]
        height, width = self.run.transform.output_size
        return _Batch(
            torch.tensor(indices),
            self.run.transform.normalise(np.stack([image for image, _ in drawn])),
            torch.tensor([untouched for _, untouched in drawn]),
            torch.from_numpy(masks),
            LatentDraws.draw(
                len(indices),
                (height // FINE, width // FINE),
                config.latent_strength,
                step_generator(seed, "latent anomalies", number),
            ),
        )

    def losses(self, batch: _Batch) -> dict[str, torch.Tensor]:
        config, latents, networks = self.config, self.latents, self.networks
        assert batch.draws is not None
        with torch.no_grad():
            *parts, normal = self.look_up(batch.indices, batch.untouched, batch.images)
            encoding = Encoding(*parts)
            altered = latent_anomalies(latents, encoding, batch.mask, batch.draws, config.latent_skip)
            coarse, fine = latents.top.look_up(altered.coarse_codes), latents.bottom.look_up(altered.fine_codes)
            rows = altered.mask.flatten(1).any(1).nonzero().squeeze(1)
            general = normal.index_put((rows,), render(latents, coarse[rows], fine[rows])) if len(rows) else normal
            good_coarse = latents.top.look_up(encoding.coarse_codes)
            good_fine = latents.bottom.look_up(encoding.fine_codes)
        coarse_features, fine_features, specific = restore(latents, networks, coarse, fine)
        probabilities = networks.detection(specific.detach(), general).softmax(1)
        return {
            "coarse features": F.mse_loss(coarse_features, good_coarse),
            "fine features": F.mse_loss(fine_features, good_fine),
            "reconstruction": config.reconstruction_weight * F.mse_loss(specific, batch.images),
            "focal": mask_loss(config, probabilities, altered.mask),
        }


class _UpsamplingStage(_Stage):
    """Section 3.3, last stage: the up-sampling module, on anomalies in the image."""

    name = "upsampling"

    def __init__(self, run: _Training) -> None:
        config = run.config
        self.epochs, self.rotation_probability = config.upsampling_epochs, config.upsampling_rotation_probability
        self.decay_at, self.decay = config.upsampling_decay_at, config.upsampling_decay
        super().__init__(run)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.networks.upsampling.parameters())

    def describe(self, images_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return compare(self.latents, self.networks, images_)

    def batch(self, number: int) -> _Batch:
        rng = numpy_step_generator(self.run.seed, self.name, number)
        indices = self.order(number)
        images_, masks, untouched = [], [], []
        for index in indices:
            image, as_it_was = self.image(index, rng)
            mask = self.mask(rng)
            images_.append(_smudged(image, mask, rng, self.config.smudge_transparency))
            masks.append(mask[None])
            untouched.append(as_it_was and not mask.any())
        return _Batch(
            torch.tensor(indices),
            torch.from_numpy(np.stack(images_)),
            torch.tensor(untouched),
            torch.from_numpy(np.stack(masks)),
            None,
        )

    def losses(self, batch: _Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            views = _Views(*self.look_up(batch.indices, batch.untouched, batch.images))
        probabilities = self.networks.upsampling(*views).softmax(1)
        return {"focal": mask_loss(self.config, probabilities, batch.mask)}


def mask_loss(config: DsrConfig, probabilities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Focal loss of probabilities ``[B, 2, H, W]`` against a mask ``[B, 1, H, W]`` of zeros and ones."""
    if config.softmax_twice:
        probabilities = probabilities.softmax(1)
    return focal_loss(probabilities, mask, gamma=config.focal_gamma)


def _smudged(image: ImageArray, mask: FloatArray, rng: np.random.Generator, transparency: float) -> FloatArray:
    """The image, one colour laid over it beneath the mask; float32 ``[3, H, W]`` in 0..1."""
    colour, seen = rng.random(3, dtype=np.float32), np.float32(rng.uniform(0, transparency))
    plain = image.astype(np.float32) / np.float32(255)
    smudge = seen * plain + (1 - seen) * colour
    return np.ascontiguousarray(np.where(mask[..., None] > 0, smudge, plain).transpose(2, 0, 1))


def _patched(
    known: tuple[torch.Tensor, ...],
    indices: torch.Tensor,
    usable: torch.Tensor,
    compute: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
) -> tuple[torch.Tensor, ...]:
    """Rows of tensors: ``known[indices]`` where ``usable``, ``compute(rows)`` for the other rows."""
    if bool(usable.all()):
        return tuple(part[indices] for part in known)
    rows = (~usable).nonzero().squeeze(1)
    computed = compute(rows)
    if len(rows) == len(usable):
        return computed
    result = []
    for old, new in zip(known, computed, strict=True):
        whole = new.new_empty((len(usable), *new.shape[1:]))
        whole[usable] = old[indices[usable]]
        whole[rows] = new
        result.append(whole)
    return tuple(result)
