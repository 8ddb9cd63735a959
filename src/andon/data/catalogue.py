"""The published data sets that Andon reads: who owns them, under which licence, where they are, what is in them.

Sizes and checksums are those that public readers of these files give; docs/data.md names where.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from andon.core import ConfigError
from andon.data.download import RemoteFile

__all__ = ["PublishedSet", "SplitCounts", "published_set", "published_sets", "recognised_set"]


class SplitCounts(NamedTuple):
    """Images of a category: good ones for training, good and defective ones for testing."""

    train: int
    good: int
    defective: int


@dataclass(frozen=True)
class PublishedSet:
    """One data set.

    Attributes:
        name: what commands call it ("mvtec-loco").
        title: its name, and who published it.
        licence: in words.
        page: its owner's page.
        layouts: those that its folder may have.
        files: names of its archives, as published.
        categories: names by which it is known among others of the same layout; empty where its layout is its own.
        images, defective: how many its owner counts; None where unknown.
        archive: counts of what the archive really holds, by category, where they are not those of its paper.
        archive_source: who counted.
        zenodo: record of Zenodo with its files; None where there is none that may be downloaded unattended.
        remote: files elsewhere that may be downloaded unattended.
        sha256: of files, by name, beside what the record says.
        package: of the package index that brings it.
        way: how to get it, where it may not be downloaded unattended.
    """

    name: str
    title: str
    licence: str
    page: str
    layouts: tuple[str, ...]
    files: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    images: int | None = None
    defective: int | None = None
    archive: dict[str, SplitCounts] = field(default_factory=dict)
    archive_source: str = ""
    zenodo: int | None = None
    remote: tuple[RemoteFile, ...] = ()
    sha256: dict[str, str] = field(default_factory=dict)
    package: str = ""
    way: str = ""

    @property
    def unattended(self) -> bool:
        """Whether it may be downloaded without a person who agrees to something."""
        return self.zenodo is not None or bool(self.remote)


_NC = "CC BY-NC-SA 4.0 (not for commercial use)"
_FORM = "fill in the form on its owner's page, download, and give the file with --from"

_AUTOVI = {
    "engine_wiring": SplitCounts(285, 285, 322),
    "pipe_clip": SplitCounts(195, 195, 142),
    "pipe_staple": SplitCounts(191, 188, 117),
    "tank_screw": SplitCounts(318, 318, 95),
    "underbody_pipes": SplitCounts(161, 161, 184),
    "underbody_screw": SplitCounts(373, 374, 18),
}
_AUTOVI_SHA256 = {
    "engine_wiring.zip": "252590d3249f7fbdf83a7e9b735ef0df175adc218460247e9a63bef1c03d420c",
    "pipe_clip.zip": "955bb17b3a471e23979f46f998a4723acd00cf3afc4d5edf0578dfb6ea80d6c3",
    "pipe_staple.zip": "fb9287f2cc86d660310e9886fdebbe2bd17269e853e29d06d708c6a996df1b18",
    "tank_screw.zip": "48d7193164b36de03cc10c9f7b1b64ea98a0ce7aa57867c8f1d96341c497b4b0",
    "underbody_pipes.zip": "fc1e53336d46fb2317d71e95c011bac012b609f2898fdb02780c920c19a113c7",
    "underbody_screw.zip": "3e9bf6a43033a22c7c9f927a43c392a3b037d22580a27a48d379d4504d9cc6cf",
}

_SETS = (
    PublishedSet(
        name="autovi",
        title="AutoVI (Carvalho et al. 2024)",
        licence=_NC,
        page="https://zenodo.org/records/10459003",
        layouts=("autovi",),
        files=tuple(_AUTOVI_SHA256),
        categories=tuple(_AUTOVI),
        archive=_AUTOVI,
        archive_source="a public report of the archive",
        zenodo=10459003,
        sha256=_AUTOVI_SHA256,
    ),
    PublishedSet(
        name="dagm",
        title="DAGM 2007 (Wieler, Hahn and Hamprecht)",
        licence="see its page",
        page="https://zenodo.org/records/8086136",
        layouts=("dagm", "dagm-ellipses"),
        files=tuple(f"Class{i}.zip" for i in range(1, 11)),
        images=16100,
        defective=2100,
        way="download Class1.zip to Class10.zip from its page, and give their folder with --from",
    ),
    PublishedSet(
        name="elpv",
        title="ELPV (Buerhop-Lutz et al. 2018)",
        licence=_NC,
        page="https://github.com/zae-bayern/elpv-dataset",
        layouts=("elpv",),
        package="elpv-dataset",
    ),
    PublishedSet(
        name="ksdd",
        title="KolektorSDD (Tabernik et al. 2020)",
        licence=_NC,
        page="https://www.vicos.si/resources/kolektorsdd/",
        layouts=("ksdd",),
        files=("KolektorSDD.zip",),
        images=399,
        defective=52,
        remote=(
            RemoteFile(
                "KolektorSDD.zip",
                "https://data.vicos.si/datasets/KSDD/KolektorSDD.zip",
                101_831_129,
                (("sha256", "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc"),),
            ),
        ),
    ),
    PublishedSet(
        name="ksdd2",
        title="KolektorSDD2 (Božič et al. 2021)",
        licence=_NC,
        page="https://www.vicos.si/resources/kolektorsdd2/",
        layouts=("ksdd2",),
        files=("KolektorSDD2.zip",),
        images=3335,
        defective=356,
        remote=(
            RemoteFile(
                "KolektorSDD2.zip",
                "https://data.vicos.si/datasets/KSDD/KolektorSDD2.zip",
                853_126_555,
                (
                    ("md5", "1ed0f628122776ace4965afa30dfe316"),
                    ("sha256", "edcdb486809b24f1d17b785e30c52fafc5999554dd5fe18ddf77b61ceb6f36a8"),
                ),
            ),
        ),
    ),
    PublishedSet(
        name="magnetic-tile",
        title="Magnetic tiles (Huang, Qiu and Yuan 2020)",
        licence="none stated; its page welcomes its use and asks to cite the paper",
        page="https://github.com/abin24/Magnetic-tile-defect-datasets.",
        layouts=("magnetic-tile",),
        images=1344,
        defective=392,
        way="download the repository as an archive, or clone it, and give it with --from",
    ),
    PublishedSet(
        name="mvtec-ad",
        title="MVTec AD (Bergmann et al. 2019)",
        licence=_NC,
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        layouts=("mvtec",),
        files=("mvtec_anomaly_detection.tar.xz",),
        categories=tuple(
            str.split(
                "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor "
                "wood zipper"
            )
        ),
        images=5354,
        defective=1258,
        way=_FORM,
    ),
    PublishedSet(
        name="mvtec-ad2",
        title="MVTec AD 2 (Heckler-Kram et al. 2025)",
        licence=_NC,
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
        layouts=("mvtec-ad2",),
        files=("mvtec_ad_2.tar.gz",),
        way=_FORM,
    ),
    PublishedSet(
        name="mvtec-loco",
        title="MVTec LOCO AD (Bergmann et al. 2022)",
        licence=_NC,
        page="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        layouts=("autovi",),
        files=("mvtec_loco_anomaly_detection.tar.xz",),
        categories=("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
        images=3644,
        defective=993,
        way=_FORM,
    ),
    PublishedSet(
        name="neu",
        title="NEU-DET (Song and Yan 2013)",
        licence="none stated; see its page",
        page="http://faculty.neu.edu.cn/yunhyan/NEU_surface_defect_database.html",
        layouts=("neu",),
        images=1800,
        defective=1800,
        way="download NEU-DET from its owner's page or a mirror, and give the file with --from",
    ),
    PublishedSet(
        name="severstal",
        title="Severstal: Steel Defect Detection (Kaggle 2019)",
        licence="the rules of the competition, which Kaggle asks to accept",
        page="https://www.kaggle.com/c/severstal-steel-defect-detection/data",
        layouts=("severstal",),
        files=("severstal-steel-defect-detection.zip",),
        images=12568,
        defective=6666,
        way=(
            "accept the rules on its page, kaggle competitions download -c severstal-steel-defect-detection, and give "
            "the file with --from"
        ),
    ),
    PublishedSet(
        name="visa",
        title="VisA (Zou et al. 2022)",
        licence="CC BY 4.0",
        page="https://github.com/amazon-science/spot-diff",
        layouts=("visa", "visa-2cls-highshot", "visa-2cls-fewshot"),
        files=("VisA_20220922.tar",),
        images=10821,
        defective=1200,
        remote=(
            RemoteFile(
                "VisA_20220922.tar",
                "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
                1_929_840_640,
                (("sha256", "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362"),),
            ),
        ),
    ),
)


def published_sets() -> tuple[PublishedSet, ...]:
    """All of them, by name."""
    return _SETS


def published_set(name: str) -> PublishedSet:
    """The one of this name; ConfigError where there is none."""
    found = next((entry for entry in _SETS if entry.name == name), None)
    if found is None:
        raise ConfigError(f"no published data set is called {name!r}; known: {', '.join(e.name for e in _SETS)}")
    return found


def recognised_set(layout: str, categories: tuple[str, ...]) -> PublishedSet | None:
    """Which published data set a layout and the names of categories are of; None where they may be any."""
    for entry in _SETS:
        if layout in entry.layouts and (not entry.categories or (categories and {*categories} <= {*entry.categories})):
            return entry
    return None
