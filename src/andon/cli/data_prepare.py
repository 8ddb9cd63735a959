"""``andon data prepare`` and ``andon data check``: make a data set of one's own, and look at it before it is used."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from andon._tools.models import FrozenModel
from andon.cli._options import Categories, Device, Folder, Layout, create_model, model_command, options_model
from andon.cli._progress import stage_bars
from andon.cli._show import say, show_table
from andon.core import ConfigError

if TYPE_CHECKING:
    from andon.data import DuplicatePair, Preparation, PrepareOptions
    from andon.inspection import DataCheck

__all__ = ["PREPARE_COMMAND", "PrepareArguments", "check", "prepare"]

_SHOWN = 10
PREPARE_COMMAND = model_command(
    "andon.cli.data_prepare:PrepareArguments",
    {
        "templates": ("--template", "-t"),
        "upright": ("--upright",),
        "drop_duplicates": ("--drop-duplicates",),
        "saturation": ("--saturation", "-s"),
    },
)
"""The class of ``prepare``: it has an option for every field of its arguments."""


class PrepareArguments(FrozenModel):
    """What ``prepare`` can be told, as texts.

    Attributes:
        labels: CSV with the columns file and label, where folders do not say it.
        order: shooting order: name, exif, or a file with one image a line.
        train: share of the good images, the first ones, for training.
        crop: width and height of what is cut out (400x400), pixels of the raw images.
        templates: [FILE:]x,y,width,height: box of the part to look for in a raw image (the first good one otherwise);
            one for each model that is built; repeatable.
        rotation: how far parts may be turned, degrees.
        search: how far a part may have moved, pixels; anywhere otherwise.
        confidence: least correlation with a template; below it there is no part.
        displacement: how far from the median place a part may be, pixels; anywhere otherwise.
        upright: turn crops so that parts are as in the template.
        resize: width and height of the prepared images.
        blur: robust deviations below the median sharpness that an image may be; 0 for any.
        drop_duplicates: keep the first of near duplicates alone.
        masks: COCO or labelme JSON, CVAT XML 1.1, or a folder of labelme JSON or of PNG masks.
        saturation: NAME=0.7 or NAME=420px: how much of a region of this defect must be found; “default” for the others
            (1.0); repeatable.
    """

    labels: Path | None = None
    order: str = "name"
    train: float = 0.5
    crop: str | None = None
    templates: tuple[str, ...] = ()
    rotation: float = 10.0
    search: int | None = None
    confidence: float = 0.7
    displacement: float | None = None
    upright: bool = False
    resize: str | None = None
    blur: float = 4.5
    drop_duplicates: bool = False
    masks: Path | None = None
    saturation: tuple[str, ...] = ()

    def options(self) -> PrepareOptions:
        """The options that the texts stand for; ConfigError names the first that is wrong."""
        from andon.data import PrepareOptions, parse_saturation, parse_template

        thresholds = dict(map(parse_saturation, self.saturation))
        default = thresholds.pop("default", None)
        given = self.model_dump(exclude={"drop_duplicates", "saturation", "templates", "crop", "resize"})
        given |= {
            "crop": _size(self.crop, "--crop"),
            "resize": _size(self.resize, "--resize"),
            "templates": tuple(map(parse_template, self.templates)),
            "duplicates": "drop" if self.drop_duplicates else "report",
            "saturation": thresholds,
        }
        return create_model(PrepareOptions, given if default is None else {**given, "default": default})


def prepare(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Raw images.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Category to make.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Contact sheets and figures; no data set.")] = False,
    sheets: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where contact sheets go; TARGET-sheets otherwise.", show_default=False),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Keep it even where the study's evaluator would not take it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="What became of each image as JSON on stdout.")] = False,
) -> None:
    """Make a data set in AutoVI's layout from raw production images.

    SOURCE holds good/ and a folder for each defect type, or any arrangement with --labels, or images alone whose
    defects --masks knows. It is never changed. Look at the contact sheets of --dry-run first.
    """
    from andon.data import check_target, plan_preparation, write_prepared, write_sheets

    options = options_model(context, PrepareArguments).options()
    if not dry_run:
        check_target(source, target)  # before anything takes long
    beside = sheets or target.absolute().with_name(f"{target.absolute().name}-sheets")
    with stage_bars() as progress:
        preparation = plan_preparation(source, options, progress)
        drawn = write_sheets(preparation, beside)
        faults = [] if dry_run else write_prepared(preparation, target, anyway=anyway, progress=progress)
    if as_json:
        typer.echo(json.dumps(preparation.as_dict(), indent=1, ensure_ascii=True))
    else:
        _print_preparation(preparation)
        for path in drawn:
            say(f"contact sheet: {path}")
        for fault in faults:
            say(Text("error", style="bold red"), f" {fault}")
        say("nothing was written but the contact sheets" if dry_run else f"wrote {target}")
    if faults:
        raise typer.Exit(1)


def _size(text: str | None, option: str) -> tuple[int, int] | None:
    """(height, width) of ``WxH``."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d{1,5})\s*[x×,]\s*(\d{1,5})\s*", text)
    if found is None:
        raise ConfigError(f"{option} {text!r}: expected width and height, as in 400x400")
    return int(found[2]), int(found[1])


