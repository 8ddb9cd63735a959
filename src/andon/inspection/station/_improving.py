"""Updates of the station's inspectors by what operators called good: proposed aside, accepted or not, taken back."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from andon.core import AndonError, ConfigError
from andon.inspection.station.journal import WORDS, Entry, Word
from andon.inspection.station.station import Served, Station
from andon.inspection.updating import Proposal, propose_update
from andon.inspection.versions import Version, accept_update, earlier_versions, roll_back, undone_on_failure

__all__ = ["MOST_IMAGES", "Improvements", "Work"]

MOST_IMAGES = 500
"""Images of one update."""
_MOST_DEFECTS = 200
_READ = 2000


@dataclass
class Work:
    """A proposal that is being worked out, or was.

    Attributes:
        fingerprint: of the inspector's file that it is for.
        state: how far it is.
        step: what is being done, in words.
        proposal: once it is there.
        error: why it is not.
    """

    fingerprint: str
    state: Literal["working", "proposed", "failed"] = "working"
    step: str = "reading images"
    proposal: Proposal | None = None
    error: str = ""


class Improvements:
    """Updates of a station's inspectors; one is worked out at a time, beside the line's images."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._lock = threading.Lock()
        self._works: dict[str, Work] = {}

    def date(self, served: Served) -> float:
        """Since when an inspector is as it is, seconds since the epoch."""
        provenance = served.inspector.provenance
        made = provenance.updates[-1].at if provenance.updates else provenance.created
        try:
            return datetime.fromisoformat(made).timestamp()
        except ValueError:
            return 0.0

    def reviewed(self, served: Served) -> dict[Word, list[Entry]]:
        """What was reviewed since the file's date and whose image is kept, the oldest first, the last
        ``MOST_IMAGES`` of each word."""
        since, found = self.date(served), {word: list[Entry]() for word in WORDS}
        for entry in self._station.journal.entries(inspector=served.name, reviewed=True, limit=_READ):
            if entry.review is not None and entry.review.at >= since and entry.has_image:
                found[entry.review.word].append(entry)
        return {word: entries[:MOST_IMAGES][::-1] for word, entries in found.items()}

    def work(self, served: Served) -> Work | None:
        """What was asked for last, as long as the inspector is the same."""
        work = self._works.get(served.name)
        return work if work is not None and work.fingerprint == served.fingerprint else None

    def propose(self, served: Served, chosen: Collection[int]) -> None:
        """Begins to work an update out.

        Args:
            served: the inspector.
            chosen: ids of good entries.

        Raises:
            ConfigError: nothing was chosen, or another one is being worked out.
        """
        reviewed = self.reviewed(served)
        good = [entry for entry in reviewed["good"] if entry.id in chosen]
        if not good:
            raise ConfigError("choose at least one good image")
        with self._lock:
            if any(work.state == "working" for work in self._works.values()):
                raise ConfigError("another update is being worked out; wait for it")
            work = self._works[served.name] = Work(served.fingerprint)
        defects = reviewed["defective"][-_MOST_DEFECTS:]
        threading.Thread(
            target=self._work_out, args=(work, served, good, defects), name="andon-update", daemon=True
        ).start()

    def drop(self, served: Served) -> None:
        """Forgets a proposal."""
        work = self._works.get(served.name)
        if work is not None and work.state != "working":
            del self._works[served.name]

    def accept(self, served: Served, who: str) -> None:
        """The proposed inspector takes the file's and the station's place; the earlier file is kept.

        Raises:
            ConfigError: nothing is proposed, or the inspector is of no file.
            AndonError: the file changed since, or the station cannot take the new one: file and station stay as they
                were.
        """
        with self._station.changing:
            work = self.work(served)
            if work is None or work.proposal is None:
                raise ConfigError("nothing is proposed for this inspector; propose an update again")
            path = _path(served)
            with undone_on_failure(path):
                accept_update(path, work.proposal)
                self._station.replace(served.name, path, who)
            self.drop(served)

    def versions(self, served: Served) -> tuple[Version, ...]:
        """Earlier versions of the file that are kept, the latest first, without the one in place."""
        if served.path is None:
            return ()
        return tuple(v for v in reversed(earlier_versions(served.path)) if v.fingerprint != served.fingerprint)

    def back(self, served: Served, to: str, who: str) -> None:
        """An earlier version takes the file's and the station's place.

        Raises:
            AndonError: no such version is kept, or the station cannot take it: file and station stay as they were.
        """
        path = _path(served)
        with self._station.changing, undone_on_failure(path):
            roll_back(path, to)
            self._station.replace(served.name, path, who)
        self.drop(served)

    def _work_out(self, work: Work, served: Served, good: Sequence[Entry], defects: Sequence[Entry]) -> None:
        def told(step: str, done: int, of: int) -> None:
            work.step = f"{step}: {done} of {of}"

        try:
            with tempfile.TemporaryDirectory(prefix="andon-update-") as folder:
                # As files, whose hashes are those that andon update would find.
                images, names = self._written(Path(folder) / "good", good)
                bad, _ = self._written(Path(folder) / "defective", defects)
                work.proposal = propose_update(
                    served.inspector, images, names=names, defective=bad or None, progress=told
                )
            work.state = "proposed"
        except AndonError as error:
            work.state, work.error = "failed", str(error)
        except Exception:
            work.state, work.error = "failed", "an error of the station's own; its log has more"
            raise

    def _written(self, folder: Path, entries: Sequence[Entry]) -> tuple[list[Path], list[str]]:
        folder.mkdir()
        paths, names = [], []
        for entry in entries:
            data = self._station.image(entry.id)
            if data is None:
                continue  # the retention was faster
            path = folder / f"{entry.id:09d}-{re.sub(r'[^A-Za-z0-9.-]', '_', entry.name)[-60:]}"
            path.write_bytes(data)
            paths.append(path)
            names.append(entry.name)
        return paths, names


def _path(served: Served) -> Path:
    if served.path is None:
        raise ConfigError(f"{served.name}: is of no file that could be updated")
    return served.path
