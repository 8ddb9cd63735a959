"""What becomes of inspected images: lines of CSV and JSON, and overlays."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from andon._tools.files import written_atomically
from andon.core import DataError
from andon.data import read_image
from andon.inspection.inspector import Inspector, Verdict
from andon.inspection.overlay import overlay_image
from andon.inspection.sources import Frame

__all__ = ["ImageResult", "ResultFiles", "inspect_all"]

_COLUMNS = (
    "image", "verdict", "score", "p_value", "look_above", "stop_above", "area_percent", "places", "reason", "overlay",
)  # fmt: skip


@dataclass(frozen=True)
class ImageResult:
    """One image and what was said of it.

    Attributes:
        frame: the image.
        verdict: None where the image could not be inspected.
        error: why not; "" where it could.
    """

    frame: Frame
    verdict: Verdict | None
    error: str = ""


def inspect_all(inspector: Inspector, images: Iterable[Frame]) -> Iterator[ImageResult]:
    """The verdicts one by one; an image that cannot be read or does not fit is reported, and the next one follows."""
    for frame in images:
        try:
            yield ImageResult(frame, inspector.inspect(frame.image))
        except DataError as error:
            yield ImageResult(frame, None, str(error))


class ResultFiles:
    """``results.csv`` and ``results.jsonl`` in a folder, a line an image as it comes, and overlays beside them.

    Use as a context: ``with ResultFiles(folder, inspector) as files: files.add(result)``.

    Attributes:
        counts: images by verdict, "error" among them.
    """

    def __init__(self, folder: Path, inspector: Inspector, *, overlays: bool = True) -> None:
        self.folder, self.inspector, self.overlays = folder, inspector, overlays
        self.counts: Counter[str] = Counter()
        self._names: set[str] = set()

    def __enter__(self) -> ResultFiles:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._csv = (self.folder / "results.csv").open("w", newline="", encoding="utf-8")
            self._jsonl = (self.folder / "results.jsonl").open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
        self._writer = csv.DictWriter(self._csv, _COLUMNS)
        self._writer.writeheader()
        return self

    def __exit__(self, *_: object) -> None:
        self._csv.close()
        self._jsonl.close()

    def add(self, result: ImageResult) -> dict[str, Any]:
        """Writes one image's lines and overlay; the values of its lines."""
        self.counts["error" if result.verdict is None else result.verdict.verdict] += 1
        try:
            row = self._row(result)
            # A name may be no text: what cannot be written is escaped.
            plain = {key: _plain(value) for key, value in row.items()}
            self._writer.writerow({k: plain.get(k) for k in _COLUMNS})
            self._jsonl.write(json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n")
            self._csv.flush()
            self._jsonl.flush()
        except OSError as error:
            raise DataError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
        return row

    def _row(self, result: ImageResult) -> dict[str, Any]:
        verdict = result.verdict
        if verdict is None:
            return {"image": result.frame.name, "verdict": "error", "reason": result.error}
        row: dict[str, Any] = {
            "image": result.frame.name,
            "verdict": verdict.verdict,
            "score": _number(verdict.score),
            "p_value": _number(verdict.p_value),
            "look_above": verdict.thresholds.look,
            "stop_above": verdict.thresholds.stop,
            "area_percent": round(100 * verdict.area, 4) if verdict.anomaly_map is not None else None,
            "places": len(verdict.boxes),
            "reason": verdict.reason,
            "boxes": [box._asdict() for box in verdict.boxes],
        }
        if verdict.located is not None:
            row["located"] = {
                "angle": verdict.located.angle,
                "shift": verdict.located.shift,
                "correlation": verdict.located.correlation,
            }
        if self.overlays:
            row["overlay"] = self._overlay(result.frame, verdict)
        return row

    def _overlay(self, frame: Frame, verdict: Verdict) -> str:
        """Draws one; its file's name."""
        image = read_image(frame.image) if isinstance(frame.image, Path) else frame.image
        name = self._unused(frame.name)
        drawn = overlay_image(self.inspector, verdict, image)
        with written_atomically(self.folder / name, durable=False) as aside:
            Image.fromarray(drawn).save(aside, format="PNG", compress_level=1)
        return name

    def _unused(self, name: str) -> str:
        """A name for an image's overlay that no other has."""
        stem = re.sub(r"[^\w.-]", "_", Path(name).stem + (f"-{name.rpartition('#')[2]}" if "#" in name else ""))[:80]
        found, number = f"{stem}.overlay.png", 1
        while found in self._names:
            found, number = f"{stem}-{number}.overlay.png", number + 1
        self._names.add(found)
        return found

    @property
    def exit_code(self) -> int:
        """0 where all pass, 1 where some are looked at, stop or are not found, 2 where an image was none."""
        if self.counts["error"]:
            return 2
        return int(any(count and name != "pass" for name, count in self.counts.items()))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _plain(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
