"""Damage to an inspector's file: to its bytes, and to what is in it with the sums made again."""

from __future__ import annotations

import numpy as np

from andon.core import DetectorError
from andon.inspection.container import pack, unpack
from tests.fuzz.damage import damaged, damaged_text

__all__ = ["forged", "harmed"]


def harmed(rng: np.random.Generator, data: bytes) -> bytes:
    """Flipped bits, cut ends, forged sizes and more of the bytes, or members swapped, doubled, renamed or gone."""
    if rng.random() < 0.75:
        return damaged(rng, data)
    parts = _pieces(data)
    kind, i, j = int(rng.integers(4)), *(int(v) for v in rng.integers(len(parts), size=2))
    if kind == 0:
        parts[i], parts[j] = parts[j], parts[i]
    elif kind == 1:
        parts.insert(j, parts[i])
    elif kind == 2:
        del parts[i]
    else:
        parts[i] = parts[i].replace(b".", b"/", 1)
    return b"".join(parts)


def forged(rng: np.random.Generator, data: bytes) -> bytes:
    """A whole file with damaged content: what somebody who makes the sums again can do."""
    members = {name: bytes(content) for name, content in unpack(data, "valid").items()}
    names = list(members)
    name = names[int(rng.integers(len(names)))]
    kind = int(rng.integers(6))
    if kind == 0 and len(members) > 1:
        del members[name]
    elif kind == 1:
        other = names[int(rng.integers(len(names)))]
        members[name], members[other] = members[other], members[name]
    else:
        change = damaged_text if name.endswith(".json") else damaged
        members[name] = change(rng, members[name])
    try:
        return pack(members)
    except (DetectorError, ValueError):
        return data


def _pieces(data: bytes) -> list[bytes]:
    """The bytes from each header to the next."""
    starts = [0]
    while (found := data.find(b"PK", starts[-1] + 2)) > 0:
        starts.append(found)
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
