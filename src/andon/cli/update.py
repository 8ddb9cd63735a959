"""``andon update``: more good images for an inspector, and its earlier versions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from andon.cli._options import Device
from andon.cli._progress import stage_bars
from andon.cli._show import say, show_table, warn
from andon.cli.inspect import InspectorPath
from andon.core import ConfigError

if TYPE_CHECKING:
    from andon.data import Images
    from andon.inspection import Proposal, Rejudged

__all__ = ["update"]

_MOST_ROWS = 20


Good = Annotated[
    list[Path] | None,
    typer.Option(metavar="DIR", help="New good images, in shooting order; repeatable.", show_default=False),
]
Training = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The images it learned from: they are scored again.", show_default=False),
]
Defective = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Recorded defects: which would pass is shown.", show_default=False),
]
Accept = Annotated[bool, typer.Option("--accept", "--yes", "-y", help="Write it without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what it would change.")]
Recalibrate = Annotated[bool, typer.Option("--recalibrate", help="Learn nothing: only thresholds follow.")]
KeepThresholds = Annotated[
    bool, typer.Option("--keep-thresholds", help="Keep the thresholds' values, not the rates they promise.")
]
IncludeOutliers = Annotated[bool, typer.Option("--include-outliers", help="Learn even images far above all good ones.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Write another file instead.", show_default=False),
]
Versions = Annotated[bool, typer.Option("--versions", help="List the earlier versions that are kept.")]
RollBack = Annotated[bool, typer.Option("--roll-back", help="Go back to the version before the update.")]
To = Annotated[
    str | None, typer.Option(metavar="FINGERPRINT", help="With --roll-back: to this version.", show_default=False)
]


def update(
    file: InspectorPath,
    good: Good = None,
    training: Training = None,
    defective: Defective = None,
    accept: Accept = False,
    dry_run: DryRun = False,
    recalibrate: Recalibrate = False,
    keep_thresholds: KeepThresholds = False,
    include_outliers: IncludeOutliers = False,
    out: Out = None,
    versions: Versions = False,
    roll_back: RollBack = False,
    to: To = None,
    device: Device = "cpu",
) -> None:
    """Add good images to an inspector without training again, show what that changes, and write it if accepted.

    The earlier version is kept beside the file; --roll-back puts it back. The exit code is 1 where recorded defects
    that were noticed would pass.
    """
    if sum((bool(good), versions, roll_back)) != 1:
        raise ConfigError("give new images with --good, or --versions, or --roll-back; one of them")
    if versions:
        return _show_versions(file)
    if to is not None and not roll_back:
        raise ConfigError("--to: goes with --roll-back")
    if roll_back:
        return _roll_back(file, to)
    if accept and dry_run:
        raise ConfigError("--accept, --dry-run: give one of them")
    from andon.inspection import accept_update, load_inspector, propose_update

    new, known, defects = _images(good), _images(training), _images(defective)
    inspector = load_inspector(file, device=device)
    with stage_bars() as progress:
        proposal = propose_update(
            inspector,
            new if new is not None else (),
            training=known,
            defective=defects,
            recalibrate=recalibrate,
            keep_thresholds=keep_thresholds,
            include_outliers=include_outliers,
            progress=progress,
        )
    _show(proposal)
    if not dry_run and (accept or _confirmed()):
        if out is not None:
            proposal.inspector.save(out)
            say(f"{out}: written; {file} stays as it is")
        else:
            kept = accept_update(file, proposal)
            say(f"{file}: written; the earlier version is {kept}, andon update {file} --roll-back puts it back")
        say(f"fingerprint {proposal.inspector.file().fingerprint}")
    else:
        say("nothing was written" + ("" if dry_run else "; --accept writes it"))
    raise typer.Exit(1 if proposal.let_through else 0)


def _images(folders: Sequence[Path] | Path | None) -> Images | None:
    from andon.data import Images
    from andon.inspection import find_inputs

    if folders is None:
        return None
    chosen = [folders] if isinstance(folders, Path) else folders
    return Images([frame.image for frame in find_inputs([str(folder) for folder in chosen])])


def _confirmed() -> bool:
    return sys.stdin.isatty() and typer.confirm("accept the update?")


def _show(proposal: Proposal) -> None:
    if proposal.left_out:
        show_table(("left out", "why"), [tuple(image) for image in proposal.left_out])
    _show_changes("verdicts of earlier good images that change", proposal.changed)
    for sentence in proposal.sentences()[: -len(proposal.warnings()) or None]:
        say(sentence)
    for warning in proposal.warnings():
        warn(Text("warning: ", style="bold red"), warning)


def _show_changes(title: str, images: Sequence[Rejudged]) -> None:
    if not images:
        return
    rows = [
        (image.name, f"{image.score:.4g}", image.verdict, f"{image.new_score:.4g}", image.new_verdict)
        for image in images[:_MOST_ROWS]
    ]
    show_table(("image", "score", "verdict", "new score", "new verdict"), rows, title=title)
    if len(images) > _MOST_ROWS:
        say(f"and {len(images) - _MOST_ROWS} more")


def _show_versions(file: Path) -> None:
    from andon.inspection import InspectorFile, earlier_versions

    rows = []
    present = InspectorFile.read(file)
    listed = [(v.fingerprint, str(v.path), InspectorFile.read(v.path)) for v in earlier_versions(file)]
    for fingerprint, path, opened in [*listed, (present.fingerprint, f"{file} (now)", present)]:
        provenance = opened.content.provenance
        at = provenance.updates[-1].at if provenance.updates else provenance.created
        counts = (str(len(provenance.learned)), str(len(opened.calibration)))
        rows.append((fingerprint, at, *counts, f"{opened.thresholds.stop:.4g}", path))
    headers = ("fingerprint", "from", "learned", "calibrated", "stop above", "file")
    show_table(headers, rows, figures=headers[2:5])


def _roll_back(file: Path, to: str | None) -> None:
    from andon.inspection import roll_back

    version = roll_back(file, to)
    say(f"{file}: is {version.fingerprint} again, byte for byte; what was there is kept (--versions lists it)")
