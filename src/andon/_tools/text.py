"""Small pieces of text for messages."""

from __future__ import annotations

__all__ = ["first_line"]


def first_line(error: BaseException) -> str:
    """An exception's first line, at most 200 characters; its class's name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
