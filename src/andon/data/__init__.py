"""Data sets, safe decoding, caches and the transform.

What needs torch is imported when it is first used: listing a data set does not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.data.cache import ArrayCache
    from andon.data.decode import decode_image, read_image, read_mask, read_size
    from andon.data.fingerprint import category_fingerprint, file_fingerprint
    from andon.data.images import ImageLike, Images, as_images
    from andon.data.info import DatasetInfo, Problem, dataset_info, problem_groups
    from andon.data.layout import Layout, ReadOptions
    from andon.data.maps import MAP_SUFFIXES, MapFiles, find_maps, map_folder, read_map, sample_key
    from andon.data.registry import layout_names, load_dataset, register_layout
    from andon.data.rendered import ImageSource, image_source
    from andon.data.transform import IMAGENET_MEAN, IMAGENET_STD, Transform

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAP_SUFFIXES",
    "ArrayCache",
    "DatasetInfo",
    "ImageLike",
    "ImageSource",
    "Images",
    "Layout",
    "MapFiles",
    "Problem",
    "ReadOptions",
    "Transform",
    "as_images",
    "category_fingerprint",
    "dataset_info",
    "decode_image",
    "file_fingerprint",
    "find_maps",
    "image_source",
    "layout_names",
    "load_dataset",
    "map_folder",
    "problem_groups",
    "read_image",
    "read_map",
    "read_mask",
    "read_size",
    "register_layout",
    "sample_key",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.data.cache": "ArrayCache",
        "andon.data.decode": "decode_image read_image read_mask read_size",
        "andon.data.fingerprint": "category_fingerprint file_fingerprint",
        "andon.data.images": "ImageLike Images as_images",
        "andon.data.info": "DatasetInfo Problem dataset_info problem_groups",
        "andon.data.layout": "Layout ReadOptions",
        "andon.data.maps": "MAP_SUFFIXES MapFiles find_maps map_folder read_map sample_key",
        "andon.data.registry": "layout_names load_dataset register_layout",
        "andon.data.rendered": "ImageSource image_source",
        "andon.data.transform": "IMAGENET_MEAN IMAGENET_STD Transform",
    },
)
