"""Frozen pydantic models, and what is wrong with their input in one sentence."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["FrozenModel", "first_fault", "set_option"]


class FrozenModel(BaseModel):
    """A model that cannot be changed and refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_fault(error: ValidationError, known: type[BaseModel] | None = None, what: str = "option") -> str:
    """The first thing that is wrong, for the end of a message: ``option 'sigma': Input should be … (got -1)``.

    Args:
        known: the model whose fields are listed where an unknown one was given.
        what: the user's word for a field.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = "" if known is None else f"; known: {', '.join(known.model_fields)}"
        return f"unknown {what} {where!r}{fields}"
    message = str(first["msg"].removeprefix("Value error, "))
    return f"{what} {where!r}: {message} (got {first['input']!r})" if where else message


def set_option(options: dict[str, Any], place: str, value: object) -> None:
    """Sets ``options["a"]["b"]`` for the place "a.b", and makes what is above it.

    Raises:
        ValueError: a part of the place, which it names, has a value already.
    """
    *above, name = place.split(".")
    for part in above:
        options = options.setdefault(part, {})
        if not isinstance(options, dict):
            raise ValueError(f"{part!r} was given a value before")
    options[name] = value
