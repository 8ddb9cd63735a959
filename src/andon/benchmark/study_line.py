"""The synthetic line that the study runs on where AutoVI is not at hand: beside a store, rendered once.

Two data sets: the six tasks, and for Table 12 the uncropped scenes of those that are crops.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from andon.core import ConfigError, ProgressCallback, no_progress
from andon.synthetic import MANIFEST, TASKS, Counts, Knobs, counts_of, generate, plan_images

__all__ = ["COUNTS", "RAW_COUNTS", "RAW_TASKS", "StudyLine", "beside", "render_study_line"]

RAW_TASKS = ("engine_wiring", "pipe_clip", "pipe_staple")
"""Tasks of Table 12."""
_CountsChoice = Literal["small", "full"] | Counts
COUNTS: Mapping[bool, _CountsChoice] = {True: "small", False: "full"}
"""Images a task of the small study, and of the whole one."""
RAW_COUNTS: Mapping[bool, _CountsChoice] = {True: Counts(train=24, good=12, defective=12), False: "full"}
"""The same of uncropped images, which cost many times as much: five million pixels each."""
_SEED = 0


@dataclass(frozen=True)
class StudyLine:
    """The folders.

    Attributes:
        data: the six tasks.
        raw: the uncropped scenes.
        rendered: images that were rendered now; 0 where all were there.
    """

    data: Path
    raw: Path
    rendered: int


def render_study_line(
    store_dir: str | Path, *, small: bool, jobs: int = 2, progress: ProgressCallback = no_progress
) -> StudyLine:
    """Renders what is not there yet, in two folders beside the store: ``<store>-line`` and ``<store>-line-raw``.

    A folder is there whole or not at all, so a start that was killed is made up for by the next one.

    Args:
        store_dir: the store's folder, which need not be there.
        small: images for the small study (``COUNTS``).
        jobs: processes.
        progress: stage "render", images.

    Raises:
        ConfigError: a folder holds other images than these, or another process is rendering them.
        AndonError: as ``generate``.
    """
    data, raw = beside(store_dir, "line"), beside(store_dir, "line-raw")
    wanted = {data: (tuple(TASKS), COUNTS[small]), raw: (RAW_TASKS, RAW_COUNTS[small])}
    missing = [folder for folder, content in wanted.items() if not _is_there(folder, *content, raw=folder == raw)]
    if not missing:
        return StudyLine(data, raw, 0)
    rendered = 0
    with _alone(data):
        # What a killed start left behind: nobody else is at it.
        for stale in data.parent.glob(f".{glob.escape(data.name)}*.partial"):
            shutil.rmtree(stale, ignore_errors=True)
        for folder in missing:
            tasks, counts = wanted[folder]
            generate(folder, tasks=tasks, counts=counts, seed=_SEED, raw=folder == raw, jobs=jobs, progress=progress)
            rendered += sum(_images(counts_of(task, counts)) for task in tasks)
    return StudyLine(data, raw, rendered)


def beside(store_dir: str | Path, what: str) -> Path:
    """The folder ``<store>-<what>``."""
    store = Path(os.path.abspath(store_dir))
    return store.parent / f"{store.name}-{what}"


def _is_there(folder: Path, tasks: Sequence[str], counts: _CountsChoice, *, raw: bool) -> bool:
    """Whether a folder holds exactly this line; ConfigError if it holds another one, or not all of it."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    wrong = f"name another --store, or remove {folder}: it is rendered again"
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"{folder}: holds something else than the study's rendered images (no {MANIFEST}); {wrong}")
    found = _manifest(folder)
    expected = {
        "seed": _SEED,
        "knobs": Knobs.model_validate({}).model_dump(mode="json"),
        "raw": raw,
        "counts": {task: counts_of(task, counts).model_dump(mode="json") for task in tasks},
    }
    for key, value in expected.items():
        if found.get(key) != value:
            raise ConfigError(f"{folder}: holds rendered images with other {key} than the study's; {wrong}")
    paths = [image.path for task in tasks for image in plan_images(task, counts_of(task, counts), _SEED)]
    missing = next((path for path in paths if not (folder / path).is_file()), None)
    if missing is not None:
        raise ConfigError(f"{folder}: lacks {missing}, which its {MANIFEST} names; {wrong}")
    return True


def _images(counts: Counts) -> int:
    return counts.train + counts.good + counts.defective


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{folder / MANIFEST}: cannot be read ({error}); remove {folder}") from error
    return found if isinstance(found, dict) else {}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Held while rendering."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder}: another process is rendering these images; wait for it, or name another --store"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{folder.parent}: cannot write there ({reason}); name another --store") from error
    try:
        yield
    finally:
        lock.release()
