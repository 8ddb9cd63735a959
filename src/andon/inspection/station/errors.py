"""What can go wrong at a station, beside what the core's tree has."""

from __future__ import annotations

from andon.core import AndonError, ConfigError, StoreError

__all__ = ["BusyError", "DamagedError", "UnknownError"]


class BusyError(AndonError):
    """No room in the queue, no answer in time, or the station is shutting down: try again later."""


class DamagedError(StoreError):
    """A journal that cannot be read any more."""


class UnknownError(ConfigError):
    """An inspector or an entry that there is not."""
