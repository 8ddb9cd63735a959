"""Figures of the service in Prometheus' form."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from andon.core import StoreError
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
        yield from self._outputs()

    def _outputs(self) -> Iterator[Metric]:
        """Of each output; of a queue that cannot be read nothing but that all of them fail."""
        pending = GaugeMetricFamily("andon_outbox_pending", "Messages that wait to be sent.", labels=["output"])
        aside = GaugeMetricFamily("andon_outbox_aside", "Messages that the receiver refused.", labels=["output"])
        failing = GaugeMetricFamily("andon_outbox_failing", "1 where the last try to send failed.", labels=["output"])
        sent = CounterMetricFamily("andon_outbox_sent", "Messages that arrived.", labels=["output"])
        dropped = CounterMetricFamily("andon_outbox_dropped", "Messages that were given up.", labels=["output"])
        box = self.station.outbox
        try:
            for status in () if box is None else box.status():
                pending.add_metric([status.name], status.waiting)
                aside.add_metric([status.name], status.aside)
                failing.add_metric([status.name], float(status.failures > 0))
                sent.add_metric([status.name], status.sent)
                dropped.add_metric([status.name], status.dropped)
        except StoreError:
            for name in () if box is None else box.pending():
                failing.add_metric([name], 1.0)
        yield from (pending, aside, failing, sent, dropped)
