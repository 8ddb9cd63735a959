"""DSR's hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from andon.methods._reconstruction import AnomalySimulationConfig, TrainingParts

__all__ = ["PRESETS", "DsrConfig"]


class DsrConfig(AnomalySimulationConfig):
    """Hyperparameters of DSR; the defaults are the authors'.

    Attributes:
        weights: of the general discrete latent model: "imagenet" (published), "embedded", "random" (flagged), or a file
            (``andon.methods.dsr.codebook.load_discrete_latent_model``).
        epochs: of the decoders' and the detection module's training.
        upsampling_epochs: of the up-sampling module's training; 0 leaves the module out, and the map is the detection
            module's mask.
        epoch_samples: images an epoch, drawn from the training images; None for as many as there are.
        upsampling_decay_at, upsampling_decay: as ``decay_at`` and ``decay``, of the up-sampling module. The authors'
            schedule would do so at 80 % and 90 % of ``epochs`` but ends at 50 %; here the parts are of its own length.
        latent_strength: lowest similarity bound; an image's is even between it and 1 (λ_s, section 3.3).
        latent_skip: part of the codes left out as too near, see ``andon.methods.dsr.anomalies.sample_codes``.
        upsampling_rotation_probability: as ``rotation_probability``, of the up-sampling module.
        smudge_transparency: largest transparency of the one-coloured smudges that the up-sampling module learns from.
        decoder: "specific": an object-specific decoder of its own renders the restored codes. "general": the general
            one does, which needs no training: not the paper's, but for trainings of a hundred steps, in which no
            decoder can be learned. Where codes were left as they are both images are then alike from the start.
        reconstruction_weight: λ of the object-specific image's loss; of no use with ``decoder="general"``.
        softmax_twice: the loss takes a second softmax of the probabilities, as the study's code does.
        restriction_mean: the subspace restriction adds what it learns to the mean code of each position on good
            images, beginning with nothing. Not the paper's: for short trainings on parts that always lie alike.
        subspace_width: channels of the subspace restriction's first block (128: as many as a code).
        decoder_width, decoder_bottleneck, decoder_hidden, decoder_residual: channels of the object-specific decoder.
        detection_width, upsampling_width: channels of the first block of either U-Net.
        memory_limit: GiB that encodings of training images may use, computed once; images beyond it are encoded
            at every step.
    """

    unit_reason: ClassVar[str] = "the codebook knows images in 0..1"
    weights: str = "imagenet"
    epochs: float = Field(100, gt=0)
    upsampling_epochs: float = Field(50, ge=0)
    epoch_samples: int | None = Field(8000, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    decay_at: TrainingParts = (0.8,)
    upsampling_decay_at: TrainingParts = (0.8, 0.9)
    upsampling_decay: float = Field(0.2, gt=0, le=1)
    latent_strength: float = Field(0.2, ge=0, le=1)
    latent_skip: float = Field(0.05, ge=0, lt=1)
    rotation_probability: float = Field(0.4, ge=0, le=1)
    upsampling_rotation_probability: float = Field(0.3, ge=0, le=1)
    smudge_transparency: float = Field(0.8, ge=0, lt=1)
    decoder: Literal["specific", "general"] = "specific"
    reconstruction_weight: float = Field(10.0, ge=0)
    softmax_twice: bool = False
    restriction_mean: bool = False
    subspace_width: int = Field(128, ge=1)
    decoder_width: int = Field(256, ge=1)
    decoder_bottleneck: int = Field(64, ge=1)
    decoder_hidden: int = Field(128, ge=2)
    decoder_residual: int = Field(64, ge=1)
    detection_width: int = Field(64, ge=1)
    upsampling_width: int = Field(64, ge=1)
    memory_limit: float = Field(1.0, ge=0)


_STUDY: Mapping[str, Any] = {
    "batch_size": 16,
    "epoch_samples": None,
    "epochs": 350,
    "upsampling_epochs": 150,
    "upsampling_decay_at": (),
    "rotation_probability": 0.0,
    "upsampling_rotation_probability": 0.0,
}

# A minute or two on a CPU for 60 images: what needs tens of thousands of steps to be learned is left out.
_QUICK: Mapping[str, Any] = {
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

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The AutoVI study: 500 epochs of the images that there are, none of them augmented.
    "study": _STUDY,
    # Its schedulers are never stepped, and its focal loss takes a softmax of probabilities.
    "released-code": {**_STUDY, "decay_at": (), "softmax_twice": True},
    "default": _QUICK,
    "designed": _QUICK,
}
