"""``andon export``, ``andon verify`` and ``andon speed``: a model for other runtimes, its check, its speed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from andon.cli._progress import stage_bars
from andon.cli._show import say, show_table, warn
from andon.core import ConfigError

if TYPE_CHECKING:
    from andon.inspection import Agreement, RuntimeSpeed

__all__ = ["export", "speed", "verify"]

_BROKEN = 2

SourceFile = Annotated[Path, typer.Argument(metavar="FILE", help="A detector or an inspector.", show_default=False)]
ImagePaths = Annotated[
    list[Path] | None,
    typer.Option("--images", "-i", metavar="PATH", help="Images, or folders of them; repeatable.", show_default=False),
]
Size = Annotated[
    str | None,
    typer.Option(metavar="HxW", help="Height and width of the camera's images, as in 1080x1920.", show_default=False),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of one image; the runtime's choice otherwise.", show_default=False),
]


def export(
    file: SourceFile,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to: *.onnx, or *.xml for OpenVINO.")],
    format: Annotated[Literal["onnx", "openvino"], typer.Option(help="Of the model.")] = "onnx",
    images: ImagePaths = None,
    size: Size = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise the convolutions to int8; what it loses is printed.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Above this score a part is stopped; an inspector has its own.", show_default=False),
    ] = None,
    embed: Annotated[
        int, typer.Option(min=0, help="Images that go into the file beside the model, for andon verify.")
    ] = 4,
) -> None:
    """Export the whole chain, from a uint8 image to score and map, as an ONNX or OpenVINO model.

    It is compared with torch on the images: where a decision or a score differs, nothing is written.
    """
    from andon.inspection import export_model, find_images, load_any

    source = load_any(file)
    if threshold is not None:
        source = source.with_threshold(threshold)
    given = find_images(images or [])
    if not len(given) and source.thumbnail is not None:
        warn(Text("note ", style="yellow"), "no --images: compared on the thumbnail of a good part, which shows less")
    with stage_bars() as progress:
        report = export_model(
            source,
            out,
            given,
            format=format,
            size=parsed_size(size),
            int8=int8,
            embedded_images=embed,
            progress=progress,
        )
    height, width = report.metadata.size
    say(f"{out}: {source.detector.title}, takes RGB uint8 [{height}, {width}, 3]")
    say(f"files: {', '.join(path.name for path in report.files)}")
    _say_agreement(report.agreement)
    if int8:
        say(f"int8 loses: {report.agreement.median:.1e} of a score in the median, {report.agreement.worst:.1e} at most")
        if not report.agreement.agrees:
            warn(Text("note ", style="yellow"), "int8 does not say what torch says: look at the figures")


def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An exported model.", show_default=False)],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            "-r",
            metavar="FILE",
            help="The detector or inspector it was exported from, or the .json beside it; that otherwise.",
            show_default=False,
        ),
    ] = None,
    images: ImagePaths = None,
    runtime: Annotated[
        Literal["onnxruntime", "openvino"] | None,
        typer.Option(help="Of the model's format otherwise.", show_default=False),
    ] = None,
    threads: Threads = None,
) -> None:
    """Repeat the comparison of an exported model with its reference, here and now.

    Exits with 2 where a decision or a score differs, or the model is not the file that was exported.
    """
    from andon.inspection import find_images, verify_export

    with stage_bars() as progress:
        found = verify_export(
            model,
            reference,
            find_images(images) if images else None,
            runtime=runtime,
            threads=threads,
            progress=progress,
        )
    agreement = found.agreement
    figures = ("reference", "model", "difference")
    rows = [
        [name, f"{a:.6g}", f"{b:.6g}", f"{d:.1e}"]
        for name, a, b, d in zip(
            agreement.names, agreement.reference, agreement.found, agreement.differences, strict=True
        )
    ]
    show_table(("image", *figures), rows, figures=figures, title=f"{model.name} in {found.runtime}, {found.reference}")
    for note in found.notes:
        warn(Text("note ", style="yellow"), note)
    _say_agreement(agreement)
    if not found.passed:
        warn(Text("differs ", style="bold red"), f"{model.name} does not pass")
        raise typer.Exit(_BROKEN)
    say("verified")


def speed(
    file: SourceFile,
    runtime: Annotated[
        Literal["auto", "torch", "onnxruntime", "openvino"],
        typer.Option(help="auto: all, and which is the fastest that agrees with torch."),
    ] = "auto",
    images: ImagePaths = None,
    size: Size = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="For latency, and again for throughput, a runtime.")] = 3.0,
    callers: Annotated[int, typer.Option(min=1, help="Images at a time when throughput is measured.")] = 2,
    threads: Threads = None,
) -> None:
    """Measure torch, ONNX Runtime and OpenVINO side by side, from an image in memory to score and map."""
    from andon.inspection import RUNTIMES, fastest, find_images, load_any, measure_speed, named_images, sample_images

    source, wanted = load_any(file), parsed_size(size)
    if images:
        shown = list(named_images(find_images(images), wanted))
    else:
        camera = wanted or source.size or source.detector.transform.size
        shown = source.stand_ins(camera) or sample_images(camera)
        warn(Text("note ", style="yellow"), "no --images: made-up ones, on which agreement says less")
    with stage_bars() as progress:
        speeds = measure_speed(
            source,
            shown,
            runtimes=RUNTIMES if runtime == "auto" else (runtime,),
            seconds=seconds,
            callers=callers,
            threads=threads,
            progress=progress,
        )
    figures = ("p50 ms", "p99 ms", "images/s", "difference")
    height, width = shown[0][1].shape[:2]
    title = f"{source.detector.title}, {height}x{width}, one image at a time; images/s with {callers} callers"
    show_table(("runtime", *figures, "says the same"), map(_speed_row, speeds), figures=figures, title=title)
    for one in speeds:
        if one.refusal:
            warn(Text("note ", style="yellow"), f"{one.title}: {one.refusal}")
    if runtime == "auto":
        best = fastest(speeds)
        times = speeds[0].p50 / best.p50
        say(f"fastest that agrees: {best.title}" + ("" if best.name == "torch" else f", {times:.1f} times torch"))


def parsed_size(text: str | None) -> tuple[int, int] | None:
    """``HxW`` as (height, width)."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text.strip().lower())
    if found is None:
        raise ConfigError(f"--size {text}: expected HEIGHTxWIDTH in pixels, as in 1080x1920")
    return int(found[1]), int(found[2])


def _say_agreement(agreement: Agreement) -> None:
    say(agreement.describe())
    if agreement.map_difference is not None:
        say(f"maps differ by at most {agreement.map_difference:.1e} of their largest value")


def _speed_row(found: RuntimeSpeed) -> list[str]:
    if found.refusal:
        return [found.title, "–", "–", "–", "–", "not measured"]
    times = [f"{value:.1f}" for value in (found.p50, found.p99, found.throughput)]
    if found.agreement is None:
        return [found.title, *times, "–", "is the reference"]
    return [found.title, *times, f"{found.agreement.worst:.1e}", "yes" if found.usable else "no"]
