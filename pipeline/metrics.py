"""Every metric, in one table. Labels are bounded: never a key, a URI or an exception's text.

Names follow Vector's template (component, received or sent, unit, `_total`) with Prometheus's base units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

PREFIX = "labelfeed_"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metric(NamedTuple):
    """One row of the table; the name stands without its prefix."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()


TABLE: tuple[Metric, ...] = (
    # producers
    Metric("counter", "listed_objects_total", "Objects that passes looked at.", ("source",)),
    Metric("counter", "published_events_total", "Events put on the event log.", ("source", "discovered_by")),
    Metric("counter", "passes_total", "Passes that ended, by how.", ("source", "outcome")),
    Metric("histogram", "pass_duration_seconds", "Time from the start of a pass to its end.", ("source",)),
    Metric("counter", "store_requests_total", "Requests to storage, by what was asked.", ("source", "operation")),
    Metric(
        "counter",
        "missed_by_notification_total",
        "Objects that a pass found and no notification had brought.",
        ("source",),
    ),
    Metric("gauge", "leader", "1 while this process lists and watches the source, 0 while it stands by.", ("source",)),
    # dispatcher
    Metric("counter", "received_events_total", "Events read from the event log.", ()),
    Metric("counter", "recorded_events_total", "Events applied to the ledger, by what they did.", ("effect",)),
    Metric("counter", "dead_letters_total", "Records that could not be read or were refused.", ("reason",)),
    Metric("histogram", "record_duration_seconds", "Time of one transaction that records events.", ()),
    # scheduler
    Metric("counter", "claimed_objects_total", "Objects claimed for the workers.", ("source",)),
    Metric("counter", "leases_ended_total", "Leases that ended without their worker's commit.", ("why",)),
    Metric("histogram", "tick_duration_seconds", "Time of one turn of the scheduler.", ()),
    Metric("gauge", "in_flight_objects", "Objects that are claimed or running.", ()),
    Metric("gauge", "ready_objects", "Objects that wait to be claimed.", ("source",)),
    Metric("gauge", "source_paused", "1 while a source is paused, by hand or by its failures.", ("source",)),
    # the importer
    Metric("counter", "imported_objects_total", "Objects that ended, by state.", ("source", "state")),
    Metric("counter", "errors_total", "Objects that failed or were put back, by stage and code.", ("stage", "code")),
    Metric("counter", "read_bytes_total", "Bytes read from storage.", ("source",)),
    Metric("counter", "written_tasks_total", "Tasks committed to the database.", ("source",)),
    Metric("counter", "rejected_rows_total", "Rows that became no task.", ("source",)),
    Metric("counter", "duplicates_avoided_total", "Outcomes that another owner had written already.", ()),
    Metric("histogram", "commit_duration_seconds", "Time of one transaction that commits outcomes.", ()),
    Metric(
        "histogram", "end_to_end_seconds", "Time from an object's last change to the commit of its tasks.", ("source",)
    ),
    # all
    Metric("gauge", "up", "1 while a role of this process works, 0 while it waits for a server.", ("role",)),
    Metric("gauge", "build_info", "Always 1; the version is in the label.", ("version",)),
)

_BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in TABLE}


class Metrics:
    """The metrics of one process, in a registry of its own. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._metrics = {metric.name: self._make(metric) for metric in TABLE}

    def _make(self, metric: Metric) -> MetricWrapperBase:
        name = PREFIX + metric.name
        if metric.kind == "counter":
            return Counter(name, metric.help, metric.labels, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(name, metric.help, metric.labels, registry=self.registry)
        return Histogram(name, metric.help, metric.labels, registry=self.registry, buckets=SECONDS)

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Raise a counter. KeyError if the table has no such metric."""
        metric = self._of(name, labels)
        assert isinstance(metric, Counter)
        metric.inc(amount)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge. KeyError if the table has no such metric."""
        metric = self._of(name, labels)
        assert isinstance(metric, Gauge)
        metric.set(value)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add one value to a histogram. KeyError if the table has no such metric."""
        metric = self._of(name, labels)
        assert isinstance(metric, Histogram)
        metric.observe(value)

    def value(self, name: str, /, **labels: str) -> float:
        """What a counter or gauge stands at; 0 if it was never touched."""
        samples = [sample for family in self._of(name, labels).collect() for sample in family.samples]
        return next((sample.value for sample in samples if sample.name == PREFIX + name), 0.0)

    def _of(self, name: str, labels: Mapping[str, str]) -> MetricWrapperBase:
        metric = self._metrics[name]
        return metric.labels(**labels) if labels else metric


def described(name: str) -> Metric:
    """The table's row of this name (without prefix)."""
    return _BY_NAME[name]
