"""What the page shows of entries, thresholds and drift: texts and places, ready for the templates."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from andon.core import ConfigError
from andon.inspection.calibration import ConformalCalibration, Thresholds, percent
from andon.inspection.inspector import Box, promise
from andon.inspection.station._charts import calibration_axis, calibration_chart, evidence_chart, scores_chart
from andon.inspection.station.journal import Entry, Journal, Review
from andon.inspection.station.monitor import DriftMonitor, DriftState
from andon.inspection.station.station import Served
from andon.inspection.updating import Proposal

__all__ = [
    "KINDS",
    "Listed",
    "Place",
    "Reviewed",
    "Shown",
    "Trace",
    "confirmation",
    "drift_charts",
    "listed",
    "moment",
    "proposal_view",
    "shown",
    "thresholds_view",
    "zone",
]

KINDS = {"pass": "pass", "look": "look", "stop": "stop", "part not found": "lost"}
"""Class of the style sheet and icon of each verdict."""
_RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_MOST_REPLAYED = 20_000
_CHARTED = 1000


class Place(NamedTuple):
    """A place above the pixel threshold, as it is drawn and listed."""

    x: int
    y: int
    width: int
    height: int
    text_x: float
    text_y: float
    percent: str
    peak: str


class Reviewed(NamedTuple):
    """A review, as it is shown."""

    word: str
    who: str
    time: str
    note: str


@dataclass(frozen=True)
class Listed:
    """An entry in a list."""

    id: int
    verdict: str
    kind: str
    name: str
    inspector: str
    time: str
    clock: str
    iso: str
    score: str
    p_value: str
    area: str
    thumb: str | None
    review: Reviewed | None


@dataclass(frozen=True)
class Shown(Listed):
    """An entry with all that is known of it; ``image``, ``heat`` and ``ignored`` are addresses."""

    reason: str
    look: str
    stop: str
    p_words: str
    promise: tuple[str, ...]
    boxes: tuple[Place, ...]
    more_boxes: int
    font: float
    width: int
    height: int
    pixels: str
    took: str
    digest: str
    model: str
    image: str | None
    heat: str | None
    ignored: str | None
    no_image: str
    no_heat: str


def zone() -> str:
    """The station's time zone, "UTC+01:00"."""
    offset = time.strftime("%z")
    return f"UTC{offset[:3]}:{offset[3:]}"


