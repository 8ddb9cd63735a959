"""Data sets, safe decoding, caches and the transform.

What needs torch is imported when it is first used: listing a data set does not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.data.archives import unpack
    from andon.data.augmentation import Augmentation, AugmentationChoice, augmented
    from andon.data.cache import ArrayCache
    from andon.data.catalogue import PublishedSet, SplitCounts, published_set, published_sets, recognised_set
    from andon.data.decode import decode_image, read_image, read_mask, read_size
    from andon.data.derived import DerivedReader
    from andon.data.elpv import ELPV_LICENCE, ELPV_PACKAGE, elpv_cells, elpv_folder, write_elpv
    from andon.data.fetching import Fetched, fetch_set
    from andon.data.files import IMAGE_SUFFIXES, images_below, natural_key
    from andon.data.fingerprint import category_fingerprint, file_fingerprint
    from andon.data.images import ImageLike, Images, as_images
    from andon.data.info import DatasetInfo, Problem, dataset_info, problem_groups
    from andon.data.layout import Layout, ReadOptions
    from andon.data.maps import MAP_SUFFIXES, MapFiles, find_maps, map_folder, read_map, sample_key
    from andon.data.preparing.appearance import DEFAULT_DEVIATIONS, Appearance, BlurLimit, appearance_of, blur_limit
    from andon.data.preparing.duplicates import DuplicatePair, Fingerprints, duplicate_groups, small_copy
    from andon.data.preparing.options import (
        PrepareOptions,
        Saturation,
        TemplateBox,
        parse_saturation,
        parse_template,
    )
    from andon.data.preparing.planning import PlannedImage, Preparation, Rejection, plan_preparation
    from andon.data.preparing.rules import evaluator_faults
    from andon.data.preparing.writing import check_target, write_prepared, write_sheets
    from andon.data.registry import layout_names, load_dataset, register_layout
    from andon.data.rendered import ImageSource, image_source
    from andon.data.transform import IMAGENET_MEAN, IMAGENET_STD, Transform
    from andon.data.window import Window, placed, window_note, windowed, windowed_fingerprint

__all__ = [
    "DEFAULT_DEVIATIONS",
    "ELPV_LICENCE",
    "ELPV_PACKAGE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGE_SUFFIXES",
    "MAP_SUFFIXES",
    "Appearance",
    "ArrayCache",
    "Augmentation",
    "AugmentationChoice",
    "BlurLimit",
    "DatasetInfo",
    "DerivedReader",
    "DuplicatePair",
    "Fetched",
    "Fingerprints",
    "ImageLike",
    "ImageSource",
    "Images",
    "Layout",
    "MapFiles",
    "PlannedImage",
    "Preparation",
    "PrepareOptions",
    "Problem",
    "PublishedSet",
    "ReadOptions",
    "Rejection",
    "Saturation",
    "SplitCounts",
    "TemplateBox",
    "Transform",
    "Window",
    "appearance_of",
    "as_images",
    "augmented",
    "blur_limit",
    "category_fingerprint",
    "check_target",
    "dataset_info",
    "decode_image",
    "duplicate_groups",
    "elpv_cells",
    "elpv_folder",
    "evaluator_faults",
    "fetch_set",
    "file_fingerprint",
    "find_maps",
    "image_source",
    "images_below",
    "layout_names",
    "load_dataset",
    "map_folder",
    "natural_key",
    "parse_saturation",
    "parse_template",
    "placed",
    "plan_preparation",
    "problem_groups",
    "published_set",
    "published_sets",
    "read_image",
    "read_map",
    "read_mask",
    "read_size",
    "recognised_set",
    "register_layout",
    "sample_key",
    "small_copy",
    "unpack",
    "window_note",
    "windowed",
    "windowed_fingerprint",
    "write_elpv",
    "write_prepared",
    "write_sheets",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.data.archives": "unpack",
        "andon.data.augmentation": "Augmentation AugmentationChoice augmented",
        "andon.data.cache": "ArrayCache",
        "andon.data.catalogue": "PublishedSet SplitCounts published_set published_sets recognised_set",
        "andon.data.decode": "decode_image read_image read_mask read_size",
        "andon.data.derived": "DerivedReader",
        "andon.data.fetching": "Fetched fetch_set",
        "andon.data.files": "IMAGE_SUFFIXES images_below natural_key",
        "andon.data.fingerprint": "category_fingerprint file_fingerprint",
        "andon.data.images": "ImageLike Images as_images",
        "andon.data.info": "DatasetInfo Problem dataset_info problem_groups",
        "andon.data.elpv": "ELPV_LICENCE ELPV_PACKAGE elpv_cells elpv_folder write_elpv",
        "andon.data.layout": "Layout ReadOptions",
        "andon.data.maps": "MAP_SUFFIXES MapFiles find_maps map_folder read_map sample_key",
        "andon.data.preparing.appearance": "DEFAULT_DEVIATIONS Appearance BlurLimit appearance_of blur_limit",
        "andon.data.preparing.duplicates": "DuplicatePair Fingerprints duplicate_groups small_copy",
        "andon.data.preparing.options": "PrepareOptions Saturation TemplateBox parse_saturation parse_template",
        "andon.data.preparing.planning": "PlannedImage Preparation Rejection plan_preparation",
        "andon.data.preparing.rules": "evaluator_faults",
        "andon.data.preparing.writing": "check_target write_prepared write_sheets",
        "andon.data.registry": "layout_names load_dataset register_layout",
        "andon.data.rendered": "ImageSource image_source",
        "andon.data.transform": "IMAGENET_MEAN IMAGENET_STD Transform",
        "andon.data.window": "Window placed window_note windowed windowed_fingerprint",
    },
)
