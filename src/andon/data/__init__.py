"""Data sets, safe decoding, the decoded-image cache and the transforms."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from andon.data.cache import ArrayCache
from andon.data.decode import decode_image, read_image, read_mask, read_size
from andon.data.fingerprint import category_fingerprint, file_fingerprint
from andon.data.info import dataset_info
from andon.data.layout import Layout, ReadOptions
from andon.data.registry import layout_names, load_dataset, register_layout

if TYPE_CHECKING:
    from andon.data.images import ImageLike, Images, as_images
    from andon.data.transform import Transform

__all__ = [
    "ArrayCache",
    "ImageLike",
    "Images",
    "Layout",
    "ReadOptions",
    "Transform",
    "as_images",
    "category_fingerprint",
    "dataset_info",
    "decode_image",
    "file_fingerprint",
    "layout_names",
    "load_dataset",
    "read_image",
    "read_mask",
    "read_size",
    "register_layout",
]

# These need torch, whose import takes seconds; listing a data set does not.
_LAZY = {
    "ImageLike": "andon.data.images",
    "Images": "andon.data.images",
    "Transform": "andon.data.transform",
    "as_images": "andon.data.images",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
