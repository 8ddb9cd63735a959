"""Checks of what is loaded as a detector's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from andon.core import DetectorError, listed

__all__ = ["TensorType", "checked_state", "shapes_under", "types_of"]

TensorType = tuple[torch.dtype, tuple[int | str, ...]]
"""Type and shape of a tensor."""


def types_of(state: Mapping[str, torch.Tensor]) -> dict[str, TensorType]:
    """What a network's state dict must be like to be taken, for ``checked_state``."""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}


def shapes_under(shapes: Mapping[str, Sequence[int]], prefix: str) -> dict[str, Sequence[int]]:
    """Shapes of the tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def checked_state(
    method: str, state: Mapping[str, torch.Tensor], expected: Mapping[str, TensorType]
) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, after a check of names, types, shapes and finiteness.

    Args:
        method: the method's name, for messages.
        expected: type and shape by name; a letter in a shape stands for any size ≥ 1, the same wherever it stands.

    Raises:
        DetectorError: names the tensor that is missing, not expected, of another type or shape, or not finite.
    """
    if missing := [name for name in expected if name not in state]:
        raise DetectorError(f"{method}: saved state lacks the tensor {listed(missing)}")
    if strangers := [name for name in state if name not in expected]:
        raise DetectorError(f"{method}: saved state has the unknown tensor {listed(strangers)}")
    sizes: dict[str, int] = {}
    for name, (dtype, shape) in expected.items():
        tensor = state[name]
        wanted = ", ".join(str(sizes.get(size, size) if isinstance(size, str) else size) for size in shape)
        fits = tensor.ndim == len(shape) and all(
            actual == (sizes.setdefault(size, actual) if isinstance(size, str) else size) and actual > 0
            for actual, size in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            raise DetectorError(f"{method}: tensor {name} of the saved state is {list(tensor.shape)}, not [{wanted}]")
        if tensor.dtype != dtype:
            raise DetectorError(f"{method}: tensor {name} of the saved state is {tensor.dtype}, not {dtype}")
        if dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
            raise DetectorError(f"{method}: tensor {name} of the saved state holds values that are not finite")
    return {name: state[name] for name in expected}
