"""Tables 1, 3, 4 and 5 of the study: public data sets, AutoVI's categories, and the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AUTOVI_CATEGORIES", "CONFUSION_MATRIX", "PUBLIC_DATASETS", "AutoviCategory", "PublicDataset"]


@dataclass(frozen=True)
class PublicDataset:
    """A row of Table 1.

    Attributes:
        name: as printed.
        source: who published it.
        images, defects: how many; None where the study does not give it.
        classes: number of categories.
        conditions: how the images were taken.
        logical_defects: whether there are any.
        note: its footnote.
    """

    name: str
    source: str
    images: int
    defects: int | None
    classes: int
    conditions: str
    logical_defects: bool
    note: str = ""


PUBLIC_DATASETS: tuple[PublicDataset, ...] = (
    PublicDataset("DAGM", "Wieler et al., 2007", 16100, 2100, 10, "Artificial", False),
    PublicDataset("NEU", "Song and Yan, 2013", 1800, 1800, 6, "Laboratory", False),
    PublicDataset("Severstal Steel", "Severstal, 2019", 12572, None, 1, "Industrial (steel)", False),
    PublicDataset(
        "MVTec AD",
        "Bergmann et al., 2019",
        5354,
        1258,
        15,
        "Laboratory",
        True,
        "its logical defects were pointed out by Bergmann et al. (2022) only",
    ),
    PublicDataset("KolektorSDD", "Tabernik et al., 2020", 399, 52, 1, "Industrial (plastic)", False),
    PublicDataset("KolektorSDD2", "Božič et al., 2021", 3335, 356, 1, "Industrial (unspecified)", False),
    PublicDataset("MVTec LOCO", "Bergmann et al., 2022", 3644, 993, 5, "Laboratory", True),
    PublicDataset("VisA", "Zou et al., 2022", 10821, 1200, 12, "Laboratory", False),
    PublicDataset("AutoVI", "Ours", 3950, 887, 6, "Industrial (assembly)", True),
)
"""Table 1, in its order; "Ours" is the study's word for its own."""


@dataclass(frozen=True)
class AutoviCategory:
    """A row of Tables 3 and 4.

    Attributes:
        category: its name in the data set.
        width, height: of its images, in pixels.
        train, good, defective: training images, test images without and with a defect.
        variations: what changes between good images (Table 4, reworded).
        defects: what its defects are (Table 4, reworded).
    """

    category: str
    width: int
    height: int
    train: int
    good: int
    defective: int
    variations: tuple[str, ...]
    defects: tuple[str, ...]

    @property
    def total(self) -> int:
        return self.train + self.good + self.defective


AUTOVI_CATEGORIES: tuple[AutoviCategory, ...] = (
    AutoviCategory(
        "engine_wiring",
        400,
        400,
        285,
        285,
        322,
        ("the scene is fixed", "lighting varies a little", "the fastening module turns a little"),
        ("logical defects", "a cable not fastened", "the blue hoop in a wrong place"),
    ),
    AutoviCategory(
        "pipe_clip",
        400,
        400,
        195,
        196,
        141,
        ("the part moves a little", "several engine models", "lighting varies a little"),
        ("a small clip on the pipe connector, out of place", "operators in front of the scene"),
    ),
    AutoviCategory(
        "pipe_staple",
        400,
        400,
        198,
        199,
        127,
        ("the part moves a little", "several engine models"),
        ("the large staple on the pipe connector is missing",),
    ),
    AutoviCategory(
        "tank_screw",
        1000,
        750,
        318,
        318,
        95,
        (
            "the scene is fixed but for small shifts",
            "several tank models",
            "a red receptacle moves",
            "wirings, cables, nuts or bolts show up in some images",
            "some images are blurred",
        ),
        ("a rather small screw is missing, always at the same place",),
    ),
    AutoviCategory(
        "underbody_pipes",
        1000,
        750,
        161,
        161,
        184,
        ("the scene is fixed", "items hardly move", "shards in some images", "lighting varies a little"),
        ("cables in front of the scene", "operators in front of the scene"),
    ),
    AutoviCategory(
        "underbody_screw",
        1000,
        750,
        373,
        374,
        18,
        ("the scene is fixed", "lighting varies much", "several casing models", "lens flare in some images"),
        ("the left screw is missing",),
    ),
)
"""Tables 3 and 4, in their order. (Table 4 calls underbody_pipes "Cables", all others "Pipes".)"""

CONFUSION_MATRIX: dict[tuple[str, str], str] = {
    ("positive", "positive"): "TP",
    ("positive", "negative"): "FP",
    ("negative", "positive"): "FN",
    ("negative", "negative"): "TN",
}
"""Table 5: (prediction, ground truth) → what such an image counts as; positive = defective."""
