"""The way from an image to a method's input: resize, centre crop, normalisation.

A transform is a part of a method's Config and of what is exported, so the train and the deployed path cannot differ.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import cv2
import numpy as np
import torch
from PIL import Image
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from andon._tools.models import FrozenModel
from andon.core import ImageArray, Region, canonical_json

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Transform"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Transform(FrozenModel):
    """Resize to ``size`` (aspect ratio not kept, as in the study), centre crop, normalisation.

    Attributes:
        size: (height, width) after resizing; bilinear.
        crop: (height, width) of the centre crop taken after resizing; None for none.
        normalisation: "imagenet" (0..1, then ImageNet mean and standard deviation) or "unit" (0..1).
        antialias: whether the bilinear filter widens with the reduction (Pillow's). False looks at the nearest two
            pixels in either direction, whatever lies between them (OpenCV's, the resizing of the AutoVI study's code):
            of a 1000×750 image at 256×256 that keeps about twice the gradient energy.
    """

    size: tuple[int, int] = (256, 256)
    crop: tuple[int, int] | None = None
    normalisation: Literal["imagenet", "unit"] = "imagenet"
    antialias: bool = True

    @model_serializer(mode="wrap")
    def _without_default_antialias(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Hashes of experiments and caches are made from this: those without the option stay what they were.
        values: dict[str, Any] = handler(self)
        if self.antialias:
            values.pop("antialias", None)
        return values

    @model_validator(mode="after")
    def _check(self) -> Transform:
        height, width = self.size
        if not (8 <= height <= 8192 and 8 <= width <= 8192):
            raise ValueError(f"size must be 8..8192 in both directions, not {height}×{width}")
        if self.crop is not None and not (8 <= self.crop[0] <= height and 8 <= self.crop[1] <= width):
            raise ValueError(f"crop {self.crop[0]}×{self.crop[1]} does not fit in size {height}×{width}")
        return self

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of what the method gets."""
        return self.crop or self.size

    @property
    def region(self) -> Region:
        """The part of the image that the method sees, hence that its map covers."""
        if self.crop is None:
            return Region()
        (height, width), (crop_height, crop_width) = self.size, self.crop
        top, left = self._crop_origin()
        return Region(top / height, left / width, (top + crop_height) / height, (left + crop_width) / width)

    def _crop_origin(self) -> tuple[int, int]:
        crop_height, crop_width = self.output_size
        return (self.size[0] - crop_height) // 2, (self.size[1] - crop_width) // 2

    @property
    def geometry_key(self) -> str:
        """Hash of what decides the resized uint8 image: images are cached under it (normalisation is not in it)."""
        parts = [1, self.size, self.crop, *([] if self.antialias else ["plain"])]
        return hashlib.blake2b(canonical_json(parts).encode(), digest_size=8).hexdigest()

    @property
    def key(self) -> str:
        """Hash of the whole transform: features are cached under it."""
        return hashlib.blake2b(canonical_json([1, self.model_dump()]).encode(), digest_size=8).hexdigest()

    def resize(self, image: ImageArray) -> ImageArray:
        """RGB uint8 ``[H, W, 3]`` of any size to uint8 ``[h, w, 3]`` at ``output_size``.

        The result owns its memory, but for an image that has the size already: then it is a view of it.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"an image must be RGB uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
        height, width = self.size
        if image.shape[:2] != (height, width):
            if self.antialias:
                image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
            else:
                image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        top, left = self._crop_origin()
        crop_height, crop_width = self.output_size
        cropped = image[top : top + crop_height, left : left + crop_width]
        # A view of a part would keep the whole image alive in every cache.
        return cropped if cropped.shape == image.shape else cropped.copy()

    def normalise(self, batch: ImageArray | torch.Tensor) -> torch.Tensor:
        """uint8 ``[B, h, w, 3]`` to float32 ``[B, 3, h, w]``."""
        if isinstance(batch, np.ndarray) and not batch.flags.writeable:
            batch = batch.copy()  # torch has no read-only tensors and warns
        tensor = torch.as_tensor(batch).permute(0, 3, 1, 2)
        tensor = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format).div_(255)
        if self.normalisation == "imagenet":
            mean = torch.tensor(IMAGENET_MEAN, device=tensor.device).view(1, 3, 1, 1)
            std = torch.tensor(IMAGENET_STD, device=tensor.device).view(1, 3, 1, 1)
            tensor.sub_(mean).div_(std)
        return tensor

    def denormalise(self, batch: torch.Tensor) -> torch.Tensor:
        """float ``[B, 3, h, w]`` as a method gets it, back to 0..1."""
        if self.normalisation == "unit":
            return batch
        mean = torch.tensor(IMAGENET_MEAN, device=batch.device).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD, device=batch.device).view(1, 3, 1, 1)
        return batch * std + mean