def moment(seconds: float) -> str:
    """Date and time of the station's clock."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def listed(entry: Entry, thumb: str | None) -> Listed:
    """An entry for a list."""
    return Listed(**_listed(entry, thumb))


def _listed(entry: Entry, thumb: str | None) -> dict[str, Any]:
    at = datetime.fromtimestamp(entry.at).astimezone()
    review = entry.review
    return {
        "id": entry.id,
        "verdict": entry.verdict,
        "kind": KINDS.get(entry.verdict, "lost"),
        "name": entry.name,
        "inspector": entry.inspector,
        "time": moment(entry.at),
        "clock": at.strftime("%H:%M:%S"),
        "iso": at.isoformat(timespec="seconds"),
        "score": "" if entry.score is None else f"{entry.score:.4g}",
        "p_value": "" if entry.p_value is None else f"{entry.p_value:.2g}",
        "area": "" if entry.area is None else _area(entry.area),
        "thumb": thumb,
        "review": None if review is None else _reviewed(review),
    }


def _reviewed(review: Review) -> Reviewed:
    return Reviewed(review.word, review.who, moment(review.at), review.note)


def _area(part: float) -> str:
    """ "0.83 %"; what is not nothing never reads as 0."""
    if part == 0:
        return "0 %"
    if 0 < part < 0.00005:
        return "< 0.01 %"
    return f"{100 * part:.2f} %" if part < 0.1 else f"{100 * part:.1f} %"


def shown(entry: Entry, served: Served | None, *, root: str, has_image: bool, pass_share: float) -> Shown:
    """An entry with all that is known of it.

    Args:
        entry: of the journal.
        served: the inspector that has its name now; None where none has.
        root: the page's address.
        has_image: whether its image is at hand.
        pass_share: part of the images that pass which are kept.
    """
    same = served is not None and served.model == entry.model
    height, width = _frame(entry, served if same else None)
    lost = entry.score is None
    address = f"{root}/history/{entry.id}"
    mapped = same and entry.area is not None and has_image
    font = max(10.0, round(max(width, height) / 26, 1))
    return Shown(
        **_listed(entry, None),
        reason=entry.reason or "",
        look=f"{entry.look:.4g}",
        stop=f"{entry.stop:.4g}",
        p_words=_as_high(entry, served.inspector.calibration) if same and served is not None else "",
        promise=promise(served.inspector.calibration, Thresholds(entry.look, entry.stop))
        if served is not None and same and entry.score is not None
        else (),
        boxes=tuple(_place(box, width, height, font) for box in entry.regions),
        more_boxes=max(0, len(entry.regions) - 9),
        font=font,
        width=width,
        height=height,
        pixels=f"{entry.width} × {entry.height} pixels",
        took=f"{1000 * entry.seconds:.0f} ms",
        digest=entry.digest,
        model=entry.model,
        image=f"{address}/image.jpg?{entry.digest[:12]}" if has_image else None,
        heat=f"{address}/heat.png?{entry.digest[:12]}" if mapped else None,
        ignored=f"{root}/ignored/{entry.inspector}/{entry.model}.png"
        if same and served is not None and served.inspector.regions.mask is not None and not lost
        else None,
        no_image=f"Of every stop and look the image is kept, of passes {percent(pass_share)}, until it is too old.",
        no_heat="" if mapped else _no_heat(entry, same),
    )


def _as_high(entry: Entry, calibration: ConformalCalibration) -> str:
    """A p-value as what it counts."""
    if entry.score is None:
        return ""
    count = int(np.count_nonzero(calibration.scores >= entry.score))
    return f"{count} of the {len(calibration)} good parts scored as high"


def _no_heat(entry: Entry, same: bool) -> str:
    if not same:
        return "The model that gave this verdict is not at the station any more: no heat map, only its places."
    return "No heat map: the part was not found." if entry.score is None else "No heat map: the method gives none."


def _frame(entry: Entry, served: Served | None) -> tuple[int, int]:
    """(height, width) of what its places are in."""
    alignment = None if served is None else served.inspector.alignment
    if alignment is not None and entry.score is not None:
        return alignment.size
    return max(1, entry.height), max(1, entry.width)


def _place(box: Box, width: int, height: int, font: float) -> Place:
    above = box.y - font * 0.3
    text_y = above if above > font else min(height - font * 0.2, box.y + box.height + font)
    share = _area(box.area / (width * height))
    return Place(
        box.x, box.y, box.width, box.height, min(box.x, width - font), round(text_y, 1), share, f"{box.peak:.4g}"
    )


def thresholds_view(calibration: ConformalCalibration, thresholds: Thresholds) -> dict[str, Any]:
    """The thresholds page: chart, sliders, and the table that its script looks counts up in."""
    axis = calibration_axis(calibration, thresholds)
    scores, rows = _table(tuple(calibration.scores.tolist()))
    line = {"left": axis.start, "right": axis.end}
    table = {"low": axis.low, "high": axis.high, "scores": scores, "rows": rows, "line": line}
    return {
        "n": len(calibration),
        "chart": calibration_chart(calibration, thresholds),
        "table": _json(table),
        "sides": [
            _side(calibration, "stop", thresholds.stop, axis.low, axis.high),
            _side(calibration, "look", thresholds.look, axis.low, axis.high),
        ],
        "rates": _rates(calibration),
        "least": f"1/{len(calibration) + 1} ({percent(calibration.least_rate)})",
        "sentences": promise(calibration, thresholds),
    }


@lru_cache(maxsize=8)
def _table(scores: tuple[float, ...]) -> tuple[list[float], list[tuple[str, str]]]:
    """The distinct scores, rising, and what each possible count means.

    A count changes at scores only: row i holds where i of the distinct ones are at or below the threshold.
    """
    calibration, distinct = ConformalCalibration.of(scores), sorted(set(scores))
    below = math.nextafter(distinct[0], -math.inf)
    return distinct, [_meaning(calibration, at) for at in (below, *distinct)]


def _meaning(calibration: ConformalCalibration, threshold: float) -> tuple[str, str]:
    """How many are above a threshold, and the rate that means with its interval, in words."""
    interval = calibration.interval(threshold)
    return (
        f"{calibration.alarms(threshold)} of {len(calibration)}",
        f"On the line between {percent(interval.low)} and {percent(interval.high)} (95 %, Clopper–Pearson); "
        f"promised: at most {percent(calibration.rate_of(threshold))}.",
    )


def _side(calibration: ConformalCalibration, name: str, value: float, low: float, high: float) -> dict[str, Any]:
    count, rate = _meaning(calibration, value)
    verb = "stopped" if name == "stop" else "been looked at or stopped"
    return {
        "name": name,
        "title": name.capitalize(),
        "value": repr(value),
        "place": round(1000 * (value - low) / (high - low)),
        "count": count,
        "means": f"good parts of the calibration would have {verb}",
        "rate": rate,
    }


def confirmation(calibration: ConformalCalibration, now: Thresholds, then: Thresholds) -> dict[str, Any]:
    """What moving thresholds would change."""
    return {
        "now": _side_by_side(calibration, now),
        "then": _side_by_side(calibration, then),
        "sentences": promise(calibration, then),
        "look": repr(then.look),
        "stop": repr(then.stop),
    }


def _side_by_side(calibration: ConformalCalibration, at: Thresholds) -> dict[str, str]:
    return {
        "stop": f"{at.stop:.6g}",
        "look": f"{at.look:.6g}",
        "stopped": _meaning(calibration, at.stop)[0],
        "looked": _meaning(calibration, at.look)[0],
    }


def _rates(calibration: ConformalCalibration) -> list[dict[str, str]]:
    found = []
    for rate in sorted({calibration.least_rate, *_RATES}):
        try:
            value = calibration.threshold(rate)
        except ConfigError:
            continue  # fewer images than it needs
        least = " (the least that can be promised)" if rate == calibration.least_rate else ""
        found.append({"value": repr(value), "text": f"{percent(rate)}{least}"})
    return found


def _json(value: Any) -> Markup:
    """For a script element: nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def proposal_view(proposal: Proposal) -> dict[str, Any]:
    """What an update would change."""
    warnings = proposal.warnings()
    return {
        "added": len(proposal.added),
        "warnings": warnings,
        "sentences": [line for line in proposal.sentences() if line not in warnings],
        "changed": [
            {
                "name": image.name,
                "score": f"{image.score:.4g}",
                "now": {"kind": KINDS[image.verdict], "verdict": image.verdict},
                "new_score": f"{image.new_score:.4g}",
                "then": {"kind": KINDS[image.new_verdict], "verdict": image.new_verdict},
            }
            for image in proposal.changed
        ],
        "left_out": proposal.left_out,
    }


