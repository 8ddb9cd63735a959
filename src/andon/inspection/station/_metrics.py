"""Figures of the service in Prometheus' form."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from andon.inspection.station.station import Inspected, Station

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.045, 0.07, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Figures of one station: counted as things happen, or read off it when they are asked for."""

    def __init__(self, station: Station) -> None:
        self.station, self.registry = station, CollectorRegistry()
        self._requests = Counter(
            "andon_requests",
            "Requests by route, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "andon_request_seconds", "Time to answer a request.", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self._verdicts = Counter(
            "andon_verdicts", "Acknowledged verdicts.", ("inspector", "verdict"), registry=self.registry
        )
        self._inspections = Histogram(
            "andon_inspection_seconds",
            "Time to decode and inspect an image.",
            ("inspector",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(self)
        station.listeners.append(self.verdict)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        known = method if method in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def verdict(self, done: Inspected) -> None:
        """A verdict was acknowledged."""
        self._verdicts.labels(done.entry.inspector, done.entry.verdict).inc()
        self._inspections.labels(done.entry.inspector).observe(done.entry.seconds)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """What is read off the station."""
        waiting = GaugeMetricFamily("andon_queue_waiting", "Images that wait for the model.")
        waiting.add_metric([], self.station.waiting)
        yield waiting
        evidence = GaugeMetricFamily("andon_drift_evidence", "Of the drift monitor.", labels=["inspector"])
        bound = GaugeMetricFamily("andon_drift_bound", "Above which it raises the alarm.", labels=["inspector"])
        alarm = GaugeMetricFamily("andon_drift_alarm", "1 where it has raised the alarm.", labels=["inspector"])
        stop = GaugeMetricFamily("andon_stop_threshold", "Score above which a part stops.", labels=["inspector"])
        for name in self.station.names:
            served = self.station.served(name)
            state = served.monitor.state
            evidence.add_metric([name], state.evidence)
            bound.add_metric([name], state.bound)
            alarm.add_metric([name], float(state.alarmed))
            stop.add_metric([name], served.inspector.thresholds.stop)
        yield from (evidence, bound, alarm, stop)
        pending = GaugeMetricFamily("andon_outbox_pending", "Messages that wait to be sent.", labels=["output"])
        for output, count in (self.station.outbox.pending() if self.station.outbox is not None else {}).items():
            pending.add_metric([output], count)
        yield pending
