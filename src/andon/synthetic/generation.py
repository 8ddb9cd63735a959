"""Writes the synthetic line to disk in AutoVI's layout.

    <root>/synthetic.json                          seed, knobs, versions, every image's place in the production
    <root>/<task>/defects_config.json
    <root>/<task>/train/good/0000.png …
    <root>/<task>/test/good/0000.png …      test/<defect type>/0000.png …
    <root>/<task>/ground_truth/<defect type>/0000/0000.png, 0001.png …     one file a region

Production order is simulated: the first images are the training set; good and defective test images follow in a
mixed order while light, camera position and dirt drift on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

import andon
from andon._tools.processes import end_with_parent
from andon.core import GOOD, AndonError, Channel, ImageArray, ProgressCallback, Split, no_progress
from andon.synthetic.knobs import Counts, Knobs, as_knobs
from andon.synthetic.randomness import stream
from andon.synthetic.rendering import TASKS, mode_of, render, station_of

__all__ = ["MANIFEST", "PlannedImage", "counts_of", "generate", "plan_images"]

MANIFEST = "synthetic.json"

CountsChoice = Literal["small", "full"] | Counts


@dataclass(frozen=True)
class PlannedImage:
    """An image of the production, before it is rendered.

    Attributes:
        index: number within its split, as ``render`` takes it.
        number: number within its folder (its file name).
        defect_type: "good" or the folder of its defect.
        time: place in the production, 0..1.
    """

    task: str
    split: Split
    defect_type: str
    index: int
    number: int
    time: float

    @property
    def path(self) -> str:
        return f"{self.task}/{self.split}/{self.defect_type}/{self.number:04d}.png"


def counts_of(task: str, counts: CountsChoice) -> Counts:
    """Images of a task: "small" (60 training, 30 good, 30 defective), "full" (the study's Table 3), or given."""
    if isinstance(counts, Counts):
        return counts
    if counts == "small":
        return Counts()
    if counts == "full":
        train, good, defective = station_of(task).full_counts
        return Counts(train=train, good=good, defective=defective)
    raise AndonError(f"counts must be 'small', 'full' or Counts, not {counts!r}")


def plan_images(task: str, counts: Counts, seed: int) -> tuple[PlannedImage, ...]:
    """The production of a task in order: training images first, then good and defective ones mixed.

    The defect types get their station's shares of the defective images (largest remainders; each at least one where
    there are enough images).
    """
    total = counts.train + counts.good + counts.defective
    last = max(total - 1, 1)
    planned = [PlannedImage(task, "train", GOOD, i, i, i / last) for i in range(counts.train)]
    labels = [GOOD] * counts.good
    for name, share in _apportion(station_of(task).shares, counts.defective).items():
        labels += [name] * share
    order = stream(seed, task, "order").permutation(len(labels))
    numbers: dict[str, int] = {}
    for index, place in enumerate(order):
        label = labels[int(place)]
        number = numbers.get(label, 0)
        numbers[label] = number + 1
        planned.append(PlannedImage(task, "test", label, index, number, (counts.train + index) / last))
    return tuple(planned)


def _apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    if not shares:
        return {}
    weight = sum(shares.values())
    least = 1 if total >= len(shares) else 0
    exact = {name: least + share / weight * (total - least * len(shares)) for name, share in shares.items()}
    out = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: (out[n] - exact[n], n))[: total - sum(out.values())]:
        out[name] += 1
    return out


def generate(
    root: Path | str,
    *,
    tasks: Sequence[str] = TASKS,
    counts: CountsChoice = "small",
    seed: int = 0,
    knobs: Knobs | Mapping[str, Any] | None = None,
    raw: bool = False,
    jobs: int = 2,
    overwrite: bool = False,
    progress: ProgressCallback = no_progress,
) -> None:
    """Renders a data set in AutoVI's layout.

    It is written beside ``root`` and renamed when complete, so ``root`` is never half a data set. With ``jobs`` > 1 a
    script that calls this needs the usual ``if __name__ == "__main__":`` guard, as processes are spawned.

    Args:
        root: folder to make; must not exist or be empty.
        tasks: names out of ``TASKS``.
        counts: "small", "full" (the study's Table 3) or ``Counts``.
        seed: decides everything random; the same seed gives the same images.
        knobs: difficulties.
        raw: uncropped images where images are crops (2590×1942 for clip and staple, 640×480 for wiring).
        jobs: processes; changes the time, never the images.
        overwrite: replace an earlier synthetic line in ``root`` (nothing else is ever replaced).
        progress: called with ("render", images done, images in all).

    Raises:
        AndonError: unknown task or knob, a folder that is not empty, a full disk.
    """
    root = Path(root)
    knobs = as_knobs(knobs)
    tasks = tuple(dict.fromkeys(tasks))
    if not tasks:
        raise AndonError(f"no task named; known: {', '.join(TASKS)}")
    if jobs < 1:
        raise AndonError(f"jobs must be at least 1, not {jobs}")
    plan = [image for task in tasks for image in plan_images(task, counts_of(task, counts), seed)]
    _check_target(root, overwrite)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{root.name}-", suffix=".partial", dir=root.parent))
    except OSError as error:
        raise AndonError(f"{root.parent}: cannot write there ({error.strerror})") from error
    try:
        _write_frame(aside, plan, tasks, counts, seed, knobs, raw)
        _render_all(aside, plan, seed, knobs, raw, jobs, progress)
        aside.chmod(0o755)
        _put_in_place(aside, root)
    except OSError as error:
        raise AndonError(f"{root}: cannot be written ({error.strerror or error}); nothing was kept") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_target(root: Path, overwrite: bool) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise AndonError(f"{root} is a file; name a folder")
    if not any(root.iterdir()):
        return
    if not overwrite:
        raise AndonError(f"{root} is not empty; name another folder, or allow overwriting an earlier synthetic line")
    if not (root / MANIFEST).is_file():
        raise AndonError(f"{root} holds no synthetic line (no {MANIFEST}); it is not overwritten")


