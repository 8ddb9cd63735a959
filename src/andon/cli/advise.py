"""``andon advise``: what kind of task it is, what was measured, and the command to run next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from andon.cli._options import Device
from andon.cli._progress import stage_bars
from andon.cli._show import duration, say, show_table
from andon.core import ConfigError, DataError

if TYPE_CHECKING:
    from andon.data import Images
    from andon.evaluation import Interval
    from andon.inspection import Advice

__all__ = ["advise"]


def advise(
    good: Annotated[
        list[Path],
        typer.Argument(metavar="DIR|IMAGES...", help="Good images, in shooting order by name.", show_default=False),
    ],
    defective: Annotated[
        Path | None,
        typer.Option("--defective", metavar="DIR", help="Images with real defects; 8 can choose.", show_default=False),
    ] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            "--candidates",
            metavar="METHOD[:PRESET][@SIZE][+crop]",
            help="Measure these beside the default; repeatable, or with commas.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[float, typer.Option(metavar="MINUTES", help="What is not done by then is left out.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON.", show_default=False)
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Train what is recommended, into this *.andon.", show_default=False),
    ] = None,
    category: Annotated[str | None, typer.Option("--category", "-c", help="Of several.", show_default=False)] = None,
    device: Device = "cpu",
) -> None:
    """Measure on your own good images what to use, and say how sure that is.

    The default is kept unless at least 8 real defects (--defective) say that something else is better, by more than
    the error of the comparison.
    """
    from andon.inspection import advise as advised
    from andon.inspection import parse_candidate

    images, bad = _images(good, category), _defective(defective)
    texts = [part for text in candidates or () for part in text.split(",") if part.strip()]
    chosen = [parse_candidate(text) for text in texts] if texts else None
    with stage_bars() as progress:
        advice = advised(images, bad, candidates=chosen, budget=budget, seed=seed, device=device, progress=progress)
    out = train or Path("part.andon")
    command = _command(good, advice.arguments(), seed, out, category)
    hint = None
    if advice.worth_trying is not None:
        other = out.with_name(f"{out.stem}-2{out.suffix}")
        hint = _command(good, advice.arguments(advice.worth_trying), seed, other, category)
    _show(advice, command, hint)
    if json_file is not None:
        _write(json_file, {"command": command, "command_worth_trying": hint, **advice.as_dict()})
    if train is not None:
        _train(images, advice, train, seed, device)


def _images(paths: Sequence[Path], category: str | None) -> Images:
    from andon.cli.inspect import good_images
    from andon.inspection import find_images

    if len(paths) == 1 and paths[0].is_dir():
        return good_images(paths[0], category)
    if category is not None:
        raise ConfigError("--category: is for one folder of a data set")
    return find_images(paths)


def _defective(folder: Path | None) -> Images | None:
    from andon.core import GOOD
    from andon.inspection import find_images

    if folder is None:
        return None
    found = find_images([folder])
    for index in range(len(found)):
        if GOOD in (part.casefold() for part in Path(found.name(index)).relative_to(folder).parts[:-1]):
            raise DataError(f"--defective {folder}: {found.name(index)} lies in a folder of good images; leave it out")
    return found


def _command(paths: Sequence[Path], arguments: str, seed: int, out: Path, category: str | None) -> str:
    """The command to run next; with single images the folder is the user's to name."""
    folder = shlex.quote(str(paths[0])) if len(paths) == 1 and paths[0].is_dir() else "DIR"
    chosen = [] if category is None else ["--category", shlex.quote(category)]
    chosen += [arguments] if arguments else []
    chosen += ["--seed", str(seed)] if seed else []
    return " ".join(("andon train", folder, "--out", shlex.quote(str(out)), *chosen))


def _show(advice: Advice, command: str, hint: str | None) -> None:
    kept = "recommended" if advice.choice.changed else "the default is kept"
    say(Text(f"{kept}: {advice.candidate.label}", style="bold"))
    say("  ", Text(command, style="green"))
    _wrapped(advice.choice.reasons)
    if hint is not None and advice.worth_trying is not None:
        name = advice.worth_trying.label
        _wrapped([f"worth trying beside it: {name}, better on synthetic defects by more than the error"])
        say("  ", Text(hint, style="green"))
    say()
    _show_candidates(advice)
    say()
    say(Text("reasons", style="bold"))
    _wrapped(advice.notes)
    _wrapped(f"{figure.name}: {figure.sentence}" for figure in advice.character)
    _wrapped(f"not measured: {label}, {reason}" for label, reason in advice.skipped)
    if advice.n_used < advice.n_good:
        _wrapped([f"measured on {advice.n_used} of the {advice.n_good} good images, drawn by --seed"])
    say(Text(f"seed {advice.seed}, {duration(advice.seconds)}", style="dim"))


def _show_candidates(advice: Advice) -> None:
    real = advice.n_defective > 0
    n = len(advice.trial.synthetic)
    title = f"AUROC of {advice.n_used} held-out good images against {n} synthetic defects"
    headers = ["candidate", "synthetic", *(["real"] if real else []), "fit", "ms/image", "MB"]
    rows = []
    for measured in advice.measured:
        costs = measured.costs
        interval = advice.real_auroc(measured)
        rows.append(
            [
                measured.candidate.label,
                _auroc(advice.synthetic_auroc(measured)),
                *([] if interval is None else [_auroc(interval)]),
                duration(costs.fit_seconds),
                f"{costs.milliseconds:.0f}",
                f"{costs.file_bytes / 1e6:.0f}",
            ]
        )
    show_table(headers, rows, figures=headers[1:], title=title + (f" and {advice.n_defective} real" if real else ""))


def _auroc(interval: Interval) -> str:
    if interval.note:
        return f"{interval.value:.3f}"  # no interval can be had
    return f"{interval.value:.3f} ({interval.low:.2f}-{interval.high:.2f})"


def _wrapped(sentences: Iterable[str]) -> None:
    """Each sentence in lines of at most 80 columns."""
    import textwrap

    for sentence in sentences:
        for line in textwrap.wrap(sentence, 80, initial_indent="- ", subsequent_indent="  "):
            say(line)


def _write(path: Path, content: dict[str, Any]) -> None:
    from andon._tools.files import write_file

    write_file(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(), DataError)


def _train(images: Images, advice: Advice, out: Path, seed: int, device: str) -> None:
    from andon.inspection import train_inspector

    method = advice.candidate.create(advice.content)
    with stage_bars() as progress:
        inspector = train_inspector(images, method, seed=seed, device=device, progress=progress)
        inspector.save(out)
    say(f"{out}: {inspector.provenance.title}, {inspector.calibration.how}")
    for sentence in inspector.promise():
        say(sentence)
