"""What a detector is given and what it gives, checked in the contract's words; images of one colour.

An image of one colour (all pixels the same) shows nothing: a blank part, or a camera that is dead. Networks and
distances to good images can find such an image nearer to the good ones than a good image is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from andon.core import DataError, DetectorError, ImageArray, Prediction, Region
from andon.data import Images, Transform

__all__ = [
    "WatchedImages",
    "check_batch",
    "check_detector",
    "check_prediction",
    "constant_rows",
    "extreme_images",
    "is_constant",
    "prediction_of",
]

_CONTRACT = (
    "forward must give image scores, a float32 tensor [B], and anomaly maps, a float32 tensor [B, h, w] or None; here "
    "B = {}"
)


def check_batch(name: str, batch: Any, size: tuple[int, int]) -> None:
    """DataError where a batch is not what the transform gives: finite float32 ``[B, 3, *size]``."""
    wanted = f"float32 [B, 3, {size[0]}, {size[1]}]"
    if not isinstance(batch, torch.Tensor):
        raise DataError(
            f"{name}: predict_batch takes a tensor {wanted}, not {type(batch).__name__}; predict takes images and files"
        )
    if batch.dtype != torch.float32 or batch.ndim != 4 or len(batch) == 0 or tuple(batch.shape[1:]) != (3, *size):
        found = f"{str(batch.dtype).removeprefix('torch.')} {list(batch.shape)}"
        raise DataError(
            f"{name}: a batch must be {wanted}, as its transform gives it, not {found}; predict takes images and files"
        )
    # A sum is finite only where all of its terms are, and five times as fast to find.
    if not bool(batch.sum().isfinite()):
        finite = batch.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            row = int(finite.logical_not().nonzero()[0])
            raise DataError(f"{name}: image {row} of the batch has pixels that are not finite (NaN or infinite)")


def prediction_of(name: str, result: Any, n: int, region: Region) -> Prediction:
    """What ``forward`` gave for ``n`` images, as arrays; DetectorError where it breaks the contract."""
    contract = _CONTRACT.format(n)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise DetectorError(f"{name}: forward gave {_kind(result)}, not a pair; {contract}")
    scores, maps = result
    _check_tensor(name, "image scores", scores, 1, n, contract)
    if maps is not None:
        _check_tensor(name, "anomaly maps", maps, 3, n, contract)
    return Prediction(scores.cpu().numpy(), None if maps is None else maps.cpu().numpy(), region=region)


def _check_tensor(name: str, what: str, value: Any, ndim: int, n: int, contract: str) -> None:
    if not isinstance(value, torch.Tensor):
        raise DetectorError(f"{name}: the {what} are {_kind(value)}, not a tensor; {contract}")
    if value.dtype != torch.float32 or value.ndim != ndim or len(value) != n or 0 in value.shape:
        raise DetectorError(f"{name}: the {what} are {_kind(value)}; {contract}")
    if value.requires_grad:
        raise DetectorError(f"{name}: the {what} require a gradient: compute them under torch.no_grad(); {contract}")


def _kind(value: Any) -> str:
    """What a value is: "a float", "a float64 tensor [3, 1]"."""
    if isinstance(value, torch.Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array {value.dtype} {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def check_detector(name: str, detector: Any, kind: type[torch.nn.Module], config: type[Any]) -> None:
    """DetectorError where ``learn`` gave what is no detector, or one that was not set up as the contract has it."""
    if not isinstance(detector, kind):
        raise DetectorError(f"{name}: learn must give a {kind.__name__}, not {_kind(detector)}")
    if "_buffers" not in vars(detector) or not isinstance(vars(detector).get("config"), config):
        raise DetectorError(f"{name}: {type(detector).__name__} must call super().__init__(config) when it is made")
    for buffer, tensor in detector.named_buffers():
        if tensor.requires_grad:
            raise DetectorError(
                f"{name}: what was learned, the buffer {buffer}, requires a gradient: learn it under torch.no_grad(), "
                "or detach() it"
            )


def check_prediction(name: str, found: Any, n: int) -> None:
    """DetectorError where what ``iterate_predictions`` gave for ``n`` images in one batch is not a prediction."""
    if len(found) != 1 or not isinstance(found[0], Prediction) or len(found[0]) != n:
        kinds = ", ".join(_kind(part) for part in found) or "nothing"
        raise DetectorError(f"{name}: of {n} image(s) iterate_predictions gave {kinds}, not one Prediction of {n}")
    for what, array in (("image scores", found[0].image_scores), ("anomaly maps", found[0].anomaly_maps)):
        if array is not None and (not isinstance(array, np.ndarray) or array.dtype != np.float32):
            raise DetectorError(f"{name}: the {what} of a Prediction must be a float32 array, not {_kind(array)}")


# Images of one colour


def is_constant(image: ImageArray) -> bool:
    """Whether all pixels of uint8 ``[h, w, 3]`` are the same."""
    colour = image[0, 0]
    # Nearly every image shows in its first row that it is not.
    return bool((image[0] == colour).all()) and bool((image == colour).all())


def constant_rows(batch: torch.Tensor) -> list[int]:
    """Which images of float ``[B, 3, h, w]`` have one colour."""
    colours = batch[:, :, :1, :1]
    if not bool((batch[:, :, :1] == colours).flatten(1).all(1).any()):
        return []
    return [int(row) for row in (batch == colours).flatten(1).all(1).nonzero()]


def extreme_images(transform: Transform) -> torch.Tensor:
    """Black, white and noise, float32 ``[3, 3, h, w]``: what no part looks like."""
    height, width = transform.output_size
    images = np.zeros((3, height, width, 3), dtype=np.uint8)
    images[1] = 255
    images[2] = np.random.default_rng(0).integers(0, 256, images[2].shape, dtype=np.uint8)
    return transform.normalise(images)


class WatchedImages(Images):
    """Images that remember which of those that passed have one colour, and whether all are alike.

    Args:
        images: to be watched; their cache is used.
        transform: what counts are the images as this gives them.
    """

    def __init__(self, images: Images, transform: Transform) -> None:
        super().__init__(images.items, images.cache)
        self._fingerprints = images._fingerprints
        self._watched, self._constant = transform, dict[int, bool]()
        self._first: ImageArray | None = None
        self._differ = False

    def resized(self, index: int, transform: Transform) -> ImageArray:
        image = super().resized(index, transform)
        if index not in self._constant and transform.geometry_key == self._watched.geometry_key:
            if self._first is None:
                self._first = image
            elif not self._differ:
                self._differ = not (np.array_equal(image[0], self._first[0]) and np.array_equal(image, self._first))
            self._constant[index] = is_constant(image)
        return image

    def constant(self, indices: range) -> list[int]:
        """Which of the images have one colour, counted from the first of the range; those not seen yet are read."""
        for index in indices:
            if index not in self._constant:
                self.resized(index, self._watched)
        return [row for row, index in enumerate(indices) if self._constant[index]]

    def notes(self) -> list[str]:
        """What a reader of a fit on them has to know."""
        n, constant = len(self), len(self.constant(range(len(self))))
        notes = []
        if constant:
            which = f"all {n}" if constant == n else f"{constant} of {n}"
            notes.append(
                f"{which} training images are of one colour (nothing on them): an image of one colour may pass as good"
            )
        if n > 1 and not self._differ:
            notes.append(f"all {n} training images are alike: nothing was learned of how good ones differ")
        return notes
