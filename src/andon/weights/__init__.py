"""Learned parts: where they come from, whether they are whole, what licence they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.weights.initialisation import orthogonal_initialisation, random_weights
    from andon.weights.published import PublishedFile, all_published, cache_directory, published_weights
    from andon.weights.record import WeightsRecord
    from andon.weights.resolution import (
        check_weights,
        fetch_weights,
        find_part,
        find_weights,
        located,
        random_seed,
        searched_places,
        split_hash,
    )
    from andon.weights.state_dicts import check_state_dict, file_sha256, load_into, read_state_dict

__all__ = [
    "PublishedFile",
    "WeightsRecord",
    "all_published",
    "cache_directory",
    "check_state_dict",
    "check_weights",
    "fetch_weights",
    "file_sha256",
    "find_part",
    "find_weights",
    "load_into",
    "located",
    "orthogonal_initialisation",
    "published_weights",
    "random_seed",
    "random_weights",
    "read_state_dict",
    "searched_places",
    "split_hash",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.weights.initialisation": "orthogonal_initialisation random_weights",
        "andon.weights.published": "PublishedFile all_published cache_directory published_weights",
        "andon.weights.record": "WeightsRecord",
        "andon.weights.resolution": (
            "check_weights fetch_weights find_part find_weights located random_seed searched_places split_hash"
        ),
        "andon.weights.state_dicts": "check_state_dict file_sha256 load_into read_state_dict",
    },
)
