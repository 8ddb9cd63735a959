"""Where a learned part came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["WeightsRecord"]


@dataclass(frozen=True)
class WeightsRecord:
    """Where a learned part came from; kept in every experiment's record and shown in the report.

    Attributes:
        part: what it is ("wide_resnet50_2").
        source: "file", "cache", "package" (an installed package of data), "embedded", "hub" or "random".
        name: the weights' name or file name ("imagenet1k_v1", "orthogonal, seed 0").
        sha256: of the weights' bytes; for random weights of the state dict's values.
        licence: licence of the weights, "" where unknown.
        pretrained: False for random weights: the report says so on every page.
    """

    part: str
    source: str
    name: str
    sha256: str
    licence: str = ""
    pretrained: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
