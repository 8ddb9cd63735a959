"""What a station takes at most, and what it keeps."""

from __future__ import annotations

from pydantic import Field

from andon._tools.models import FrozenModel

__all__ = ["Limits", "Retention"]


class Limits(FrozenModel):
    """What a station takes at most.

    Attributes:
        max_bytes: of an image's file.
        max_pixels: of an image.
        max_batch: images in one request.
        concurrency: images that are inspected at a time.
        queue: requests that wait beside them.
        timeout: seconds that a request may take, and that its body may take to come.
        rate: requests a second that one client may send; None for any number.
    """

    max_bytes: int = Field(default=2**25, ge=1, le=2**30)
    max_pixels: int = Field(default=2**25, ge=1, le=2**27)
    max_batch: int = Field(default=64, ge=1, le=1000)
    concurrency: int = Field(default=1, ge=1, le=64)
    queue: int = Field(default=64, ge=1, le=10_000)
    timeout: float = Field(default=30.0, gt=0, le=3600)
    rate: float | None = Field(default=None, gt=0)


class Retention(FrozenModel):
    """Which images are kept. Verdicts and reviews always are.

    The image of every verdict but pass is kept, and of passes a share, chosen by the image's hash: the same image is
    chosen or not wherever it is seen. Reviewed images are labels: age does not remove them, and they go last.

    Attributes:
        pass_share: part of the images that pass, 0..1.
        max_days: age at which an image goes; None for never.
        max_bytes: of all images together: passes go first, the oldest first; None for no limit.
    """

    pass_share: float = Field(default=0.1, ge=0, le=1)
    max_days: float | None = Field(default=90.0, gt=0)
    max_bytes: int | None = Field(default=10 * 2**30, ge=0)

    def keeps(self, verdict: str, digest: str) -> bool:
        """Whether the image of a new verdict is kept."""
        return verdict != "pass" or int(digest[:12], 16) < self.pass_share * 16**12