def _put_in_place(aside: Path, root: Path) -> None:
    if root.is_dir():
        old = Path(tempfile.mkdtemp(prefix=f".{root.name}-", suffix=".old", dir=root.parent))
        os.replace(root, old)  # an empty folder may be replaced by a folder
        try:
            os.replace(aside, root)
        except OSError:
            os.replace(old, root)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(aside, root)


def _write_frame(
    aside: Path,
    plan: Sequence[PlannedImage],
    tasks: Sequence[str],
    counts: CountsChoice,
    seed: int,
    knobs: Knobs,
    raw: bool,
) -> None:
    """Folders, ``defects_config.json`` and the manifest."""
    for task in tasks:
        entries = [
            {
                "defect_name": d.name,
                "pixel_value": d.pixel_value,
                "saturation_threshold": d.saturation_threshold,
                "relative_saturation": d.relative,
            }
            for d in station_of(task).defects
        ]
        (aside / task / "ground_truth").mkdir(parents=True)
        (aside / task / "defects_config.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    for image in plan:
        (aside / image.path).parent.mkdir(parents=True, exist_ok=True)
    manifest = {
        "generator": "andon synthetic line",
        "versions": {"andon": andon.__version__, "numpy": np.__version__, "opencv": cv2.__version__},
        "seed": seed,
        "knobs": knobs.model_dump(mode="json"),
        "raw": raw,
        "counts": {task: counts_of(task, counts).model_dump(mode="json") for task in tasks},
        "images": [
            {
                "path": p.path,
                "index": p.index,
                "time": round(p.time, 6),
                "mode": mode_of(p.task, p.index, p.split, seed, knobs),
            }
            for p in plan
        ],
    }
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _render_all(
    aside: Path,
    plan: Sequence[PlannedImage],
    seed: int,
    knobs: Knobs,
    raw: bool,
    jobs: int,
    progress: ProgressCallback,
) -> None:
    # Images of one model share a background: kept together, each process draws few backgrounds.
    ordered = sorted(plan, key=lambda p: (p.task, mode_of(p.task, p.index, p.split, seed, knobs)))
    total = len(ordered)
    progress("render", 0, total)
    if jobs == 1:
        for done, image in enumerate(ordered, 1):
            _render_to_disk(aside, (image,), seed, knobs, raw)
            progress("render", done, total)
        return
    size = max(1, min(24, -(-total // jobs)))
    chunks = [tuple(ordered[i : i + size]) for i in range(0, total, size)]
    context = multiprocessing.get_context("spawn")
    done = 0
    with ProcessPoolExecutor(min(jobs, len(chunks)), mp_context=context, initializer=_start_worker) as pool:
        try:
            running = [pool.submit(_render_to_disk, aside, chunk, seed, knobs, raw) for chunk in chunks]
            for future in as_completed(running):
                done += future.result()
                progress("render", done, total)
        except BrokenProcessPool as error:
            raise AndonError(
                "a rendering process ended unexpectedly (out of memory, or the calling script has no "
                "'if __name__ == \"__main__\":' guard); use fewer jobs"
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start_worker() -> None:
    # One process a core already: threads inside would only fight for it.
    cv2.setNumThreads(1)
    # A pool's workers wait for work from one another's pipes, and so for ever when the process above was killed.
    end_with_parent()


def _render_to_disk(aside: Path, images: Sequence[PlannedImage], seed: int, knobs: Knobs, raw: bool) -> int:
    for image in images:
        defect = None if image.defect_type == GOOD else image.defect_type
        scene = render(
            image.task, image.index, image.split, defect, seed=seed, knobs=knobs, time=image.time, raw=raw
        )  # fmt: skip
        _write_png(aside / image.path, scene.image[..., ::-1])
        if defect is not None:
            folder = aside / image.task / "ground_truth" / defect / f"{image.number:04d}"
            folder.mkdir(parents=True)
            for k, channel in enumerate(scene.channels):
                _write_png(folder / f"{k:04d}.png", _mask_image(image.task, channel))
    return len(images)


def _mask_image(task: str, channel: Channel) -> ImageArray:
    value = next(d.pixel_value for d in station_of(task).defects if d.name == channel.defect)
    # Three equal channels, as AutoVI's own masks have: the official evaluator takes the first of them.
    return np.repeat(channel.mask.astype(np.uint8)[..., None] * np.uint8(value), 3, axis=2)


def _write_png(path: Path, image: ImageArray) -> None:
    ok, code = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    if not ok:
        raise OSError(f"{path.name} cannot be encoded")
    path.write_bytes(code.tobytes())
