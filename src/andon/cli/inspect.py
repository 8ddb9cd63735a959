"""``andon train``, ``inspect``, ``threshold`` and ``explain``: from good images to verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from andon.cli._options import Device, Folder, config_of
from andon.cli._progress import stage_bars
from andon.cli._show import duration, say, show_table
from andon.core import ConfigError, DataError

if TYPE_CHECKING:
    from andon.data import Images
    from andon.inspection import Frame, InspectorFile

__all__ = ["explain", "good_images", "inspect", "threshold", "train"]

InspectorPath = Annotated[
    Path, typer.Argument(metavar="FILE", help="An inspector's file (.andon).", show_default=False)
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--set", help="OPTION=VALUE of the method; dots lead into an option.", show_default=False),
]
Rate = Annotated[
    str | None,
    typer.Option(help="Good parts that may stop, as in 1%; 1 % or the least possible.", show_default=False),
]
Look = Annotated[
    str | None,
    typer.Option(help="Good parts that may be looked at or stop, as in 5%; off for none.", show_default=False),
]
Roi = Annotated[
    str | None,
    typer.Option(metavar="MASK|X,Y,W,H", help="What counts: a mask, or a box in pixels.", show_default=False),
]
Ignored = Annotated[
    list[Path] | None,
    typer.Option(metavar="MASK", help="A mask of what does not count; repeatable.", show_default=False),
]
Aligned = Annotated[
    str | None,
    typer.Option(
        metavar="auto|X,Y,W,H",
        help="Locate the part in each image first; a box says where it is in the first image.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None, typer.Option(help="Named configuration of the method (andon methods show).", show_default=False)
]
Blocks = Annotated[int | None, typer.Option(min=2, help="Blocks of the cross-fitting.", show_default=False)]
_STYLES = {"pass": "green", "look": "yellow", "stop": "bold red", "part not found": "magenta", "error": "bold red"}
_OFF: Literal["off"] = "off"


def train(
    folder: Folder,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The inspector's file, *.andon.", show_default=False)
    ],
    method: Annotated[str, typer.Option("--method", "-m", help="A method's name, or file.py:Class.")] = "patchcore",
    preset: Preset = None,
    options: MethodOptions = None,
    rate: Rate = None,
    look: Look = None,
    roi: Roi = None,
    ignore: Ignored = None,
    align: Aligned = None,
    rotation: Annotated[float, typer.Option(min=0, max=180, help="With --align: degrees it may be turned by.")] = 15.0,
    blocks: Blocks = None,
    second_day: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Good images of another day: their result stands beside.", show_default=False),
    ] = None,
    category: Annotated[str | None, typer.Option("--category", "-c", help="Of several.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: Device = "cpu",
) -> None:
    """Learn from good images, calibrate on them, and write one file that inspects.

    DIR holds good images, or is a data set, of which the good training images are taken.
    """
    from andon.inspection import train_inspector

    images = good_images(folder, category)
    with stage_bars() as progress:
        inspector = train_inspector(
            images,
            method,
            preset=preset,
            config=config_of(options),
            rate=_rate(rate, "--rate"),
            look=_look(look),
            roi=roi,
            ignore=ignore or (),
            align=_align(align),
            rotation=rotation,
            n_blocks=blocks,
            second_day=None if second_day is None else (second_day.name, good_images(second_day, category)),
            seed=seed,
            device=device,
            progress=progress,
        )
        if look == _OFF:
            stop = inspector.thresholds.stop
            inspector = inspector.with_thresholds(stop, stop)
        inspector.save(out)
    provenance = inspector.provenance
    for note in provenance.notes:
        say(Text("note ", style="dim"), note)
    say(f"{out}: {provenance.title}, {inspector.calibration.how}, {duration(provenance.seconds)}")
    _say_promise(inspector.file(), rate is None)


def inspect(
    file: InspectorPath,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUTS...", help="Images, folders, patterns, videos.", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for results and overlays.", show_default=False)
    ] = Path("results"),
    watch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Inspect what comes into a folder.", show_default=False)
    ] = None,
    camera: Annotated[
        str | None, typer.Option(metavar="N", help="A camera's number, or a stream's address.", show_default=False)
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="With --camera: each so many-th frame.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many images.", show_default=False)] = None,
    overlays: Annotated[bool, typer.Option(help="Draw overlays.")] = True,
    device: Device = "cpu",
) -> None:
    """Inspect images: pass, look or stop, with heat maps; results.csv, results.jsonl and overlays in a folder.

    The exit code is 0 where all pass, 1 where some do not, 2 where an image could not be inspected.
    """
    from itertools import islice

    from andon.inspection import ResultFiles, inspect_all, load_inspector

    images = _inputs(inputs or [], watch, camera, every)
    first = next(images, None)  # what is not there is named before the model is loaded
    found = chain(() if first is None else (first,), images)
    inspector = load_inspector(file, device=device)
    with ResultFiles(out, inspector, overlays=overlays) as files:
        try:
            for result in inspect_all(inspector, islice(found, limit)):
                row = files.add(result)
                verdict = Text(f"{row['verdict']:<5} ", style=_STYLES[row["verdict"]])
                figures = "" if row.get("score") is None else f"score {row['score']:.4g}, p {row['p_value']:.2g}  "
                say(verdict, figures, row["image"], f"  ({row['reason']})" if row["reason"] else "")
        except KeyboardInterrupt:
            if watch is None and camera is None:
                raise
    counts = ", ".join(f"{count} {name}" for name, count in files.counts.items())
    say(f"{out}: {counts or 'no images'}; stop above {inspector.thresholds.stop:.4g}")
    raise typer.Exit(files.exit_code)


def threshold(
    file: InspectorPath,
    rate: Annotated[str | None, typer.Option(help="Good parts that may stop, as in 1%.", show_default=False)] = None,
    value: Annotated[float | None, typer.Option(help="The score above which a part stops.", show_default=False)] = None,
    look: Annotated[
        str | None, typer.Option(help="Good parts that may be looked at or stop; off for none.", show_default=False)
    ] = None,
    look_value: Annotated[
        float | None, typer.Option(help="The score above which a part is looked at.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write another file instead.", show_default=False),
    ] = None,
) -> None:
    """Show what the thresholds promise, or move them, by rate or by value; nothing is trained again."""
    from andon.inspection import InspectorFile, moved_thresholds

    opened = InspectorFile.read(file)
    if any(option is not None for option in (rate, value, look, look_value)):
        thresholds = moved_thresholds(
            opened.calibration,
            opened.thresholds,
            rate=_rate(rate, "--rate"),
            value=value,
            look=_OFF if look == _OFF else _look(look),
            look_value=look_value,
        )
        opened = opened.with_content(thresholds={"look": thresholds.look, "stop": thresholds.stop})
        opened.write(out or file)
        say(f"{out or file}: written")
    elif out is not None:
        raise ConfigError("--out: give a threshold to move as well, --rate or --value")
    _say_promise(opened, False)


def explain(
    file: InspectorPath,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", show_default=False)],
    device: Device = "cpu",
) -> None:
    """Why an image got its score: its strangest patches with the nearest good ones, or the branch that alarmed."""
    from andon.inspection import explain as explained
    from andon.inspection import load_inspector

    found = explained(load_inspector(file, device=device), image)
    verdict = found.verdict
    say(
        Text(f"{verdict.verdict} ", style=_STYLES[verdict.verdict]),
        f"score {verdict.score:.4g} (stop above {verdict.thresholds.stop:.4g}), p {verdict.p_value:.2g}",
        f"; {verdict.reason}" if verdict.reason else "",
    )
    if found.patches:
        rows = [(f"{p.distance:.4g}", f"{p.x},{p.y}", p.image, f"{p.image_x},{p.image_y}") for p in found.patches]
        headers = ("distance", "at x,y", "nearest good patch in", "there at x,y")
        show_table(headers, rows, figures=("distance",), title="the strangest patches")
        rows_images = [(name, str(count)) for name, count in found.nearest_images]
        show_table(("good image", "patches"), rows_images, figures=("patches",), title="the nearest good images")
    for branch, peak in found.branches:
        say(f"{branch}: {peak:.4g}")
    if found.places:
        boxes = [(f"{b.peak:.4g}", f"{b.x},{b.y}", f"{b.width} × {b.height}", str(b.area)) for b in found.places]
        show_table(("peak", "at x,y", "size", "pixels"), boxes, figures=("peak", "pixels"), title="above the threshold")


def _say_promise(file: InspectorFile, defaulted: bool) -> None:
    from andon.inspection import images_needed, percent, promise

    for sentence in promise(file.calibration, file.thresholds, file.content.second_day):
        say(sentence)
    n = len(file.calibration)
    if defaulted and file.calibration.least_rate > 0.01:
        least = percent(file.calibration.least_rate)
        say(f"{n} good images cannot promise less than 1/{n + 1} ({least}); {images_needed(0.01)} would do for 1 %")
    say(f"fingerprint {file.fingerprint}")


def good_images(folder: Path, category: str | None) -> Images:
    """The good training images of a folder or data set."""
    from andon.data import Images, load_dataset

    dataset = load_dataset(folder, categories=None if category is None else [category], train_fraction=1.0)
    if len(dataset) > 1:
        raise ConfigError(f"{folder}: holds {len(dataset)} categories; choose one with --category")
    (found,) = dataset
    if not found.train:
        raise DataError(f"{folder}: has no good training images")
    return Images(found.train)


def _inputs(inputs: Sequence[str], watch: Path | None, camera: str | None, every: int) -> Iterator[Frame]:
    from andon.inspection import find_inputs, frames, watched

    if sum((bool(inputs), watch is not None, camera is not None)) != 1:
        raise ConfigError("give images to inspect, or --watch a folder, or --camera; one of them")
    if watch is not None:
        say(f"watching {watch}; interrupt to end")
        return watched(watch)
    return frames(camera, every=every) if camera is not None else find_inputs(inputs)


def _rate(text: str | None, option: str) -> float | None:
    """ "1%", "1 %" or "0.01"."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(%?)\s*", text)
    try:
        value = float(match[1]) if match else float("nan")
    except ValueError:
        value = float("nan")
    if match and match[2]:
        value = float(f"{value / 100:.12g}")
    if not 0 < value < 1:
        raise ConfigError(f"{option} {text!r}: expected a part of the good parts, as in 1% or 0.01")
    return value


def _look(text: str | None) -> float | None:
    return None if text == _OFF else _rate(text, "--look")


def _align(text: str | None) -> bool | tuple[int, int, int, int]:
    if text is None or text == "auto":
        return text is not None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--align {text!r}: expected auto, or the part's box in the first image: x,y,w,h") from None
    return x, y, width, height