def _print_preparation(preparation: Preparation) -> None:
    rows = [
        ("training, good", str(preparation.count("train", good=True))),
        ("test, good", str(preparation.count("test", good=True))),
        ("test, defective", str(preparation.count("test", good=False))),
        ("rejected", str(len(preparation.rejected))),
    ]
    show_table(("Images", "Number"), rows, figures=("Number",), title=str(preparation.source))
    kinds = Counter(image.rejected.kind for image in preparation.rejected if image.rejected)
    for kind, count in kinds.most_common():
        some = [image for image in preparation.rejected if image.rejected and image.rejected.kind == kind]
        say(Text(f"rejected, {kind}", style="yellow"), f": {count}")
        for image in some[:_SHOWN]:
            say(f"  {image.raw.name}: {image.rejected.reason if image.rejected else ''}")
        if count > _SHOWN:
            say(f"  … and {count - _SHOWN} more; the manifest, or --json, has all of them")
    names = [image.raw.name for image in preparation.images]
    _print_pairs(preparation.duplicates, preparation.leaks, names)
    for note in preparation.notes:
        say(Text("note", style="yellow"), f" {note}")


def _print_pairs(pairs: tuple[DuplicatePair, ...], leaks: tuple[DuplicatePair, ...], names: list[str]) -> None:
    if not pairs:
        say("near duplicates: none")
        return
    say(
        Text("near duplicates", style="yellow"),
        f": {len(pairs)} pairs, {len(leaks)} of them between training and test",
    )
    ranked = sorted(pairs, key=lambda pair: (pair not in leaks, -pair.correlation))
    for pair in ranked[:_SHOWN]:
        where = ", between training and test" if pair in leaks else ""
        say(f"  {names[pair.first]} and {names[pair.second]} (correlation {pair.correlation:.3f}{where})")
    if len(pairs) > _SHOWN:
        say(f"  … and {len(pairs) - _SHOWN} more")


def check(
    folder: Folder,
    layout: Layout = None,
    categories: Categories = None,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="A page with images as well.", show_default=False)
    ] = None,
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Look for outliers and groups, which takes minutes.")
    ] = True,
    blur: Annotated[
        float, typer.Option(min=0, help="Robust deviations below the median sharpness that an image may be; 0: any.")
    ] = 4.5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON on stdout.")] = False,
) -> None:
    """What to clean before a method is blamed: outliers, blur, near duplicates, drift, groups of appearance.

    Ends with exit code 1 where there is something to look at.
    """
    from andon.data import load_dataset
    from andon.inspection import check_category
    from andon.report import write_check

    dataset = load_dataset(folder, layout=layout, categories=categories or None)
    with stage_bars() as progress:
        found = [
            check_category(category, deviations=blur, learn=learn, seed=seed, device=device, progress=progress)
            for category in dataset
        ]
    written = None if page is None else write_check(found, dataset.name, page)
    if as_json:
        typer.echo(json.dumps([each.as_dict() for each in found], indent=1, ensure_ascii=True))
    else:
        for each in found:
            _print_check(each)
        if written is not None:
            say(f"wrote {written}")
    if any(each.suspicious for each in found):
        raise typer.Exit(1)


def _print_check(found: DataCheck) -> None:
    ids = [image.sample.id for image in found.images]
    say(Text(found.category.name, style="bold"))
    say(f"{len(ids)} images: " + ", ".join(f"{count} {name}" for name, count in found.counts.items()))
    sizes = (f"{width} × {height} ({count})" for (height, width), count in found.sizes.most_common(6))
    say("sizes: " + ", ".join(sizes))
    for name, reason in found.unreadable:
        say(Text("unreadable", style="bold red"), f" {name}: {reason}")
    for figure in found.drifts:
        say(f"{figure.name}: {figure.sentence}")
    if found.modes:
        groups = ", ".join(f"{len(mode.images)} as {ids[mode.example]}" for mode in found.modes)
        say(f"groups of appearance: {len(found.modes)} ({groups})")
    outliers = [f"{ids[i]} ({found.images[i].outlier or 0:.1f} deviations)" for i in found.outliers]
    _print_list("outliers among the good training images", outliers, looked=bool(found.modes))
    blurred = [f"{ids[i]} (sharpness {found.images[i].appearance.sharpness:.3g})" for i in found.blurred]
    _print_list(f"blurred, sharpness below {found.blur.least:.3g}", blurred)
    _print_pairs(found.duplicates, found.leaks, ids)
    for note in found.notes:
        say(Text("note", style="yellow"), f" {note}")
    say("look at these before training" if found.suspicious else "nothing suspicious")


def _print_list(what: str, lines: list[str], *, looked: bool = True) -> None:
    if not lines:
        say(f"{what}: {'none' if looked else 'not looked for'}")
        return
    say(Text(what, style="yellow"), f": {len(lines)}")
    for line in lines[: 3 * _SHOWN]:
        say(f"  {line}")
    if len(lines) > 3 * _SHOWN:
        say(f"  … and {len(lines) - 3 * _SHOWN} more; --json has all of them")
