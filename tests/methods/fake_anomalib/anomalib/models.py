from typing import ClassVar

import torch
from torch import nn

from anomalib.data import InferenceBatch

__all__ = ["Dinomaly", "EfficientAd", "Endless", "Padim", "WinClip"]


class Resize:
    def __init__(self, size, interpolation="InterpolationMode.BILINEAR", antialias=True):
        self.size, self.interpolation, self.antialias = size, interpolation, antialias


class CenterCrop:
    def __init__(self, size):
        self.size = size


class Normalize:
    def __init__(self, mean, std):
        self.mean, self.std = mean, std


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms


class PreProcessor:
    def __init__(self, transform):
        self.transform = transform


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class AnomalibModule(nn.Module):
    trainer_arguments: ClassVar = {}

    def __init__(self, pre_processor=True, post_processor=True, evaluator=True, visualizer=True):
        super().__init__()
        assert (pre_processor, post_processor, evaluator, visualizer) == (False, False, False, False)

    @staticmethod
    def configure_pre_processor(image_size=None):
        return PreProcessor(Compose([Resize([32, 32]), Normalize(*IMAGENET)]))

    def configure_optimizers(self):
        return None

    def on_train_start(self):
        pass

    def on_train_epoch_end(self):
        pass

    def on_validation_start(self):
        pass

    def validation_step(self, batch, batch_idx):
        return self.model(batch.image)


class MeanModel(nn.Module):
    """A memory bank of images, whose size is known when it was fitted."""

    def __init__(self):
        super().__init__()
        self.register_buffer("memory_bank", torch.empty(0))

    def forward(self, batch):
        if self.training:
            return batch
        distance = (batch[:, None] - self.memory_bank).square().sum(2).amin(1)
        return InferenceBatch(anomaly_map=distance[:, None])


class Padim(AnomalibModule):
    """One pass, as its trainer_arguments say; scores are left to the post-processor."""

    trainer_arguments: ClassVar = {"max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

    def __init__(self, backbone="resnet18", pre_trained=True, **components):
        super().__init__(**components)
        if backbone != "resnet18":
            raise ValueError(f"unknown backbone {backbone}")
        self.pre_trained, self.model, self.seen = pre_trained, MeanModel(), []

    def training_step(self, batch, batch_idx):
        self.seen.append(self.model(batch.image))
        return {"loss": torch.tensor(0.0, requires_grad=True)}

    def on_train_epoch_end(self):
        self.model.memory_bank = torch.cat(self.seen)


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Dropout(0.1), nn.ConvTranspose2d(4, 3, 4, 2, 1))
        self.register_buffer("scale", torch.ones(1))

    def forward(self, batch):
        error = (self.net(batch) - batch).square().mean(1, keepdim=True) / self.scale
        if self.training:
            return error.mean()
        return InferenceBatch(pred_score=error.amax((1, 2, 3))[:, None], anomaly_map=error)


class Dinomaly(AnomalibModule):
    """Trained; takes the length of its training from the trainer and its datamodule."""

    def __init__(self, encoder_name="vit", **components):
        super().__init__(**components)
        self.model = Autoencoder()

    @classmethod
    def configure_pre_processor(cls, image_size=None, crop_size=None):
        return PreProcessor(Compose([Resize((48, 48)), CenterCrop(32), Normalize(*IMAGENET)]))

    def configure_optimizers(self):
        if self.trainer.max_epochs >= 0:
            len(self.trainer.datamodule.train_dataloader())
        return torch.optim.Adam(self.model.parameters(), 1e-3)

    def training_step(self, batch, batch_idx):
        return {"loss": self.model(batch.image)}


class EfficientAd(Dinomaly):
    """Takes one image a step, and the scale of its maps from validation images."""

    @classmethod
    def configure_pre_processor(cls, image_size=None):
        return PreProcessor(Compose([Resize((32, 32), antialias=False)]))

    def on_train_start(self):
        if self.trainer.datamodule.train_batch_size != 1:
            raise ValueError("train_batch_size for EfficientAd should be 1.")

    def on_validation_start(self):
        errors = [self.model.net(batch.image).std() for batch in self.trainer.datamodule.val_dataloader()]
        self.model.scale = torch.stack(errors).mean().reshape(1) + 0.5


class Endless(Dinomaly):
    """One of which nobody says how long it is trained."""


class WinClip(Dinomaly):
    @staticmethod
    def configure_pre_processor(image_size=None):
        return PreProcessor(Compose([Resize((24, 24), interpolation="InterpolationMode.BICUBIC")]))
