"""YAML with line numbers, so that messages can name them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from andon.core import ConfigError

__all__ = ["Lines", "Location", "error_at", "parse"]

Location = tuple[str | int, ...]
Lines = Mapping[Location, int]
"""Line (from 1) of each key and entry."""


def parse(text: str, where: str) -> tuple[Any, dict[Location, int]]:
    """The YAML's value, and the line of each of its keys and entries."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Location, int] = {}
        if node is not None:
            for location, line, duplicate in _walk(node, (), frozenset(), set()):
                if duplicate:
                    raise ConfigError(f"{where}:{line}: {_dotted(location)} is given twice")
                lines[location] = line
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{at}: is not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: is nested too deeply for a plan") from error
    except (ValueError, TypeError, OverflowError) as error:  # a date like 2026-99-99, a list as a key
        raise ConfigError(f"{where}: is not valid YAML: {error}") from error


def _walk(
    node: yaml.Node, location: Location, above: frozenset[int], seen: set[int]
) -> Iterator[tuple[Location, int, bool]]:
    if id(node) in above:
        raise RecursionError
    if id(node) in seen:
        return  # an alias: walking it again each time is how a small file becomes a billion nodes
    seen.add(id(node))
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            yield (*location, name), key.start_mark.line + 1, name in names and name not in ("<<", "?")
            names.add(name)
            yield from _walk(value, (*location, name), above, seen)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*location, position), value.start_mark.line + 1, False
            yield from _walk(value, (*location, position), above, seen)


def error_at(where: str, lines: Mapping[Location, int], location: Location, message: str) -> ConfigError:
    known = next((location[:n] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    line = f":{lines[known]}" if known else ""
    place = f"{_dotted(location)}: " if location else ""
    return ConfigError(f"{where}{line}: {place}{message}")


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
