"""Data sets, safe decoding, caches and the transform.

What needs torch is imported when it is first used: listing a data set does not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.data.augmentation import Augmentation, AugmentationChoice, augmented
    from andon.data.cache import ArrayCache
    from andon.data.decode import decode_image, read_image, read_mask, read_size
    from andon.data.derived import DerivedReader
    from andon.data.elpv import ELPV_LICENCE, ELPV_PACKAGE, elpv_cells, elpv_folder, write_elpv
    from andon.data.files import IMAGE_SUFFIXES, images_below, natural_key
    from andon.data.fingerprint import category_fingerprint, file_fingerprint
    from andon.data.images import ImageLike, Images, as_images
    from andon.data.info import DatasetInfo, Problem, dataset_info, problem_groups
    from andon.data.layout import Layout, ReadOptions
    from andon.data.maps import MAP_SUFFIXES, MapFiles, find_maps, map_folder, read_map, sample_key
    from andon.data.registry import layout_names, load_dataset, register_layout
    from andon.data.rendered import ImageSource, image_source
    from andon.data.transform import IMAGENET_MEAN, IMAGENET_STD, Transform
    from andon.data.window import Window, placed, window_note, windowed, windowed_fingerprint

__all__ = [
    "ELPV_LICENCE",
    "ELPV_PACKAGE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGE_SUFFIXES",
    "MAP_SUFFIXES",
    "ArrayCache",
    "Augmentation",
    "AugmentationChoice",
    "DatasetInfo",
    "DerivedReader",
    "ImageLike",
    "ImageSource",
    "Images",
    "Layout",
    "MapFiles",
    "Problem",
    "ReadOptions",
    "Transform",
    "Window",
    "as_images",
    "augmented",
    "category_fingerprint",
    "dataset_info",
    "decode_image",
    "elpv_cells",
    "elpv_folder",
    "file_fingerprint",
    "find_maps",
    "image_source",
    "images_below",
    "layout_names",
    "load_dataset",
    "map_folder",
    "natural_key",
    "placed",
    "problem_groups",
    "read_image",
    "read_map",
    "read_mask",
    "read_size",
    "register_layout",
    "sample_key",
    "window_note",
    "windowed",
    "windowed_fingerprint",
    "write_elpv",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.data.augmentation": "Augmentation AugmentationChoice augmented",
        "andon.data.cache": "ArrayCache",
        "andon.data.decode": "decode_image read_image read_mask read_size",
        "andon.data.derived": "DerivedReader",
        "andon.data.files": "IMAGE_SUFFIXES images_below natural_key",
        "andon.data.fingerprint": "category_fingerprint file_fingerprint",
        "andon.data.images": "ImageLike Images as_images",
        "andon.data.info": "DatasetInfo Problem dataset_info problem_groups",
        "andon.data.elpv": "ELPV_LICENCE ELPV_PACKAGE elpv_cells elpv_folder write_elpv",
        "andon.data.layout": "Layout ReadOptions",
        "andon.data.maps": "MAP_SUFFIXES MapFiles find_maps map_folder read_map sample_key",
        "andon.data.registry": "layout_names load_dataset register_layout",
        "andon.data.rendered": "ImageSource image_source",
        "andon.data.transform": "IMAGENET_MEAN IMAGENET_STD Transform",
        "andon.data.window": "Window placed window_note windowed windowed_fingerprint",
    },
)