class Trace:
    """The evidence of drift after every part of an inspector: a monitor of its own, fed from the journal.

    The station's monitor knows only its state now; the chart wants how it came about.
    """

    def __init__(self, served: Served, since: float) -> None:
        self.key = (served.name, served.model, since)
        self._monitor = DriftMonitor(served.inspector.calibration.scores)
        self._lock = threading.Lock()
        self._last = 0
        self.scores: list[float] = []
        self.logs: list[float] = []

    def follow(self, journal: Journal) -> None:
        """Takes what is new."""
        name, model, since = self.key
        with self._lock:
            limit = 500 if self._last else _MOST_REPLAYED
            points = journal.scores(name, model, limit)
            if self._last and len(points) == limit and points[0].id > self._last:
                points = journal.scores(name, model, _MOST_REPLAYED)
            new = [point.score for point in points if point.id > self._last and point.at > since]
            self.scores += new
            self.logs += map(math.log, self._monitor.trace(new))
            self._last = max((point.id for point in points), default=self._last)


def drift_charts(served: Served, trace: Trace, state: DriftState) -> dict[str, Any]:
    """The drift page: the last scores, and the evidence."""
    if not trace.scores:
        return {}
    calibration, left_out = served.inspector.calibration, max(0, len(trace.scores) - _CHARTED)
    scores, logs = np.asarray(trace.scores[left_out:]), np.asarray(trace.logs[left_out:])
    # A long run's monitor has seen more parts than are played again.
    first = 1 + left_out + max(0, state.n - len(trace.scores))
    low, high = (float(v) for v in np.quantile(calibration.scores, (0.05, 0.95)))
    only = f"The last {len(scores):,} of {state.n:,} parts. " if first > 1 else ""
    return {
        "band": "where 90 % of the good parts of the calibration scored",
        "scores_chart": scores_chart(first, scores, served.inspector.thresholds, (low, high), calibration),
        "evidence_chart": evidence_chart(first, logs, state.bound, state.since),
        "scores_told": f"{only}Squares stop, diamonds are to be looked at, with the thresholds of now; "
        "what scores above the axis is drawn at its end.",
        "evidence_told": "A fortune of 1 that is bet on drift: without drift it ever reaches the line with a "
        f"probability of at most {percent(served.monitor.false_alarms)}, however long the station runs.",
    }
