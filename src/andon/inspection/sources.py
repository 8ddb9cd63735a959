"""Where the images to inspect come from: files, folders, patterns, a folder that is watched, a camera or a video."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from andon.core import ConfigError, DataError, ImageArray
from andon.data import images_below, natural_key

__all__ = ["VIDEO_SUFFIXES", "Frame", "find_inputs", "frames", "watched"]

VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm"))
_SETTLED = 0.5
"""Seconds for which a new file must not have changed before it is read: until then it is being written."""


@dataclass(frozen=True)
class Frame:
    """One image to inspect.

    Attributes:
        name: what results call it.
        image: a path, or RGB uint8 ``[H, W, 3]``.
    """

    name: str
    image: Path | ImageArray


def find_inputs(inputs: Sequence[str]) -> Iterator[Frame]:
    """The images that files, folders (with all below) and patterns name, in natural order, and the frames of videos.

    Raises:
        DataError: nothing there, or no image in a folder; before the first image.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            inside = images_below(path)
            if not inside:
                raise DataError(f"{path}: no images in it or below")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            matches = sorted((p for p in glob.glob(text, recursive=True) if Path(p).is_file()), key=natural_key)
            if not matches:
                raise DataError(f"{text}: there is no such image, folder or pattern")
            found += map(Path, matches)
    return _each(found)


def _each(paths: Sequence[Path]) -> Iterator[Frame]:
    for path in dict.fromkeys(paths):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield from frames(str(path))
        else:
            yield Frame(str(path), path)


def watched(
    folder: Path, *, seconds: float = 0.5, sleep: Callable[[float], None] = time.sleep, stop: Callable[[], bool] = bool
) -> Iterator[Frame]:
    """Images that come into a folder from now on, each once, when its file is complete; ends when ``stop`` says so.

    Args:
        folder: what is in it already is left alone.
        seconds: between two looks.
        sleep, stop: for tests.

    Raises:
        AndonError: no such folder, one that is there no more, or a file name in it that is not UTF-8.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder to watch")
    done = set(images_below(folder))
    waiting: dict[Path, tuple[int, int, float]] = {}
    while not stop():
        for path in images_below(folder):
            if path in done:
                continue
            try:
                status = path.stat()
            except OSError:
                continue  # it is gone again
            now = time.monotonic()
            size, changed, since = waiting.get(path, (-1, -1, now))
            if (status.st_size, status.st_mtime_ns) != (size, changed):
                waiting[path] = status.st_size, status.st_mtime_ns, now
            elif now - since >= _SETTLED:
                waiting.pop(path)
                done.add(path)
                yield Frame(str(path), path)
        sleep(seconds)


def frames(source: str, *, every: int = 1) -> Iterator[Frame]:
    """Frames of a camera (its number) or a video (its file), by OpenCV.

    Args:
        source: "0", "1", …, or a path.
        every: only each so many-th frame.

    Raises:
        DataError: it cannot be opened, or gives no frame.
    """
    if every < 1:
        raise ConfigError(f"every {every}: must be at least 1")
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    try:
        if not capture.isOpened():
            what = f"camera {source}" if source.isdigit() else source
            raise DataError(f"{what}: cannot be opened as a camera or video")
        number = 0
        while True:
            there, pixels = capture.read()
            if not there:
                break
            if number % every == 0:
                image = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
                yield Frame(f"{source}#{number}", image)
            number += 1
        if number == 0:
            raise DataError(f"{source}: gives no frames")
    finally:
        capture.release()
