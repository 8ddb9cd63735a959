"""Learned parts: where they come from, whether they are whole, what licence they have."""

from andon.weights.record import WeightsRecord

__all__ = ["WeightsRecord"]
